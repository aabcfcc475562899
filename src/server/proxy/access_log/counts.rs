//! What is counted of one access log.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::count::Count;

/// The counts of one access log.
#[derive(Debug)]
pub(in crate::server) struct AccessLogCounts {
    pub(super) bytes_max: u64,
    pub(super) bytes: AtomicU64,
    pub(super) lost: Count,
}

/// The state of all access logs at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessLogSnapshot {
    /// Bytes of lines that wait to be written.
    pub bytes: u64,
    /// Most of them.
    pub bytes_max: u64,
    /// Lines that are in no log.
    pub lost: u64,
}

impl AccessLogCounts {
    /// Of a log of which at most so many bytes wait.
    pub(in crate::server) fn new(bytes_max: u64) -> AccessLogCounts {
        AccessLogCounts { bytes_max, bytes: AtomicU64::new(0), lost: Count::default() }
    }

    /// Adds what is counted of this one.
    pub(in crate::server) fn add_to(&self, sum: &mut AccessLogSnapshot) {
        sum.bytes += self.bytes.load(Ordering::Relaxed);
        sum.bytes_max += self.bytes_max;
        sum.lost += self.lost.get();
    }
}
