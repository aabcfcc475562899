//! Slots: what decodes stays within the limits of the format, survives encoding, and is verified
//! without a panic whatever follows the header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::clock::Timestamp;
use rawcached::format::{
    BODY_CHUNK, ENTRY_HEADER_LEN, EntryHeader, Seed, Sequence, body_checksums, checksum_table_len,
};

const SEED: Seed = Seed(0x5eed);
/// The longest of each part of a slot.
const SLOT_LEN_MAX: usize =
    ENTRY_HEADER_LEN + 4096 + (64 << 10) + 65_535 + ((1 << 20) / BODY_CHUNK) * 4 + (1 << 20);

fuzz_target!(|data: &[u8]| {
    let _ = EntryHeader::decode(data, SEED, 4096);
    let _ = EntryHeader::is_claimed(data, Sequence(1));
    body(data);
    let Some((header, rest)) = data.split_first_chunk::<ENTRY_HEADER_LEN>() else { return };
    let mut bytes = *header;
    bytes[4] = 0xC5;
    let offset = u64::from(u16::from_le_bytes([bytes[0], bytes[1]])) * 16;
    let mut hasher = crc32fast::Hasher::new_with_initial(SEED.0);
    hasher.update(&offset.to_le_bytes());
    hasher.update(&bytes[4..]);
    bytes[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
    let Ok(header) = EntryHeader::decode(&bytes, SEED, offset) else { return };
    let encoded = header.encode(SEED, offset);
    assert_eq!(EntryHeader::decode(&encoded, SEED, offset), Ok(header));
    assert!(EntryHeader::decode(&encoded, SEED, offset + 16).is_err());
    assert!(EntryHeader::decode(&encoded, Seed(SEED.0 ^ 1), offset).is_err());

    assert!(header.slot_len() <= SLOT_LEN_MAX);
    assert_eq!(header.key_range().end, header.records_range().start);
    assert_eq!(header.records_range().end, header.metadata_range().start);
    assert_eq!(header.metadata_range().end, header.table_range().start);
    assert_eq!(header.table_range().end, header.body_range().start);
    let mut slot = encoded.to_vec();
    slot.extend_from_slice(rest);
    if header.check_meta(&slot).is_ok() {
        assert!(slot.len() >= header.table_range().end);
        if header.check_body(&slot).is_ok() {
            assert!(slot.len() >= header.slot_len());
        }
    }
});

/// A body's checksums verify it, and no other.
fn body(data: &[u8]) {
    // Longer than one chunk, so that there is a table.
    let body =
        data.repeat(1 + usize::from(data.first() == Some(&0)) * BODY_CHUNK / data.len().max(1));
    let check = body_checksums(&body);
    assert_eq!(check.table.len(), checksum_table_len(body.len()));
    let header = EntryHeader {
        kind: rawcached::format::Kind::Object,
        supersedes: false,
        key_len: 1,
        records_len: 0,
        metadata_len: 0,
        body_len: body.len() as u32,
        sequence: Sequence(1),
        stored_at: Timestamp(1),
        age_secs: 0,
        fresh_until: Timestamp(1),
        keep_until: Timestamp(1),
        meta_checksum: 0,
        body_checksum: check.single,
    };
    let mut slot = vec![0; ENTRY_HEADER_LEN + 1];
    slot.extend_from_slice(&check.table);
    slot.extend_from_slice(&body);
    assert_eq!(header.check_body(&slot), Ok(()));
    if let Some(last) = slot.last_mut().filter(|_| !body.is_empty()) {
        *last ^= 1;
        assert!(header.check_body(&slot).is_err());
    }
}
