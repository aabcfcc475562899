//! A latency histogram of fixed, log-scaled buckets. Counts; never locks or allocates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Number of buckets. Bucket `i` counts durations of at most `2^i` microseconds that no
/// smaller bucket counts; the last one counts everything above 8.4 seconds.
pub const BUCKET_COUNT: usize = 25;

/// Counts durations from any thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKET_COUNT],
    sum_ns: AtomicU64,
}

/// The state of a [`Histogram`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Observations per bucket, not cumulated.
    pub buckets: [u64; BUCKET_COUNT],
    /// Sum of all observations in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts one observation.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_index(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Reads all buckets. Observations made meanwhile may be in it or not.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

impl HistogramSnapshot {
    /// Upper bound of bucket `index` in microseconds, inclusive; `None` for the last.
    #[must_use]
    pub fn upper_bound_us(index: usize) -> Option<u64> {
        (index + 1 < BUCKET_COUNT).then(|| 1 << index)
    }

    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds the observations of `other`.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }
}

fn bucket_index(nanos: u64) -> usize {
    let whole_us = nanos.saturating_sub(1) / 1000;
    let index = (u64::BITS - whole_us.leading_zeros()) as usize;
    index.min(BUCKET_COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_covers_it() {
        let cases = [(0, 0), (1000, 0), (1001, 1), (2000, 1), (2001, 2), (4000, 2), (4001, 3)];
        for (nanos, index) in cases {
            assert_eq!(bucket_index(nanos), index, "{nanos} ns");
        }
        for index in 0..BUCKET_COUNT - 1 {
            let bound_ns = HistogramSnapshot::upper_bound_us(index).unwrap() * 1000;
            assert_eq!(bucket_index(bound_ns), index);
            assert_eq!(bucket_index(bound_ns + 1), index + 1);
        }
        assert_eq!(bucket_index(u64::MAX), BUCKET_COUNT - 1);
        assert_eq!(HistogramSnapshot::upper_bound_us(BUCKET_COUNT - 1), None);
    }

    #[test]
    fn snapshots_count_sum_and_merge() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(3));
        histogram.record(Duration::from_secs(3600));
        let mut total = histogram.snapshot();
        total.merge(&histogram.snapshot());
        assert_eq!(total.count(), 4);
        assert_eq!(total.sum_ns, 2 * (3_000 + 3_600_000_000_000));
    }
}
