//! Progress of recovery. Plain atomics; the metrics layer names them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Stopwatch;

/// Progress of recovery, updated as it goes.
#[derive(Debug, Default)]
pub(in crate::store) struct Progress {
    pub headers_total: AtomicU64,
    pub headers_done: AtomicU64,
    pub regions_total: AtomicU64,
    pub regions_done: AtomicU64,
    pub parts_total: AtomicU64,
    pub parts_done: AtomicU64,
    pub found: AtomicU64,
    pub scratch_peak_bytes: AtomicU64,
}

/// Progress of recovery at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryStats {
    /// Region headers to be read.
    pub headers_total: u64,
    /// Region headers that were read.
    pub headers_done: u64,
    /// Regions that may hold entries.
    pub regions_total: u64,
    /// Regions whose contents are known.
    pub regions_done: u64,
    /// Steps of merging into the index; 0 before their number is known.
    pub parts_total: u64,
    /// Steps done.
    pub parts_done: u64,
    /// Versions of entries and tombstones found so far.
    pub found: u64,
    /// Most bytes of memory taken for versions.
    pub scratch_peak_bytes: u64,
}

impl Progress {
    pub fn snapshot(&self) -> RecoveryStats {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        RecoveryStats {
            headers_total: load(&self.headers_total),
            headers_done: load(&self.headers_done),
            regions_total: load(&self.regions_total),
            regions_done: load(&self.regions_done),
            parts_total: load(&self.parts_total),
            parts_done: load(&self.parts_done),
            found: load(&self.found),
            scratch_peak_bytes: load(&self.scratch_peak_bytes),
        }
    }
}

impl RecoveryStats {
    /// The progress of a completed recovery.
    #[must_use]
    pub fn complete() -> RecoveryStats {
        RecoveryStats {
            headers_total: 1,
            headers_done: 1,
            regions_total: 1,
            regions_done: 1,
            parts_total: 1,
            parts_done: 1,
            ..RecoveryStats::default()
        }
    }

    /// Share of the work that is done, 0 to 1: headers count a tenth, other reads four tenths, the
    /// index half.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub fn ratio(&self) -> f64 {
        let part =
            |done: u64, total: u64| if total == 0 { 0.0 } else { done as f64 / total as f64 };
        let headers = part(self.headers_done, self.headers_total);
        let read = part(self.regions_done, self.regions_total);
        headers * 0.1 + read * 0.4 + part(self.parts_done, self.parts_total) * 0.5
    }
}

/// Logs progress, once a second at most.
pub(super) struct ProgressLog {
    watch: Stopwatch,
    said_secs: u64,
}

impl ProgressLog {
    pub fn start() -> ProgressLog {
        ProgressLog { watch: Stopwatch::start(), said_secs: 0 }
    }

    pub fn tell(&mut self, stats: &RecoveryStats) {
        let secs = self.watch.elapsed().as_secs();
        if secs > self.said_secs {
            self.said_secs = secs;
            let percent = (stats.ratio() * 100.0).round();
            let RecoveryStats { headers_done, regions_done, regions_total, found, .. } = *stats;
            tracing::info!(percent, headers_done, regions_done, regions_total, found, "recovering");
        }
    }
}
