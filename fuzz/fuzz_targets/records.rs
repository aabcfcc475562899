//! Small records: kill records, heads of objects, keys of slices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::format::{KILL_LEN, Kill, ObjectHead, SliceKey};

fuzz_target!(|data: &[u8]| {
    let kills: Vec<Kill> = Kill::decode_all(data).collect();
    assert_eq!(kills.len(), data.len() / KILL_LEN);
    let mut encoded = Vec::new();
    for kill in &kills {
        kill.encode_into(&mut encoded);
    }
    assert_eq!(encoded, data[..kills.len() * KILL_LEN]);

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
});
