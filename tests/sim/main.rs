//! Goal: no schedule, crash or fault makes the cache lie. Method: deterministic simulation. A
//! seed decides the scenario, the clients, the schedule, the faults and the crashes; the real
//! cache, store and recovery run on a simulated device, clock and scheduler; a history checker
//! judges every answer. `docs/testing.md` says how to run it.
//!
//! A failure prints its seed and the last lines of its trace;
//! `RAWCACHED_TEST_SEED=n cargo test --test sim` replays it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[path = "../support/options.rs"]
mod options;
mod clients;
mod history;
mod lives;
#[cfg(feature = "planted-bugs")]
mod planted;
mod report;
mod scenario;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use report::Totals;

/// Keeps freed memory: each of a run's many devices begins with large buffers of zeros.
#[cfg(any(feature = "daemon", feature = "planted-bugs"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Seeds of a run if the environment names none.
const SEEDS: Range<u64> = 1..401;
/// Seeds that once failed; run first. Later changes moved their schedules, so each failure also has
/// a test of its own (`docs/reliability.md`).
const REGRESSIONS: &[u64] = &[
    27, 51, 63, 92, 240, 276, 349, 373, 393, 421, 429, 1003, 1860, 1932, 2587, 3123, 3990, 10977,
    3721, 8915, 21064, 26645, 28691, 34069, 34862, 45016, 139, 2423, 971, 4161, 7735, 2434, 3086,
    15269,
];

/// The seeds that the environment names: one, a range, or none.
fn wished() -> Option<Range<u64>> {
    if let Ok(seed) = std::env::var("RAWCACHED_TEST_SEED") {
        let seed: u64 = seed.parse().unwrap();
        return Some(seed..seed + 1);
    }
    let seeds = std::env::var("RAWCACHED_SIM_SEEDS").ok()?;
    let (first, end) = seeds.split_once("..").expect("RAWCACHED_SIM_SEEDS=first..end");
    Some(first.parse().unwrap()..end.parse().unwrap())
}

/// Runs seeds on so many threads; gives the counts and the seeds that failed.
fn run_all(seeds: Range<u64>, threads: usize) -> (Totals, Vec<u64>) {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new((Totals::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = lives::run(seed);
                    let mut results = results.lock().unwrap();
                    results.0.add(&outcome.totals);
                    if wished().is_some_and(|wished| wished.end == wished.start + 1) {
                        println!("seed {seed}: trace {:016x}", outcome.trace_hash);
                    }
                    if !outcome.violations.is_empty() {
                        show(seed, &outcome);
                        results.1.push(seed);
                    }
                }
            });
        }
    });
    results.into_inner().unwrap()
}

fn show(seed: u64, outcome: &lives::Outcome) {
    println!("seed {seed}: {:#?}", scenario::Scenario::of(seed));
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("seed {seed} violates: {:#?}", outcome.violations);
}

#[test]
fn no_seed_makes_the_cache_lie() {
    let mut failed = Vec::new();
    if wished().is_none() {
        for seed in REGRESSIONS {
            failed.extend(run_all(*seed..*seed + 1, 1).1);
        }
    }
    let threads = match std::env::var("RAWCACHED_SIM_THREADS") {
        Ok(threads) => threads.parse().unwrap(),
        Err(_) => 1,
    };
    let (totals, more) = run_all(wished().unwrap_or(SEEDS), threads);
    println!("{totals}");
    failed.extend(more);
    assert!(failed.is_empty(), "{} seeds fail: {failed:?}", failed.len());
    if wished().is_none() {
        for (what, count) in totals.rows() {
            assert!(count > 0, "nothing was seen of this: {what}");
        }
    }
}

#[test]
fn a_seed_runs_the_same_way_every_time() {
    for seed in 1000..1030 {
        let (first, second) = (lives::run(seed), lives::run(seed));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}: {differs:?}");
    }
}
