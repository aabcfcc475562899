//! Regions: a header of any bytes, and slots of any shape that are damaged anywhere. The walk over
//! the slots finds every whole one and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::clock::Timestamp;
use rawcached::format::{
    ENTRY_HEADER_LEN, EntryHeader, GRANULE, Kind, PURGE_RECORD_LEN, REGION_HEADER_LEN, Records,
    RegionHeader, Seed, Sequence, TRAILER_LEN, Trailer, Uuid, body_checksums, round_up,
};
use rawcached::inspect::sound_slots;

const UUID: Uuid = Uuid([7; 16]);
const START: usize = 512;
const SLOTS_MAX: usize = 64;

/// Reads an input from its front, zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }
}

fuzz_target!(|data: &[u8]| {
    header(data);
    slots(data);
});

fn header(data: &[u8]) {
    let region = data.first().map_or(0, |byte| u32::from(*byte));
    let _ = RegionHeader::decode(data, UUID, region);
    let _ = RegionHeader::is_claimed(data, UUID);
    if let Some(trailer) = data.last_chunk::<TRAILER_LEN>() {
        let _ = Trailer::is_claimed(trailer, Sequence(1));
    }
    let Some((bytes, _)) = data.split_first_chunk::<REGION_HEADER_LEN>() else { return };
    let mut bytes = *bytes;
    bytes[12..16].fill(0);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&UUID.0);
    hasher.update(&bytes);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    let region = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
    let Ok(header) = RegionHeader::decode(&bytes, UUID, region) else { return };
    let encoded = header.encode(UUID, region);
    assert_eq!(RegionHeader::decode(&encoded, UUID, region), Ok(header));
    assert!(RegionHeader::decode(&encoded, UUID, region ^ 1).is_err());
}

/// Builds a region, flips bits in it, and walks it.
fn slots(data: &[u8]) {
    let mut input = Input(data);
    let seed = Seed::new(UUID, 3, Sequence(9));
    let mut bytes = vec![0; START];
    let mut built = Vec::new();
    for n in 0..usize::from(input.byte()) % SLOTS_MAX {
        bytes.resize(bytes.len() + input.number() % 64 * GRANULE as usize, 0);
        let (offset, kind) = (bytes.len(), kind(input.byte()));
        push_slot(&mut bytes, &mut input, (seed, kind, n as u64));
        built.push(offset..bytes.len());
        bytes.resize(round_up(bytes.len() as u64, GRANULE) as usize, 0);
    }
    bytes.resize(bytes.len() + ENTRY_HEADER_LEN, 0);
    let found = sound_slots(&bytes, START as u64, seed);
    let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, built.iter().map(|slot| slot.start as u64).collect::<Vec<_>>());

    let mut hit = Vec::new();
    for _ in 0..input.byte() % 16 {
        let (at, mask) = (input.number() % bytes.len(), input.byte() | 1);
        bytes[at] ^= mask;
        hit.push((at, mask));
    }
    let found = sound_slots(&bytes, START as u64, seed);
    let mut end = START as u64;
    for (offset, header) in &found {
        assert!(*offset >= end && offset % GRANULE == 0, "slots do not overlap");
        end = offset + header.slot_len() as u64;
        assert!(end <= bytes.len() as u64);
        assert!(built.iter().any(|slot| slot.start as u64 == *offset), "nothing was made up");
    }
    for slot in built {
        let untouched = hit.iter().all(|(at, _)| !slot.contains(at));
        let is_found = found.iter().any(|(offset, _)| *offset == slot.start as u64);
        assert!(is_found || !untouched, "a whole slot at {} was not found", slot.start);
    }
}

fn kind(byte: u8) -> Kind {
    let kinds = [Kind::Object, Kind::Head, Kind::Slice, Kind::Tombstones, Kind::PurgeRecords];
    kinds[usize::from(byte) % kinds.len()]
}

fn push_slot(bytes: &mut Vec<u8>, input: &mut Input<'_>, (seed, kind, n): (Seed, Kind, u64)) {
    let (key_len, body_len) = match kind {
        Kind::Tombstones | Kind::PurgeRecords => (0, 0),
        Kind::Slice => (16, input.number() % 3000),
        Kind::Object | Kind::Head => (1 + input.number() % 300, input.number() % 3000),
    };
    let mut metadata_len = input.number() % 500;
    if kind == Kind::PurgeRecords {
        metadata_len = metadata_len / PURGE_RECORD_LEN * PURGE_RECORD_LEN;
    }
    let mut parts = vec![input.byte(); key_len];
    let records = match kind {
        Kind::Tombstones | Kind::PurgeRecords => Vec::new(),
        _ => Records { head_key: Some(n).filter(|n| n % 3 == 0), ..Records::default() }.encode(),
    };
    parts.extend_from_slice(&records);
    parts.resize(parts.len() + metadata_len, input.byte());
    let body = vec![input.byte(); body_len];
    let check = body_checksums(&body);
    parts.extend_from_slice(&check.table);
    let header = EntryHeader {
        kind,
        supersedes: n % 2 == 0,
        key_len: key_len as u16,
        records_len: records.len() as u16,
        metadata_len: metadata_len as u32,
        body_len: body_len as u32,
        sequence: Sequence(10 + n),
        stored_at: Timestamp(1),
        age_secs: 0,
        fresh_until: Timestamp(2),
        keep_until: Timestamp(3),
        meta_checksum: crc32fast::hash(&parts),
        body_checksum: check.single,
    };
    bytes.extend_from_slice(&header.encode(seed, bytes.len() as u64));
    bytes.extend_from_slice(&parts);
    bytes.extend_from_slice(&body);
}
