//! What a region holds, from its footer or, where a crash left none, from its slots.

use super::Store;
use crate::device::DeviceError;
use crate::format::{
    ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, GRANULE, Kill, Kind, Seed, Sequence,
    Trailer, round_up,
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
    pub stamp: crate::clock::Timestamp,
}

impl Store {
    /// Reads the footer of a region, if there is a sound one of any life.
    pub(super) async fn read_footer(
        &self,
        region: u32,
    ) -> Result<Option<(Trailer, Footer)>, DeviceError> {
        let layout = &self.shared.layout;
        let end = layout.region_size;
        let guess = round_up(FOOTER_GUESS.min(end / 4), u64::from(layout.alignment));
        let tail = self.read_region(region, end - guess..end).await?;
        let seed_of = |generation| self.shared.regions.seed_of(region, generation);
        let Ok(trailer) = Trailer::decode(&tail, seed_of) else { return Ok(None) };
        let len = trailer.footer_len(layout.alignment);
        if len > end {
            return Ok(None);
        }
        let footer = if len <= guess {
            let start = usize::try_from(guess - len).unwrap_or(usize::MAX);
            Footer::decode(&tail[start..], &trailer)
        } else {
            Footer::decode(&self.read_region(region, end - len..end).await?, &trailer)
        };
        Ok(footer.ok().map(|footer| (trailer, footer)))
    }

    /// Learns what the life `generation` of a region holds.
    pub(super) async fn read_contents(
        &self,
        region: u32,
        generation: Sequence,
    ) -> Result<Contents, DeviceError> {
        if let Some((trailer, footer)) = self.read_footer(region).await?
            && trailer.generation == generation
        {
            return Ok(Contents { footer, sealed: true, stamp: trailer.stamp });
        }
        let bytes = self.read_whole(region).await?;
        let seed = self.shared.regions.seed_of(region, generation);
        let start = u64::from(self.shared.layout.alignment);
        let (footer, stamp) = scan(&bytes, start, seed, |kind, key| self.hash_of(kind, key));
        Ok(Contents { footer, sealed: false, stamp })
    }

    async fn read_whole(&self, region: u32) -> Result<Vec<u8>, DeviceError> {
        let size = self.shared.layout.region_size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let mut at = 0;
        while at < size {
            let end = (at + SCAN_STEP).min(size);
            bytes.extend_from_slice(&self.read_region(region, at..end).await?);
            at = end;
        }
        Ok(bytes)
    }
}

/// Finds every sound slot of one life of a region. Padding and lost blocks are stepped over a
/// granule at a time: a slot cannot pass for another place or life, so whatever passes is one.
fn scan(
    bytes: &[u8],
    start: u64,
    seed: Seed,
    hash_of: impl Fn(Kind, &[u8]) -> u64,
) -> (Footer, crate::clock::Timestamp) {
    let mut footer = Footer::default();
    let mut stamp = crate::clock::Timestamp::default();
    let mut at = usize::try_from(start).unwrap_or(usize::MAX);
    while at + ENTRY_HEADER_LEN <= bytes.len() {
        let offset = at as u64;
        let slot = &bytes[at..];
        let sound = EntryHeader::decode(slot, seed, offset)
            .ok()
            .filter(|header| header.slot_len() <= slot.len() && header.check_meta(slot).is_ok());
        let Some(header) = sound else {
            at += usize::try_from(GRANULE).unwrap_or(1);
            continue;
        };
        let slot_len = round_up(header.slot_len() as u64, GRANULE);
        stamp = stamp.max(header.stored_at);
        if header.kind == Kind::Kills {
            footer.kills.extend(Kill::decode_all(&slot[header.metadata_range()]));
        } else {
            footer.records.push(FooterRecord {
                key_hash: hash_of(header.kind, &slot[header.key_range()]),
                sequence: header.sequence,
                offset,
                slot_len,
                kind: header.kind,
                supersedes: header.supersedes,
                keep_until: header.keep_until,
            });
        }
        at += usize::try_from(slot_len).unwrap_or(usize::MAX);
    }
    (footer, stamp)
}
