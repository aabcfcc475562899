//! Reading entries: from the RAM tier, from the open region, from the device. Owns the
//! verification of what was read; a doubt is never an answer.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::SemaphorePermit;

use super::Store;
use super::chunks::InMemory;
use super::counters::count;
use super::entry::{Entry, SlotBytes};
use super::index::Locked;
use super::place::Place;
use super::ranges::{SlicePlace, UNSHARED_LEN_MAX};
use super::regions::RegionState;
use super::slots::{PAGE, SMALL_SLOT_MAX};
use super::sought::Sought;
use super::unverified::LOOKS_MAX;
use super::word::{Location, SizeClass, Word};
use crate::clock::Timestamp;
use crate::device::{AlignedBuf, DeviceError};
use crate::format::{ENTRY_HEADER_LEN, EntryHeader, Kind, ObjectHead, Seed, Sequence, SliceKey};
use crate::planted::{self, Bug};

/// Attempts of a lookup whose entries keep moving before it gives up with a miss.
const ATTEMPTS_MAX: usize = 16;

/// Slices looked for in the index without letting others run: some tens of microseconds.
const SLICES_AT_ONCE: usize = 256;

/// Most bytes that lookups are reading at one time, in reads of more than 64 KiB: enough for any
/// device, and what many clients can make it read at once.
pub(super) const READING_LEN_MAX: u32 = 32 << 20;

/// Which tier answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The RAM tier.
    Ram,
    /// The part of the log that is not on the device yet.
    Log,
    /// The device.
    Disk,
}

/// What is to be read: as a rule the entry of an index word that may be the key's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    place: Place,
    class: SizeClass,
    is_hit: bool,
}

pub(super) type CandidateList = SmallVec<[Candidate; 2]>;

impl Candidate {
    /// The entry of a slot of this class, whose word need not be there any more.
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

/// What is at a candidate's place.
pub(super) enum Loaded {
    /// The entry, verified.
    Entry(Entry, Tier),
    /// The region was freed meanwhile: look the key up again.
    Moved,
    /// The bytes are not what was written, or the entry was in RAM only and is gone.
    Damaged,
    /// The device failed.
    Unreadable,
    /// The device did not answer in time.
    Late,
}

/// What the memory of the log has at a candidate's place.
enum FromLog {
    Entry(Entry),
    /// All of it, but not all bytes are copied there yet.
    Unfilled,
    /// Nothing, or not the entry.
    Elsewhere,
    /// The region is in another life.
    Moved,
}

/// How much of an entry is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it, body verified.
    Whole,
    /// As `Whole`, to answer a lookup: in time or not at all, and perhaps through the page cache of an
    /// adaptive device.
    Answer,
    /// As `Answer`, without the page cache.
    DirectAnswer,
    /// At least header and key: enough to compare keys.
    Key { key_len: usize },
    /// The first `len` bytes at least, verified: all before the body.
    Meta { len: usize },
}

impl Extent {
    fn is_whole(self) -> bool {
        matches!(self, Extent::Whole | Extent::Answer | Extent::DirectAnswer)
    }

    /// The same, without the page cache.
    fn direct(self) -> Extent {
        match self {
            Extent::Answer => Extent::DirectAnswer,
            other => other,
        }
    }
}

/// Which versions of a key a change killed without having seen them: those before it.
#[derive(Clone, Copy)]
pub(super) struct KilledUnseen(Sequence);

impl KilledUnseen {
    /// Whether it killed an entry. No change is of a slice.
    pub fn kills(self, entry: &Entry) -> bool {
        entry.kind() != Kind::Slice && entry.sequence() < self.0
    }
}

impl Store {
    /// The words that may be the key's, and the lives of their regions.
    pub(super) fn candidates(&self, key_hash: u64) -> CandidateList {
        let mut candidates = CandidateList::new();
        let bucket = self.shared.index.lock(key_hash);
        bucket.each_candidate(|word| candidates.push(self.candidate(&bucket, word)));
        candidates
    }

    /// The word of the key with exactly this place.
    pub(super) fn candidate_at(&self, key_hash: u64, place: Place) -> Option<Candidate> {
        let bucket = self.shared.index.lock(key_hash);
        let candidate = self.candidate(&bucket, bucket.get(place.location())?);
        (candidate.place() == place).then_some(candidate)
    }

    /// Of more than `looks_max` candidates keeps those of the newest lives, and in a region the last.
    /// True if there were more. Only who knows the cache's secret can make keys collide so.
    pub(super) fn keep_newest(&self, candidates: &mut CandidateList, looks_max: usize) -> bool {
        if candidates.len() <= looks_max {
            return false;
        }
        count(&self.shared.counters.crowded);
        candidates.sort_unstable_by_key(|found| {
            let place = found.place();
            // What is in memory only costs no read; its locations are given from the highest down.
            let in_ram_only = self.is_in_ram_only(place);
            let at = if in_ram_only { !place.location().0 } else { place.location().0 };
            std::cmp::Reverse((in_ram_only, place.generation(), at))
        });
        candidates.truncate(looks_max);
        true
    }

    /// What was killed of a key by a change that did not see it, asked before its words are: what is
    /// killed is taken out of both together, and a read may begin before that and end after it.
    pub(super) fn killed_unseen(&self, key_hash: u64) -> KilledUnseen {
        KilledUnseen(self.shared.unverified.last(key_hash))
    }

    /// Whether a change killed an entry without having seen it. No change is of a slice.
    pub(super) fn was_killed_unseen(&self, key_hash: u64, entry: &Entry) -> bool {
        self.killed_unseen(key_hash).kills(entry)
    }

    fn candidate(&self, bucket: &Locked<'_>, word: Word) -> Candidate {
        let place = self.place_of(bucket, word);
        Candidate { place, class: word.class(), is_hit: word.is_hit() }
    }

    /// The place that a word in a locked bucket names.
    pub(super) fn place_of(&self, bucket: &Locked<'_>, word: Word) -> Place {
        Place::of_word(word, bucket, (&self.shared.regions, &self.shared.layout))
    }

    /// Looks a key up. Expired, purged and superseded entries are never given; stale ones
    /// (past `fresh_until`) only if `stale_ok`.
    pub fn lookup(
        &self,
        key: &[u8],
        stale_ok: bool,
    ) -> impl Future<Output = Option<(Entry, Tier)>> {
        let sought = Sought::object(key, self.key_hash(key));
        self.search(sought, (stale_ok, LOOKS_MAX), Extent::Answer)
    }

    /// A slice of an object, if it is there and sound as far as it is read.
    pub(super) async fn slice(&self, key: SliceKey, extent: Extent) -> Option<(Entry, Tier)> {
        let key = key.encode();
        // Nobody can choose the names of slices.
        let sought = Sought::slice(&key, self.slice_hash(&key));
        self.search(sought, (true, usize::MAX), extent).await
    }

    /// Where a slice with a body of `body_len` bytes is on the device; `None` if it is in memory too,
    /// gone, or not the only one with its fingerprint: then [`Store::slice_piece`] knows. Counts as a hit.
    pub(super) fn slice_place(&self, key: SliceKey, body_len: usize) -> Option<SlicePlace> {
        let key_hash = self.slice_hash(&key.encode());
        let candidates = self.candidates(key_hash);
        let [candidate] = candidates[..] else { return None };
        let (life, offset) = candidate.place().split(&self.shared.layout);
        if self.shared.regions.get(life.region())?.in_memory()
            || self.shared.resident.get(candidate.place()).is_some()
        {
            return None;
        }
        if !candidate.is_hit {
            self.shared.index.lock(key_hash).mark_hit(candidate.location());
        }
        Some(SlicePlace { life, offset, body_len })
    }

    async fn search(
        &self,
        sought: Sought<'_>,
        (stale_ok, looks_max): (bool, usize),
        extent: Extent,
    ) -> Option<(Entry, Tier)> {
        let key_hash = sought.hash();
        for _ in 0..ATTEMPTS_MAX {
            let mut moved = false;
            let unseen = self.killed_unseen(key_hash);
            let mut candidates = self.candidates(key_hash);
            if !self.is_recovered() {
                candidates.retain(|found| self.is_visible(found.place()));
            }
            self.keep_newest(&mut candidates, looks_max);
            for &candidate in &candidates {
                let touches = self.touches_at(candidate.place());
                let loaded = match self.in_ram(candidate) {
                    Some(entry) => Loaded::Entry(entry, Tier::Ram),
                    None => self.load_elsewhere(candidate, extent).await,
                };
                match loaded {
                    Loaded::Entry(entry, tier) if sought.is_of(&entry) => {
                        if unseen.kills(&entry) || self.was_killed_unseen(key_hash, &entry) {
                            continue;
                        }
                        // In this order: when the age is known, so is the time that was learnt with it.
                        let age_known = self.knows_age(entry.sequence());
                        let now = self.shared.clock.now();
                        let ignores_end = tier == Tier::Ram && planted::is(Bug::ServeExpired);
                        if !self.is_live_at(&entry, now) && !ignores_end {
                            let place = entry.place();
                            if self.touches_at(place) != touches && !self.is_pinned(place) {
                                // A touch may have moved the end since it was read.
                                moved = true;
                                continue;
                            }
                            count(&self.shared.counters.expired);
                            self.forget_ended(key_hash, &entry, touches);
                            return None;
                        }
                        let is_fresh = age_known && entry.lifetime().fresh_until > now;
                        if !stale_ok && !is_fresh && !ignores_end {
                            return None;
                        }
                        self.count_hit(key_hash, candidate);
                        return Some((entry, tier));
                    }
                    Loaded::Entry(..) => count(&self.shared.counters.false_positives),
                    Loaded::Moved => moved = true,
                    Loaded::Damaged => {
                        self.drop_damaged(key_hash, candidate);
                    }
                    Loaded::Unreadable | Loaded::Late => {}
                }
            }
            if !moved {
                return None;
            }
        }
        None
    }

    /// Whether the index has a word for each slice that holds bytes `range` of an object. Lets others
    /// run in between: there may be millions of them.
    pub async fn has_slices(&self, head: &ObjectHead, range: Range<u64>) -> bool {
        for (n, number) in (0usize..).zip(head.slices_of(range)) {
            if n > 0 && n.is_multiple_of(SLICES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let key = SliceKey { object: head.object, number }.encode();
            if self.shared.index.lock(self.slice_hash(&key)).candidates().is_empty() {
                return false;
            }
        }
        true
    }

    /// Whether an entry may be found: until recovery is complete only those stored since the start,
    /// whatever is in the index already.
    pub(super) fn is_visible(&self, place: Place) -> bool {
        self.shared.is_recovered() || !self.is_of_earlier_start(place) || self.is_in_ram_only(place)
    }

    /// Whether an entry on the device was stored before this start.
    pub(super) fn is_of_earlier_start(&self, place: Place) -> bool {
        place.generation().epoch() <= self.shared.opened_epoch
    }

    pub(super) fn is_in_ram_only(&self, place: Place) -> bool {
        self.shared.regions.get(place.region(&self.shared.layout)).is_none()
    }

    /// Whether an entry may be served now, by purges and time.
    pub(super) fn is_live(&self, entry: &Entry) -> bool {
        self.is_live_at(entry, self.shared.clock.now())
    }

    fn is_live_at(&self, entry: &Entry, now: Timestamp) -> bool {
        entry.sequence() >= self.shared.purge_floor() && entry.lifetime().keep_until > now
    }

    /// Notes that a candidate answered a lookup.
    fn count_hit(&self, key_hash: u64, candidate: Candidate) {
        if !candidate.is_hit {
            self.shared.index.lock(key_hash).mark_hit(candidate.location());
        }
        if self.shared.regions.unread_count() > 0
            && self.is_of_earlier_start(candidate.place())
            && !self.is_in_ram_only(candidate.place())
        {
            count(&self.shared.counters.doubtful_hits);
        }
    }

    /// Removes the word of an entry that nobody will get any more. Needs no kill record when the
    /// entry is expired, purged or was in RAM only: it cannot come back.
    /// False if the word was not there: gone, or moved by reclaim.
    pub(super) fn forget(&self, key_hash: u64, place: Place) -> bool {
        self.forget_if(key_hash, place, || true)
    }

    /// Removes the word of an entry whose end is past, unless a touch is under way or came since
    /// `touches` were counted, before the entry was read. What was touched lives on the device: without
    /// a word a purge would miss it, and the next start find it.
    fn forget_ended(&self, key_hash: u64, entry: &Entry, touches: u32) {
        let place = entry.place();
        self.forget_if(key_hash, place, || {
            if self.is_pinned(place) || self.touches_at(place) != touches {
                return false;
            }
            let end = entry.lifetime().keep_until;
            if end <= self.shared.clock.now() {
                self.shared.forgotten_until.fetch_max(end.0, Ordering::AcqRel);
            }
            true
        });
    }

    /// Touches in the region of a place, begun and ended ones.
    fn touches_at(&self, place: Place) -> u32 {
        let region = place.region(&self.shared.layout);
        self.shared.regions.get(region).map_or(0, |row| row.touches())
    }

    /// Removes a word if `may` says so under the bucket lock, under which touches begin; tells
    /// whether it did.
    fn forget_if(&self, key_hash: u64, place: Place, may: impl FnOnce() -> bool) -> bool {
        if self.shared.is_stopping() {
            // The index and its snapshot must agree with the region table.
            return false;
        }
        let mut bucket = self.shared.index.lock(key_hash);
        let mut removed = None;
        // The region may have been freed and written again: then the word is another entry's.
        if self.is_present(place) {
            if !may() {
                return false;
            }
            removed = bucket.remove(place.location());
            if let Some(word) = removed {
                // Under the lock: reclaim counts on it that no word means nothing alive.
                self.shared.uncount(word);
            }
        }
        drop(bucket);
        self.shared.resident.remove(place);
        removed.is_some()
    }

    fn is_pinned(&self, place: Place) -> bool {
        let region = place.region(&self.shared.layout);
        self.shared.regions.get(region).is_some_and(|row| row.is_pinned())
    }

    /// Whether the region of a place is in the same life still; true for entries in RAM only.
    pub(super) fn is_present(&self, place: Place) -> bool {
        self.shared.regions.is_in(place.split(&self.shared.layout).0) || self.is_in_ram_only(place)
    }

    /// The entry at a candidate's place, if the RAM tier has it.
    pub(super) fn in_ram(&self, candidate: Candidate) -> Option<Entry> {
        self.shared.resident.get(candidate.place())
    }

    /// Reads what is at a candidate's place, and offers a copy of a whole slot to the RAM tier.
    pub(super) async fn load(&self, candidate: Candidate, extent: Extent) -> Loaded {
        match self.in_ram(candidate) {
            Some(entry) => Loaded::Entry(entry, Tier::Ram),
            None => self.load_elsewhere(candidate, extent).await,
        }
    }

    /// As [`Store::load`], of an entry that the RAM tier does not have.
    pub(super) async fn load_elsewhere(&self, candidate: Candidate, extent: Extent) -> Loaded {
        let touches = self.touches_at(candidate.place());
        let loaded = self.peek_elsewhere(candidate, extent).await;
        if let Loaded::Entry(entry, Tier::Log | Tier::Disk) = &loaded
            && extent.is_whole()
            && (self.is_read_in_pieces(entry) || self.shared.resident.admits(entry.weight() as u64))
        {
            self.keep_resident(entry.clone(), touches);
        }
        loaded
    }

    /// Reads what is at a candidate's place: RAM tier, memory of the log, device.
    pub(super) async fn peek(&self, candidate: Candidate, extent: Extent) -> Loaded {
        match self.in_ram(candidate) {
            Some(entry) => Loaded::Entry(entry, Tier::Ram),
            None => self.peek_elsewhere(candidate, extent).await,
        }
    }

    async fn peek_elsewhere(&self, candidate: Candidate, extent: Extent) -> Loaded {
        let region = candidate.place().region(&self.shared.layout);
        let Some(row) = self.shared.regions.get(region) else { return Loaded::Damaged };
        while row.in_memory() {
            match self.load_from_log(candidate.place()) {
                FromLog::Entry(entry) => return Loaded::Entry(entry, Tier::Log),
                FromLog::Elsewhere => break,
                FromLog::Moved => return Loaded::Moved,
                // Another thread is copying it there.
                FromLog::Unfilled => tokio::task::yield_now().await,
            }
        }
        self.load_stored(candidate, extent).await
    }

    /// Reads what is on the device at a candidate's place, twice if in doubt.
    pub(super) async fn load_stored(&self, candidate: Candidate, extent: Extent) -> Loaded {
        let (life, offset) = candidate.place().split(&self.shared.layout);
        let Some(row) = self.shared.regions.get(life.region()) else { return Loaded::Damaged };
        let adaptive = extent == Extent::Answer && self.shared.device.info().adaptive;
        // The page cache may have the version of a header that a touch replaced.
        let by_cache = adaptive && row.is_untouched();
        let first = if by_cache { Extent::Answer } else { extent.direct() };
        let mut loaded = self.load_from_device(candidate, first).await;
        if by_cache && matches!(loaded, Loaded::Damaged | Loaded::Unreadable) {
            self.distrust(candidate, life.region(), offset);
            loaded = Loaded::Damaged;
        }
        if matches!(loaded, Loaded::Damaged) && self.shared.regions.is_in(life) {
            // A transfer can go wrong once; the second answer counts.
            loaded = self.load_from_device(candidate, extent.direct()).await;
        }
        let same_life = self.shared.regions.is_in(life) && row.state() != RegionState::Free;
        if !same_life && !planted::is(Bug::SkipGenerationCheck) {
            return Loaded::Moved;
        }
        loaded
    }

    /// Offers a copy just read to the RAM tier, unless a touch overtook the read, or the region was
    /// freed: nobody would find the copy.
    pub(super) fn keep_resident(&self, entry: Entry, touches_before: u32) {
        let place = entry.place();
        let _filling = self.shared.fill_lock(place).lock();
        let touched = self.touches_at(place) != touches_before;
        let may_keep = !touched || planted::is(Bug::SkipTouchCheck);
        if may_keep && self.is_present(place) {
            let lost = self.shared.resident.insert(entry);
            self.drop_lost(&lost);
        }
    }

    /// Removes the words of entries that the RAM tier put out and that are nowhere else.
    pub(super) fn drop_lost(&self, lost: &[Entry]) {
        for entry in lost {
            if self.is_in_ram_only(entry.place()) {
                let key_hash = self.key_hash(entry.key());
                self.shared.index.lock(key_hash).remove(entry.place().location());
            }
        }
    }

    /// Copies an entry out of the memory of the log.
    fn load_from_log(&self, place: Place) -> FromLog {
        let (life, offset) = place.split(&self.shared.layout);
        let (region, seed) = (life.region(), self.shared.regions.seed_of(life));
        let mut log = self.shared.log.lock();
        // Under the append lock, under which regions begin the lives that they are written in.
        if !self.shared.regions.is_in(life) {
            return FromLog::Moved;
        }
        let header = match log.in_memory(region, offset..offset + ENTRY_HEADER_LEN as u64) {
            InMemory::Bytes(bytes) => EntryHeader::decode(bytes, seed, offset),
            InMemory::Unfilled => return FromLog::Unfilled,
            InMemory::No | InMemory::Shared(_) => return FromLog::Elsewhere,
        };
        let Ok(header) = header else { return FromLog::Elsewhere };
        let slot = match log.in_memory(region, offset..offset + header.slot_len() as u64) {
            InMemory::Bytes(bytes) => SlotBytes::from(bytes),
            InMemory::Shared(bytes) => {
                drop(log);
                SlotBytes::from(&*bytes)
            }
            InMemory::Unfilled => return FromLog::Unfilled,
            InMemory::No => return FromLog::Elsewhere,
        };
        FromLog::Entry(Entry::new(header, slot, place))
    }

    async fn load_from_device(&self, candidate: Candidate, extent: Extent) -> Loaded {
        let (life, offset) = candidate.place().split(&self.shared.layout);
        let within = self.read_range(candidate.class(), offset, extent);
        // Held until the caller has the entry, and decides without waiting what to keep of it.
        let _turn = self.turn_to_read(within.end - within.start).await;
        match self.read_region(life.region(), within.clone(), extent).await {
            Err(error) => {
                count(&self.shared.counters.read_errors);
                match error.source.kind() {
                    io::ErrorKind::TimedOut => Loaded::Late,
                    _ => Loaded::Unreadable,
                }
            }
            Ok(bytes) => {
                let skip = usize::try_from(offset - within.start).unwrap_or(usize::MAX);
                let seed = self.shared.regions.seed_of(life);
                match verified((bytes, skip), candidate.place(), (seed, offset), extent) {
                    Some(entry) => Loaded::Entry(entry, Tier::Disk),
                    None => Loaded::Damaged,
                }
            }
        }
    }

    /// Waits until not too much is being read for others. Whom a read is for does not matter yet:
    /// it ends without its client.
    pub(super) async fn turn_to_read(&self, len: u64) -> Option<SemaphorePermit<'_>> {
        if len <= UNSHARED_LEN_MAX as u64 {
            return None;
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(READING_LEN_MAX);
        self.shared.reading.acquire_many(len).await.ok()
    }

    /// The blocks of the region to read for a slot at `offset`.
    fn read_range(&self, class: SizeClass, offset: u64, extent: Extent) -> Range<u64> {
        let class_len = class.len_max();
        let mut end = offset + class_len;
        if class_len <= SMALL_SLOT_MAX {
            end = end.min((offset / PAGE + 1) * PAGE);
        }
        end = match extent {
            Extent::Whole | Extent::Answer | Extent::DirectAnswer => end,
            Extent::Key { key_len } => end.min(offset + (ENTRY_HEADER_LEN + key_len) as u64),
            Extent::Meta { len } => end.min(offset + len as u64),
        };
        let alignment = u64::from(self.shared.layout.alignment);
        let start = offset / alignment * alignment;
        start..crate::format::round_up(end, alignment).min(self.shared.layout.region_size)
    }

    /// Has the page cache drop what an adaptive read gave of a candidate.
    fn distrust(&self, candidate: Candidate, region: u32, offset: u64) {
        let within = self.read_range(candidate.class(), offset, Extent::Answer);
        let len = usize::try_from(within.end - within.start).unwrap_or(usize::MAX);
        self.shared.device.distrust(self.shared.layout.region_offset(region) + within.start, len);
    }

    /// Reads aligned bytes of a region.
    pub(super) async fn read_region(
        &self,
        region: u32,
        range: Range<u64>,
        extent: Extent,
    ) -> Result<AlignedBuf, DeviceError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let offset = self.shared.layout.region_offset(region) + range.start;
        let buf = self.shared.device.geometry().read_buffer(len);
        match extent {
            Extent::Answer => self.shared.device.read_adaptive_in_time(offset, buf).await,
            Extent::DirectAnswer | Extent::Meta { .. } => {
                self.shared.device.read_in_time(offset, buf).await
            }
            Extent::Whole | Extent::Key { .. } => self.shared.device.read(offset, buf).await,
        }
    }
}

/// Checks what was read and takes the slot out of it. A slot that is much
/// smaller than what was read is copied, so that it does not keep the rest in memory.
fn verified(
    (bytes, skip): (AlignedBuf, usize),
    place: Place,
    (seed, offset): (Seed, u64),
    extent: Extent,
) -> Option<Entry> {
    let slot = &bytes[skip..];
    let header = EntryHeader::decode(slot, seed, offset).ok()?;
    match extent {
        Extent::Whole | Extent::Answer | Extent::DirectAnswer => {
            header.check_meta(slot).ok()?;
            if !planted::is(Bug::SkipBodyChecksum) {
                header.check_body(slot).ok()?;
            }
            let (len, read) = (header.slot_len(), bytes.len());
            if len < read / 4 * 3 {
                let slot = SlotBytes::from(&slot[..len]);
                return Some(Entry::new(header, slot, place));
            }
            let slot = SlotBytes::Large(Bytes::from_owner(bytes).slice(skip..skip + len));
            Some(Entry::new(header, slot, place).with_footprint(read))
        }
        Extent::Key { .. } => {
            let len = header.key_range().end.min(slot.len());
            Some(Entry::new(header, SlotBytes::from(&slot[..len]), place))
        }
        Extent::Meta { .. } => {
            header.check_meta(slot).ok()?;
            let len = header.table_range().end;
            Some(Entry::new(header, SlotBytes::from(&slot[..len]), place))
        }
    }
}
