//! The index by itself, from 1 k to 50 M entries: bytes an entry, time of each operation, longest
//! operation, false positives. Prints rows; fails only if an entry is lost.
//!
//! `cargo bench --bench index [-- --quick]`

mod meter;

use clap::Parser;
use rawcached::store::index::{Fresh, Index};
use rawcached::store::{Location, SizeClass};
use xxhash_rust::xxh3::xxh3_64;

use meter::{Cost, ratio, resident_bytes};

const SIZES: [u64; 10] = [
    1_000, 10_000, 100_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 35_000_000,
    50_000_000,
];
const QUICK_SIZE_MAX: u64 = 5_000_000;
/// Sizes from which the bytes of an entry count for the maximum.
const COUNTED_FROM: u64 = 1_000_000;
/// Looks at the memory between two rows.
const SAMPLES: u64 = 200;
const LOOKUPS: u64 = 1_000_000;

/// Measures the index.
#[derive(Debug, Parser)]
struct Arguments {
    /// Up to 5 M entries, for a first look
    #[arg(long)]
    quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn hash(n: u64) -> u64 {
    xxh3_64(&n.to_le_bytes())
}

/// A number below `below`, another for each `n`.
fn pick(n: u64, below: u64) -> u64 {
    hash(!n) % below
}

fn insert(index: &Index, n: u64, mask: u64) {
    index.lock(hash(n) & mask).insert(Location(n + 1), SizeClass::of(500));
}

fn remove(index: &Index, n: u64, mask: u64) {
    let removed = index.lock(hash(n) & mask).remove(Location(n + 1));
    assert!(removed.is_some(), "entry {n} is lost");
}

fn has(index: &Index, n: u64, mask: u64) -> bool {
    index.lock(hash(n) & mask).candidates().iter().any(|entry| entry.location() == Location(n + 1))
}

fn bytes_per_entry(index: &Index, entries: u64) -> f64 {
    ratio(index.bytes() as u64, entries)
}

/// Changes the size from `source` to `target` entries; gives the cost and the most bytes an entry.
fn resize(index: &Index, source: u64, target: u64) -> (Cost, f64) {
    let mut cost = Cost::default();
    let mut worst: f64 = 0.0;
    let step = (source.abs_diff(target) / SAMPLES).max(1);
    let mut entries = source;
    while entries != target {
        let next = if target > source {
            (entries + step).min(target)
        } else {
            entries.saturating_sub(step).max(target)
        };
        cost = cost.and(if target > source {
            Cost::of(entries..next, |n| insert(index, n, u64::MAX))
        } else {
            Cost::of(next..entries, |n| remove(index, n, u64::MAX))
        });
        entries = next;
        if entries > 0 {
            worst = worst.max(bytes_per_entry(index, entries));
        }
    }
    (cost, worst)
}

/// Rows for growing sizes, then for shrinking ones; gives the most bytes an entry of all that count.
fn sizes(sizes: &[u64]) -> f64 {
    let base = resident_bytes();
    let index = Index::new();
    println!("empty index: {} KiB", index.bytes() / 1024);
    println!(
        "{:>10} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>12} {:>12}",
        "entries", "B max", "B", "RSS B", "op ns", "hit ns", "miss ns", "false pos", "longest us"
    );
    let mut worst: f64 = 0.0;
    let mut before = 0;
    for &size in sizes {
        let (cost, bytes) = resize(&index, before, size);
        worst = worst.max(if before >= COUNTED_FROM { bytes } else { 0.0 });
        print_row(&index, (size, base), &cost, bytes);
        before = size;
    }
    let churned = Cost::of(0..LOOKUPS, |n| {
        remove(&index, n, u64::MAX);
        insert(&index, n, u64::MAX);
    });
    println!("remove and insert at {before} entries: {:.0} ns", churned.ns());
    sweep(&index);
    dump(&index);
    println!("removing:");
    for &size in sizes.iter().rev().skip(1).chain(&[0]) {
        let (cost, bytes) = resize(&index, before, size);
        worst = worst.max(if size >= COUNTED_FROM { bytes } else { 0.0 });
        print_row(&index, (size, base), &cost, bytes);
        before = size;
    }
    worst
}

fn print_row(index: &Index, (size, base): (u64, u64), cost: &Cost, worst: f64) {
    let mut lost = 0;
    let hits = if size == 0 {
        Cost::default()
    } else {
        Cost::of(0..LOOKUPS, |n| lost += u64::from(!has(index, pick(n, size), u64::MAX)))
    };
    assert_eq!(lost, 0, "entries are lost");
    let mut false_positives = 0;
    let misses = Cost::of(0..LOOKUPS, |n| {
        false_positives += index.lock(hash(u64::MAX - n)).candidates().len() as u64;
    });
    println!(
        "{size:>10} {worst:>8.2} {:>8.2} {:>8.2} {:>7.0} {:>7.0} {:>7.0} {:>10.4} % {:>5} /{:>5}",
        bytes_per_entry(index, size),
        ratio(resident_bytes().saturating_sub(base), size),
        cost.ns(),
        hits.ns(),
        misses.ns(),
        ratio(false_positives * 100, LOOKUPS),
        cost.longest_cpu.as_micros(),
        cost.longest_wall.as_micros(),
    );
}

/// What freeing a region would cost if it looked at every entry.
fn sweep(index: &Index) {
    let mut seen = 0;
    let cost = Cost::of(0..index.shard_count() as u64, |shard| {
        index.sweep_shard(usize::try_from(shard).unwrap_or(0), |entry| {
            seen += u64::from(entry.location().0 > 0);
            false
        });
    });
    assert_eq!(seen, index.len() as u64, "entries are lost");
    println!(
        "sweep: {:.2} ms for a million entries",
        cost.cpu.as_secs_f64() * 1e9 / ratio(seen, 1)
    );
}

/// Dumps every shard and loads it into another index.
fn dump(index: &Index) {
    let copy = Index::new();
    let mut bytes = Vec::new();
    let (mut entries, mut dumping, mut loading) = (0, 0.0, 0.0);
    for shard in 0..index.shard_count() {
        bytes.clear();
        let before = meter::cpu_time();
        index.dump_shard(shard, &mut bytes);
        let dumped = meter::cpu_time();
        entries += copy.load_shard(shard, &bytes).expect("a dump loads") as u64;
        dumping += (dumped - before).as_secs_f64();
        loading += (meter::cpu_time() - dumped).as_secs_f64();
    }
    assert_eq!(entries, index.len() as u64, "entries are lost");
    let rate = |seconds: f64| ratio(entries, 1) / seconds / 1e6;
    println!(
        "dump {:.1}, load {:.1} million entries/s on one core; {:.2} B an entry loaded",
        rate(dumping),
        rate(loading),
        bytes_per_entry(&copy, entries)
    );
}

/// Inserts ten million entries shard by shard, `batch` of a shard at a time.
fn bulk(batch: u64) {
    let index = Index::new();
    let shards = index.shard_count() as u64;
    let per_shard = 10_000_000 / shards;
    let mut entries = Vec::new();
    let mut seconds = 0.0;
    for first in (0..per_shard).step_by(usize::try_from(batch).unwrap_or(1)) {
        for shard in 0..shards {
            entries.clear();
            entries.extend((first..(first + batch).min(per_shard)).map(|n| Fresh {
                key_hash: hash(shard << 32 | n) / shards * shards + shard,
                location: Location(shard * per_shard + n + 1),
                class: SizeClass::of(500),
            }));
            let before = meter::cpu_time();
            index.insert_many(usize::try_from(shard).unwrap_or(0), &entries);
            seconds += (meter::cpu_time() - before).as_secs_f64();
        }
    }
    let rate = ratio(index.len() as u64, 1) / seconds / 1e6;
    println!("bulk insert, {batch} of a shard at a time: {rate:.1} million entries/s on one core");
}

fn collisions(name: &str, count: u64, mask: u64) {
    let index = Index::new();
    let inserted = Cost::of(0..count, |n| insert(&index, n, mask));
    let found = (0..count).filter(|n| has(&index, pick(*n, count), mask)).count();
    let bytes = bytes_per_entry(&index, count);
    let removed = Cost::of(0..count, |n| remove(&index, n, mask));
    println!(
        "{name}: {found} of {count} found, {} left after removal, {bytes:.1} B an entry, insert {:.0} ns, remove {:.0} ns",
        index.len(),
        inserted.ns(),
        removed.ns()
    );
    assert_eq!(found as u64, count, "entries are lost");
}

fn main() {
    let arguments = Arguments::parse();
    let shown = SIZES.partition_point(|size| !arguments.quick || *size <= QUICK_SIZE_MAX);
    let worst = sizes(&SIZES[..shown]);
    println!("most bytes an entry from 1 M up, growing and shrinking: {worst:.2}");
    bulk(u64::MAX >> 32);
    bulk(64);
    collisions("one hash", 5_000, 0);
    collisions("20 bits of hash", 1_000_000, (1 << 20) - 1);
}
