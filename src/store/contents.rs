//! What a region holds, from its footer or, where a crash left none, from its slots. Reads only:
//! the store and the offline inspection both learn it here.

use super::Store;
use super::word::SLOT_LEN_MAX;
use crate::clock::Timestamp;
use crate::device::{AlignedBuf, Device, DeviceError};
use crate::format::{
    Damage, ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, GRANULE, Kill, Kind, Layout, Seed,
    Sequence, TRAILER_LEN, Trailer, Uuid, round_up,
};

/// Bytes read at the end of a region in the hope that they hold the whole footer.
const FOOTER_GUESS: u64 = 64 << 10;
/// Bytes of a region read at a time when its slots are scanned.
const SCAN_STEP: u64 = 1 << 20;

/// What a region holds and how it was learnt.
pub(super) struct Contents {
    pub footer: Footer,
    /// False: there was no sound footer and the slots were scanned.
    pub sealed: bool,
    /// Newest stamp seen.
    pub stamp: Timestamp,
}

/// What is at the end of a region.
pub(super) enum FoundFooter {
    /// A sound footer of any life.
    Sound(Trailer, Footer),
    /// A sound trailer; what it says of the records before it does not hold.
    BadRecords(Trailer, Damage),
    /// Bytes that are no trailer of this region.
    None(Damage, [u8; TRAILER_LEN]),
}

/// Reads regions of a device, whether a store runs on it or not.
#[derive(Clone, Copy)]
pub(super) struct RegionReader<'a> {
    pub device: &'a Device,
    pub layout: &'a Layout,
    pub uuid: Uuid,
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

    /// Reads what is at the end of a region.
    pub async fn read_footer(&self, region: u32) -> Result<FoundFooter, DeviceError> {
        let end = self.layout.region_size;
        let guess = round_up(FOOTER_GUESS.min(end / 4), u64::from(self.layout.alignment));
        let tail = self.read(region, end - guess..end).await?;
        let seed_of = |generation| Seed::new(self.uuid, region, generation);
        let trailer = match Trailer::decode(&tail, seed_of) {
            Ok(trailer) => trailer,
            Err(damage) => {
                let mut bytes = [0; TRAILER_LEN];
                bytes.copy_from_slice(&tail[tail.len() - TRAILER_LEN..]);
                return Ok(FoundFooter::None(damage, bytes));
            }
        };
        let len = trailer.footer_len(self.layout.alignment);
        let checked = |footer: Footer| match footer.records.iter().all(|r| self.is_possible(r)) {
            true => Ok(footer),
            false => Err(Damage::Field("record")),
        };
        let footer = if len > end {
            Err(Damage::Field("footer length"))
        } else if len <= guess {
            let start = usize::try_from(guess - len).unwrap_or(usize::MAX);
            Footer::decode(&tail[start..], &trailer)
        } else {
            Footer::decode(&self.read(region, end - len..end).await?, &trailer)
        };
        Ok(match footer.and_then(checked) {
            Ok(footer) => FoundFooter::Sound(trailer, footer),
            Err(damage) => FoundFooter::BadRecords(trailer, damage),
        })
    }

    /// Whether a record names a place that a slot can have.
    fn is_possible(&self, record: &FooterRecord) -> bool {
        record.offset >= u64::from(self.layout.alignment)
            && (ENTRY_HEADER_LEN as u64..=SLOT_LEN_MAX).contains(&record.slot_len)
            && record.offset + record.slot_len <= self.layout.region_size
    }

    /// Learns from its slots what the life `generation` of a region holds.
    pub async fn scan(
        &self,
        region: u32,
        generation: Sequence,
        hash_of: impl Fn(Kind, &[u8]) -> u64,
    ) -> Result<Contents, DeviceError> {
        let bytes = self.read_whole(region).await?;
        let seed = Seed::new(self.uuid, region, generation);
        let (footer, stamp) = scan(&bytes, u64::from(self.layout.alignment), seed, hash_of);
        Ok(Contents { footer, sealed: false, stamp })
    }

    /// Reads all bytes of a region; blocks that cannot be read are zeros, as long as any can.
    pub async fn read_whole(&self, region: u32) -> Result<Vec<u8>, DeviceError> {
        let size = self.layout.region_size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let mut last_error = None;
        while (bytes.len() as u64) < size {
            let at = bytes.len() as u64;
            let end = (at + SCAN_STEP).min(size);
            match self.read(region, at..end).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(error) => {
                    last_error = Some(error);
                    self.read_blocks(region, at..end, &mut bytes).await;
                }
            }
        }
        match last_error {
            Some(error) if bytes.iter().all(|byte| *byte == 0) => Err(error),
            _ => Ok(bytes),
        }
    }

    async fn read_blocks(&self, region: u32, range: std::ops::Range<u64>, bytes: &mut Vec<u8>) {
        let block = u64::from(self.layout.alignment);
        for at in range.step_by(self.layout.alignment as usize) {
            match self.read(region, at..at + block).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(_) => bytes.resize(bytes.len() + self.layout.alignment as usize, 0),
            }
        }
    }
}

impl Store {
    fn reader(&self) -> RegionReader<'_> {
        let shared = &*self.shared;
        RegionReader { device: &shared.device, layout: &shared.layout, uuid: shared.uuid }
    }

    /// Reads the footer of a region, if there is a sound one of any life.
    pub(super) async fn read_footer(
        &self,
        region: u32,
    ) -> Result<Option<(Trailer, Footer)>, DeviceError> {
        Ok(match self.reader().read_footer(region).await? {
            FoundFooter::Sound(trailer, footer) => Some((trailer, footer)),
            FoundFooter::BadRecords(..) | FoundFooter::None(..) => None,
        })
    }

    /// Learns what the life `generation` of a region holds.
    pub(super) async fn read_contents(
        &self,
        region: u32,
        generation: Sequence,
    ) -> Result<Contents, DeviceError> {
        // A footer that cannot be read is as good as none: the slots say the same.
        if let Ok(Some((trailer, footer))) = self.read_footer(region).await
            && trailer.generation == generation
        {
            return Ok(Contents { footer, sealed: true, stamp: trailer.stamp });
        }
        // One at a time: a region is up to 1 GiB.
        let _turn = self.shared.scans.acquire().await;
        self.reader().scan(region, generation, |kind, key| self.hash_of(kind, key)).await
    }
}

/// Finds every sound slot of one life of a region.
fn scan(
    bytes: &[u8],
    start: u64,
    seed: Seed,
    hash_of: impl Fn(Kind, &[u8]) -> u64,
) -> (Footer, Timestamp) {
    let mut footer = Footer::default();
    let mut stamp = Timestamp::default();
    for (offset, found) in SlotWalk::new(bytes, start, seed) {
        let Ok(header) = found else { continue };
        let slot = &bytes[usize::try_from(offset).unwrap_or(usize::MAX)..];
        // The write of a body that is not whole was cut off: the version before it still counts.
        if header.check_body(slot).is_err() {
            continue;
        }
        stamp = stamp.max(header.stored_at);
        if header.kind == Kind::Kills {
            footer.kills.extend(Kill::decode_all(&slot[header.metadata_range()]));
        } else {
            footer.records.push(FooterRecord {
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
    (footer, stamp)
}

/// Walks the bytes of one life of a region from slot to slot. Padding and lost blocks are stepped
/// over a granule at a time, and each such step is given with what is wrong there: a slot cannot
/// pass for another place or life, so whatever passes is one.
pub(super) struct SlotWalk<'a> {
    bytes: &'a [u8],
    at: usize,
    seed: Seed,
}

impl<'a> SlotWalk<'a> {
    pub fn new(bytes: &'a [u8], start: u64, seed: Seed) -> SlotWalk<'a> {
        SlotWalk { bytes, at: usize::try_from(start).unwrap_or(usize::MAX), seed }
    }
}

impl Iterator for SlotWalk<'_> {
    type Item = (u64, Result<EntryHeader, Damage>);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.bytes.get(self.at..).filter(|slot| slot.len() >= ENTRY_HEADER_LEN)?;
        let offset = self.at as u64;
        let found = sound_slot(slot, self.seed, offset);
        let step = match &found {
            Ok(header) => round_up(header.slot_len() as u64, GRANULE),
            Err(_) => GRANULE,
        };
        self.at = self.at.saturating_add(usize::try_from(step).unwrap_or(usize::MAX));
        Some((offset, found))
    }
}

/// The header of the slot that `bytes` begin with, if all but its body is sound.
pub(super) fn sound_slot(bytes: &[u8], seed: Seed, offset: u64) -> Result<EntryHeader, Damage> {
    let header = EntryHeader::decode(bytes, seed, offset)?;
    if header.slot_len() > bytes.len() {
        return Err(Damage::Short);
    }
    header.check_meta(bytes)?;
    Ok(header)
}
