//! Checks of an idle cache, and of what one life may use up.

use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::Cache;
use rawcached::device::{FaultKind, Rates};
use rawcached::format::{SUPERBLOCK_LEN, Superblock};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::Run;
use crate::clients::Client;
use crate::scenario::SUPERBLOCK_SPACE;

/// Scheduler time after which background work must be at rest.
const REST: Duration = Duration::from_secs(10);
/// The last part of it, in which nothing is written any more.
const QUIET: Duration = Duration::from_secs(2);
/// Free regions that leave room for a snapshot: with so few keys it takes one.
const SNAPSHOT_ROOM: u64 = 2;

impl Run {
    /// Lets the device refuse writes, flushes or both from the first moment of this life on, for a while
    /// or to its end.
    pub(super) fn begin_refusing(&mut self, runtime: &Runtime) {
        if !self.scenario().strain.refuses_writes || self.extra.u32(0..3) > 0 {
            return;
        }
        let usual = self.scenario().rates();
        let rates = refusing(usual.clone(), &mut self.extra);
        self.world.device.set_rates(rates);
        if self.extra.bool() {
            let device = self.world.device.clone();
            let time = Duration::from_millis(self.extra.u64(0..20_000));
            runtime.spawn(async move {
                tokio::time::sleep(time).await;
                device.set_rates(usual);
            });
        }
    }

    /// The highest epoch that a superblock copy on the device has.
    pub(super) fn epoch(&self) -> u64 {
        let copies = [0, self.scenario().device_bytes() - SUPERBLOCK_SPACE];
        let epoch_of = |at: &u64| {
            let bytes = self.world.device.contents(*at..*at + SUPERBLOCK_LEN as u64);
            Superblock::decode(&bytes).ok().map(|superblock| u64::from(superblock.epoch))
        };
        copies.iter().filter_map(epoch_of).max().unwrap_or_default()
    }

    /// A life takes one epoch at most, even if its writes fail.
    pub(super) fn check_epoch(&self, before: u64) {
        let after = self.epoch();
        if self.scenario().sequences_per_epoch != u32::MAX {
            return;
        }
        if after > before + 1 {
            let what = format!("one life took the epoch from {before} to {after}");
            self.world.history.lock().violate(what);
        }
    }

    /// Looks every key up at the end of a life in which large objects were prolonged: those that must be
    /// whole are, though few of their keys were asked for of late.
    pub(super) async fn look_for_the_prolonged(&mut self, cache: &Cache, born: Instant) {
        if self.scenario().strain.prolong_one_in == 0 {
            return;
        }
        cache.ready().await;
        let client = Client::new(&self.world, cache, (self.extra.u64(..), 0), born);
        for key in 0..self.scenario().keys {
            client.look(key).await;
        }
    }

    pub(super) fn check_rest(&self, what: &str, bytes: u64, born: Instant) {
        if bytes > 0 {
            self.world.history(born).violate(format!("{bytes} bytes of {what} are left at rest"));
        }
    }

    /// Whether the device and all on it are sound, as far as this life knows.
    fn is_undoubted(&self, cache: &Cache) -> bool {
        let damaged = cache.device_store().counters().damaged;
        let is_sound = self.scenario().is_sound() && !self.was_torn && damaged == 0;
        is_sound && cache.is_ready() && !self.world.may_have_forgotten(cache)
    }

    /// The purge of a key that never existed writes nothing while nothing is in doubt.
    pub(super) async fn check_absent(&self, cache: &Cache, born: Instant) {
        if !self.is_undoubted(cache) || self.has_rare_reasons_to_write() {
            return;
        }
        tokio::time::sleep(REST).await;
        self.check_rest("read memory", cache.stats().store.ranges.buffer_bytes, born);
        let written = || self.world.device.counts().writes;
        // The first purge may have to make earlier changes durable.
        let first = cache.remove(b"never there").await;
        let before = written();
        tokio::time::sleep(QUIET).await;
        if first.is_err() || written() > before {
            return;
        }
        let removed = cache.remove(b"never there").await;
        if !matches!(removed, Ok(false)) || written() > before {
            let what = format!("the purge of a key that never was: {removed:?}, and it wrote");
            self.world.history(born).violate(what);
        }
    }

    /// Keys that collide leave tombstones of one another, and short epochs a superblock now and then.
    fn has_rare_reasons_to_write(&self) -> bool {
        let scenario = self.scenario();
        scenario.hash_mask != u64::MAX || scenario.sequences_per_epoch < u32::MAX
    }

    /// A clean stop with nothing in doubt leaves a snapshot, unless nothing was changed: then the
    /// one before still counts.
    pub(super) fn check_snapshot(&self, cache: &Cache, born: Instant) {
        let stats = cache.stats().store;
        if self.is_undoubted(cache)
            && !self.has_rare_reasons_to_write()
            && self.epoch() > self.born_epoch
            && stats.regions_free >= SNAPSHOT_ROOM
            && stats.counters.snapshots_written == 0
        {
            self.world.history(born).violate("a clean stop left no snapshot".to_owned());
        }
    }
}

/// A device that refuses all writes, all flushes, or both.
fn refusing(rates: Rates, rng: &mut Rng) -> Rates {
    match rng.u32(0..4) {
        0 => rates.with(FaultKind::NoSpace, 100_000),
        1 => rates.with(FaultKind::WriteError, 100_000),
        2 => rates.with(FaultKind::FlushError, 100_000),
        _ => rates.with(FaultKind::WriteError, 100_000).with(FaultKind::FlushError, 100_000),
    }
}
