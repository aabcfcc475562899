//! A store's dealings with the wall clock: learns how long the store was down, and keeps the time in
//! the superblock right for the next start. Owns up to which epoch entries are of unknown age.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Clock, TimeDown};
use crate::format::Superblock;
use crate::store::shared::Store;

/// Interval between looks at the wall clock.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Sets a clock to the time of the device; gives the epoch up to which entries are of unknown age.
pub(super) fn resume(clock: &Clock, found: &mut Superblock) -> u32 {
    match clock.resume(found.time) {
        TimeDown::Known(down) => tracing::debug!(seconds = down.as_secs(), "the time down"),
        TimeDown::Unknown => {
            warn_of_unknown_age();
            return found.epoch;
        }
        TimeDown::Lost => lose(found, found.epoch),
    }
    found.unknown_age
}

fn warn_of_unknown_age() {
    tracing::warn!(
        "the wall clock shows an absurd time, so it is not known how long the cache was down: until \
         the clock is synchronised, what was stored before is given as stale only"
    );
}

/// Gives up learning the age of entries stored up to `epoch`: the stored clock pair is wrong, so the
/// next start could not learn it either.
fn lose(superblock: &mut Superblock, epoch: u32) {
    tracing::warn!(
        "the wall clock was ahead when the cache was last used, so it will never be known how long it \
         was down: what was stored before is given as stale only"
    );
    superblock.unknown_age = superblock.unknown_age.max(epoch);
}

/// The background task that watches the wall clock.
pub(super) struct Timekeeper {
    store: Store,
}

impl Timekeeper {
    pub fn new(store: Store) -> Timekeeper {
        Timekeeper { store }
    }

    /// Checks, once all stamps on the device are known, whether the wall clock is behind them.
    pub(super) fn compare_with_stamps(&self) {
        let shared = &*self.store.shared;
        if shared.clock.is_unknown() {
            let before =
                shared.ages.unknown_age.fetch_max(shared.recovery.opened_epoch, Ordering::AcqRel);
            if before < shared.recovery.opened_epoch {
                warn_of_unknown_age();
            }
        }
    }

    /// Looks at the wall clock regularly until the store stops.
    pub async fn run(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    self.look_at_clock();
                    self.store.take_out_unseen().await;
                }
                () = self.store.shared.signals.stop_timekeeper.notified() => return,
            }
        }
    }

    fn look_at_clock(&self) {
        let shared = &*self.store.shared;
        let settled = self.settle_age();
        let mut log = shared.log.lock();
        if let Some(unknown_age) = settled {
            log.set_unknown_age(unknown_age);
            shared.ages.unknown_age.store(unknown_age, Ordering::Release);
        }
        let (superblock, _) = log.superblock();
        let misleads = settled.is_some() || shared.clock.has_left(superblock.time);
        // A store that was not changed yet writes nothing.
        if misleads
            && log.has_epoch()
            && !shared.is_stopping()
            && !shared.durability.health.is_refusing()
        {
            log.renew_superblock(shared.clock.pair());
            drop(log);
            shared.signals.wake_flusher.notify_one();
        }
    }

    /// The epoch up to which entries are of unknown age, if that was decided just now.
    fn settle_age(&self) -> Option<u32> {
        let shared = &*self.store.shared;
        let (mut superblock, _) = shared.log.lock().superblock();
        match shared.clock.resume_again() {
            Some(TimeDown::Known(down)) => {
                tracing::info!(seconds = down.as_secs(), "now it is known how long it was down");
                Some(superblock.unknown_age)
            }
            Some(TimeDown::Lost) => {
                lose(&mut superblock, shared.recovery.opened_epoch);
                Some(superblock.unknown_age)
            }
            Some(TimeDown::Unknown) => None,
            None => self.is_unknown_age_gone().then_some(0),
        }
    }

    /// Whether no region can hold an entry of unknown age any more.
    fn is_unknown_age_gone(&self) -> bool {
        let shared = &*self.store.shared;
        let unknown = shared.ages.unknown_age.load(Ordering::Acquire);
        if unknown == 0 || !shared.is_recovered() {
            return false;
        }
        if shared.log.lock().is_freeing() {
            // The region being freed may keep its generation on the device.
            return false;
        }
        let oldest = shared.catalog.regions.oldest_generation();
        oldest.is_none_or(|oldest| oldest.epoch() > unknown)
    }
}
