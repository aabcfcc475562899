//! Lists the entries of a device: the newest version of each key. Owns which entries are listed and in
//! which state; takes 24 bytes of memory a version and 8 bytes a slice.

use std::ops::{ControlFlow, Range};

use crate::clock::{Clock, Timestamp};
use crate::device::{AlignedBuf, DeviceError};
use crate::format::{
    ENTRY_HEADER_LEN, EntryHeader, Kind, Layout, ObjectHead, Records, Seed, SliceKey,
};
use crate::inspect::inspection::Inspection;
use crate::inspect::purged::PurgesSeen;
use crate::inspect::sight::Sight;
use crate::store::{KeyHasher, Location, RegionReader, Verdict, Version, settle};

/// Bytes of one read while the headers of a region are visited.
const WINDOW: u64 = 32 << 10;

/// Whether a lookup would return an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedState {
    /// Yes.
    Fresh,
    /// Only if the lookup accepts stale entries.
    Stale,
    /// No: it is past its end.
    Expired,
    /// No: pieces of its body were evicted.
    Incomplete,
    /// It comes part by part, and not all of its slices are there whole: what is there is found, also what is
    /// in fragments.
    Partial,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Vec<u8>,
    /// Bytes of the whole body.
    pub len: u64,
    /// Pieces of the body; 0 if it is in the entry itself.
    pub slices: u32,
    /// When the entry was stored.
    pub stored_at: Timestamp,
    /// From this second on it is stale.
    pub fresh_until: Timestamp,
    /// From this second on it is never returned.
    pub keep_until: Timestamp,
    /// Whether a lookup would return it.
    pub state: ListedState,
    /// The region it is in.
    pub region: u32,
    /// Byte offset of its slot on the device.
    pub offset: u64,
}

/// Totals of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListingSummary {
    /// Entries given.
    pub listed: u64,
    /// Entries left out because they are damaged.
    pub damaged: u64,
    /// Regions left out because they cannot be read.
    pub unreadable_regions: u64,
}

/// The versions of all keys, gathered region by region.
#[derive(Default)]
pub(super) struct Versions {
    objects: Vec<Version>,
    slices: Vec<Version>,
}

/// Where the newest versions are.
pub(super) struct Live {
    /// Objects and heads by place.
    pub objects: Vec<Location>,
    /// Key hashes of slices, sorted.
    pub slices: Vec<u64>,
}

impl Versions {
    pub fn gather(&mut self, sight: &Sight, layout: &Layout) {
        for record in &sight.footer.records {
            let location = Location::new(sight.region, record.offset, layout);
            let version = Version::of(record, location, Timestamp(0));
            match record.kind {
                Kind::Slice => self.slices.push(version),
                Kind::Object | Kind::Head => self.objects.push(version),
                Kind::Tombstones | Kind::PurgeRecords => {}
            }
        }
        let tombstones = sight.footer.tombstones.iter();
        self.objects.extend(tombstones.map(Version::tombstone));
    }

    /// Applies tombstones and the purge floor.
    pub fn settle(mut self, floor: crate::format::Sequence) -> Live {
        settle(&mut self.objects, |_| {});
        settle(&mut self.slices, |_| {});
        let live = |version: &&Version| version.sequence >= floor;
        let locations = self.objects.iter().filter(live).filter_map(Version::location);
        let mut objects: Vec<Location> = locations.collect();
        objects.sort_unstable();
        let slices = self.slices.iter().filter(live).map(|version| version.key_hash);
        let mut slices: Vec<u64> = slices.collect();
        slices.sort_unstable();
        Live { objects, slices }
    }
}

impl Live {
    /// Number of slices of an object that are not on the device.
    pub fn missing(&self, head: &ObjectHead, hasher: &KeyHasher) -> u32 {
        let is_missing = |number: &u32| {
            let key = SliceKey::of_slice(head.object, *number).encode();
            self.slices.binary_search(&hasher.slice(&key)).is_err()
        };
        u32::try_from((0..head.slice_count()).filter(is_missing).count()).unwrap_or(u32::MAX)
    }
}

impl Inspection {
    /// Passes the newest version of each key to `each`, in device order, until that breaks; with a tag only
    /// those that have it. Omits removed and purged keys; expired ones are passed and flagged. Sets `clock`
    /// to the time of the device, as a start does.
    ///
    /// # Errors
    /// The device failed while an entry was read.
    pub async fn list(
        &self,
        clock: &Clock,
        tag: Option<&[u8]>,
        mut each: impl FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<ListingSummary, DeviceError> {
        let mut summary = ListingSummary::default();
        let down = clock.resume(self.superblocks.best.time);
        let tag = tag.map(|tag| self.hasher.tag(tag));
        let purges = self.purges_seen();
        let (versions, seeds) = self.gather(clock, &purges, &mut summary).await;
        let unknown_age = self.unknown_age(clock, down);
        let live = versions.settle(self.superblocks.best.purge_floor);
        let now = clock.now();
        let mut window = Window::new(self.reader());
        for location in &live.objects {
            let (region, offset) = location.split(self.layout());
            let Some(seed) = seeds.get(region as usize).copied() else { continue };
            window.move_to(region);
            let Some((header, slot)) = window.entry(offset, seed).await? else {
                summary.damaged += 1;
                continue;
            };
            let verdict = purges.verdict(&header, &slot);
            let records = slot.get(header.records_range()).unwrap_or_default();
            let is_wanted = tag.is_none_or(|tag| Records::tags_in(records).any(|own| own == tag));
            if verdict == Verdict::Dead || !is_wanted {
                continue;
            }
            let Some(listed) = self.listed(&header, &slot, (&live, now, unknown_age)) else {
                summary.damaged += 1;
                continue;
            };
            let listed = match (listed.state, verdict) {
                (ListedState::Fresh, Verdict::Stale) => {
                    let fresh_until = listed.fresh_until.min(now);
                    Listed { state: ListedState::Stale, fresh_until, ..listed }
                }
                _ => listed,
            };
            summary.listed += 1;
            let offset = self.layout().region_offset(region) + offset;
            if each(Listed { region, offset, ..listed }).is_break() {
                break;
            }
        }
        Ok(summary)
    }

    /// All versions, and the seed of each region's present generation.
    async fn gather(
        &self,
        clock: &Clock,
        purges: &PurgesSeen,
        summary: &mut ListingSummary,
    ) -> (Versions, Vec<Seed>) {
        let mut versions = Versions::default();
        let mut seeds = Vec::with_capacity(self.layout().region_count as usize);
        for region in 0..self.layout().region_count {
            match self.look(region).await {
                Ok(sight) => {
                    clock.anchor(sight.stamp);
                    versions.gather(&sight, self.layout());
                    purges.gather(&sight);
                    seeds.push(sight.seed);
                }
                Err(error) => {
                    summary.unreadable_regions += 1;
                    seeds.push(Seed(0));
                    tracing::warn!(region, error = &error as &dyn std::error::Error, "unreadable");
                }
            }
        }
        (versions, seeds)
    }

    fn listed(
        &self,
        header: &EntryHeader,
        slot: &[u8],
        (live, now, unknown_age): (&Live, Timestamp, u32),
    ) -> Option<Listed> {
        let (mut len, mut slices, mut missing) = (u64::from(header.body_len), 0, 0);
        if header.kind == Kind::Head {
            header.check_body(slot).ok()?;
            let head = ObjectHead::decode(slot.get(header.body_range())?).ok()?;
            (len, slices) = (head.len, head.slice_count());
            missing = live.missing(&head, &self.hasher);
        }
        let state = if header.keep_until <= now {
            ListedState::Expired
        } else if missing > 0 && is_partial(header, slot) {
            ListedState::Partial
        } else if missing > 0 {
            ListedState::Incomplete
        } else if header.fresh_until <= now || header.sequence.epoch() <= unknown_age {
            ListedState::Stale
        } else {
            ListedState::Fresh
        };
        Some(Listed {
            key: slot.get(header.key_range())?.to_vec(),
            len,
            slices,
            stored_at: header.stored_at,
            fresh_until: header.fresh_until,
            keep_until: header.keep_until,
            state,
            region: 0,
            offset: 0,
        })
    }
}

/// Whether a slot is the head of an object that comes part by part.
pub(super) fn is_partial(header: &EntryHeader, slot: &[u8]) -> bool {
    let records = slot.get(header.records_range()).unwrap_or_default();
    header.kind == Kind::Head && Records::is_partial_in(records)
}

/// A window of a region's bytes in memory; moves on when later bytes are asked for.
struct Window<'a> {
    reader: RegionReader<'a>,
    region: u32,
    range: Range<u64>,
    bytes: AlignedBuf,
}

impl<'a> Window<'a> {
    fn new(reader: RegionReader<'a>) -> Window<'a> {
        Window { reader, region: 0, range: 0..0, bytes: AlignedBuf::zeroed(0, 1) }
    }

    fn move_to(&mut self, region: u32) {
        if self.region != region {
            self.region = region;
            self.range = 0..0;
        }
    }

    /// Header of the slot at `offset` and its bytes up to the body, or including it for a head; `None`
    /// if it is damaged.
    async fn entry(
        &mut self,
        offset: u64,
        seed: Seed,
    ) -> Result<Option<(EntryHeader, Vec<u8>)>, DeviceError> {
        let bytes = self.read(offset, ENTRY_HEADER_LEN).await?;
        let Ok(header) = EntryHeader::decode(bytes, seed, offset) else { return Ok(None) };
        let len = match header.kind {
            Kind::Head if header.body_len as usize == ObjectHead::LEN => header.slot_len(),
            Kind::Object => header.table_range().end,
            _ => return Ok(None),
        };
        let slot = self.read(offset, len).await?;
        if header.check_meta(slot).is_err() {
            return Ok(None);
        }
        Ok(Some((header, slot.to_vec())))
    }

    /// Up to `len` bytes from `offset`; fewer at the end of the region.
    async fn read(&mut self, offset: u64, len: usize) -> Result<&[u8], DeviceError> {
        let size = self.reader.layout.region_size;
        let end = (offset + len as u64).min(size);
        if offset < self.range.start || end > self.range.end {
            let alignment = u64::from(self.reader.layout.alignment);
            let start = offset / alignment * alignment;
            let wanted = crate::format::round_up((start + WINDOW).max(end), alignment);
            let range = start..wanted.min(size);
            self.bytes = self.reader.read(self.region, range.clone()).await?;
            self.range = range;
        }
        let within = |at: u64| usize::try_from(at - self.range.start).unwrap_or(usize::MAX);
        Ok(&self.bytes[within(offset)..within(end)])
    }
}
