//! Small records: tombstones, purge records, heads of objects, keys of slices, optional records of slots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::format::{
    ObjectHead, PURGE_RECORD_LEN, PurgeRecord, Records, SliceKey, TAGS_MAX, TOMBSTONE_LEN, Tombstone,
};

fuzz_target!(|data: &[u8]| {
    let tombstones: Vec<Tombstone> = Tombstone::decode_all(data).collect();
    assert_eq!(tombstones.len(), data.len() / TOMBSTONE_LEN);
    let mut encoded = Vec::new();
    for tombstone in &tombstones {
        tombstone.encode_into(&mut encoded);
    }
    assert_eq!(encoded, data[..tombstones.len() * TOMBSTONE_LEN]);

    let records = PurgeRecord::decode_all(data).zip(data.chunks_exact(PURGE_RECORD_LEN));
    for (record, bytes) in records {
        let Ok(record) = record else { continue };
        let mut encoded = Vec::new();
        record.encode_into(&mut encoded);
        assert_eq!(encoded, bytes);
    }

    if let Ok(head) = ObjectHead::decode(data) {
        assert_eq!(ObjectHead::decode(&head.encode()), Ok(head));
        let slices = u64::from(head.slice_count());
        let size = u64::from(head.slice_size);
        assert!(head.len <= slices.saturating_mul(size));
        assert!(slices == 0 || head.len > (slices - 1) * size);
    }
    if let Some((key, _)) = data.split_first_chunk::<{ SliceKey::LEN }>() {
        let key = SliceKey::decode(key);
        assert_eq!(SliceKey::decode(&key.encode()), key);
    }
    if let Ok(records) = Records::decode(data) {
        assert!(records.tags.len() <= TAGS_MAX);
        assert_eq!(records.encode(), data);
    }
});
