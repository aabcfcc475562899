//! The index against a plain map, with hashes that collide on purpose; its memory at many sizes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::format::Damage;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn mix(n: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
}

fn insert(index: &Index, hash: u64, location: u64) {
    index.lock(hash).insert(Location(location), SizeClass::of(500));
}

fn candidates(index: &Index, hash: u64) -> BTreeSet<u64> {
    index.lock(hash).candidates().iter().map(|entry| entry.0).collect()
}

/// Dumps every shard into another index.
fn copy(index: &Index) -> Index {
    let copy = Index::new();
    let mut bytes = Vec::new();
    for shard in 0..index.shard_count() {
        bytes.clear();
        index.dump_shard(shard, &mut bytes);
        assert_eq!(copy.load_shard(shard, &bytes).unwrap() * 10 + 4, bytes.len());
    }
    copy
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(usize),
    Hit(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0u64..3000).prop_map(Op::Insert),
        2 => any::<usize>().prop_map(Op::Remove),
        1 => any::<usize>().prop_map(Op::Hit),
    ];
    proptest::collection::vec(op, 1..4000)
}

/// Few hash bits make entries share shards, buckets, or everything.
fn masks() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u32..64).prop_map(|bits| u64::MAX >> bits),
        (0u32..32).prop_map(|bits| (u64::MAX >> bits) & !0xFFF),
        Just(0)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_like_a_set_of_hash_and_location(ops in ops(), mask in masks()) {
        let index = Index::new();
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut next = 0;
        for op in ops {
            match op {
                Op::Insert(key) => {
                    next += 1;
                    insert(&index, mix(key) & mask, next);
                    model.push((mix(key) & mask, next));
                }
                Op::Remove(n) if !model.is_empty() => {
                    let (hash, location) = model.swap_remove(n % model.len());
                    prop_assert!(index.lock(hash).remove(Location(location)).is_some());
                    prop_assert!(index.lock(hash).remove(Location(location)).is_none());
                }
                Op::Hit(n) if !model.is_empty() => {
                    let (hash, location) = model[n % model.len()];
                    index.lock(hash).mark_hit(Location(location));
                    prop_assert!(index.lock(hash).get(Location(location)).unwrap().is_hit());
                }
                _ => {}
            }
        }
        prop_assert_eq!(index.len(), model.len());
        let copy = copy(&index);
        prop_assert_eq!(copy.len(), model.len());
        for (hash, location) in &model {
            let entry = index.lock(*hash).get(Location(*location)).unwrap();
            let found = candidates(&index, *hash);
            prop_assert!(found.contains(&entry.0));
            prop_assert_eq!(found, candidates(&copy, *hash));
        }
        let is_victim = |location: u64| location.is_multiple_of(3);
        let victims = model.iter().filter(|(_, location)| is_victim(*location)).count();
        let swept: usize = (0..index.shard_count())
            .map(|shard| index.sweep_shard(shard, |entry| is_victim(entry.location().0)))
            .sum();
        prop_assert_eq!(swept, victims);
        prop_assert_eq!(index.len(), model.len() - victims);
        for (hash, location) in model {
            prop_assert_eq!(index.lock(hash).contains(Location(location)), !is_victim(location));
        }
    }

    #[test]
    fn loading_arbitrary_bytes_never_panics(bytes: Vec<u8>, count in 0u32..40) {
        let index = Index::new();
        let _ = index.load_shard(0, &bytes);
        let mut framed = count.to_le_bytes().to_vec();
        framed.extend(bytes.iter().cycle().take(if bytes.is_empty() { 0 } else { count as usize * 10 }));
        if let Ok(entries) = index.load_shard(0, &framed) {
            prop_assert_eq!(entries, count as usize);
        }
    }
}

#[test]
fn damaged_dumps_are_refused() {
    let index = Index::new();
    let fresh: Vec<Fresh> = (1..4u64)
        .map(|n| Fresh {
            key_hash: n << SHARD_BITS,
            location: Location(n),
            class: SizeClass::of(n),
        })
        .collect();
    index.insert_many(0, &fresh);
    let mut dump = Vec::new();
    index.dump_shard(0, &mut dump);
    let refused = |bytes: &[u8], damage: Damage| {
        let empty = Index::new();
        assert_eq!(empty.load_shard(0, bytes), Err(damage));
        assert!(empty.is_empty());
    };
    for len in 0..dump.len() {
        let damage = if len < 4 { Damage::Short } else { Damage::Field("number of index entries") };
        refused(&dump[..len], damage);
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = dump.clone();
        bytes[at] = byte;
        bytes
    };
    refused(&changed(3, 1), Damage::Field("number of index entries"));
    refused(&changed(4, 0), Damage::Field("index entry"));
    refused(&changed(4 + 5, 0x80), Damage::Field("index entry"));
    refused(&changed(dump.len() - 1, 2), Damage::Field("index entry"));
}

#[test]
fn words_inserted_in_bulk_are_found() {
    let index = Index::new();
    for batch in 0..20u64 {
        let fresh: Vec<Fresh> = (batch * 100..batch * 100 + 100)
            .map(|n| Fresh {
                key_hash: mix(n) << SHARD_BITS | 7,
                location: Location(n + 1),
                class: SizeClass::of(1),
            })
            .collect();
        index.insert_many(7, &fresh);
    }
    assert_eq!(index.len(), 2000);
    assert!((0..2000).all(|n| index.lock(mix(n) << SHARD_BITS | 7).contains(Location(n + 1))));
}

#[test]
fn no_size_from_one_to_four_million_takes_more_than_twelve_bytes_a_word() {
    let index = Index::new();
    let mut worst: f64 = 0.0;
    let mut look = |entries: u64| {
        if entries >= 1_000_000 && entries.is_multiple_of(20_000) {
            worst = worst.max(index.bytes() as f64 / entries as f64);
        }
    };
    let total = 4_000_000;
    for n in 0..total {
        insert(&index, mix(n), n + 1);
        look(n + 1);
    }
    let misses = total..total + 200_000;
    let false_positives: usize = misses.map(|n| candidates(&index, mix(n)).len()).sum();
    for n in (0..total).rev() {
        assert!(index.lock(mix(n)).remove(Location(n + 1)).is_some(), "entry {n} is lost");
        look(n);
    }
    println!("worst {worst:.2} bytes an entry, {false_positives} false positives in 200000");
    assert!(worst <= 12.0, "{worst} bytes an entry");
    // An entry in the shard matches by chance with 2^-25: 6 are expected.
    assert!(false_positives <= 30, "{false_positives} of 200000 misses would read the device");
}

#[test]
fn a_shard_of_five_hundred_million_words_is_dense_and_tells_keys_apart() {
    let index = Index::new();
    let hash = |n: u64| mix(n) << SHARD_BITS | 9;
    let total = 500_000_000 >> SHARD_BITS;
    for n in 0..total {
        insert(&index, hash(n), n + 1);
    }
    let empty = Index::new().bytes();
    let bytes = (index.bytes() - empty) as f64 / total as f64;
    let misses = total..total + 200_000;
    let false_positives: usize = misses.map(|n| candidates(&index, hash(n)).len()).sum();
    println!("{bytes:.2} bytes an entry, {false_positives} false positives in 200000");
    assert!((0..total).all(|n| index.lock(hash(n)).contains(Location(n + 1))));
    assert!(bytes <= 11.0, "{bytes} bytes an entry");
    assert!(false_positives <= 1000, "{false_positives} of 200000 misses would read the device");
}

#[test]
fn removing_everything_gives_the_memory_back() {
    let index = Index::new();
    let empty = index.bytes();
    assert!(empty < 1 << 20, "an empty index takes {empty} bytes");
    // Half of the entries share a thousand hashes: more than their buckets hold.
    let hash = |n: u64| if n.is_multiple_of(2) { mix(n) } else { mix(n % 1000) };
    for n in 0..100_000 {
        insert(&index, hash(n), n + 1);
    }
    assert!(index.bytes() > 8 * 100_000);
    for n in 0..100_000 {
        assert!(index.lock(hash(n)).remove(Location(n + 1)).is_some());
    }
    assert!(index.is_empty());
    assert_eq!(index.bytes(), empty);
}
