//! Reads the bytes of regions: footers, blocks that are readable, slots. Used by the store and by offline
//! inspection; what a region holds is read piece by piece in `contents`.

use crate::device::{AlignedBuf, Device, DeviceError};
use crate::format::{
    Damage, ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, GRANULE, Layout, Seed,
    TRAILER_LEN, Trailer, Uuid, round_up,
};
use crate::store::index::index_entry::SLOT_LEN_MAX;
use crate::store::shared::Store;

/// Bytes read at the end of a region: enough for most footers.
const FOOTER_GUESS: u64 = 64 << 10;
/// Bytes of one read while slots are scanned.
const SCAN_STEP: u64 = 1 << 20;

/// Attempts to read a single block before it counts as lost.
pub(in crate::store) const BLOCK_ATTEMPTS: u32 = 3;
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
    pub(in crate::store) fn lost_blocks_max(self) -> u64 {
        match self {
            Effort::All => u64::MAX,
            Effort::Little => LOST_BLOCKS_MAX,
            Effort::Whole => 0,
        }
    }
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
        Ok(match self.read_rest(region, tail, &trailer).await? {
            Ok(footer) => FoundFooter::Sound(trailer, footer),
            Err(damage) => FoundFooter::BadRecords(trailer, damage),
        })
    }

    /// Reads the rest of the footer that a sound trailer belongs to, and decodes it.
    pub async fn read_rest(
        &self,
        region: u32,
        tail: Tail,
        trailer: &Trailer,
    ) -> Result<Result<Footer, Damage>, DeviceError> {
        let raw = self.read_records(region, tail, trailer).await?;
        let footer = raw.and_then(|raw| Footer::decode(raw.block(), trailer));
        let checked = |footer: Footer| {
            let possible = footer.records.iter().all(|record| is_possible(self.layout, record));
            if possible { Ok(footer) } else { Err(Damage::Field("record")) }
        };
        Ok(footer.and_then(checked))
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
    pub(in crate::store) async fn read_readable(
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
    pub(in crate::store) async fn read_block(
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
}

/// Blocks that could not be read.
#[derive(Default)]
pub(in crate::store) struct Lost {
    blocks: u64,
    pub last: Option<DeviceError>,
}

impl Lost {
    /// The last error, if more than `limit` blocks were lost.
    pub fn beyond(&mut self, limit: u64) -> Option<DeviceError> {
        if self.blocks > limit { self.last.take() } else { None }
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

    /// Walks a window of a region that begins at `start`, from region offset `at` on.
    pub(in crate::store) fn of_window(
        bytes: &'a [u8],
        start: u64,
        at: u64,
        seed: Seed,
    ) -> SlotWalk<'a> {
        SlotWalk { bytes, start, at: at - start, seed }
    }

    /// Steps over granules at which no slot can begin.
    pub(in crate::store) fn skip_blank(&mut self) {
        while let Ok(at) = usize::try_from(self.at)
            && let Some(rest) = self.bytes.get(at..)
            && !rest.is_empty()
            && !EntryHeader::may_begin(rest)
        {
            self.at += GRANULE;
        }
    }

    /// Region offset of the next step.
    pub(in crate::store) fn offset(&self) -> u64 {
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
