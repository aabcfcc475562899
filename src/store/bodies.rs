//! Bodies on their way to clients that may take their time. Owns the choice between holding a body
//! and letting it go, and what a reader gets who comes back for it.

use std::ops::Range;

use bytes::Bytes;

use super::Store;
use super::entry::Entry;
use super::place::Place;
use super::ranges::{BodyShare, UNSHARED_LEN_MAX};
use super::read::{Candidate, Extent, Loaded};
use super::word::SizeClass;
use crate::format::Sequence;

/// Keeps the slices of an object that was replaced until it is dropped, unless they are evicted.
pub struct ObjectReader {
    store: Store,
    object: Sequence,
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        self.store.shared.readers.remove_if_mut(&self.object, |_, count| {
            *count -= 1;
            *count == 0
        });
        if !self.store.shared.discards.lock().is_empty() {
            self.store.shared.wake_reclaimer.notify_one();
        }
    }
}

/// An entry for a client, with its body or without.
pub(crate) enum HeldBody {
    /// With its body, and the right to hold it where one is needed.
    Here(Entry, Option<BodyShare>),
    /// Without its body: [`Store::again`] reads it, [`Store::body_piece`] gives a part of it.
    Elsewhere(Entry),
}

impl Store {
    /// The bytes `within` of an entry's body, for a reader that may take its time: all of them at
    /// the cost of the budget of such readers, or a copy of the first of them if none of it is left.
    pub(crate) fn body_piece(&self, entry: &Entry, within: Range<usize>) -> Bytes {
        if entry.body_len() <= UNSHARED_LEN_MAX {
            return entry.shared_body().slice(within);
        }
        match self.body_share(entry) {
            Some(share) => share.cover(entry.shared_body().slice(within)),
            None => {
                let end = within.end.min(within.start + UNSHARED_LEN_MAX);
                Bytes::copy_from_slice(&entry.body()[within.start..end])
            }
        }
    }

    /// Whether the body is let go after each piece, for want of memory, and looked for again: if it
    /// were not in the RAM tier then, each piece would be a read of the whole.
    pub(super) fn is_read_in_pieces(&self, entry: &Entry) -> bool {
        entry.body_len() > UNSHARED_LEN_MAX && !self.shared.range_budget.has(entry.weight())
    }

    /// The right to hold an entry's body for a client, unless too many are held.
    fn body_share(&self, entry: &Entry) -> Option<BodyShare> {
        self.shared.range_budget.share(entry.weight())
    }

    /// Takes the right to hold the body of an entry, and its body if there is none. Short bodies
    /// need no right.
    pub(crate) fn hold_body(&self, entry: Entry) -> HeldBody {
        if entry.body_len() <= UNSHARED_LEN_MAX {
            return HeldBody::Here(entry, None);
        }
        match self.body_share(&entry) {
            Some(share) => HeldBody::Here(entry, Some(share)),
            None => HeldBody::Elsewhere(entry.without_body()),
        }
    }

    /// An entry once more whose body was let go; `None` if it was evicted or is damaged. That it
    /// was replaced meanwhile does not matter.
    pub(crate) async fn again(&self, without_body: &Entry) -> Option<Entry> {
        let (place, sequence) = (without_body.place(), without_body.sequence());
        if let Some(entry) = self.resident_version(place, sequence) {
            return Some(entry);
        }
        let class = SizeClass::of(without_body.slot_len() as u64);
        // Nothing is offered to the RAM tier: whether anybody finds the place is not known.
        match self.peek(Candidate::at(place, class), Extent::Whole).await {
            Loaded::Entry(entry, _) if entry.sequence() == sequence => Some(entry),
            _ => None,
        }
    }

    /// The copy in the RAM tier of an entry found earlier. By its place alone it could be another
    /// one's: places of entries in RAM only are given again.
    pub(super) fn resident_version(&self, place: Place, sequence: Sequence) -> Option<Entry> {
        self.shared.resident.get(place).filter(|entry| entry.sequence() == sequence)
    }

    /// Holds off the discarding of an object's slices while its body is read.
    #[must_use]
    pub fn read_object(&self, object: Sequence) -> ObjectReader {
        *self.shared.readers.entry(object).or_insert(0) += 1;
        ObjectReader { store: self.clone(), object }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::{Condition, FormatOptions, Lifetime, Options, Resident, Value};

    /// A RAM tier in which a test can put what it wants where it wants.
    #[derive(Default)]
    struct Copies {
        entries: Mutex<HashMap<Place, Entry>>,
        /// The look after so many others at the first place finds what is at the second one.
        swap: Mutex<Option<(usize, Place, Place)>>,
    }

    impl Resident for Copies {
        fn admits(&self, _: u64) -> bool {
            true
        }

        fn get(&self, place: Place) -> Option<Entry> {
            let mut swap = self.swap.lock();
            let mut sought = place;
            match &mut *swap {
                Some((0, one, other)) if place == *one => {
                    sought = *other;
                    *swap = None;
                }
                Some((looks, _, _)) => *looks = looks.saturating_sub(1),
                None => {}
            }
            self.entries.lock().get(&sought).cloned()
        }

        fn insert(&self, entry: Entry) -> Vec<Entry> {
            self.entries.lock().insert(entry.place(), entry);
            Vec::new()
        }

        fn remove(&self, place: Place) {
            self.entries.lock().remove(&place);
        }

        fn is_on(&self) -> bool {
            true
        }
    }

    const LEN: usize = 100_000;

    fn open(copies: &Arc<Copies>) -> (Runtime, Store) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (sim, clock) = (SimDevice::new(11 << 20, 4096), Clock::manual(Timestamp(1_000_000)));
        let format = FormatOptions { region_size: Some(1 << 20), ..FormatOptions::default() };
        let store = runtime.block_on(async {
            Store::format(&sim.open(), &format, &clock).await.unwrap();
            let options = Options { range_buffer_bytes: 1 << 10, ..Options::default() };
            let resident = Arc::clone(copies) as Arc<dyn Resident>;
            let store = Store::open(sim.open(), options, clock, resident).await.unwrap();
            store.recovered().await;
            store
        });
        (runtime, store)
    }

    /// Stores a body of `byte`s in RAM only; the entry.
    async fn put(store: &Store, key: &[u8], byte: u8) -> Entry {
        let now = store.shared.clock.now();
        let end = now.plus(Duration::from_secs(100));
        let lifetime = Lifetime { stored_at: now, fresh_until: end, keep_until: end };
        let body = vec![byte; LEN];
        let value = Value { metadata: b"", body: &body, lifetime, ram_only: true };
        store.put(key, &value, Condition::Always, None).await.unwrap();
        store.lookup(key, false).await.unwrap().0
    }

    #[test]
    fn a_place_in_ram_that_was_given_again_is_not_the_entry_that_is_read() {
        let copies = Arc::new(Copies::default());
        let (runtime, store) = open(&copies);
        runtime.block_on(async {
            let first = put(&store, b"first", 1).await;
            let second = put(&store, b"second", 2).await;
            let HeldBody::Elsewhere(let_go) = store.hold_body(first.clone()) else {
                panic!("there is no memory to hold it");
            };
            assert!(store.again(&let_go).await.is_some_and(|entry| entry.body()[0] == 1));
            copies.entries.lock().insert(first.place(), second);
            assert!(store.again(&let_go).await.is_none(), "another entry's body");
        });
    }

    #[test]
    fn a_touch_stores_what_it_found() {
        for looks in 0..4 {
            let copies = Arc::new(Copies::default());
            let (runtime, store) = open(&copies);
            runtime.block_on(async {
                let first = put(&store, b"first", 1).await;
                let second = put(&store, b"second", 2).await;
                *copies.swap.lock() = Some((looks, first.place(), second.place()));
                let end = store.shared.clock.now().plus(Duration::from_secs(200));
                let _ = store.touch(b"first", end, end).await;
                *copies.swap.lock() = None;
                let found = store.lookup(b"first", false).await;
                assert!(found.is_none_or(|(entry, _)| entry.body()[0] == 1), "after {looks} looks");
            });
        }
    }
}
