//! Reads and verifies one entry wherever it is. Owns which bytes are read; callers decide what they
//! mean to a key.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use crate::device::{AlignedBuf, DeviceError};
use crate::format::{ENTRY_HEADER_LEN, EntryHeader, Seed};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entries::{Candidate, Tier};
use crate::store::entry::{Entry, SlotBytes};
use crate::store::index::index_entry::SizeClass;
use crate::store::log::chunks::InMemory;
use crate::store::log::placement::{PAGE, SMALL_SLOT_MAX};
use crate::store::lookup::budget::UNSHARED_LEN_MAX;
use crate::store::place::Place;
use crate::store::region::state::RegionState;
use crate::store::shared::{Store, reading_len_max};

/// What is at a candidate's place.
pub(in crate::store) enum Loaded {
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

/// What the write buffer has at a candidate's place.
pub(in crate::store) enum FromLog {
    Entry(Entry),
    /// All of the entry, but some bytes are still being copied.
    Unfilled,
    /// Nothing, or another entry.
    Elsewhere,
    /// The region has another generation.
    Moved,
}

/// How much of an entry is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Extent {
    /// All of it, body verified.
    Whole,
    /// As `Whole`, for a lookup: with a time limit, and perhaps through the page cache of an adaptive
    /// device.
    Answer,
    /// As `Answer`, without the page cache.
    DirectAnswer,
    /// At least header and key: enough to compare keys.
    Key { key_len: usize },
    /// The first `len` bytes at least, verified: all before the body.
    Meta { len: usize },
}

/// Verifies what was read and takes the slot out of it. Copies a slot much smaller than the read, so
/// that it does not keep the rest in memory.
pub(in crate::store) fn verified(
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

impl Store {
    /// Reads what is at a candidate's place, and offers a copy of a whole slot to the RAM tier.
    pub(in crate::store) async fn load(&self, candidate: Candidate, extent: Extent) -> Loaded {
        match self.in_ram(candidate) {
            Some(entry) => Loaded::Entry(entry, Tier::Ram),
            None => self.load_elsewhere(candidate, extent).await,
        }
    }

    /// As [`Store::load`], for an entry that is not in the RAM tier.
    pub(in crate::store) async fn load_elsewhere(
        &self,
        candidate: Candidate,
        extent: Extent,
    ) -> Loaded {
        let touches = self.touches_at(candidate.place());
        let loaded = self.peek_elsewhere(candidate, extent).await;
        if let Loaded::Entry(entry, Tier::Log | Tier::Disk) = &loaded
            && extent.is_whole()
            && (self.is_read_in_pieces(entry)
                || self.shared.catalog.resident.admits(entry.weight() as u64))
        {
            self.keep_resident(entry.clone(), touches);
        }
        loaded
    }

    /// Reads what is at a candidate's place: from the RAM tier, the write buffer or the device.
    pub(in crate::store) async fn peek(&self, candidate: Candidate, extent: Extent) -> Loaded {
        match self.in_ram(candidate) {
            Some(entry) => Loaded::Entry(entry, Tier::Ram),
            None => self.peek_elsewhere(candidate, extent).await,
        }
    }

    pub(in crate::store) async fn peek_elsewhere(
        &self,
        candidate: Candidate,
        extent: Extent,
    ) -> Loaded {
        let region = candidate.place().region(&self.shared.layout);
        let Some(row) = self.shared.catalog.regions.get(region) else { return Loaded::Damaged };
        while row.in_memory() {
            match self.load_from_log(candidate.place()) {
                FromLog::Entry(entry) => return Loaded::Entry(entry, Tier::Log),
                FromLog::Elsewhere => break,
                FromLog::Moved => return Loaded::Moved,
                // Another thread is copying the entry.
                FromLog::Unfilled => tokio::task::yield_now().await,
            }
        }
        self.load_stored(candidate, extent).await
    }

    /// Reads what the device has at a candidate's place; twice if the first read finds damage.
    pub(in crate::store) async fn load_stored(
        &self,
        candidate: Candidate,
        extent: Extent,
    ) -> Loaded {
        let (generation, offset) = candidate.place().split(&self.shared.layout);
        let Some(row) = self.shared.catalog.regions.get(generation.region()) else {
            return Loaded::Damaged;
        };
        let adaptive = extent == Extent::Answer && self.shared.device.info().adaptive;
        // The page cache may hold an old header if a touch rewrote it.
        let by_cache = adaptive && row.is_untouched();
        let first = if by_cache { Extent::Answer } else { extent.direct() };
        let mut loaded = self.load_from_device(candidate, first).await;
        if by_cache && matches!(loaded, Loaded::Damaged | Loaded::Unreadable) {
            self.distrust(candidate, generation.region(), offset);
            loaded = Loaded::Damaged;
        }
        if matches!(loaded, Loaded::Damaged) && self.shared.catalog.regions.is_in(generation) {
            // A transfer can go wrong once; the second result counts.
            loaded = self.load_from_device(candidate, extent.direct()).await;
        }
        let same_generation =
            self.shared.catalog.regions.is_in(generation) && row.state() != RegionState::Free;
        if !same_generation && !planted::is(Bug::SkipGenerationCheck) {
            return Loaded::Moved;
        }
        loaded
    }

    /// Copies an entry out of the write buffer.
    pub(in crate::store) fn load_from_log(&self, place: Place) -> FromLog {
        let (generation, offset) = place.split(&self.shared.layout);
        let (region, seed) = (generation.region(), self.shared.catalog.regions.seed_of(generation));
        let mut log = self.shared.log.lock();
        // The append lock is held, under which regions are opened.
        if !self.shared.catalog.regions.is_in(generation) {
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

    pub(in crate::store) async fn load_from_device(
        &self,
        candidate: Candidate,
        extent: Extent,
    ) -> Loaded {
        let (generation, offset) = candidate.place().split(&self.shared.layout);
        let within = self.read_range(candidate.class(), offset, extent);
        // Held until the caller has the entry, so that it can decide without waiting what to keep of
        // it.
        let _turn = self.turn_to_read(within.end - within.start).await;
        match self.read_region(generation.region(), within.clone(), extent).await {
            Err(error) => {
                count(&self.shared.counters.read_errors);
                match error.source.kind() {
                    io::ErrorKind::TimedOut => Loaded::Late,
                    _ => Loaded::Unreadable,
                }
            }
            Ok(bytes) => {
                let skip = usize::try_from(offset - within.start).unwrap_or(usize::MAX);
                let seed = self.shared.catalog.regions.seed_of(generation);
                match verified((bytes, skip), candidate.place(), (seed, offset), extent) {
                    Some(entry) => Loaded::Entry(entry, Tier::Disk),
                    None => Loaded::Damaged,
                }
            }
        }
    }

    /// Waits until the total of large reads allows `len` more bytes. No fairness between clients: a
    /// read goes on even if its client has gone.
    pub(in crate::store) async fn turn_to_read(&self, len: u64) -> Option<SemaphorePermit<'_>> {
        if len <= UNSHARED_LEN_MAX as u64 {
            return None;
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(reading_len_max(&self.shared.options));
        self.shared.reading.lookups.acquire_many(len).await.ok()
    }

    /// The blocks of the region to read for a slot at `offset`.
    pub(in crate::store) fn read_range(
        &self,
        class: SizeClass,
        offset: u64,
        extent: Extent,
    ) -> Range<u64> {
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

    /// Has the page cache drop what an adaptive read returned for a candidate.
    pub(in crate::store) fn distrust(&self, candidate: Candidate, region: u32, offset: u64) {
        let within = self.read_range(candidate.class(), offset, Extent::Answer);
        let len = usize::try_from(within.end - within.start).unwrap_or(usize::MAX);
        self.shared.device.distrust(self.shared.layout.region_offset(region) + within.start, len);
    }

    /// Reads aligned bytes of a region.
    pub(in crate::store) async fn read_region(
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

    /// Whether memory is so short that the body is dropped and read again in pieces. A copy in the RAM
    /// tier then saves a second read of all of it.
    pub(in crate::store) fn is_read_in_pieces(&self, entry: &Entry) -> bool {
        entry.body_len() > UNSHARED_LEN_MAX && !self.shared.reading.bodies.has(entry.weight())
    }
}
