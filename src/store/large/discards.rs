//! The ends of large objects: slices of dead ones that wait to be dropped, and stores that end or leave
//! slices behind. Owns the queue; `reclaim` drops what is in it.

use crate::format::Sequence;
use crate::store::large::Discard;
use crate::store::mutation::fills::Fill;
use crate::store::shared::Store;

/// Deaths of large objects whose slices wait to be dropped; beyond it they stay until their region is reclaimed.
pub(in crate::store) const DISCARDS_MAX: usize = 1024;

impl Store {
    /// Queues the slices of a dead object to be dropped.
    pub(in crate::store) fn discard(&self, object: Sequence, slice_count: u32) {
        self.shared.large.objects.lock().forget(object);
        let mut discards = self.shared.large.discards.lock();
        if discards.len() < DISCARDS_MAX {
            discards.push_back(Discard { object, next: 0, slice_count });
        }
        drop(discards);
        self.shared.signals.wake_reclaimer.notify_one();
    }

    /// Begins a streamed store of a key; a purge from here on makes its publication fail.
    #[must_use]
    pub fn begin_fill(&self, key: &[u8]) -> Fill {
        self.shared.fills.begin(self.key_hash(key))
    }

    /// Ends a streamed store. What it appended without a head is dropped in the background.
    pub fn end_fill(&self, fill: Fill, orphans: Option<(Sequence, u32)>) {
        self.shared.fills.end(fill);
        if let Some((object, slice_count)) = orphans {
            self.discard(object, slice_count);
        }
    }
}
