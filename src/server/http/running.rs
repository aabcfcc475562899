//! Activity of one connection: whether a request is running, and whether bytes move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::server::counters::Shard;

/// Checks per stall timeout.
const LOOKS: u32 = 4;

/// Activity of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    moved: AtomicU64,
    is_running: AtomicBool,
    /// The peer takes no more for now. Its request may be over already.
    is_full: AtomicBool,
}

impl Activity {
    /// Bytes came from the peer or went to it.
    pub(super) fn moved(&self, len: usize) {
        self.moved.fetch_add(len as u64, Ordering::Relaxed);
    }

    /// The peer took bytes, or has no room for any.
    pub(super) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Returns when no byte has moved for `timeout`, give or take a quarter, while a request was
    /// running or its answer on its way. Between requests another limit applies.
    pub(super) async fn stalled(&self, timeout: Duration) {
        let mut seen = 0;
        let mut quiet = 0;
        loop {
            tokio::time::sleep(timeout / LOOKS).await;
            let moved = self.moved.load(Ordering::Relaxed);
            let is_busy =
                self.is_running.load(Ordering::Relaxed) || self.is_full.load(Ordering::Relaxed);
            let is_quiet = moved == seen && is_busy;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == LOOKS {
                return;
            }
            seen = moved;
        }
    }
}

/// A request that is being answered, until it is dropped.
pub(super) struct Running {
    activity: Arc<Activity>,
    shard: Arc<Shard>,
}

impl Running {
    pub(super) fn begin(activity: &Arc<Activity>, shard: &Arc<Shard>) -> Running {
        activity.is_running.store(true, Ordering::Relaxed);
        shard.http.requests_started.bump();
        Running { activity: activity.clone(), shard: shard.clone() }
    }

    /// Counts an answer that breaks off before its end.
    pub(super) fn count_truncated(&self) {
        self.shard.values_truncated.bump();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.is_running.store(false, Ordering::Relaxed);
        self.shard.http.requests_ended.bump();
    }
}
