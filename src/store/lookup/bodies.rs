//! Bodies on their way to clients that may take their time. Owns the choice between holding a body
//! and letting it go, and what a reader gets who comes back for it.

use std::ops::Range;

use bytes::Bytes;

use crate::format::{BODY_CHUNK, Sequence, round_up};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entry::Entry;
use crate::store::large::slice_place::checked_part;
use crate::store::log::chunks::InMemory;
use crate::store::lookup::budget::{BodyShare, UNSHARED_LEN_MAX};
use crate::store::lookup::load::Extent;
use crate::store::place::Place;
use crate::store::shared::Store;

/// A later piece of a body is gone or damaged, or took too long; the caller must not treat
/// what it has as whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a later piece of the object is gone or damaged")]
#[non_exhaustive]
pub struct TruncatedBody;

/// An entry for a client, with its body or without.
pub(crate) enum HeldBody {
    /// With its body, and the right to hold it where one is needed.
    Here(Entry, Option<BodyShare>),
    /// Without its body: [`Store::piece_again`] gives a part of it.
    Elsewhere(Entry),
}

/// What the memory of the log has of a body.
enum FromLog {
    Bytes(Bytes),
    /// All of it, but not all bytes are copied there yet.
    Unfilled,
    Elsewhere,
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

    /// Short bytes in memory of their own, for a reader that may take its time: at the cost of the budget of
    /// such readers, as long as there is any.
    pub(crate) fn cover(&self, bytes: Bytes) -> Bytes {
        match self.shared.reading.bodies.share(bytes.len()) {
            Some(share) => share.cover(bytes),
            None => bytes,
        }
    }

    /// The right to hold an entry's body for a client, unless too many are held.
    fn body_share(&self, entry: &Entry) -> Option<BodyShare> {
        self.shared.reading.bodies.share(entry.weight())
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

    /// The bytes `within` of the body of an entry whose body was let go: all of them if there is
    /// memory for them now, else the first, up to the end of a chunk. `None` if the entry was evicted or
    /// what is read of it is damaged; that it was replaced meanwhile does not matter.
    ///
    /// No more is read than what is given and shares a checksum or a block with it: the header was
    /// verified before, and its checksums are kept.
    pub(crate) async fn piece_again(&self, let_go: &Entry, within: Range<usize>) -> Option<Bytes> {
        if let Some(entry) = self.resident_version(let_go.place(), let_go.sequence()) {
            return Some(self.body_piece(&entry, within));
        }
        let row = self.shared.catalog.regions.get(let_go.place().region(&self.shared.layout))?;
        let all = checked_part(&within, let_go.body_len());
        let (chunks, share) = match self.shared.reading.bodies.share(all.len()) {
            Some(share) => (all, Some(share)),
            None => (all.start..all.end.min(all.start + BODY_CHUNK), None),
        };
        let mut bytes = None;
        while row.in_memory() && bytes.is_none() {
            match self.copy_from_log(let_go, &chunks) {
                FromLog::Bytes(copy) => bytes = Some(copy),
                FromLog::Elsewhere => break,
                // Another thread is copying them there.
                FromLog::Unfilled => tokio::task::yield_now().await,
            }
        }
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => self.read_chunks(let_go, &chunks).await?,
        };
        let piece =
            bytes.slice(within.start - chunks.start..within.end.min(chunks.end) - chunks.start);
        Some(match share {
            Some(share) => share.cover(piece),
            None => piece,
        })
    }

    /// Copies whole chunks of a body out of the memory of the log.
    fn copy_from_log(&self, let_go: &Entry, chunks: &Range<usize>) -> FromLog {
        let (generation, offset) = let_go.place().split(&self.shared.layout);
        let in_slot = let_go.range_in_slot(chunks);
        let mut log = self.shared.log.lock();
        // Under the append lock, under which regions begin the generation that they are written in.
        if !self.shared.catalog.regions.is_in(generation) {
            return FromLog::Elsewhere;
        }
        match log.in_memory(generation.region(), offset + in_slot.start..offset + in_slot.end) {
            InMemory::Bytes(bytes) => FromLog::Bytes(Bytes::copy_from_slice(bytes)),
            InMemory::Shared(bytes) => {
                drop(log);
                FromLog::Bytes(Bytes::copy_from_slice(&bytes))
            }
            InMemory::Unfilled => FromLog::Unfilled,
            InMemory::No => FromLog::Elsewhere,
        }
    }

    /// Reads whole chunks of a body from the device, twice if in doubt. A damaged entry goes.
    async fn read_chunks(&self, let_go: &Entry, chunks: &Range<usize>) -> Option<Bytes> {
        let (generation, offset) = let_go.place().split(&self.shared.layout);
        let in_slot = let_go.range_in_slot(chunks);
        let alignment = u64::from(self.shared.layout.alignment);
        let start = (offset + in_slot.start) / alignment * alignment;
        let end = round_up(offset + in_slot.end, alignment);
        let skip = usize::try_from(offset + in_slot.start - start).unwrap_or(usize::MAX);
        let believes_all = planted::is(Bug::RereadWhateverIsThere);
        for _ in 0..2 {
            if !self.shared.catalog.regions.is_in(generation) && !believes_all {
                return None;
            }
            let _turn = self.turn_to_read(end - start).await;
            let Ok(read) =
                self.read_region(generation.region(), start..end, Extent::DirectAnswer).await
            else {
                count(&self.shared.counters.read_errors);
                return None;
            };
            let found = skip..skip + chunks.len();
            let is_sound = let_go.are_chunks(&read[found.clone()], chunks.start / BODY_CHUNK)
                || planted::is(Bug::SkipBodyChecksum);
            if believes_all || (is_sound && self.shared.catalog.regions.is_in(generation)) {
                let is_small = found.len() < read.len() / 4 * 3;
                return Some(match is_small {
                    true => Bytes::copy_from_slice(&read[found]),
                    false => Bytes::from_owner(read).slice(found),
                });
            }
        }
        if self.shared.catalog.regions.is_in(generation) {
            let key_hash = self.hash_of(let_go.kind(), let_go.key());
            if let Some(candidate) = self.candidate_at(key_hash, let_go.place()) {
                self.drop_damaged(key_hash, candidate);
            }
        }
        None
    }

    /// The copy in the RAM tier of an entry found earlier. Its place says which it is; the
    /// sequence is compared as a second safeguard.
    pub(in crate::store) fn resident_version(
        &self,
        place: Place,
        sequence: Sequence,
    ) -> Option<Entry> {
        self.shared.catalog.resident.get(place).filter(|entry| entry.sequence() == sequence)
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
    use crate::store::formatting::FormatOptions;
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::request::Condition;
    use crate::store::mutation::request::Lifetime;
    use crate::store::mutation::request::Value;
    use crate::store::options::Options;
    use crate::store::ram_tier::Resident;

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
        let lifetime = Lifetime { stored_at: now, age_secs: 0, fresh_until: end, keep_until: end };
        let body = vec![byte; LEN];
        let value = Value { metadata: b"", body: &body, lifetime, tags: &[], ram_only: true };
        store.put(key, &value, Condition::Always, None).await.unwrap();
        store.lookup(key, Stale::Refuse).await.unwrap().0
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
            assert!(store.piece_again(&let_go, 0..10).await.is_some_and(|piece| piece[0] == 1));
            copies.entries.lock().insert(first.place(), second);
            assert!(store.piece_again(&let_go, 0..10).await.is_none(), "another entry's body");
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
                let found = store.lookup(b"first", Stale::Refuse).await;
                assert!(found.is_none_or(|(entry, _)| entry.body()[0] == 1), "after {looks} looks");
            });
        }
    }
}
