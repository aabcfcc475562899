//! Goal: the simulation is strong enough. Method: take one safeguard away at a time and count
//! the seeds until a run fails; more than the table allows is a failure of the simulation.
//!
//! `cargo test --no-default-features --features planted-bugs --test sim planted -- --nocapture` prints the seeds needed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rawcached::planted::{Bug, plant};

use crate::lives;

/// Bugs that are searched for at a time.
const THREADS: usize = 2;
/// Where the search begins.
const FIRST_SEED: u64 = 1;

/// Each bug and the seeds within which it must be found.
const TABLE: &[(Bug, u64)] = &[
    (Bug::ModifyWithoutLock, 300),
    (Bug::AcknowledgePurgeEarly, 300),
    (Bug::AcknowledgeFlushEarly, 300),
    (Bug::DropTombstones, 300),
    (Bug::ReuseSequences, 300),
    (Bug::SkipBodyChecksum, 300),
    (Bug::ServeExpired, 300),
    (Bug::IgnoreChangesDuringRecovery, 300),
    (Bug::SuperblocksAtOnce, 300),
    (Bug::FillIgnoresPurge, 300),
    (Bug::SkipGenerationCheck, 1500),
    (Bug::ReinsertUnchecked, 300),
    (Bug::SkipTouchCheck, 1500),
    (Bug::ForgetFooterChecksum, 300),
    (Bug::FooterOutranksHeader, 300),
    (Bug::FooterBeforeHeader, 300),
    (Bug::PurgeInOneRegion, 300),
    (Bug::IgnoreRereadVersions, 300),
    (Bug::RereadWhateverIsThere, 300),
    (Bug::EvictStoresUnderWay, 300),
    (Bug::TrustUnknownAge, 300),
    (Bug::UpdateDropsSlices, 300),
    (Bug::ReclaimUnderHeads, 300),
    (Bug::RecoverUnderHeads, 300),
    (Bug::CoverBeforeBytes, 300),
    (Bug::JoinValidators, 300),
    (Bug::LeaseForgetsPurges, 300),
    (Bug::FollowerEndsEarly, 300),
    (Bug::ForgetCoarseChanges, 3000),
    (Bug::ForgetLeftOut, 3000),
    (Bug::SkipRegionLater, 3000),
    (Bug::LoseTagRecord, 300),
    (Bug::ReviveByReinsertion, 300),
    (Bug::ReviveByTouch, 300),
    (Bug::ReviveAtCrash, 300),
];

/// Seeds needed to find the bug, and what was found; `None` if it was not within `seeds_max`.
fn search(bug: Bug, seeds_max: u64) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (0..seeds_max).find_map(|n| {
        let mut violations = lives::run(FIRST_SEED + n).violations;
        (!violations.is_empty()).then(|| (n + 1, violations.swap_remove(0)))
    });
    plant(None);
    found
}

#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    println!("| bug | seeds needed | allowed | seen as |\n|---|---:|---:|---|");
    let wished = std::env::var("RAWCACHED_SIM_BUG").ok();
    let chosen: Vec<&(Bug, u64)> = match &wished {
        None => TABLE.iter().collect(),
        Some(name) => TABLE.iter().filter(|(bug, _)| *name == format!("{bug:?}")).collect(),
    };
    assert!(!chosen.is_empty(), "no such bug: {wished:?}");
    // A bug is planted in one thread.
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((bug, seeds_max)) =
                    chosen.get(next.fetch_add(1, Ordering::Relaxed)).copied()
                {
                    let result = search(*bug, *seeds_max);
                    found.lock().unwrap().insert(format!("{bug:?}"), result);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    for (bug, seeds_max) in chosen {
        match &found[&format!("{bug:?}")] {
            Some((needed, what)) => {
                let what = what.split(['\n', ':']).next().unwrap_or_default();
                println!("| {bug:?} | {needed} | {seeds_max} | {what} |");
            }
            None => missed.push(*bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
