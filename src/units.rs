//! Newtypes and notations for sizes and durations. Owns parsing and printing of
//! operator-facing quantities; never does I/O.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A number of bytes, written by people as `64MiB`, `1GiB`, `512`, `10MB`.
///
/// Binary suffixes (`KiB`, `MiB`, `GiB`, `TiB`) are powers of 1024, decimal ones
/// (`KB`, `MB`, `GB`, `TB`) powers of 1000, and a bare letter (`K`, `M`, `G`, `T`)
/// means the binary one. No sign, no fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A duration written as `100ms`, `5s`, `10m`, `1h`, `365d`; a bare number is seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A quantity that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnitError {
    /// The text is not a whole number followed by a known size suffix.
    #[error(
        "{0:?} is not a size: write a whole number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"
    )]
    Size(String),
    /// The text is not a whole number followed by a known duration suffix.
    #[error("{0:?} is not a duration: write a whole number and one of ms, s, m, h, d")]
    Duration(String),
    /// The quantity does not fit in 64 bits.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    Some((number.parse().ok()?, suffix.trim()))
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, suffix) =
            split_number(text).ok_or_else(|| ParseUnitError::Size(text.to_owned()))?;
        let unit: u64 = match suffix.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(ParseUnitError::Size(text.to_owned())),
        };
        number
            .checked_mul(unit)
            .map(ByteSize)
            .ok_or_else(|| ParseUnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (unit, name) in UNITS {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Period {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, suffix) =
            split_number(text).ok_or_else(|| ParseUnitError::Duration(text.to_owned()))?;
        let millis: u64 = match suffix {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(ParseUnitError::Duration(text.to_owned())),
        };
        number
            .checked_mul(millis)
            .map(|total| Period(Duration::from_millis(total)))
            .ok_or_else(|| ParseUnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        const UNITS: [(u128, &str); 4] =
            [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        for (unit, name) in UNITS {
            if millis >= unit && millis.is_multiple_of(unit) {
                return write!(f, "{}{name}", millis / unit);
            }
        }
        write!(f, "{millis}ms")
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_binary_and_decimal_suffixes() {
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("10 MB".parse(), Ok(ByteSize(10_000_000)));
        assert_eq!("4k".parse(), Ok(ByteSize(4096)));
        assert_eq!("512".parse(), Ok(ByteSize(512)));
    }

    #[test]
    fn sizes_refuse_signs_fractions_and_overflow() {
        for text in ["", "-1", "1.5GiB", "MiB", "1XiB"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(ParseUnitError::Size(_))), "{text}");
        }
        assert!(matches!("99999999999TiB".parse::<ByteSize>(), Err(ParseUnitError::TooLarge(_))));
    }

    #[test]
    fn durations_parse_and_print_back() {
        for text in ["100ms", "5s", "1h", "365d", "1500ms"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert!("1y".parse::<Period>().is_err());
    }

    #[test]
    fn sizes_print_with_the_largest_exact_unit() {
        assert_eq!(ByteSize(1 << 30).to_string(), "1GiB");
        assert_eq!(ByteSize(1536).to_string(), "1536B");
    }
}
