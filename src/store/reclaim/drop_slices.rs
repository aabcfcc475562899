//! Dropping of the slices of dead objects. Owns one bounded step of it; which ones wait for it, `large`
//! knows.

use crate::format::SliceKey;
use crate::store::large::Discard;
use crate::store::large::granules::FRAGMENT_NUMBERS;
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
            self.drop_slice(&discard).await;
            discard.next += 1;
        }
        if end < discard.slice_count {
            shared.large.put_back(discard);
        }
        // There may be millions of them, of which the index has none any more.
        tokio::task::yield_now().await;
        true
    }

    /// Drops the next slice of an object, or the fragments of it.
    async fn drop_slice(&self, discard: &Discard) {
        let &Discard { object, next: number, may_be_partial, .. } = discard;
        self.store.shared.large.granules.forget((object, number));
        let whole = SliceKey::of_slice(object, number);
        let fragments = FRAGMENT_NUMBERS.filter(|_| may_be_partial);
        let fragments = fragments.map(|fragment| SliceKey { object, number, fragment });
        for key in fragments.chain([whole]) {
            if self.store.is_indexed(key) {
                self.store.drop_slot(key).await;
            }
        }
    }
}
