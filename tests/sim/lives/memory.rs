//! What little memory does to a life: the index's part of it, which changes from life to life, and
//! recovery's. Owns that the index keeps to its part, and takes stores all the same.

use std::sync::atomic::Ordering;

use rawcached::cache::{Cache, Condition, StoreError, StoreOptions};
use tokio::time::Instant;

use super::Run;
use crate::scenario::RecoveryMemory;
use crate::world::{World, body_of};

/// Entries that a start takes over from a snapshot beyond the limit: one part in this many.
const LOADED_SHARE: u64 = 16;
/// How often a run fills the device once more.
const REFILLS_MAX: u32 = 8;

impl Run {
    /// Draws how many entries the index of this life has room for; no key was changed in it yet.
    pub(super) fn draw_memory(&mut self) {
        self.world.early_changes.store(0, Ordering::Relaxed);
        self.index_entries = self.world.scenario.budgets.draw_index_entries(&mut self.index_rng);
        if let Some(entries) = self.index_entries {
            self.world.history.lock().note(format_args!("the index has room for {entries}"));
        } else if self.scenario().is_crowding_the_index() && self.refills < REFILLS_MAX {
            // For lives to come, which leave out what they have no room for.
            self.refills += u32::from(self.was_filled);
            self.was_filled = false;
        }
    }

    /// Most entries that the index may have in this life; `None` if that is not known.
    pub(super) fn entries_max(&self) -> Option<u64> {
        let scenario = self.scenario();
        let room = self.index_entries?;
        match (scenario.budgets.recovery, scenario.eager) {
            (RecoveryMemory::Enough, false) => Some(room + room / LOADED_SHARE),
            // Clients may fill it while recovery does.
            (RecoveryMemory::Enough, true) => Some(2 * room),
            // It reckons by the first of several passes, and with few entries that is rough.
            (RecoveryMemory::Little | RecoveryMemory::Least, _) => None,
        }
    }

    /// However little memory the index has, it takes every store: older ones go.
    pub(super) async fn check_room(&self, cache: &Cache, born: Instant) {
        let Some(room) = self.index_entries else { return };
        let entries_max = cache.stats().store.entries_max;
        if entries_max != room {
            let what = format!("the index has room for {entries_max} entries, not for {room}");
            self.world.history(born).violate(what);
        }
        for n in 0..2 * room {
            let key = format!("one more {n}").into_bytes();
            let (body, options) = (body_of(n, 100), StoreOptions::default());
            let stored = cache.put(&key, body, Condition::Always, &options).await;
            if matches!(stored, Err(StoreError::Busy(_))) && self.is_cramped() {
                return;
            }
            if let Err(error) = stored {
                self.world.history(born).violate(format!("one more store is refused: {error}"));
                return;
            }
            if cache.lookup(&key).await.is_none() {
                self.world.history(born).violate("what was just stored is not there".to_owned());
                return;
            }
        }
        check_index(&self.world, cache, self.entries_max(), born);
    }
}

/// The index has no more entries than it may have.
pub(super) fn check_index(world: &World, cache: &Cache, most: Option<u64>, born: Instant) {
    let Some(most) = most else { return };
    let entries = cache.stats().store.entries;
    if entries > most {
        let what = format!("the index has {entries} entries, and room for {most}");
        world.history(born).violate(what);
    }
}
