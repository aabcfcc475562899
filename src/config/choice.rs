//! Settings with a fixed set of words. Owns their spelling.

use std::fmt;
use std::str::FromStr;

use crate::units::ByteSize;

/// A word that a setting does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseChoiceError {
    /// The word is not one of the setting's.
    #[error("{found:?} is not known here: write one of {expected}")]
    Unknown {
        /// What was written.
        found: String,
        /// The words that are taken.
        expected: &'static str,
    },
}

fn unknown(found: &str, expected: &'static str) -> ParseChoiceError {
    ParseChoiceError::Unknown { found: found.to_owned(), expected }
}

/// Whether device I/O goes around the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// Direct where a probe shows that it works, else buffered with a warning.
    Auto,
    /// Direct, or refuse to start.
    Direct,
    /// Through the page cache.
    Buffered,
    /// As auto, with lookups through the page cache while that is measured to be faster.
    Adaptive,
}

impl FromStr for IoMode {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(IoMode::Auto),
            "direct" => Ok(IoMode::Direct),
            "buffered" => Ok(IoMode::Buffered),
            "adaptive" => Ok(IoMode::Adaptive),
            other => Err(unknown(other, "auto, direct, buffered, adaptive")),
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoMode::Auto => "auto",
            IoMode::Direct => "direct",
            IoMode::Buffered => "buffered",
            IoMode::Adaptive => "adaptive",
        })
    }
}

/// How device operations reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best engine that a probe shows to work.
    Auto,
    /// io_uring, or the daemon does not start.
    IoUring,
    /// Positioned vectored I/O on a bounded pool of threads.
    Threads,
}

impl FromStr for EngineChoice {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(EngineChoice::Auto),
            "threads" => Ok(EngineChoice::Threads),
            "io_uring" => Ok(EngineChoice::IoUring),
            other => Err(unknown(other, "auto, io_uring, threads")),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineChoice::Auto => "auto",
            EngineChoice::IoUring => "io_uring",
            EngineChoice::Threads => "threads",
        })
    }
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not done.
    Off,
}

impl FromStr for Switch {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Switch::On),
            "off" => Ok(Switch::Off),
            other => Err(unknown(other, "on, off")),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Switch::On => "on",
            Switch::Off => "off",
        })
    }
}

/// When a store is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// When it can be read back.
    Buffered,
    /// When the device has made it durable.
    Flushed,
}

impl FromStr for AckMode {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "buffered" => Ok(AckMode::Buffered),
            "flushed" => Ok(AckMode::Flushed),
            other => Err(unknown(other, "buffered, flushed")),
        }
    }
}

impl fmt::Display for AckMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AckMode::Buffered => "buffered",
            AckMode::Flushed => "flushed",
        })
    }
}

/// A size, or one that is chosen by what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoSize {
    /// Chosen by what there is.
    Auto,
    /// This many bytes.
    Fixed(ByteSize),
}

impl FromStr for AutoSize {
    type Err = crate::units::ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(AutoSize::Auto),
            size => size.parse().map(AutoSize::Fixed),
        }
    }
}

impl fmt::Display for AutoSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AutoSize::Auto => f.write_str("auto"),
            AutoSize::Fixed(size) => size.fmt(f),
        }
    }
}

/// The least severe message that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something was lost or the daemon cannot go on.
    Error,
    /// Something needs the operator's attention.
    Warn,
    /// Starts, stops and changes of state.
    Info,
    /// What is done and why.
    Debug,
    /// Every operation.
    Trace,
}

impl FromStr for LogLevel {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            other => Err(unknown(other, "error, warn, info, debug, trace")),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ParseChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(unknown(other, "text, json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// Permission bits of a Unix socket file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

/// A socket mode that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a socket mode: write up to four octal digits, at most 0777, such as \"0660\""
)]
pub struct ParseModeError(String);

impl FromStr for SocketMode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(text, 8) {
            Ok(mode) if digits && mode <= 0o777 => Ok(SocketMode(mode)),
            _ => Err(ParseModeError(text.to_owned())),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints_back<T: FromStr + fmt::Display>(words: &[&str]) {
        for word in words {
            let Ok(value) = word.parse::<T>() else { panic!("{word} is refused") };
            assert_eq!(&value.to_string(), word);
        }
        assert!("nonsense".parse::<T>().is_err());
        assert!("".parse::<T>().is_err());
    }

    #[test]
    fn every_word_parses_and_prints_back() {
        prints_back::<IoMode>(&["auto", "direct", "buffered", "adaptive"]);
        prints_back::<EngineChoice>(&["auto", "io_uring", "threads"]);
        prints_back::<AckMode>(&["buffered", "flushed"]);
        prints_back::<AutoSize>(&["auto", "16MiB"]);
        prints_back::<LogLevel>(&["error", "warn", "info", "debug", "trace"]);
        prints_back::<LogFormat>(&["text", "json"]);
        prints_back::<SocketMode>(&["0660", "0600", "0777"]);
    }

    #[test]
    fn socket_modes_are_octal_permission_bits() {
        assert_eq!("660".parse(), Ok(SocketMode(0o660)));
        for text in ["0o660", "0688", "1777", "66", "+660", "00660"] {
            assert!(text.parse::<SocketMode>().is_err(), "{text}");
        }
    }
}
