//! Purges of many keys: by tag, by prefix, of all, hard and soft.

use std::sync::atomic::Ordering;

use rawcached::cache::{Purge, StoreError};

use super::{Client, for_turns};
use crate::history::{PurgeEnd, Selector};
use crate::world::{prefix_bytes, tag_bytes};

impl Client {
    pub(super) async fn purge_many(&mut self) {
        let key = self.rng.u32(0..self.world.scenario.keys);
        let what = match self.rng.u32(0..20) {
            0 => Selector::All,
            1..4 => Selector::Keys(key / 10),
            4..10 => Selector::IdTag(self.rng.u64(0..Selector::ID_TAGS)),
            _ => Selector::KeyTag(key % Selector::KEY_TAGS),
        };
        // Hard purges of everything are another operation.
        let is_soft = what == Selector::All || self.rng.bool();
        let how = if is_soft { Purge::Soft } else { Purge::Hard };
        let change = {
            let mut history = self.history();
            history.note(format_args!("purge {what:?} {how:?}"));
            history.begin_purge_of(what, is_soft)
        };
        let turns = self.patience();
        let cache = self.cache.clone();
        let purged = for_turns(turns, async {
            match what {
                Selector::All => cache.purge_all(how).await,
                Selector::Keys(tens) => cache.purge_prefix(prefix_bytes(tens), how).await,
                Selector::KeyTag(_) | Selector::IdTag(_) => {
                    cache.purge_tag(tag_bytes(what), how).await
                }
            }
        });
        let purged = purged.await;
        self.note_folds();
        self.world.totals.lock().purges_of_many += 1;
        let mut history = self.history();
        history.note(format_args!("purged {what:?} {how:?}: {purged:?}"));
        if let Some(Err(error)) = &purged {
            self.expect_error(&mut history, error);
        }
        let how = match purged {
            Some(Ok(())) => PurgeEnd::Acknowledged,
            None | Some(Err(StoreError::ShuttingDown)) => PurgeEnd::Unknown,
            Some(Err(_)) => PurgeEnd::Refused,
        };
        history.end_purge(change, how);
    }

    /// Notes whether the cache has put records into a floor: then more is purged than what was asked for.
    pub(super) fn note_folds(&self) {
        if self.cache.device_store().counters().purge_folds > 0 {
            self.world.has_folded.store(true, Ordering::Relaxed);
        }
    }
}
