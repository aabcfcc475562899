//! How long values are: the same for a key in every run. Owns the notation of `--size`.

use std::str::FromStr;

use crate::cli::bench::draws::{log_normal, mix};
use crate::units::ByteSize;

/// Longest value that is made, in bytes.
pub const LEN_MAX: usize = 64 << 20;

/// How long values are, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Any length from the first to the last is as likely as any other.
    Uniform(usize, usize),
    /// Log-normal, cut to the limits.
    LogNormal {
        /// Half of the values are shorter.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// Shortest value.
        min: usize,
        /// Longest value.
        max: usize,
    },
    /// One for each key, as in a trace.
    Listed(Vec<u32>),
}

const NOTATION: &str = "write a size (4KiB), limits (20..800), or \
    lognormal:median=16KiB,mean=58KB,min=200,max=8MiB (or sigma=1.6 for mean)";

impl Sizes {
    /// Length of the value of `key`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped to the lengths of values"
    )]
    pub fn len(&self, key: u32) -> usize {
        let random = mix(u64::from(key));
        match self {
            Sizes::Fixed(len) => *len,
            Sizes::Uniform(min, max) => min + (random % (max - min + 1) as u64) as usize,
            Sizes::LogNormal { median, sigma, min, max } => {
                let drawn = log_normal(random, *median, *sigma);
                drawn.clamp(*min as f64, *max as f64).round() as usize
            }
            Sizes::Listed(lens) => lens[key as usize] as usize,
        }
    }

    /// Length of the longest value.
    #[must_use]
    pub fn max(&self) -> usize {
        match self {
            Sizes::Fixed(len) | Sizes::Uniform(_, len) => *len,
            Sizes::LogNormal { max, .. } => *max,
            Sizes::Listed(lens) => lens.iter().max().map_or(0, |len| *len as usize),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        if let Some(parts) = text.strip_prefix("lognormal:") {
            return log_normal_of(parts);
        }
        if let Some((min, max)) = text.split_once("..") {
            let (min, max) = (bytes(min)?, bytes(max)?);
            return if min <= max { Ok(Sizes::Uniform(min, max)) } else { Err(NOTATION.into()) };
        }
        bytes(text).map(Sizes::Fixed)
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let size = text.parse::<ByteSize>().map_err(|error| format!("{error}; {NOTATION}"))?;
    match usize::try_from(size.0) {
        Ok(len) if len <= LEN_MAX => Ok(len),
        _ => Err(format!("{text} is too long: values have at most {}", ByteSize(LEN_MAX as u64))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths are below 2^53")]
fn log_normal_of(parts: &str) -> Result<Sizes, String> {
    let (mut median, mut mean, mut sigma) = (None, None, None);
    let (mut min, mut max) = (1, LEN_MAX);
    for part in parts.split(',') {
        let (name, value) = part.split_once('=').ok_or(NOTATION)?;
        match name {
            "median" => median = Some(bytes(value)? as f64),
            "mean" => mean = Some(bytes(value)? as f64),
            "sigma" => sigma = Some(value.parse::<f64>().map_err(|_| NOTATION)?),
            "min" => min = bytes(value)?,
            "max" => max = bytes(value)?,
            _ => return Err(NOTATION.to_owned()),
        }
    }
    let median = median.ok_or(NOTATION)?;
    let sigma = match (mean, sigma) {
        // The mean of the distribution before it is cut is median * exp(sigma^2 / 2).
        (Some(mean), None) if mean >= median => (2.0 * (mean / median).ln()).sqrt(),
        (None, Some(sigma)) => sigma,
        _ => return Err(NOTATION.to_owned()),
    };
    let is_sound = median >= 1.0 && sigma.is_finite() && sigma >= 0.0 && min <= max;
    is_sound.then_some(Sizes::LogNormal { median, sigma, min, max }).ok_or(NOTATION.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!("4KiB".parse(), Ok(Sizes::Fixed(4096)));
        assert_eq!("20..800".parse(), Ok(Sizes::Uniform(20, 800)));
        let expected = Sizes::LogNormal { median: 1024.0, sigma: 1.5, min: 200, max: 1 << 20 };
        assert_eq!("lognormal:median=1KiB,sigma=1.5,min=200,max=1MiB".parse(), Ok(expected));
        for text in [
            "",
            "x",
            "9..2",
            "1GiB",
            "lognormal:",
            "lognormal:median=1KiB",
            "lognormal:median=1KiB,mean=2KiB,sigma=1",
            "lognormal:median=2KiB,mean=1KiB",
            "lognormal:median=1KiB,sigma=nan",
            "lognormal:median=1KiB,sigma=1,min=9,max=3",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_mean_asked_for_is_nearly_the_mean_made() {
        let sizes: Sizes = "lognormal:median=16KiB,mean=58KB,min=200,max=8MiB".parse().unwrap();
        let total: u64 = (0..200_000).map(|key| sizes.len(key) as u64).sum();
        let mean = total / 200_000;
        assert!((52_000..61_000).contains(&mean), "{mean}");
        assert!((0..200_000).all(|key| (200..=8 << 20).contains(&sizes.len(key))));
    }

    #[test]
    fn limits_of_uniform_sizes_are_reached_and_kept() {
        let sizes = Sizes::Uniform(20, 22);
        let lens: Vec<_> = (0..100).map(|key| sizes.len(key)).collect();
        assert_eq!((lens.iter().min(), lens.iter().max()), (Some(&20), Some(&22)));
    }
}
