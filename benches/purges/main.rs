//! What a purge costs lookups: the time to ask whether one covers an entry, by the number of records and of
//! the entry's tags. Prints rows; fails only if the answer is wrong.
//!
//! `cargo bench --bench purges`

use std::hint::black_box;

use rawcached::clock::Stopwatch;
use rawcached::format::{PurgeRecord, Selector, Sequence};
use rawcached::store::purges::table::{RECORDS_MAX, Since, Subject};
use rawcached::store::purges::{Floors, Purges, Verdict};
use siphasher::sip::SipHasher13;
use xxhash_rust::xxh3::xxh3_64;

/// Entries asked about, one after the other: none is still in the processor's cache.
const ENTRIES: u64 = 20_000;
const ROUNDS: u64 = 10;

fn hash(n: u64) -> u64 {
    xxh3_64(&n.to_le_bytes())
}

/// `count` records of each kind: as many by tags as by prefixes, which have ten lengths.
fn purges(count: u64) -> Purges {
    let hasher = SipHasher13::new_with_keys(1, 2);
    let purges = Purges::new(Floors::default(), RECORDS_MAX, hasher);
    for (n, len) in (0..count).zip((8..28u16).cycle()) {
        let what = match n % 2 {
            0 => Selector::Tag(hash(n)),
            _ => Selector::Prefix { len, hash: hash(n) },
        };
        for is_soft in [false, true] {
            purges.add(&PurgeRecord { sequence: Sequence(1000 + n), what, is_soft });
        }
    }
    purges
}

/// Nanoseconds to ask about an entry of `sequence` with so many tags, none of which was purged.
fn time(purges: &Purges, sequence: Sequence, tags: u64) -> u128 {
    let keys: Vec<String> =
        (0..ENTRIES).map(|n| format!("https://host.example/path/of/an/object/{n:016x}")).collect();
    let tags: Vec<Vec<u64>> =
        (0..ENTRIES).map(|n| (0..tags).map(|tag| hash(!(n * 1000 + tag))).collect()).collect();
    let watch = Stopwatch::start();
    for _ in 0..ROUNDS {
        for (key, tags) in keys.iter().zip(&tags) {
            // As a lookup does.
            if !purges.may_cover(black_box(sequence)) {
                continue;
            }
            let of = Subject { key: key.as_bytes(), tags: tags.iter().copied() };
            let (verdict, _) = purges.verdict(Since::Sequence(sequence), of);
            assert_eq!(black_box(verdict), Verdict::Live, "nothing of it was purged");
        }
    }
    watch.elapsed().as_nanos() / u128::from(ENTRIES * ROUNDS)
}

fn main() {
    println!("| records of each kind | tags | older than all records, ns | newer, ns |");
    println!("|---:|---:|---:|---:|");
    for count in [0, 1000, RECORDS_MAX as u64] {
        let purges = purges(count);
        for tags in [0, 1, 8, 1000] {
            let older = time(&purges, Sequence(1), tags);
            let newer = time(&purges, Sequence(u64::MAX), tags);
            println!("| {count} | {tags} | {older} | {newer} |");
        }
    }
}
