//! From a slice to the head of its object. Slices have no end of their own: they live as long as a live
//! head names their object.

use crate::clock::Timestamp;
use crate::format::Sequence;
use crate::store::entry::Entry;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::shared::Store;

/// Looks at a head that keeps moving.
const ATTEMPTS_MAX: usize = 16;

/// What became of the head of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum HeadState {
    /// It is live until then.
    Live(Timestamp),
    /// No live head names the object, and none will.
    Dead,
    /// It cannot be read, or somebody holds the object.
    Unknown,
}

impl Store {
    /// What became of the head of the object that a slice is of. A slice that leads to no head, of an
    /// earlier version of this program, ends by its own lifetime.
    pub(in crate::store) async fn head_of(&self, slice: &Entry) -> HeadState {
        let Some(object) = slice.large_object() else { return HeadState::Dead };
        match slice.records().head_key {
            Some(head_key) => self.head_state(head_key, object).await,
            None => HeadState::Dead,
        }
    }

    /// What became of the head with this key hash that names `object`.
    pub(in crate::store) async fn head_state(&self, head_key: u64, object: Sequence) -> HeadState {
        for _ in 0..ATTEMPTS_MAX {
            // Before the head is looked at: who holds the object later looks at it once more.
            if self.shared.large.is_held(object) {
                return HeadState::Unknown;
            }
            let (mut has_moved, mut is_unknown) = (false, false);
            for candidate in self.candidates(head_key) {
                match self.peek(candidate, Extent::Whole).await {
                    Loaded::Entry(head, _) => {
                        if let Some(end) = self.end_of_head(head_key, &head, object) {
                            return HeadState::Live(end);
                        }
                    }
                    Loaded::Moved => has_moved = true,
                    Loaded::Damaged => {}
                    Loaded::Unreadable | Loaded::Late => is_unknown = true,
                }
            }
            match (has_moved, is_unknown) {
                (true, _) => {}
                (false, true) => return HeadState::Unknown,
                // Who holds the object by now may be prolonging its head.
                (false, false) if self.shared.large.is_held(object) => return HeadState::Unknown,
                (false, false) => return HeadState::Dead,
            }
        }
        HeadState::Unknown
    }

    /// The end of a live head that names `object`.
    fn end_of_head(&self, head_key: u64, head: &Entry, object: Sequence) -> Option<Timestamp> {
        let is_its = head.object_head().is_some_and(|head| head.object == object);
        let is_live = self.is_live(head) && !self.is_dead_unseen(head_key, head);
        (is_its && is_live).then_some(head.lifetime().keep_until)
    }
}
