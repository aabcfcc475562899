//! Dropping of the slices of dead objects. Owns one step of it; the queue is in `large`.

use crate::format::{Kind, SliceKey};
use crate::store::large::Discard;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::reclaim::victim::BATCH;

impl Reclaimer {
    pub(in crate::store) async fn discard_one(&self) -> bool {
        let next = {
            let mut discards = self.store.shared.large.discards.lock();
            let idle =
                |discard: &Discard| !self.store.shared.large.readers.contains_key(&discard.object);
            discards.iter().position(idle).and_then(|n| discards.remove(n))
        };
        let Some(Discard { object, slice_count }) = next else { return false };
        for number in 0..slice_count {
            if (number as usize).is_multiple_of(BATCH) {
                // There may be millions of them, of which the index has none any more.
                tokio::task::yield_now().await;
            }
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
        true
    }
}
