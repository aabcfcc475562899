//! A device of which nearly every region is sealed and holds one small entry, written through the format
//! alone: of terabytes only a few blocks a region are there. Owns the bytes.

use std::sync::Arc;

use rawcached::clock::{TimePair, Timestamp};
use rawcached::device::{Device, WriteSlice};
use rawcached::format::{
    ENTRY_HEADER_LEN, EntryHeader, Features, Footer, FooterRecord, Kind, Layout, LogKind,
    RegionHeader, RegionUse, Secret, Seed, Sequence, Superblock, Uuid,
};
use rawcached::store::KeyHasher;

/// The unit of transfers in bytes.
const BLOCK: u32 = 4096;
/// Bytes of each body.
pub const BODY_LEN: usize = 100;
/// Regions written between two flushes.
const FLUSH_EVERY: u32 = 1024;

/// The key of the entry in a region.
pub fn key_of(region: u32) -> Vec<u8> {
    format!("region-{region:08}").into_bytes()
}

/// Formats a device and fills all regions but the last `free`.
pub async fn fill(
    device: &Device,
    region_size: Option<u64>,
    free: u32,
    time: TimePair,
) -> anyhow::Result<Layout> {
    let layout = Layout::plan(device.geometry().size, BLOCK, region_size)?;
    let superblock = Superblock {
        uuid: Uuid(*b"many regions, so"),
        secret: Secret(*b"secret of scales"),
        layout,
        features: Features::default(),
        epoch: 1,
        purge_floor: Sequence(0),
        soft_floor: Sequence(0),
        record_floor: Sequence(0),
        formatted_at: time.wall,
        time,
        unknown_age: 0,
    };
    for region in 0..layout.region_count - free {
        fill_region(device, &superblock, region).await?;
        if region % FLUSH_EVERY == 0 {
            device.flush().await?;
        }
    }
    for offset in layout.superblock_offsets() {
        let mut block = device.geometry().zeroed_buffer(BLOCK as usize);
        block[..superblock.encode().len()].copy_from_slice(&superblock.encode());
        device.write(offset, vec![WriteSlice::whole(Arc::new(block))]).await?;
    }
    device.flush().await?;
    Ok(layout)
}

async fn fill_region(device: &Device, superblock: &Superblock, region: u32) -> anyhow::Result<()> {
    let layout = &superblock.layout;
    let (uuid, stamp) = (superblock.uuid, superblock.time.cache);
    let drawn = u64::from(region) * 2 + 1;
    let generation = Sequence(Sequence::first_of(superblock.epoch).0 + drawn);
    let sequence = generation.next();
    let seed = Seed::new(uuid, region, generation);
    let mut front = device.geometry().zeroed_buffer(2 * BLOCK as usize);
    let (region_use, log) = (RegionUse::Log, LogKind::Data);
    let header = RegionHeader { generation, region_use, stamp, touched: false, log };
    let encoded = header.encode(uuid, region);
    front[..encoded.len()].copy_from_slice(&encoded);

    let (key, body) = (key_of(region), [7; BODY_LEN]);
    let offset = u64::from(BLOCK);
    let keep_until = Timestamp::MAX;
    let entry = EntryHeader {
        kind: Kind::Object,
        supersedes: false,
        key_len: u16::try_from(key.len())?,
        records_len: 0,
        metadata_len: 0,
        body_len: u32::try_from(BODY_LEN)?,
        sequence,
        stored_at: stamp,
        age_secs: 0,
        fresh_until: keep_until,
        keep_until,
        meta_checksum: crc32fast::hash(&key),
        body_checksum: crc32fast::hash(&body),
    };
    let slot = [&entry.encode(seed, offset)[..], &key, &body].concat();
    front[BLOCK as usize..][..slot.len()].copy_from_slice(&slot);
    let start = layout.region_offset(region);
    device.write(start, vec![WriteSlice::whole(Arc::new(front))]).await?;

    let granule = u64::from(layout.granule);
    let slot_len = ((ENTRY_HEADER_LEN + key.len() + BODY_LEN) as u64).next_multiple_of(granule);
    let record = FooterRecord {
        key_hash: KeyHasher::new(superblock.secret).object(&key),
        sequence,
        offset,
        slot_len,
        kind: Kind::Object,
        supersedes: false,
        keep_until,
    };
    let footer = Footer { records: vec![record], ..Footer::default() };
    let mut end = device.geometry().zeroed_buffer(BLOCK as usize);
    footer.encode_into(&mut end, (generation, LogKind::Data), seed, stamp);
    let at = start + layout.region_size - u64::from(BLOCK);
    device.write(at, vec![WriteSlice::whole(Arc::new(end))]).await?;
    Ok(())
}
