//! An object that is stored part by part. Owns that the first bytes of each part of it stay, and that nothing is
//! stored of an object that is not there any more.

use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::smallvec;

use crate::format::{Kind, ObjectHead, Records, SliceKey};
use crate::planted::{self, Bug};
use crate::store::counters::add;
use crate::store::large::coverage::{Sighted, within_granule};
use crate::store::large::granules::{
    FRAGMENT_NUMBERS, FRAGMENTS_MAX, Fragment, Fragments, Granule, Run, runs,
};
use crate::store::large::object::LargeObject;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::lookup::load::Extent;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::{Deadline, Match, NO_ANSWER};
use crate::store::mutation::request::{Lifetime, StoreError};
use crate::store::mutation::room::Patience;
use crate::store::place::Place;
use crate::store::shared::{ROOM_WAIT_MAX, Store};
use crate::store::transaction::Transaction;

/// An object of which parts are stored, by one of those who store them. Its slices stay meanwhile, unless they
/// are evicted.
pub struct PartialObject {
    store: Store,
    key: Box<[u8]>,
    key_hash: u64,
    object: LargeObject,
    /// A purge of the key since then prevails.
    fill: Fill,
    /// The head was in the log by then.
    declared: Ticket,
    /// `None` of a new object until its first part is stored.
    seen: Mutex<Option<SeenHead>>,
}

/// The head as it was when it was last verified.
#[derive(Clone, Copy)]
pub(in crate::store) struct SeenHead {
    place: Place,
    lifetime: Lifetime,
    /// Number of the last purge by then.
    purges: u64,
}

impl SeenHead {
    /// A head that was found after purge number `purges`.
    pub(in crate::store) fn of(head: &Match, purges: u64) -> SeenHead {
        SeenHead { place: head.place, lifetime: head.lifetime, purges }
    }
}

/// A part of one granule that is to be stored.
struct Part<'a> {
    head: ObjectHead,
    /// Number of the granule.
    number: u32,
    within: Range<usize>,
    bytes: &'a [u8],
    lifetime: Lifetime,
    /// Writes that had failed when its granule was looked at.
    failures: u64,
}

impl PartialObject {
    /// The object of a head that was found while it was held, or published just now (`seen` is `None`).
    pub(in crate::store) fn new(
        store: &Store,
        key: &[u8],
        object: LargeObject,
        (fill, declared): (Fill, Ticket),
        seen: Option<SeenHead>,
    ) -> PartialObject {
        let (key_hash, key) = (store.key_hash(key), key.into());
        let (store, seen) = (store.clone(), Mutex::new(seen));
        PartialObject { store, key, key_hash, object, fill, declared, seen }
    }

    /// Length of the whole body in bytes.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        self.object.body_len()
    }

    /// When the declaration began: later purges prevail.
    #[cfg(feature = "daemon")]
    pub(crate) fn since(&self) -> &Fill {
        &self.fill
    }

    /// The object itself, to read what is there of it.
    #[must_use]
    pub fn object(&self) -> &LargeObject {
        &self.object
    }

    /// The end of the granule that has the byte `at`: [`PartialObject::fill`] takes bytes up to there at most.
    #[must_use]
    pub fn granule_end(&self, at: u64) -> u64 {
        let head = self.object.head();
        head.range_of(head.slices_of(at..at + 1).start).end
    }

    /// The ranges of `range` that are not there, in order and apart from each other.
    pub async fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.store.missing(&self.object.head(), range).await
    }

    /// Stores what is not there of some bytes of one granule, which begin at byte `at` of the body. They are
    /// durable, and with `flushed` so is what was there, if [`Store::flush_between`] the tickets succeeds.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the object was replaced, was evicted or has ended; [`StoreError::Purged`];
    /// [`StoreError::Fragmented`]; else as for all stores.
    ///
    /// # Panics
    /// If the bytes are not in one granule of the body.
    pub async fn fill(
        &self,
        at: u64,
        bytes: &[u8],
        flushed: bool,
    ) -> Result<(Ticket, Ticket), StoreError> {
        assert!(at + bytes.len() as u64 <= self.granule_end(at), "more than one granule");
        let (store, head) = (&self.store, self.object.head());
        let number = head.slices_of(at..at + 1).start;
        let (of_granule, range) = ((head.object, number), head.range_of(number));
        let start = to_usize(at - range.start);
        store.begin_store().await?;
        let granules = &store.shared.large.granules;
        // Who fills the same granule waits: the first bytes stay.
        let _turn = granules.lock(of_granule).await;
        let (lifetime, failures) = (self.check_head().await?, granules.failures());
        // What is seen to be there was appended before.
        let mut first = store.last_ticket();
        let mut granule = store.granule(&head, number).await;
        let all = start..start + bytes.len();
        let mut gaps = granule.gaps(all.clone());
        let is_again = flushed && store.is_in_doubt(head.object);
        let mut old = None;
        if is_again {
            if store.has_failed_since(self.declared) {
                // The head itself may be lost: it is to be declared again.
                return Err(StoreError::NotDurable);
            }
            // What can be read need not be durable after a failed flush: it is written once more.
            (first, gaps) = (first + 1, smallvec![all]);
            if granule == Granule::Whole {
                let key = SliceKey::of_slice(head.object, number);
                if let Sighted::Slot(slot) = store.slot_of(key, Extent::Whole).await {
                    old = Some((store.slice_hash(&key.encode()), slot.place()));
                }
                granule = store.fragments(&head, number).await;
            }
        }
        if gaps.is_empty() {
            return Ok((first, first));
        }
        let mut fragments = match granule {
            Granule::Whole => Fragments::new(),
            Granule::Fragments(fragments) => fragments,
            Granule::Unknown => return Err(NO_ANSWER),
        };
        for within in gaps {
            let bytes = &bytes[within.start - start..within.end - start];
            add(&store.shared.counters.body_bytes, bytes.len() as u64);
            let part = Part { head, number, within, bytes, lifetime, failures };
            if bytes.len() as u64 == range.end - range.start {
                let before = store.last_ticket();
                self.append(&part, 0, is_again).await?;
                granules.note_whole(of_granule, failures);
                if let Some((key_hash, place)) = old {
                    // Not before the new one is durable.
                    store.flush_between(before + 1, store.last_ticket()).await?;
                    store.forget(key_hash, place);
                }
            } else {
                self.add_fragment(&part, &mut fragments).await?;
            }
        }
        Ok((first, store.last_ticket()))
    }

    /// Gives the lifetime of the head, if there still is one that names the object.
    async fn check_head(&self) -> Result<Lifetime, StoreError> {
        let (store, seen) = (&self.store, *self.seen.lock());
        store.check_open(Some(&self.fill))?;
        let purges = store.shared.purges.last_number();
        let now = store.shared.clock.now();
        let is_as_seen = |seen: &SeenHead| {
            seen.purges == purges
                && seen.lifetime.keep_until > now
                // What is filled is in use: its head is not to be evicted before its granules.
                && store.count_use(self.key_hash, seen.place)
        };
        if let Some(seen) = seen.filter(is_as_seen) {
            return Ok(seen.lifetime);
        }
        let mut deadline = Deadline::after(ROOM_WAIT_MAX);
        let found = store.find_by(&self.key, self.key_hash, &mut deadline).await;
        if found.is_unknown() {
            return Err(NO_ANSWER);
        }
        let names_it = |head: &Match| head.live && head.names(self.object.name());
        let Some(head) = found.matched.filter(names_it) else {
            store.check_open(Some(&self.fill))?;
            return Err(StoreError::Gone);
        };
        *self.seen.lock() = Some(SeenHead::of(&head, purges));
        Ok(head.lifetime)
    }

    /// Stores a part of a granule beside the `fragments` that there are.
    async fn add_fragment(
        &self,
        part: &Part<'_>,
        fragments: &mut Fragments,
    ) -> Result<(), StoreError> {
        while fragments.len() >= FRAGMENTS_MAX {
            if !self.drop_covered(part, fragments).await? && self.join(part, fragments).await? {
                return Ok(());
            }
        }
        let number = free_number(fragments).ok_or(StoreError::Fragmented)?;
        self.append(part, number, !fragments.is_empty()).await?;
        fragments.push(Fragment { number, within: part.within.clone() });
        self.remember(part, fragments);
        Ok(())
    }

    /// Without an `.await` between this and what was changed: the caller may be dropped at each.
    fn remember(&self, part: &Part<'_>, fragments: &Fragments) {
        let of_granule = (part.head.object, part.number);
        let granules = &self.store.shared.large.granules;
        granules.set_fragments(of_granule, fragments.clone(), part.failures);
    }

    /// Drops fragments of which another one has all bytes: a start finds those again that were joined. False if
    /// there are none.
    async fn drop_covered(
        &self,
        part: &Part<'_>,
        fragments: &mut Fragments,
    ) -> Result<bool, StoreError> {
        let covers = |one: &Fragment, other: &Fragment| {
            let has_all =
                one.within.start <= other.within.start && other.within.end <= one.within.end;
            has_all && (one.within != other.within || one.number < other.number)
        };
        let is_covered = |fragment: &&Fragment| fragments.iter().any(|one| covers(one, fragment));
        let covered: Vec<u32> = fragments.iter().filter(is_covered).map(|one| one.number).collect();
        if covered.is_empty() {
            return Ok(false);
        }
        self.store.flush_through(self.store.last_ticket()).await?;
        for number in covered {
            self.store.drop_slot(part.key(number)).await;
            fragments.retain(|other| other.number != number);
        }
        self.remember(part, fragments);
        Ok(true)
    }

    /// Writes fragments that touch each other once more, as one: that makes room for others. True if `part` is
    /// among them. They go when what they are joined to is durable.
    async fn join(&self, part: &Part<'_>, fragments: &mut Fragments) -> Result<bool, StoreError> {
        /// Number of the part that has no slot yet.
        const NEW: u32 = 0;
        let mut all = fragments.clone();
        all.push(Fragment { number: NEW, within: part.within.clone() });
        let longest = runs(&all).into_iter().max_by_key(|run| run.fragments.len());
        let Some(Run { within, fragments: joined }) = longest.filter(|run| run.fragments.len() > 1)
        else {
            return Err(StoreError::Fragmented);
        };
        let mut bytes = vec![0; within.len()];
        for &fragment in &joined {
            let (at, own) = if fragment == NEW {
                (part.within.clone(), Bytes::copy_from_slice(part.bytes))
            } else {
                let known = fragments.iter().find(|one| one.number == fragment);
                match self.store.slot_of(part.key(fragment), Extent::Whole).await {
                    Sighted::Slot(slot) => match within_granule(&slot).zip(known) {
                        Some((at, known)) if at == known.within => (at, slot.shared_body()),
                        _ => {
                            // It is another one by now: what is remembered is wrong.
                            let of_granule = (part.head.object, part.number);
                            self.store.shared.large.granules.forget(of_granule);
                            return Err(NO_ANSWER);
                        }
                    },
                    // It was evicted: without it, there is room.
                    Sighted::Nothing => {
                        fragments.retain(|other| other.number != fragment);
                        self.remember(part, fragments);
                        return Ok(false);
                    }
                    Sighted::Unknown => return Err(NO_ANSWER),
                }
            };
            bytes[at.start - within.start..at.end - within.start].copy_from_slice(&own);
        }
        let (has_new, is_whole) = (joined.contains(&NEW), within == part.whole());
        let number = match is_whole {
            true => 0,
            false => free_number(fragments).ok_or(StoreError::Fragmented)?,
        };
        let as_one = Part { within: within.clone(), bytes: &bytes, ..*part };
        let before = self.store.last_ticket();
        self.append(&as_one, number, !fragments.is_empty()).await?;
        if is_whole {
            let of_granule = (part.head.object, part.number);
            self.store.shared.large.granules.note_whole(of_granule, part.failures);
        } else {
            fragments.push(Fragment { number, within });
        }
        self.remember(part, fragments);
        self.store.flush_between(before + 1, self.store.last_ticket()).await?;
        for fragment in joined.into_iter().filter(|fragment| *fragment != NEW) {
            self.store.drop_slot(part.key(fragment)).await;
            fragments.retain(|other| other.number != fragment);
        }
        self.remember(part, fragments);
        Ok(has_new)
    }

    /// Appends the slot of a granule, or of a fragment of it.
    /// It supersedes another one with its number, which may still be on the device.
    async fn append(
        &self,
        part: &Part<'_>,
        fragment: u32,
        supersedes: bool,
    ) -> Result<(), StoreError> {
        if planted::is(Bug::CoverBeforeBytes) {
            let bytes = &vec![0; part.bytes.len()];
            let part = Part { bytes, within: part.within.clone(), ..*part };
            self.append_slot(&part, fragment, supersedes).await?;
            tokio::task::yield_now().await;
        }
        self.append_slot(part, fragment, supersedes).await
    }

    async fn append_slot(
        &self,
        part: &Part<'_>,
        fragment: u32,
        supersedes: bool,
    ) -> Result<(), StoreError> {
        let store = &self.store;
        let &Part { bytes, lifetime, .. } = part;
        let key = part.key(fragment).encode();
        let start = u32::try_from(part.within.start).unwrap_or(u32::MAX);
        let records = Records {
            head_key: Some(self.key_hash),
            fragment_start: (fragment > 0).then_some(start),
            ..Records::default()
        };
        let slot = Slot::new(Kind::Slice, &key, (&[], bytes), lifetime).with_records(&records);
        let (key_hash, mut patience) = (store.slice_hash(&key), Patience::default());
        loop {
            match self.try_to_append((&slot, key_hash), supersedes)? {
                Ok(()) => break,
                Err(why) => store.wait_for_room(why, &mut patience).await?,
            }
        }
        add(&store.shared.counters.filled_bytes, slot.len());
        Ok(())
    }

    fn try_to_append(
        &self,
        (slot, key_hash): (&Slot<'_>, u64),
        supersedes: bool,
    ) -> Result<Result<(), NoRoom>, StoreError> {
        let transaction = Transaction::begin(&self.store);
        self.store.check_open(Some(&self.fill))?;
        let reserved = match transaction.reserve((slot, key_hash), Appender::Client) {
            Ok(reserved) => reserved,
            Err(why) => return Ok(Err(why)),
        };
        reserved.point_new().append(supersedes, |log, _| log.count_stored(slot.len()));
        Ok(Ok(()))
    }
}

impl Part<'_> {
    /// The key of a fragment of the granule, or of the whole one.
    fn key(&self, fragment: u32) -> SliceKey {
        SliceKey { object: self.head.object, number: self.number, fragment }
    }

    /// All of the granule.
    fn whole(&self) -> Range<usize> {
        let range = self.head.range_of(self.number);
        0..to_usize(range.end - range.start)
    }
}

/// A number that no fragment has, if there is one.
fn free_number(fragments: &Fragments) -> Option<u32> {
    let is_free = |n: &u32| fragments.iter().all(|fragment| fragment.number != *n);
    let mut numbers = FRAGMENT_NUMBERS;
    numbers.find(is_free)
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
