//! The one `flush_all` that is scheduled. Kept in memory: a restart forgets it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::{Cache, Purge};
use crate::clock::Timestamp;
use crate::server::seldom::Seldom;

/// How often a pending flush looks at the clock.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Pause before a failed flush is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// When to purge everything; the latest request replaces an earlier one.
#[derive(Debug, Default)]
pub(in crate::server) struct FlushSchedule {
    due: Mutex<Option<Timestamp>>,
    changed: Notify,
    told: Mutex<Seldom>,
}

impl FlushSchedule {
    pub(super) fn schedule(&self, due: Timestamp) {
        *self.due.lock() = Some(due);
        self.changed.notify_one();
    }

    pub(super) fn cancel(&self) {
        *self.due.lock() = None;
    }

    /// Says that everything was purged: whoever misses it looks into the log.
    pub(super) fn tell(&self) {
        // Not while the lock is held: whoever logs may wait.
        let commands = self.told.lock().count(Instant::now());
        if let Some(commands) = commands {
            tracing::info!(commands, "flush_all: everything stored before is removed");
        }
    }

    /// Purges `cache` when the time comes; runs until it is dropped.
    pub(in crate::server) async fn run(&self, cache: &Cache) {
        loop {
            let due = *self.due.lock();
            match due {
                None => self.changed.notified().await,
                Some(due) if cache.clock().now() < due => tokio::time::sleep(POLL_INTERVAL).await,
                Some(due) => self.purge(cache, due).await,
            }
        }
    }

    async fn purge(&self, cache: &Cache, due: Timestamp) {
        if let Err(error) = cache.purge_all(Purge::Hard).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a delayed flush_all failed and will be tried again"
            );
            tokio::time::sleep(RETRY_INTERVAL).await;
            return;
        }
        self.tell();
        let mut pending = self.due.lock();
        if *pending == Some(due) {
            *pending = None;
        }
    }
}
