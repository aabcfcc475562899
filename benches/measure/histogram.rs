//! Latencies in buckets of equal ratio. Owns the counts; never keeps single values.

use std::time::Duration;

/// Buckets per doubling: percentiles are exact to about 4 %.
const STEPS_LOG2: u32 = 4;

/// Counts of durations from 1 ns to hours.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; 64 << STEPS_LOG2] }
    }

    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1 << STEPS_LOG2);
        let octave = ns.ilog2();
        let step = (ns >> (octave - STEPS_LOG2)) & ((1 << STEPS_LOG2) - 1);
        let bucket = (u64::from(octave) << STEPS_LOG2) | step;
        self.counts[usize::try_from(bucket).unwrap_or(usize::MAX)] += 1;
    }

    /// The duration in microseconds that `per_mille` of all do not exceed.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark are below 2^53")]
    pub fn quantile_us(&self, per_mille: u64) -> f64 {
        let target = (self.counts.iter().sum::<u64>() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= target {
                let (octave, step) = (bucket >> STEPS_LOG2, bucket % (1 << STEPS_LOG2));
                let upper_ns = ((1u64 << STEPS_LOG2) + step as u64 + 1) << octave >> STEPS_LOG2;
                return upper_ns as f64 / 1000.0;
            }
        }
        0.0
    }
}
