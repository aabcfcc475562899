//! What a region holds: read from its footer, or from its slots if a crash left no footer. Reads only;
//! used by the store and by offline inspection.

use crate::clock::Timestamp;
use crate::device::{AlignedBuf, Device, DeviceError};
use crate::format::{
    Damage, ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, GRANULE, Kind, Layout, Seed,
    Sequence, TRAILER_LEN, Tombstone, Trailer, Uuid, round_up,
};
use crate::store::index::index_entry::SLOT_LEN_MAX;
use crate::store::shared::Store;

/// Bytes read at the end of a region: enough for most footers.
const FOOTER_GUESS: u64 = 64 << 10;
/// Bytes of one read while slots are scanned.
const SCAN_STEP: u64 = 1 << 20;
/// Bytes of a region in memory while its slots are scanned: several times the longest slot.
const SCAN_WINDOW: u64 = 8 << 20;

/// Attempts to read a single block before it counts as lost.
const BLOCK_ATTEMPTS: u32 = 3;
/// Lost blocks after which the read of a region that can wait is given up: each may take a failing disk
/// seconds, and others wait.
const LOST_BLOCKS_MAX: u64 = 2;

/// How hard to try to read a region with unreadable blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Read every block: what is not found now is lost.
    All,
    /// It can wait: give up after a few lost blocks.
    Little,
    /// Give up at the first lost block: a part is worth nothing.
    Whole,
}

impl Effort {
    fn lost_blocks_max(self) -> u64 {
        match self {
            Effort::All => u64::MAX,
            Effort::Little => LOST_BLOCKS_MAX,
            Effort::Whole => 0,
        }
    }
}

/// What a region holds, and whether a footer said so.
#[derive(Default)]
pub(crate) struct Contents {
    pub footer: Footer,
    /// True if a sound footer said so, false if the slots were scanned.
    pub sealed: bool,
    /// Newest stamp seen.
    pub stamp: Timestamp,
    /// Why some blocks that may hold slots could not be read, if any.
    pub hole: Option<DeviceError>,
}

/// What is at the end of a region.
pub(crate) enum FoundFooter {
    /// A sound footer, of any generation.
    Sound(Trailer, Footer),
    /// A sound trailer, but its records are damaged.
    BadRecords(Trailer, Damage),
    /// Bytes that are no trailer of this region.
    None(Damage, [u8; TRAILER_LEN]),
}

/// The end of a region.
pub(crate) struct Tail {
    /// The trailer in the last bytes.
    pub trailer: Result<Trailer, Damage>,
    bytes: AlignedBuf,
}

/// The bytes of a footer whose records are not verified yet.
pub(crate) struct RawFooter {
    bytes: AlignedBuf,
    start: usize,
}

impl RawFooter {
    /// The whole footer.
    pub fn block(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Reads regions of a device, whether or not a store runs on it.
#[derive(Clone, Copy)]
pub(crate) struct RegionReader<'a> {
    pub device: &'a Device,
    pub layout: &'a Layout,
    pub uuid: Uuid,
    /// Lost blocks after which a scan is given up.
    pub lost_blocks_max: u64,
}

impl RegionReader<'_> {
    /// Reads aligned bytes of a region.
    pub async fn read(
        &self,
        region: u32,
        range: std::ops::Range<u64>,
    ) -> Result<AlignedBuf, DeviceError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let offset = self.layout.region_offset(region) + range.start;
        self.device.read(offset, self.device.geometry().read_buffer(len)).await
    }

    /// Reads the footer at the end of a region.
    pub async fn read_footer(&self, region: u32) -> Result<FoundFooter, DeviceError> {
        let tail = self.read_tail(region).await?;
        let trailer = match tail.trailer {
            Ok(trailer) => trailer,
            Err(damage) => {
                let mut bytes = [0; TRAILER_LEN];
                bytes.copy_from_slice(&tail.bytes[tail.bytes.len() - TRAILER_LEN..]);
                return Ok(FoundFooter::None(damage, bytes));
            }
        };
        let footer = match self.read_records(region, tail, &trailer).await? {
            Ok(raw) => Footer::decode(raw.block(), &trailer),
            Err(damage) => Err(damage),
        };
        let checked = |footer: Footer| {
            let possible = footer.records.iter().all(|record| is_possible(self.layout, record));
            if possible { Ok(footer) } else { Err(Damage::Field("record")) }
        };
        Ok(match footer.and_then(checked) {
            Ok(footer) => FoundFooter::Sound(trailer, footer),
            Err(damage) => FoundFooter::BadRecords(trailer, damage),
        })
    }

    /// The same, with retries after errors.
    async fn read_footer_at_last(&self, region: u32) -> Result<FoundFooter, DeviceError> {
        let mut attempt = 1;
        loop {
            match self.read_footer(region).await {
                Err(_) if attempt < BLOCK_ATTEMPTS => attempt += 1,
                found => return found,
            }
        }
    }

    /// Reads the last bytes of a region: most footers fit in them.
    pub async fn read_tail(&self, region: u32) -> Result<Tail, DeviceError> {
        let end = self.layout.region_size;
        let guess = round_up(FOOTER_GUESS.min(end / 4), u64::from(self.layout.alignment));
        let bytes = self.read(region, end - guess..end).await?;
        let seed_of = |generation| Seed::new(self.uuid, region, generation);
        Ok(Tail { trailer: Trailer::decode(&bytes, seed_of), bytes })
    }

    /// Reads the part of the footer that is not in the tail.
    pub async fn read_records(
        &self,
        region: u32,
        tail: Tail,
        trailer: &Trailer,
    ) -> Result<Result<RawFooter, Damage>, DeviceError> {
        let end = self.layout.region_size;
        let len = trailer.footer_len(self.layout.alignment);
        if len > end {
            return Ok(Err(Damage::Field("footer length")));
        }
        let start = usize::try_from(len).ok().and_then(|len| tail.bytes.len().checked_sub(len));
        Ok(Ok(match start {
            Some(start) => RawFooter { bytes: tail.bytes, start },
            None => RawFooter { bytes: self.read(region, end - len..end).await?, start: 0 },
        }))
    }

    /// Scans the slots of this `generation` of a region.
    pub async fn scan(
        &self,
        region: u32,
        generation: Sequence,
        hash_of: impl Fn(Kind, &[u8]) -> u64,
    ) -> Result<Contents, DeviceError> {
        let alignment = u64::from(self.layout.alignment);
        // The last block is reserved for the footer, written or not: no slot reaches into it.
        let size = self.layout.region_size - alignment;
        let seed = Seed::new(self.uuid, region, generation);
        let mut contents = Contents::default();
        let (mut at, mut blank) = (alignment, true);
        let (mut bytes, mut lost) = (Vec::new(), Lost::default());
        while at < size {
            let start = at / alignment * alignment;
            let end = (start + SCAN_WINDOW).min(size);
            bytes.clear();
            self.read_readable(region, start..end, &mut bytes, &mut lost).await;
            if let Some(error) = lost.beyond(self.lost_blocks_max) {
                return Err(error);
            }
            blank = blank && bytes.iter().all(|byte| *byte == 0);
            // A slot that may reach beyond this window is left to the next one.
            let until = if end == size { size } else { end - SLOT_LEN_MAX };
            let mut walk = SlotWalk { bytes: &bytes, start, at: at - start, seed };
            while walk.offset() < until {
                let Some(found) = walk.next() else {
                    return finished(contents, blank, lost.last);
                };
                contents.take(found, &bytes, start, &hash_of);
            }
            at = walk.offset();
        }
        finished(contents, blank, lost.last)
    }

    /// Reads all of a region. Unreadable blocks become zeros; fails if all are.
    pub async fn read_whole(&self, region: u32) -> Result<Vec<u8>, DeviceError> {
        let size = self.layout.region_size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let mut lost = Lost::default();
        self.read_readable(region, 0..size, &mut bytes, &mut lost).await;
        match lost.last {
            Some(error) if bytes.iter().all(|byte| *byte == 0) => Err(error),
            _ => Ok(bytes),
        }
    }

    /// Appends a range to `bytes`, with zeros for unreadable blocks.
    async fn read_readable(
        &self,
        region: u32,
        range: std::ops::Range<u64>,
        bytes: &mut Vec<u8>,
        lost: &mut Lost,
    ) {
        let mut at = range.start;
        while at < range.end && lost.blocks <= self.lost_blocks_max {
            let end = (at + SCAN_STEP).min(range.end);
            match self.read(region, at..end).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(_) => self.read_blocks(region, at..end, bytes, lost).await,
            }
            at = end;
        }
    }

    async fn read_blocks(
        &self,
        region: u32,
        range: std::ops::Range<u64>,
        bytes: &mut Vec<u8>,
        lost: &mut Lost,
    ) {
        let block = u64::from(self.layout.alignment);
        for at in range.step_by(self.layout.alignment as usize) {
            match self.read_block(region, at..at + block).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(error) => {
                    bytes.resize(bytes.len() + self.layout.alignment as usize, 0);
                    *lost = Lost { blocks: lost.blocks + 1, last: Some(error) };
                    if lost.blocks > self.lost_blocks_max {
                        return;
                    }
                }
            }
        }
    }

    /// Retries after errors: a lost block may have the only tombstone of an older version.
    async fn read_block(
        &self,
        region: u32,
        block: std::ops::Range<u64>,
    ) -> Result<AlignedBuf, DeviceError> {
        let mut attempt = 1;
        loop {
            match self.read(region, block.clone()).await {
                Err(_) if attempt < BLOCK_ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }
}

impl Store {
    pub(in crate::store) fn reader(&self) -> RegionReader<'_> {
        let shared = &*self.shared;
        RegionReader {
            device: &shared.device,
            layout: &shared.layout,
            uuid: shared.uuid,
            lost_blocks_max: u64::MAX,
        }
    }

    /// Reads the footer of a region, if there is a sound one, of any generation.
    pub(in crate::store) async fn read_footer(
        &self,
        region: u32,
    ) -> Result<Option<(Trailer, Footer)>, DeviceError> {
        Ok(match self.reader().read_footer(region).await? {
            FoundFooter::Sound(trailer, footer) => Some((trailer, footer)),
            FoundFooter::BadRecords(..) | FoundFooter::None(..) => None,
        })
    }

    /// Reads what this `generation` of a region holds.
    pub(in crate::store) async fn read_contents(
        &self,
        region: u32,
        generation: Sequence,
        effort: Effort,
    ) -> Result<Contents, DeviceError> {
        let reader = RegionReader { lost_blocks_max: effort.lost_blocks_max(), ..self.reader() };
        match reader.read_footer_at_last(region).await {
            Ok(FoundFooter::Sound(trailer, footer)) if trailer.generation == generation => {
                let stamp = trailer.stamp;
                return Ok(Contents { footer, sealed: true, stamp, hole: None });
            }
            // An unreadable footer is no loss: the slots say the same.
            Err(error) if effort != Effort::All => {
                // If the first block fails too, it is more than one bad spot.
                let block = u64::from(self.shared.layout.alignment);
                reader.read_block(region, 0..block).await.map_err(|_| error)?;
            }
            _ => {}
        }
        // One at a time: a region has up to 1 GiB.
        let _turn = self.shared.reading.scans.acquire().await;
        reader.scan(region, generation, |kind, key| self.hash_of(kind, key)).await
    }
}

/// Blocks that could not be read.
#[derive(Default)]
struct Lost {
    blocks: u64,
    last: Option<DeviceError>,
}

impl Lost {
    /// The last error, if more than `limit` blocks were lost.
    fn beyond(&mut self, limit: u64) -> Option<DeviceError> {
        if self.blocks > limit { self.last.take() } else { None }
    }
}

impl Contents {
    /// Takes a slot found at an offset of the region; `bytes` begin at `start`.
    fn take(
        &mut self,
        (offset, found): (u64, Result<EntryHeader, Damage>),
        bytes: &[u8],
        start: u64,
        hash_of: impl Fn(Kind, &[u8]) -> u64,
    ) {
        let Ok(header) = found else { return };
        let slot = &bytes[usize::try_from(offset - start).unwrap_or(usize::MAX)..];
        // The write of this body was cut off: the previous version still counts.
        if header.check_body(slot).is_err() {
            return;
        }
        self.stamp = self.stamp.max(header.stored_at);
        if header.kind == Kind::Tombstones {
            self.footer.tombstones.extend(Tombstone::decode_all(&slot[header.metadata_range()]));
        } else {
            self.footer.records.push(FooterRecord {
                key_hash: hash_of(header.kind, &slot[header.key_range()]),
                sequence: header.sequence,
                offset,
                slot_len: round_up(header.slot_len() as u64, GRANULE),
                kind: header.kind,
                supersedes: header.supersedes,
                keep_until: header.keep_until,
            });
        }
    }
}

/// A region that reads as nothing but lost blocks is not known to be empty.
fn finished(
    mut contents: Contents,
    blank: bool,
    last_error: Option<DeviceError>,
) -> Result<Contents, DeviceError> {
    match last_error {
        Some(error) if blank => Err(error),
        hole => {
            contents.hole = hole;
            Ok(contents)
        }
    }
}

/// Whether a slot can be where a record says.
pub(in crate::store) fn is_possible(layout: &Layout, record: &FooterRecord) -> bool {
    record.offset >= u64::from(layout.alignment)
        && (ENTRY_HEADER_LEN as u64..=SLOT_LEN_MAX).contains(&record.slot_len)
        && record.offset + record.slot_len <= layout.region_size
}

/// Walks the bytes of one generation of a region from slot to slot. Steps over padding and lost blocks
/// a granule at a time, and gives the damage at each step. A sound slot is real: its checksum fits no
/// other place or generation.
pub(crate) struct SlotWalk<'a> {
    bytes: &'a [u8],
    /// Region offset of `bytes`.
    start: u64,
    /// Offset of the next step in `bytes`.
    at: u64,
    seed: Seed,
}

impl<'a> SlotWalk<'a> {
    /// Walks the first `bytes` of a region, from offset `at` on.
    pub fn new(bytes: &'a [u8], at: u64, seed: Seed) -> SlotWalk<'a> {
        SlotWalk { bytes, start: 0, at, seed }
    }

    /// Region offset of the next step.
    fn offset(&self) -> u64 {
        self.start.saturating_add(self.at)
    }
}

impl Iterator for SlotWalk<'_> {
    type Item = (u64, Result<EntryHeader, Damage>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let slot = self.bytes.get(at..).filter(|slot| slot.len() >= ENTRY_HEADER_LEN)?;
        let offset = self.offset();
        let found = sound_slot(slot, self.seed, offset);
        let step = match &found {
            Ok(header) => round_up(header.slot_len() as u64, GRANULE),
            Err(_) => GRANULE,
        };
        self.at = self.at.saturating_add(step);
        Some((offset, found))
    }
}

/// The header of the slot at the start of `bytes`, if all but the body is sound.
pub(crate) fn sound_slot(bytes: &[u8], seed: Seed, offset: u64) -> Result<EntryHeader, Damage> {
    let header = EntryHeader::decode(bytes, seed, offset)?;
    if header.slot_len() > bytes.len() {
        return Err(Damage::Short);
    }
    header.check_meta(bytes)?;
    Ok(header)
}
