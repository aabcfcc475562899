//! Which index entries may be a key's, which of them a lookup may return, and which nobody needs any
//! more. Reads no device.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::format::{Kind, Sequence};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entry::Entry;
use crate::store::index::Locked;
use crate::store::index::index_entry::{IndexEntry, Location, SizeClass};
use crate::store::place::Place;
use crate::store::purges::Verdict;
use crate::store::purges::table::{Since, Subject};
use crate::store::shared::Store;

/// An entry to be read, usually one that the index has for a matching fingerprint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    place: Place,
    class: SizeClass,
    pub(super) is_hit: bool,
}

pub(super) type CandidateList = SmallVec<[Candidate; 2]>;

/// The sequence below which a change killed all versions of a key without having seen them.
#[derive(Clone, Copy)]
pub(super) struct DeadUnseen(Sequence);

/// Which tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The RAM tier.
    Ram,
    /// The write buffer: the part of the log that is not on the device yet.
    Log,
    /// The device.
    Disk,
}

impl Candidate {
    /// The slot of this class at `place`, which may have no index entry any more.
    pub fn at(place: Place, class: SizeClass) -> Candidate {
        Candidate { place, class, is_hit: true }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    pub fn location(&self) -> Location {
        self.place.location()
    }

    /// Bound of the slot's length.
    pub fn class(&self) -> SizeClass {
        self.class
    }
}

impl DeadUnseen {
    /// Whether the change killed an entry. Slices are never changed, only removed.
    pub fn covers(self, entry: &Entry) -> bool {
        entry.kind() != Kind::Slice && entry.sequence() < self.0
    }
}

impl Store {
    /// The index entries that may be the key's, with the generations of their regions.
    pub(super) fn candidates(&self, key_hash: u64) -> CandidateList {
        let mut candidates = CandidateList::new();
        let bucket = self.shared.catalog.lock(key_hash);
        bucket.each_candidate(|index_entry| candidates.push(self.candidate(&bucket, index_entry)));
        candidates
    }

    /// Counts a use of the key's entry at this place as a hit; false if the index does not have it there.
    pub(super) fn count_use(&self, key_hash: u64, place: Place) -> bool {
        let Some(candidate) = self.candidate_at(key_hash, place) else { return false };
        if !candidate.is_hit {
            self.shared.catalog.lock(key_hash).mark_hit(candidate.location());
        }
        true
    }

    /// The key's index entry with exactly this place.
    pub(super) fn candidate_at(&self, key_hash: u64, place: Place) -> Option<Candidate> {
        let bucket = self.shared.catalog.lock(key_hash);
        let candidate = self.candidate(&bucket, bucket.get(place.location())?);
        (candidate.place() == place).then_some(candidate)
    }

    /// Keeps at most `looks_max` candidates: those in the newest regions, and within a region those at
    /// the highest offsets. True if there were more. Only someone who knows the cache's secret can make
    /// so many keys collide.
    pub(super) fn keep_newest(&self, candidates: &mut CandidateList, looks_max: usize) -> bool {
        if candidates.len() <= looks_max {
            return false;
        }
        count(&self.shared.counters.crowded);
        candidates.sort_unstable_by_key(|found| {
            let place = found.place();
            // Entries in RAM cost no read. Their locations are given out from the highest down.
            let in_ram_only = place.is_in_ram();
            let at = if in_ram_only { !place.location().0 } else { place.location().0 };
            std::cmp::Reverse((in_ram_only, place.generation(), at))
        });
        candidates.truncate(looks_max);
        true
    }

    /// What a change killed of a key without having seen it. Ask before reading the key's index
    /// entries: both are removed together, and a lookup may overlap that.
    pub(super) fn dead_unseen(&self, key_hash: u64) -> DeadUnseen {
        DeadUnseen(self.shared.dead.unverified.last(key_hash))
    }

    /// Whether a change killed an entry without having seen it. Never true of slices.
    pub(super) fn is_dead_unseen(&self, key_hash: u64, entry: &Entry) -> bool {
        self.dead_unseen(key_hash).covers(entry)
    }

    pub(super) fn candidate(&self, bucket: &Locked<'_>, index_entry: IndexEntry) -> Candidate {
        let place = self.place_of(bucket, index_entry);
        Candidate { place, class: index_entry.class(), is_hit: index_entry.is_hit() }
    }

    /// The place that an index entry in a locked bucket names.
    pub(super) fn place_of(&self, bucket: &Locked<'_>, index_entry: IndexEntry) -> Place {
        self.shared.catalog.place_of(bucket, index_entry)
    }

    /// Whether an entry may be found. Until recovery is complete only entries stored since the start
    /// are, whatever the index has.
    pub(super) fn is_visible(&self, place: Place) -> bool {
        self.shared.is_recovered() || !self.is_of_earlier_start(place) || place.is_in_ram()
    }

    /// Whether an entry on the device was stored before this start.
    pub(super) fn is_of_earlier_start(&self, place: Place) -> bool {
        place.generation().epoch() <= self.shared.recovery.opened_epoch
    }

    /// Whether an entry is neither purged nor past its end. All of it before the body must have been read.
    pub(super) fn is_live(&self, entry: &Entry) -> bool {
        self.verdict(entry) != Verdict::Dead && self.is_live_at(entry, self.shared.clock.now())
    }

    /// What purges by tags and prefixes, and soft ones of everything, say of an entry. All of it before the
    /// body must have been read. Slices are never covered: their heads are.
    pub(super) fn verdict(&self, entry: &Entry) -> Verdict {
        self.checked_verdict(entry).0
    }

    /// The same, and the number of the last purge that was asked.
    #[inline]
    pub(super) fn checked_verdict(&self, entry: &Entry) -> (Verdict, Option<u64>) {
        let by_itself = if entry.is_marked_stale() { Verdict::Stale } else { Verdict::Live };
        if !self.shared.purges.may_cover(entry.sequence())
            || entry.kind() == Kind::Slice
            || entry.checked() >= self.shared.purges.last_number()
        {
            return (by_itself, None);
        }
        let of = Subject { key: entry.key(), tags: entry.tags() };
        let (verdict, number) = self.shared.purges.verdict(Since::Sequence(entry.sequence()), of);
        (verdict.max(by_itself), Some(number))
    }

    /// Whether an entry is not purged with everything else nor past its end.
    pub(super) fn is_live_at(&self, entry: &Entry, now: Timestamp) -> bool {
        entry.sequence() >= self.shared.purge_floor() && entry.lifetime().keep_until > now
    }

    /// Removes the index entry of an entry that nobody will get any more. An expired, purged or
    /// RAM-only entry needs no tombstone: it cannot come back. False if the index entry is gone, or
    /// reclaim moved it.
    pub(super) fn forget(&self, key_hash: u64, place: Place) -> bool {
        self.forget_if(key_hash, place, || true)
    }

    /// Removes the index entry of an expired or purged entry, unless a touch is under way or came after
    /// `touches` was read. A touched entry lives on the device: without an index entry a purge would
    /// miss it, and the next start would find it.
    pub(super) fn forget_ended(&self, key_hash: u64, entry: &Entry, touches: u32) {
        let place = entry.place();
        self.forget_if(key_hash, place, || {
            if self.is_pinned(place) || self.touches_at(place) != touches {
                return false;
            }
            let end = entry.lifetime().keep_until;
            if end <= self.shared.clock.now() {
                self.shared.ages.forgotten_until.fetch_max(end.0, Ordering::AcqRel);
            }
            true
        });
    }

    /// Touches in the region of a place, under way or ended.
    pub(super) fn touches_at(&self, place: Place) -> u32 {
        let region = place.region(&self.shared.layout);
        self.shared.catalog.regions.get(region).map_or(0, |row| row.touches())
    }

    /// Removes an index entry if `may` allows it under the bucket lock, under which touches begin. True
    /// if it was removed.
    pub(super) fn forget_if(
        &self,
        key_hash: u64,
        place: Place,
        may: impl FnOnce() -> bool,
    ) -> bool {
        if self.shared.is_stopping() {
            // The index and its snapshot must agree with the region table.
            return false;
        }
        let mut bucket = self.shared.catalog.lock(key_hash);
        let mut removed = None;
        // The region may have been reused: then the index entry belongs to another entry.
        if self.is_present(place) {
            if !may() {
                return false;
            }
            removed = bucket.remove(place.location());
        }
        drop(bucket);
        self.shared.catalog.resident.remove(place);
        removed.is_some()
    }

    pub(super) fn is_pinned(&self, place: Place) -> bool {
        let region = place.region(&self.shared.layout);
        self.shared.catalog.regions.get(region).is_some_and(|row| row.is_pinned())
    }

    /// Whether the region of a place still has the same generation; true for entries in RAM only.
    pub(super) fn is_present(&self, place: Place) -> bool {
        self.shared.catalog.regions.is_in(place.split(&self.shared.layout).0) || place.is_in_ram()
    }

    /// The entry at a candidate's place, if the RAM tier has it.
    pub(super) fn in_ram(&self, candidate: Candidate) -> Option<Entry> {
        self.shared.catalog.resident.get(candidate.place())
    }

    /// Offers a copy just read to the RAM tier, unless a touch came after the read or the region was
    /// freed, so that nobody would find the copy.
    pub(super) fn keep_resident(&self, entry: Entry, touches_before: u32) {
        let place = entry.place();
        let filling = self.shared.fill_lock(place).lock();
        let touched = self.touches_at(place) != touches_before;
        let may_keep = !touched || planted::is(Bug::SkipTouchCheck);
        let lost = match may_keep && self.is_present(place) {
            true => self.shared.catalog.resident.insert(entry),
            false => Vec::new(),
        };
        drop(filling);
        self.drop_lost(&lost);
    }

    /// Removes the index entries of entries that were only in the RAM tier and were evicted from it. Takes
    /// bucket locks: the caller holds none, and no fill lock.
    pub(super) fn drop_lost(&self, lost: &[Entry]) {
        for entry in lost {
            if entry.place().is_in_ram() {
                let key_hash = self.key_hash(entry.key());
                self.shared.catalog.lock(key_hash).remove(entry.place().location());
            }
        }
    }

    /// Whether the key's index entries are still the ones that were verified. Compares places, not
    /// locations: a location may have been reused.
    pub(super) fn is_unchanged(&self, bucket: &Locked<'_>, then: &[Place]) -> bool {
        let mut now: SmallVec<[Place; 2]> = SmallVec::new();
        bucket.each_candidate(|index_entry| now.push(self.place_of(bucket, index_entry)));
        // Usually nothing has moved: compare in one go.
        now.len() == then.len()
            && (now[..] == *then || now.iter().all(|place| then.contains(place)))
    }

    /// Whether the age of entries with this sequence is known. If not, only callers that accept stale
    /// entries get them.
    pub(super) fn knows_age(&self, sequence: Sequence) -> bool {
        sequence.epoch() > self.shared.ages.unknown_age.load(Ordering::Acquire)
            || planted::is(Bug::TrustUnknownAge)
    }

    /// Whether the age of an entry that a lookup returned is known.
    pub(crate) fn knows_age_of(&self, entry: &Entry) -> bool {
        self.knows_age(entry.sequence())
    }
}
