//! Dropping of the slices of dead objects. Owns one bounded step of it; which ones wait for it, `large`
//! knows.

use crate::format::{Kind, Sequence, SliceKey};
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::reclaim::reclaimer::Reclaimer;

/// Slices dropped in one step. Each may cost a read, and regions may be wanted meanwhile.
const SLICES_AT_ONCE: u32 = 16;

impl Reclaimer {
    /// Drops some slices of one dead object that nobody reads; false if there is none, or the store
    /// stops: from then on nothing goes from the index.
    pub(in crate::store) async fn drop_some_slices(&self) -> bool {
        let shared = &*self.store.shared;
        let Some(mut discard) = shared.large.next_discard() else { return false };
        let end = discard.slice_count.min(discard.next.saturating_add(SLICES_AT_ONCE));
        while discard.next < end {
            if shared.is_stopping() {
                return false;
            }
            self.drop_slice(discard.object, discard.next).await;
            discard.next += 1;
        }
        if end < discard.slice_count {
            shared.large.put_back(discard);
        }
        // There may be millions of them, of which the index has none any more.
        tokio::task::yield_now().await;
        true
    }

    async fn drop_slice(&self, object: Sequence, number: u32) {
        let key = SliceKey { object, number }.encode();
        let key_hash = self.store.slice_hash(&key);
        for candidate in self.store.candidates(key_hash) {
            let extent = Extent::Key { key_len: SliceKey::LEN };
            if let Loaded::Entry(entry, _) = self.store.load(candidate, extent).await
                && entry.kind() == Kind::Slice
                && entry.key() == key
            {
                self.store.forget(key_hash, entry.place());
            }
        }
    }
}
