//! Rule 6: recovery. The newest version wins, once, and what happens meanwhile counts.

use std::sync::{Arc, Mutex};

use rawcached::cache::{Lifetime, Purge};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::fill::{body_of, key_of};
use crate::rig::*;

/// A device with "old" and more on it, and a slow start in progress.
fn recovering() -> Rig {
    // So many regions that recovery takes longer than the first change does.
    let mut rig = Rig::with(Disk { regions: 400, ..SMALL }, plain());
    rig.put(b"old", &body(1, 1000), &for_secs(1000)).unwrap();
    rig.put(b"other", &body(2, 1000), &for_secs(1000)).unwrap();
    rig.fill("filler", 9, 1000);
    rig.sleep(secs(2));
    rig.stop();
    rig.begin().unwrap();
    assert!(!rig.cache().is_ready());
    rig.sim.set_delay(Delay::Sleep(millis(500)));
    rig
}

fn finish(rig: &Rig) {
    rig.run(rig.cache().ready());
    rig.sim.set_delay(Delay::None);
}

#[test]
fn until_recovery_is_complete_only_new_entries_hit() {
    let rig = recovering();
    assert_eq!(rig.get(b"old"), None);
    rig.put(b"new", &body(3, 100), &for_secs(1000)).unwrap();
    assert_eq!(rig.get(b"new").unwrap(), body(3, 100));
    finish(&rig);
    assert_eq!(rig.get(b"old").unwrap(), body(1, 1000));
    assert_eq!(rig.get(b"new").unwrap(), body(3, 100));
}

#[test]
fn a_purge_during_recovery_applies_to_what_is_recovered() {
    let mut rig = recovering();
    rig.remove(b"old").unwrap();
    assert!(!rig.cache().is_ready());
    finish(&rig);
    assert_eq!(rig.get(b"old"), None);
    assert_eq!(rig.get(b"other").unwrap(), body(2, 1000));
    rig.power_cut();
    assert_eq!(rig.get(b"old"), None);
}

#[test]
fn a_soft_purge_during_recovery_applies_to_what_is_recovered() {
    let rig = recovering();
    rig.run(rig.cache().purge_key(b"old", Purge::Soft)).unwrap();
    assert!(!rig.cache().is_ready());
    finish(&rig);
    assert_eq!(rig.get(b"old"), None);
    assert_eq!(rig.get(b"other").unwrap(), body(2, 1000));
}

#[test]
fn a_purge_of_everything_during_recovery_applies_to_what_is_recovered() {
    let mut rig = recovering();
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    rig.put(b"new", &body(3, 100), &for_secs(1000)).unwrap();
    finish(&rig);
    for _ in 0..2 {
        assert_eq!(rig.get(b"old"), None);
        assert_eq!(rig.get(b"filler-3"), None);
        assert_eq!(rig.get(b"new").unwrap(), body(3, 100));
        rig.sleep(secs(2));
        rig.power_cut();
    }
}

#[test]
fn a_store_during_recovery_is_not_overtaken_by_what_is_recovered() {
    let mut rig = recovering();
    rig.put(b"old", &body(9, 1000), &for_secs(1000)).unwrap();
    assert!(!rig.cache().is_ready());
    finish(&rig);
    assert_eq!(rig.get(b"old").unwrap(), body(9, 1000));
    rig.restart();
    assert_eq!(rig.get(b"old").unwrap(), body(9, 1000));
}

#[test]
fn a_stop_during_recovery_loses_nothing() {
    let mut rig = recovering();
    rig.put(b"new", &body(3, 100), &for_secs(1000)).unwrap();
    rig.restart();
    rig.sim.set_delay(Delay::None);
    assert_eq!(rig.get(b"old").unwrap(), body(1, 1000));
    assert_eq!(rig.get(b"new").unwrap(), body(3, 100));
}

#[test]
fn a_touched_lifetime_survives_a_restart() {
    // In memory, on the device in an open region, and in a sealed one.
    for fillers in [0, 2, 7] {
        for ttl in [5, 5000] {
            let mut rig = Rig::new();
            rig.put(b"key", &body(1, 1000), &for_secs(100)).unwrap();
            rig.fill("filler", fillers, 100);
            if fillers > 0 {
                rig.sleep(secs(2));
            }
            let lifetime = rig.run(rig.cache().touch(b"key", secs(ttl))).unwrap().unwrap();
            rig.sleep(secs(2));
            for restart in [Rig::kill, Rig::power_cut, Rig::restart] {
                restart(&mut rig);
                let hit = rig.run(rig.cache().lookup(b"key")).unwrap();
                assert_eq!(hit.lifetime(), lifetime, "{fillers} fillers");
            }
            rig.clock.advance(secs(200));
            assert_eq!(rig.get(b"key").is_some(), ttl > 200);
            rig.kill();
            assert_eq!(rig.get(b"key").is_some(), ttl > 200);
        }
    }
}

#[test]
fn what_is_in_the_index_already_is_not_found_before_recovery_is_complete() {
    let entries = 20_000;
    let mut rig = filled(entries, 40);
    rig.begin().unwrap();
    let cache = rig.cache().clone();
    let in_index = rig.run(async {
        let mut in_index = 0;
        while !cache.is_ready() {
            for n in (0..entries).step_by(500) {
                let hit = read(&cache, &key_of(n)).await;
                assert!(hit.is_none() || cache.is_ready(), "entry {n}");
            }
            in_index = in_index.max(cache.stats().store.entries);
            tokio::task::yield_now().await;
        }
        in_index
    });
    assert!(in_index > 1000, "{in_index} words were there to be found");
    assert_eq!(rig.get(&key_of(500)).unwrap(), body_of(500, 8));
    let recovery = rig.stats().store.recovery;
    assert_eq!(recovery.found, entries);
    assert!((recovery.ratio() - 1.0).abs() < 1e-9);
    let slack = 256 * 1024 * 24;
    assert!(recovery.scratch_peak_bytes <= entries * 24 + slack);
}

#[test]
fn a_kill_during_recovery_changes_nothing() {
    let mut rig = recovering();
    rig.put(b"other", &body(9, 1000), &flushed()).unwrap();
    rig.remove(b"old").unwrap();
    assert!(!rig.cache().is_ready());
    rig.stop();
    rig.sim.set_delay(Delay::None);
    rig.open();
    assert_eq!(rig.get(b"old"), None);
    assert_eq!(rig.get(b"other").unwrap(), body(9, 1000));
    assert_eq!(rig.get(b"filler-3").unwrap(), body(3, QUARTER));
}

fn everything(rig: &Rig) -> Vec<Option<(Vec<u8>, Lifetime)>> {
    (0..60)
        .map(|n| {
            let key = format!("key-{n}");
            let hit = rig.run(rig.cache().lookup(key.as_bytes()))?;
            Some((rig.get(key.as_bytes())?, hit.lifetime()))
        })
        .collect()
}

#[test]
fn recovering_twice_gives_the_same() {
    let mut rig = Rig::new();
    for n in 0..400u64 {
        let key = format!("key-{}", n % 60);
        match n % 7 {
            0 => drop(rig.remove(key.as_bytes()).unwrap()),
            1 => drop(rig.run(rig.cache().touch(key.as_bytes(), secs(n))).unwrap()),
            _ => drop(rig.put(key.as_bytes(), &body(n, 9000), &for_secs(n * 3)).unwrap()),
        }
    }
    rig.kill();
    let (first, entries) = (everything(&rig), rig.stats().store.entries);
    assert!(first.iter().flatten().count() > 20);
    let writes = rig.sim.counts().writes;
    for _ in 0..2 {
        rig.kill();
        assert!(everything(&rig) == first);
        assert!(rig.stats().store.entries >= entries);
        rig.cache().device_store().check_accounting();
    }
    assert_eq!(rig.sim.counts().writes, writes);
}

#[test]
fn a_start_makes_durable_what_it_relies_on() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.put(b"key", &body(2, 100), &for_secs(10)).unwrap();
    // Written, but not flushed, when the process is killed.
    rig.sleep(millis(150));
    rig.kill();
    rig.clock.advance(secs(60));
    assert_eq!(rig.get(b"key"), None, "the newer version hid the older and has expired");
    rig.remove(b"key").unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None, "a purge that was acknowledged holds");
}

#[test]
fn many_unreadable_regions_take_few_lines_of_the_log() {
    let mut rig = Rig::with(Disk { regions: 40, ..SMALL }, plain());
    rig.fill("key", 4 * 40, 1000);
    rig.stop();
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always();
    rig.sim.inject(fault.within(SUPERBLOCK..SUPERBLOCK + 40 * REGION));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer({
        let lines = Arc::clone(&lines);
        move || Lines(Arc::clone(&lines))
    });
    tracing::subscriber::with_default(log.finish(), || rig.open());
    let log = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert_eq!(rig.stats().store.counters.read_errors, 40);
    assert_eq!(log.matches("region unreadable").count(), 5, "{log}");
    assert_eq!(log.matches("regions are unreadable").count(), 1, "{log}");
    assert!(log.contains("regions=40"), "{log}");
}

/// Keeps what is written to it.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
