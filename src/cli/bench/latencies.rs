//! Latencies in buckets of equal ratio. Owns the counts; never keeps single values, and allocates
//! only when made.

use std::time::Duration;

use serde::Serialize;

/// Buckets per doubling: a percentile is at most 3.2 % above the true one, never below it.
const STEPS_LOG2: u32 = 5;

/// Counts durations from 32 ns to centuries.
#[derive(Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    longest: Duration,
}

/// The usual percentiles of some [`Latencies`], in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// How many were counted.
    pub count: u64,
    /// Half are at most this long.
    pub p50_us: f64,
    /// 90 % are at most this long.
    pub p90_us: f64,
    /// 99 % are at most this long.
    pub p99_us: f64,
    /// 99.9 % are at most this long.
    pub p999_us: f64,
    /// The longest, exactly.
    pub max_us: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

impl Latencies {
    /// No latencies yet.
    #[must_use]
    pub fn new() -> Latencies {
        Latencies { counts: vec![0; 64 << STEPS_LOG2], longest: Duration::ZERO }
    }

    /// Counts a latency.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1 << STEPS_LOG2);
        let octave = ns.ilog2();
        let step = (ns >> (octave - STEPS_LOG2)) & ((1 << STEPS_LOG2) - 1);
        let bucket = (u64::from(octave) << STEPS_LOG2) | step;
        self.counts[usize::try_from(bucket).unwrap_or(usize::MAX)] += 1;
        self.longest = self.longest.max(duration);
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Latencies) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.longest = self.longest.max(other.longest);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration in microseconds that `per_mille` of all do not exceed; 0 if there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark are below 2^53")]
    pub fn quantile_us(&self, per_mille: u64) -> f64 {
        let target = (self.count() * per_mille).div_ceil(1000).max(1);
        let longest_us = self.longest.as_secs_f64() * 1e6;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= target {
                let (octave, step) = (bucket >> STEPS_LOG2, bucket % (1 << STEPS_LOG2));
                let upper_ns = ((1u128 << STEPS_LOG2) + step as u128 + 1) << octave >> STEPS_LOG2;
                return (upper_ns as f64 / 1000.0).min(longest_us);
            }
        }
        0.0
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count(),
            p50_us: self.quantile_us(500),
            p90_us: self.quantile_us(900),
            p99_us: self.quantile_us(990),
            p999_us: self.quantile_us(999),
            max_us: self.longest.as_secs_f64() * 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_too_short_and_hardly_too_long() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(Duration::from_micros(us));
        }
        for (per_mille, us) in [(500, 500.0), (900, 900.0), (990, 990.0), (999, 999.0)] {
            let found = latencies.quantile_us(per_mille);
            assert!(found >= us && found <= us * 1.032, "{per_mille}: {found}");
        }
        let Percentiles { count, max_us, .. } = latencies.percentiles();
        assert_eq!((count, max_us), (1000, 1000.0));
    }

    #[test]
    fn the_extremes_have_a_place_and_merging_adds() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantile_us(999), 0.0);
        latencies.record(Duration::ZERO);
        let mut other = Latencies::new();
        other.record(Duration::MAX);
        latencies.merge(&other);
        assert_eq!(latencies.count(), 2);
        assert_eq!(latencies.quantile_us(500), 0.033);
        assert_eq!(latencies.percentiles().max_us, Duration::MAX.as_secs_f64() * 1e6);
    }
}
