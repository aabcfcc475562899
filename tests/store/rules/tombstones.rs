//! Rule 3: tombstones. The record that superseded an entry outlives it.

use crate::rig::*;

/// Puts "victim" in a region that stays, lets `kill` act in a region whose entries expire, and
/// stores until that region is reclaimed before the victim's.
fn outlived(kill: impl Fn(&Rig)) -> Rig {
    let mut rig = Rig::new();
    rig.put(b"victim", &body(1, QUARTER), &for_secs(100_000)).unwrap();
    rig.fill("beside-victim", 3, 100_000);
    rig.fill("opens-the-next-region", 1, 20);
    kill(&rig);
    rig.fill("beside-kill", 3, 20);
    rig.clock.advance(secs(60));
    assert_eq!(rig.get(b"victim"), None);
    let mut round = 0;
    while rig.stats().store.counters.regions_freed == 0 {
        rig.fill(&format!("after-{round}"), 1, 100_000);
        rig.sleep(secs(1));
        round += 1;
        assert!(round < 60, "reclaim never ran");
    }
    assert!(rig.stats().store.counters.tombstones_carried > 0, "the tombstone had to move");
    assert!(rig.get(b"beside-victim-0").is_some(), "the victim's region is still there");
    rig.kill();
    rig
}

#[test]
fn a_purge_outlives_its_victim() {
    let mut rig = outlived(|rig| assert!(rig.remove(b"victim").unwrap()));
    assert_eq!(rig.get(b"victim"), None);
    rig.power_cut();
    assert_eq!(rig.get(b"victim"), None);
}

#[test]
fn an_overwrite_outlives_what_it_replaced() {
    let mut rig = outlived(|rig| {
        rig.put(b"victim", &body(2, 100), &for_secs(20)).unwrap();
    });
    assert_eq!(rig.get(b"victim"), None);
    rig.power_cut();
    assert_eq!(rig.get(b"victim"), None);
}

#[test]
fn a_carried_tombstone_is_carried_again() {
    let mut rig = outlived(|rig| assert!(rig.remove(b"victim").unwrap()));
    for round in 0..3 {
        rig.fill(&format!("short-{round}"), 6, 20);
        rig.clock.advance(secs(60));
        rig.fill(&format!("shorter-{round}"), 6, 20);
        rig.sleep(secs(3));
        rig.kill();
        assert_eq!(rig.get(b"victim"), None, "round {round}");
    }
}

#[test]
fn tombstones_end_with_their_victims() {
    let rig = Rig::new();
    for round in 0..30 {
        rig.fill("same", 4, 1000);
        rig.sleep(millis(200));
        let _ = round;
    }
    let carried = rig.stats().store.counters.tombstones_carried;
    assert!(carried < 200, "{carried} tombstones carried: they pile up");
}
