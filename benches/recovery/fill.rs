//! A device full of small entries, written region by region through the format alone, so that
//! millions take seconds. Owns the bytes; what reads them cannot tell them from a store's.

use std::sync::Arc;

use rawcached::clock::{TimePair, Timestamp};
use rawcached::device::{Device, DeviceError, WriteSlice};
use rawcached::format::{
    BODY_CHUNK, ENTRY_HEADER_LEN, EntryHeader, Features, Footer, FooterRecord, GRANULE, Kind,
    Layout, LayoutError, LogKind, RegionHeader, RegionUse, SECTOR, Secret, Seed, Sequence,
    Superblock, Uuid, round_up,
};
use rawcached::store::KeyHasher;

/// Bytes of a key.
pub const KEY_LEN: usize = 16;

/// Slots up to this many bytes do not straddle a page.
const SMALL_SLOT_MAX: u64 = 1024;
const PAGE: u64 = 4096;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Entries, each under a key of its own.
    pub entries: u64,
    /// Bytes of each body, at most 64 KiB.
    pub body_len: usize,
    /// Bytes of a region; `None` leaves the choice to the format.
    pub region_size: Option<u64>,
    /// Unit of transfers in bytes.
    pub alignment: u32,
    /// When the entries are stored.
    pub time: TimePair,
    /// When they end.
    pub keep_until: Timestamp,
}

/// Why a device could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It cannot be divided into regions.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It holds fewer entries.
    #[error("the device has room for {0} entries")]
    Full(u64),
    /// It failed.
    #[error("the device failed")]
    Device(#[from] DeviceError),
}

/// The key of entry `n`.
pub fn key_of(n: u64) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    for (at, digit) in key.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(n >> (60 - 4 * at) & 0xF) as usize];
    }
    key
}

/// The body of entry `n`.
pub fn body_of(n: u64, len: usize) -> Vec<u8> {
    let word = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    word.iter().copied().cycle().take(len).collect()
}

impl Fill {
    /// Bytes of a device on which the entries take about four fifths.
    pub fn device_size(&self) -> u64 {
        let page_share = if self.slot_len() <= SMALL_SLOT_MAX {
            PAGE / (PAGE / self.slot_len())
        } else {
            self.slot_len() + SECTOR
        };
        let entries = self.entries * (page_share + 24) * 5 / 4;
        round_up(entries + (64 << 20), 1 << 20)
    }

    fn slot_len(&self) -> u64 {
        round_up((ENTRY_HEADER_LEN + KEY_LEN + self.body_len) as u64, GRANULE)
    }

    /// Formats the device and writes the entries in sealed regions; the rest stays unused.
    ///
    /// # Errors
    /// See [`FillError`].
    pub async fn write(&self, device: &Device) -> Result<Superblock, FillError> {
        assert!(self.body_len <= BODY_CHUNK, "one checksum covers the body");
        let layout = Layout::plan(device.geometry().size, self.alignment, self.region_size)?;
        let superblock = Superblock {
            uuid: Uuid(*b"recovery at ease"),
            secret: Secret(*b"recovery secrets"),
            layout,
            features: Features::default(),
            epoch: 1,
            purge_floor: Sequence(0),
            soft_floor: Sequence(0),
            record_floor: Sequence(0),
            formatted_at: self.time.wall,
            time: self.time,
            unknown_age: 0,
        };
        let mut region = Writer::new(self, &superblock);
        let mut next = 0;
        for number in 0..layout.region_count {
            if next == self.entries {
                break;
            }
            let buf = device.geometry().zeroed_buffer(usize::try_from(layout.region_size).unwrap());
            let buf = region.fill(number, next..self.entries, buf);
            next += region.footer.records.len() as u64;
            let slices = vec![WriteSlice::whole(Arc::new(buf))];
            device.write(layout.region_offset(number), slices).await?;
        }
        if next < self.entries {
            return Err(FillError::Full(next));
        }
        for offset in layout.superblock_offsets() {
            let len = usize::try_from(superblock.block_len()).unwrap();
            let mut block = device.geometry().zeroed_buffer(len);
            block[..superblock.encode().len()].copy_from_slice(&superblock.encode());
            device.write(offset, vec![WriteSlice::whole(Arc::new(block))]).await?;
        }
        device.flush().await?;
        Ok(superblock)
    }
}

/// Writes one region after the other in memory.
struct Writer<'a> {
    fill: &'a Fill,
    superblock: &'a Superblock,
    hasher: KeyHasher,
    sequence: Sequence,
    footer: Footer,
}

impl<'a> Writer<'a> {
    fn new(fill: &'a Fill, superblock: &'a Superblock) -> Writer<'a> {
        Writer {
            fill,
            superblock,
            hasher: KeyHasher::new(superblock.secret),
            sequence: Sequence::first_of(superblock.epoch),
            footer: Footer::default(),
        }
    }

    fn draw(&mut self) -> Sequence {
        self.sequence = self.sequence.next();
        self.sequence
    }

    /// Puts as many of `entries` into the zeroed `buf` as one region takes.
    fn fill<B: std::ops::DerefMut<Target = [u8]>>(
        &mut self,
        region: u32,
        entries: std::ops::Range<u64>,
        mut buf: B,
    ) -> B {
        let uuid = self.superblock.uuid;
        let stamp = self.fill.time.cache;
        let generation = self.draw();
        let (region_use, log) = (RegionUse::Log, LogKind::Data);
        let header = RegionHeader { generation, region_use, stamp, touched: false, log };
        let encoded = header.encode(uuid, region);
        buf[..encoded.len()].copy_from_slice(&encoded);
        let seed = Seed::new(uuid, region, generation);
        self.footer = Footer::default();
        let alignment = self.superblock.layout.alignment;
        let slot_len = self.fill.slot_len();
        let mut cursor = u64::from(alignment);
        for n in entries {
            let offset = place(cursor, slot_len);
            let end = offset + slot_len;
            let mut counts = self.footer.counts();
            counts.records += 1;
            if round_up(end, u64::from(alignment)) + counts.len(alignment) > buf.len() as u64 {
                break;
            }
            let at = usize::try_from(offset).unwrap();
            self.put(n, seed, offset, &mut buf[at..]);
            cursor = end;
        }
        let len = self.footer.len(alignment);
        let at = buf.len() - usize::try_from(len).unwrap();
        self.footer.encode_into(&mut buf[at..], (generation, LogKind::Data), seed, stamp);
        buf
    }

    fn put(&mut self, n: u64, seed: Seed, offset: u64, target: &mut [u8]) {
        let key = key_of(n);
        let body = ENTRY_HEADER_LEN + KEY_LEN..ENTRY_HEADER_LEN + KEY_LEN + self.fill.body_len;
        let word = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
        for piece in target[body.clone()].chunks_mut(word.len()) {
            piece.copy_from_slice(&word[..piece.len()]);
        }
        target[ENTRY_HEADER_LEN..body.start].copy_from_slice(&key);
        let sequence = self.draw();
        let header = EntryHeader {
            kind: Kind::Object,
            supersedes: false,
            key_len: u16::try_from(KEY_LEN).unwrap(),
            records_len: 0,
            metadata_len: 0,
            body_len: u32::try_from(self.fill.body_len).unwrap(),
            sequence,
            stored_at: self.fill.time.cache,
            age_secs: 0,
            fresh_until: self.fill.keep_until,
            keep_until: self.fill.keep_until,
            meta_checksum: crc32fast::hash(&key),
            body_checksum: crc32fast::hash(&target[body]),
        };
        target[..ENTRY_HEADER_LEN].copy_from_slice(&header.encode(seed, offset));
        self.footer.records.push(FooterRecord {
            key_hash: self.hasher.object(&key),
            sequence,
            offset,
            slot_len: self.fill.slot_len(),
            kind: Kind::Object,
            supersedes: false,
            keep_until: self.fill.keep_until,
        });
    }
}

/// The first place at or after `cursor` where a slot may begin, as `docs/disk-format.md` has it.
fn place(cursor: u64, slot_len: u64) -> u64 {
    let mut offset = round_up(cursor, GRANULE);
    if offset % SECTOR + ENTRY_HEADER_LEN as u64 > SECTOR {
        offset = round_up(offset, SECTOR);
    }
    if slot_len <= SMALL_SLOT_MAX && offset % PAGE + slot_len > PAGE {
        offset = round_up(offset, PAGE);
    }
    offset
}
