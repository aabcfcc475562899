//! Dumped index shards: what loads comes out again as it was, and bytes that cannot be a dump add
//! nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rawcached::store::index::Index;

const SHARD: usize = 7;
const COUNT_LEN: usize = 4;
/// An index entry and the hash bits that it does not hold.
const ENTRY_LEN: usize = 8 + 2;

fuzz_target!(|data: &[u8]| {
    load(data);
    // The count that the length asks for, which no guess has.
    let Some(body) = data.get(COUNT_LEN..) else { return };
    let count = body.len() / ENTRY_LEN;
    let mut bytes = u32::try_from(count).unwrap_or(0).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body[..count * ENTRY_LEN]);
    load(&bytes);
});

fn load(bytes: &[u8]) {
    let index = Index::new();
    let Ok(count) = index.load_shard(SHARD, bytes) else {
        assert_eq!(index.len(), 0, "nothing of a bad dump");
        return;
    };
    assert_eq!(index.len(), count);
    assert_eq!(bytes.len(), COUNT_LEN + count * ENTRY_LEN);
    let mut dumped = Vec::new();
    index.dump_shard(SHARD, &mut dumped);
    assert_eq!(entries(&dumped), entries(bytes), "another order at most");
}

/// Words and the rest of their hashes, sorted.
fn entries(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let body = &bytes[COUNT_LEN..];
    let (entries, rests) = body.split_at(body.len() / ENTRY_LEN * 8);
    let mut entries: Vec<_> = entries.chunks_exact(8).zip(rests.chunks_exact(2)).collect();
    entries.sort_unstable();
    entries
}
