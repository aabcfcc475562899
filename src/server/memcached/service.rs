//! What connections share, and the commands that touch no value.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::command::Key;
use super::expiry::{self, Lifetimes};
use super::flush::FlushSchedule;
use super::reads::Reads;
use super::wins::Wins;
use crate::cache::{Ack, Cache, Lifetime, Purge, StoreError, StoreOptions};
use crate::clock::Stopwatch;
use crate::server::buffers::Buffers;
use crate::server::counters::{Counters, Counts, Operation, Shard};
use crate::server::key_locks::KeyLocks;
use crate::server::metadata::Item;
use crate::server::{Options, Server};
use crate::store::CountersSnapshot;

/// What the connections of all workers share.
pub(in crate::server) struct Shared {
    flushes: Arc<FlushSchedule>,
    baseline: Arc<Baseline>,
    uptime: Stopwatch,
    wins: Arc<Wins>,
    reads: Arc<Reads>,
}

impl Shared {
    pub(in crate::server) fn new() -> Shared {
        Shared {
            flushes: Arc::default(),
            baseline: Arc::default(),
            uptime: Stopwatch::start(),
            wins: Arc::default(),
            reads: Arc::default(),
        }
    }
}

/// What the connections of one worker share.
pub(in crate::server) struct Service {
    pub(in crate::server) cache: Cache,
    pub(in crate::server) options: Options,
    pub(in crate::server) flushes: Arc<FlushSchedule>,
    /// Counters of this worker.
    pub(in crate::server) shard: Arc<Shard>,
    /// Counters of all workers, for `stats`.
    pub(super) counters: Arc<Counters>,
    pub(super) buffers: Buffers,
    pub(super) key_locks: Arc<KeyLocks>,
    pub(super) baseline: Arc<Baseline>,
    pub(super) uptime: Stopwatch,
    /// Who was told to refresh what.
    pub(super) wins: Arc<Wins>,
    /// What was read when.
    pub(super) reads: Arc<Reads>,
}

impl Service {
    /// What the connections of worker `index` of `server` share.
    pub(in crate::server) fn new(server: &Server, index: usize, shared: &Shared) -> Service {
        let shard = server.counters.worker(index);
        Service {
            cache: server.cache.clone(),
            options: server.options.clone(),
            flushes: shared.flushes.clone(),
            counters: server.counters.clone(),
            buffers: Buffers::new(&server.counters, &shard),
            shard,
            key_locks: server.key_locks.clone(),
            baseline: shared.baseline.clone(),
            uptime: shared.uptime,
            wins: shared.wins.clone(),
            reads: shared.reads.clone(),
        }
    }

    /// Whether a quarter of the memory for answers that clients do not take is in use.
    pub(super) fn is_unsent_much(&self) -> bool {
        let budget = self.counters.send_budget();
        budget.unsent() > budget.unsent_max() / 4
    }

    /// The lifetime that a client's `exptime` asks for.
    pub(super) fn lifetime(&self, exptime: i64) -> Duration {
        let (default, max) = (self.options.ttl_default, self.options.ttl_max);
        expiry::lifetime(exptime, self.cache.clock(), Lifetimes { default, max })
    }

    /// The life that a client's `exptime` asks for, from now on.
    pub(super) fn life(&self, exptime: i64) -> Lifetime {
        let lifetime = self.cache.lifetime(Some(self.lifetime(exptime)), Duration::ZERO);
        if exptime == 0 { lifetime.without_end() } else { lifetime }
    }

    /// How to store an item with a client's `exptime`.
    pub(super) fn item_options(&self, item: &Item, exptime: i64) -> StoreOptions {
        let lifetime = Some(self.life(exptime));
        StoreOptions { lifetime, metadata: item.encode(), ..StoreOptions::default() }
    }

    /// Executes `delete`: whether an entry was there.
    ///
    /// # Errors
    /// The answer, if it is not known to be gone for good.
    pub(super) async fn delete(&self, key: Key<'_>) -> Result<bool, &'static str> {
        let watch = Stopwatch::start();
        let removed = self.cache.remove(&key).await;
        self.shard.record(Operation::Delete, watch.elapsed());
        match removed {
            Ok(true) => self.shard.delete_hits.bump(),
            Ok(false) => self.shard.delete_misses.bump(),
            Err(_) => {}
        }
        removed.map_err(|error| self.failed_removal(&error))
    }

    /// The answer if an entry is removed, but not durably.
    pub(super) fn failed_removal(&self, error: &StoreError) -> &'static str {
        match error {
            StoreError::Busy(_) => {
                self.shard.store_failed.bump();
                "SERVER_ERROR removed, but not durable yet"
            }
            StoreError::Device(_) | StoreError::NotDurable => {
                self.shard.store_failed.bump();
                "SERVER_ERROR removed, but not durable: the device failed"
            }
            error => self.failure(error),
        }
    }

    /// Executes `touch`.
    pub(super) async fn touch(&self, key: Key<'_>, exptime: i64) -> &'static str {
        let watch = Stopwatch::start();
        self.shard.cmd_touch.bump();
        let how = (self.life(exptime), Some(Ack::Buffered));
        let touched = self.cache.touch_until(&key, None, how).await;
        self.shard.record(Operation::Touch, watch.elapsed());
        match touched {
            Ok(Some(_)) => {
                self.shard.touch_hits.bump();
                "TOUCHED"
            }
            Ok(None) => {
                self.shard.touch_misses.bump();
                "NOT_FOUND"
            }
            Err(error) => self.failure(&error),
        }
    }

    /// Executes `flush_all`; `delay` as for [`expiry::lifetime`], but zero means now.
    pub(super) async fn flush_all(&self, delay: i64) -> &'static str {
        self.shard.cmd_flush.bump();
        let delay = if delay > 0 { self.lifetime(delay) } else { Duration::ZERO };
        if !delay.is_zero() {
            self.flushes.schedule(self.cache.clock().after(delay));
            return "OK";
        }
        self.flushes.cancel();
        let watch = Stopwatch::start();
        let purged = self.cache.purge_all(Purge::Hard).await;
        self.shard.record(Operation::Flush, watch.elapsed());
        match purged {
            Ok(()) => {
                self.flushes.tell();
                "OK"
            }
            Err(error) => self.failed_removal(&error),
        }
    }

    /// The new version of an entry goes on with what is remembered of the old one.
    pub(super) fn keep_state(&self, old: u64, new: u64) {
        if let Some(at) = self.reads.last(old) {
            self.reads.note(new, at);
        }
        if self.wins.is_won(old) {
            self.wins.win(new);
        }
    }

    /// Counts a command that the cache refused, and gives its answer.
    pub(super) fn failure(&self, error: &StoreError) -> &'static str {
        match error {
            StoreError::TooLarge { .. } => {
                self.shard.store_too_large.bump();
                TOO_LARGE
            }
            StoreError::Busy(_)
            | StoreError::Crowded { .. }
            | StoreError::Evicted
            | StoreError::Incomplete => {
                self.shard.store_no_memory.bump();
                NO_MEMORY
            }
            StoreError::Device(_) | StoreError::NotDurable | StoreError::Refused => {
                self.shard.store_failed.bump();
                "SERVER_ERROR device failure"
            }
            StoreError::ShuttingDown => {
                self.shard.store_failed.bump();
                "SERVER_ERROR shutting down"
            }
            StoreError::Purged => {
                self.shard.store_failed.bump();
                "SERVER_ERROR purged meanwhile"
            }
            StoreError::KeyLen(_)
            | StoreError::MetadataLen(_)
            | StoreError::TagLen(_)
            | StoreError::Tags { .. }
            // Nothing is stored in parts here.
            | StoreError::Gone
            | StoreError::Range { .. }
            | StoreError::Fragmented => {
                self.shard.store_failed.bump();
                "SERVER_ERROR key or metadata refused"
            }
        }
    }
}

pub(super) const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object";
pub(super) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

/// What was counted up to the last `stats reset`; exported metrics are never reset.
#[derive(Debug, Default)]
pub(in crate::server) struct Baseline(pub(super) Mutex<Before>);

/// What was counted before a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub(super) counts: Counts,
    pub(super) http_connections: u64,
    pub(super) store: CountersSnapshot,
}
