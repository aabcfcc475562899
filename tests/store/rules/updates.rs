//! Versions of an entry: they stay when reclaim moves it. New heads over the same slices.

use rawcached::cache::{Condition, Stored};

use crate::rig::*;

fn version(rig: &Rig, key: &[u8]) -> u64 {
    rig.run(rig.cache().lookup_stale(key)).unwrap().cas()
}

/// Fills until the entries that are hit in between were written again.
fn fill_until_moved(rig: &Rig, keys: &[&[u8]]) {
    for round in 0..20 {
        for key in keys {
            rig.get(key).unwrap();
        }
        rig.fill(&format!("filler-{round}"), 4, 100_000);
        rig.sleep(secs(2));
        if rig.stats().store.counters.reinserted >= keys.len() as u64 {
            return;
        }
    }
    panic!("nothing was written again");
}

#[test]
fn a_version_stays_when_eviction_moves_its_entry() {
    let mut rig = Rig::new();
    let first = rig.put(b"hot", &body(1, 1000), &for_secs(100_000)).unwrap();
    fill_until_moved(&rig, &[b"hot"]);
    assert_eq!(version(&rig, b"hot"), first);
    rig.kill();
    assert_eq!(version(&rig, b"hot"), first, "after a crash too");
    let unchanged = |version| {
        rig.run(rig.cache().put(b"hot", body(2, 1000), Condition::Unchanged(version), &flushed()))
    };
    let Ok(Stored::Yes(second)) = unchanged(first) else { panic!("it is the same version") };
    assert_eq!(unchanged(first).unwrap(), Stored::Exists);
    assert_eq!(version(&rig, b"hot"), second);
}
