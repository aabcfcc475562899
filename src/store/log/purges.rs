//! The log of purges: a second copy of the tombstone or record of each purge, in regions that hold nothing
//! else, so that losing one region undoes no purge. Owns the queue for the next group commit and the open
//! region; used under the append lock, does no I/O.
//!
//! Each group commit begins a block. What is queued has its room in the open region already: it cannot be
//! refused later.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::device::{AlignedBuf, WriteSlice};
use crate::format::{
    ENTRY_HEADER_LEN, Footer, FooterCounts, GRANULE, Layout, LogKind, PURGE_RECORD_LEN,
    PurgeRecord, Seed, Sequence, TOMBSTONE_LEN, Tombstone, round_up,
};
use crate::store::log::placement;
use crate::store::log::slot::{PURGE_RECORDS_PER_SLOT_MAX, Slot, TOMBSTONES_PER_SLOT_MAX};
use crate::store::log::write::SealedRegion;

/// The region that takes tombstones.
struct Open {
    region: u32,
    generation: Sequence,
    seed: Seed,
    /// Where the next block begins.
    cursor: u64,
    /// What was handed to the device.
    written: Footer,
    /// A write failed: the region takes no more.
    broken: bool,
}

/// The log of purges of one device.
pub struct PurgeLog {
    layout: Layout,
    /// Bytes of tombstones from which on a region takes no more.
    footer_max: u64,
    open: Option<Open>,
    /// Tombstones and purge records.
    queued: Footer,
}

/// Blocks for the device.
pub struct PurgeBlocks {
    /// Region to write to.
    pub region: u32,
    /// Byte offset in the region.
    pub offset: u64,
    /// The bytes.
    pub slice: WriteSlice,
}

impl PurgeLog {
    /// A log without a region: the first purge opens one. A region takes no more once its tombstones take
    /// `footer_max` bytes.
    pub fn new(layout: Layout, footer_max: u64) -> PurgeLog {
        PurgeLog { layout, footer_max, open: None, queued: Footer::default() }
    }

    /// Whether the open region has room for so many more tombstones and purge records besides those queued.
    pub fn has_room(&self, tombstones: usize, records: usize) -> bool {
        let open = self.open.as_ref().filter(|open| !open.broken);
        open.is_some_and(|open| self.fits(open, (tombstones, records)))
    }

    /// Memory of what the open region's footer will be made of, in bytes.
    pub fn footer_bytes(&self) -> u64 {
        let written = self.open.as_ref().map_or(0, |open| open.written.memory());
        written + self.queued.memory()
    }

    fn fits(&self, open: &Open, (tombstones, records): (usize, usize)) -> bool {
        let more = FooterCounts { records: 0, tombstones, purge_records: records };
        let queued = sum(self.queued.counts(), more);
        let total = sum(open.written.counts(), queued);
        if total.memory() > self.footer_max && total != more {
            return false;
        }
        let end = slots_of(open.cursor, queued, self.layout.granule)
            .last()
            .map_or(open.cursor, |(_, range)| range.end);
        let alignment = self.layout.alignment;
        round_up(end, u64::from(alignment)) + total.len(alignment) <= self.layout.region_size
    }

    /// Continues in another region, after its header block.
    pub fn begin(&mut self, region: u32, generation: Sequence, seed: Seed) {
        assert!(self.open.is_none() && !self.is_waiting(), "the last region was ended");
        let cursor = u64::from(self.layout.alignment);
        let written = Footer::default();
        self.open = Some(Open { region, generation, seed, cursor, written, broken: false });
    }

    /// The open region.
    pub fn region(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.region)
    }

    /// Queues tombstones and purge records for the next group commit.
    ///
    /// # Panics
    /// Panics if there is no room for them.
    pub fn queue(&mut self, tombstones: &[Tombstone], records: &[PurgeRecord]) {
        assert!(
            self.has_room(tombstones.len(), records.len()),
            "room for what is queued is made before"
        );
        self.queued.tombstones.extend_from_slice(tombstones);
        self.queued.purge_records.extend_from_slice(records);
    }

    /// Whether anything waits.
    pub fn is_waiting(&self) -> bool {
        self.queued != Footer::default()
    }

    /// Takes what is queued as blocks, in a buffer aligned to `memory_alignment`.
    pub fn take_blocks(&mut self, memory_alignment: usize, now: Timestamp) -> Option<PurgeBlocks> {
        let is_waiting = self.is_waiting();
        let open = self.open.as_mut().filter(|_| is_waiting)?;
        let start = open.cursor;
        let ranges: Vec<_> = slots_of(start, self.queued.counts(), self.layout.granule).collect();
        let end = ranges.last().map_or(start, |(_, range)| range.end);
        open.cursor = round_up(end, u64::from(self.layout.alignment));
        let mut buf = AlignedBuf::zeroed(index(open.cursor - start), memory_alignment);
        for (which, range) in ranges {
            let encoded;
            let (slot, last) = match which {
                Which::Tombstones(which) => {
                    let tombstones = &self.queued.tombstones[which];
                    encoded = Slot::encode_tombstones(tombstones);
                    let sequences = tombstones.iter().map(|tombstone| tombstone.sequence);
                    (Slot::of_tombstones(&encoded, now), sequences.max())
                }
                Which::PurgeRecords(which) => {
                    let records = &self.queued.purge_records[which];
                    encoded = Slot::encode_purge_records(records);
                    let sequences = records.iter().map(|record| record.sequence);
                    (Slot::of_purge_records(&encoded, now), sequences.max())
                }
            };
            let target = &mut buf[index(range.start - start)..index(range.end - start)];
            let header = slot.header(last.unwrap_or_default(), false);
            slot.write_into(target, &header, open.seed, range.start);
        }
        open.written.append(&std::mem::take(&mut self.queued));
        let slice = WriteSlice::whole(Arc::new(buf));
        Some(PurgeBlocks { region: open.region, offset: start, slice })
    }

    /// Ends the open region with a footer; nothing may be queued.
    pub fn end(&mut self, stamp: Timestamp) -> Option<SealedRegion> {
        assert!(!self.is_waiting(), "what waits is taken first");
        let Open { region, generation, seed, written: footer, .. } = self.open.take()?;
        let log = LogKind::Purges;
        Some(SealedRegion { region, generation, log, seed, footer, stamp })
    }

    /// A write or flush failed: the open region takes no more.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.open {
            open.broken = true;
        }
    }
}

/// What a slot holds, of what is queued.
enum Which {
    Tombstones(Range<usize>),
    PurgeRecords(Range<usize>),
}

fn sum(a: FooterCounts, b: FooterCounts) -> FooterCounts {
    FooterCounts {
        records: a.records + b.records,
        tombstones: a.tombstones + b.tombstones,
        purge_records: a.purge_records + b.purge_records,
    }
}

/// The slots of so many tombstones and purge records from `cursor` on: what each holds, and where in the
/// region.
fn slots_of(
    cursor: u64,
    counts: FooterCounts,
    granule: u32,
) -> impl Iterator<Item = (Which, Range<u64>)> {
    let (tombstones, records) = (counts.tombstones, counts.purge_records);
    let of_tombstones = pieces(tombstones, TOMBSTONES_PER_SLOT_MAX)
        .map(|range| (range.len() * TOMBSTONE_LEN, Which::Tombstones(range)));
    let of_records = pieces(records, PURGE_RECORDS_PER_SLOT_MAX)
        .map(|range| (range.len() * PURGE_RECORD_LEN, Which::PurgeRecords(range)));
    let mut at = cursor;
    of_tombstones.chain(of_records).map(move |(bytes, which)| {
        let len = round_up((ENTRY_HEADER_LEN + bytes) as u64, GRANULE);
        let start = placement::place(at, len, granule);
        at = start + len;
        (which, start..at)
    })
}

/// `count` divided into ranges of at most `len_max`.
fn pieces(count: usize, len_max: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(len_max).map(move |first| first..count.min(first + len_max))
}

fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::EntryHeader;

    const LAYOUT: Layout = Layout {
        device_size: 5 << 20,
        alignment: 4096,
        region_size: 256 << 10,
        region_count: 8,
        slice_size: 64 << 10,
        granule: 16,
    };
    const SEED: Seed = Seed(5);

    fn tombstones(from: u64, count: u64) -> Vec<Tombstone> {
        (from..from + count).map(|n| Tombstone { key_hash: n, sequence: Sequence(n) }).collect()
    }

    fn begun() -> PurgeLog {
        let mut log = PurgeLog::new(LAYOUT, u64::MAX);
        assert!(!log.has_room(1, 0));
        log.begin(3, Sequence(1), SEED);
        log
    }

    #[test]
    fn what_is_queued_is_found_in_the_blocks_of_its_group_commit() {
        let mut log = begun();
        log.queue(&tombstones(10, 1200), &[]);
        log.queue(&tombstones(5000, 1), &[]);
        let blocks = log.take_blocks(4096, Timestamp(9)).unwrap();
        assert_eq!((blocks.region, blocks.offset), (3, 4096));
        assert!(!log.is_waiting() && log.take_blocks(4096, Timestamp(9)).is_none());
        let bytes = blocks.slice.bytes();
        assert_eq!(bytes.len() % 4096, 0);
        let (mut found, mut at) = (Vec::new(), 0);
        while at + ENTRY_HEADER_LEN <= bytes.len() {
            let offset = 4096 + at as u64;
            let Ok(header) = EntryHeader::decode(&bytes[at..], SEED, offset) else {
                at += 16;
                continue;
            };
            found.extend(Tombstone::decode_all(&bytes[at..][header.metadata_range()]));
            at += header.slot_len();
        }
        let mut expected = tombstones(10, 1200);
        expected.extend(tombstones(5000, 1));
        assert!(found == expected);
        log.queue(&tombstones(6000, 1), &[]);
        let next = log.take_blocks(4096, Timestamp(9)).unwrap();
        assert_eq!(next.offset, 4096 + bytes.len() as u64);
        expected.extend(tombstones(6000, 1));
        assert!(log.end(Timestamp(9)).unwrap().footer.tombstones == expected);
        assert!(!log.has_room(1, 0));
    }

    #[test]
    fn a_region_takes_as_many_as_its_footer_has_room_for() {
        for each in [1, 7, 600] {
            let mut log = begun();
            let (mut total, mut left) = (0, LAYOUT.region_size);
            while log.has_room(each, 0) {
                log.queue(&tombstones(100, each as u64), &[]);
                let blocks = log.take_blocks(4096, Timestamp(9)).unwrap();
                total += each;
                let end = blocks.offset + blocks.slice.bytes().len() as u64;
                let counts = FooterCounts { tombstones: total, ..FooterCounts::default() };
                let footer = counts.len(LAYOUT.alignment);
                assert!(end + footer <= LAYOUT.region_size, "{total} by {each}");
                left = LAYOUT.region_size - end - footer;
            }
            // Less than one more commit: its tombstones in slots and in the footer, each rounded up to
            // blocks.
            let next = 2 * each * TOMBSTONE_LEN + 3 * LAYOUT.alignment as usize;
            assert!(left < next as u64, "{total} by {each}, {left} bytes left");
        }
    }

    #[test]
    fn a_region_takes_no_more_once_its_tombstones_fill_their_part_of_memory() {
        let mut log = PurgeLog::new(LAYOUT, 100 * TOMBSTONE_LEN as u64);
        log.begin(3, Sequence(1), SEED);
        log.queue(&tombstones(10, 60), &[]);
        assert!(log.take_blocks(4096, Timestamp(9)).is_some());
        log.queue(&tombstones(100, 39), &[]);
        assert_eq!(log.footer_bytes(), 99 * TOMBSTONE_LEN as u64);
        assert!(log.has_room(1, 0));
        log.queue(&tombstones(200, 1), &[]);
        assert!(!log.has_room(1, 0));
        assert!(log.take_blocks(4096, Timestamp(9)).is_some());
        assert!(!log.has_room(1, 0));
        assert_eq!(log.end(Timestamp(9)).unwrap().footer.tombstones.len(), 100);
        log.begin(4, Sequence(2), SEED);
        assert!(log.has_room(1, 0) && log.footer_bytes() == 0);
    }

    #[test]
    fn a_region_whose_write_failed_takes_no_more() {
        let mut log = begun();
        log.fail();
        assert!(!log.has_room(1, 0));
        assert_eq!(log.end(Timestamp(9)).map(|sealed| sealed.region), Some(3));
    }
}
