//! Rule 1: verified operations. Keys with one hash live side by side.

use crate::support::*;

#[test]
fn two_keys_with_one_hash_coexist() {
    let rig = Rig::with(SMALL, colliding());
    rig.put(b"one", &body(1, 300), &for_secs(100)).unwrap();
    rig.put(b"two", &body(2, 300), &for_secs(100)).unwrap();
    assert_eq!(rig.get(b"one").unwrap(), body(1, 300));
    assert_eq!(rig.get(b"two").unwrap(), body(2, 300));
    assert_eq!(rig.get(b"three"), None);
}

#[test]
fn a_key_without_a_match_costs_no_device_read() {
    let rig = Rig::new();
    rig.fill("other", 12, 1000);
    let before = rig.sim.counts().reads;
    assert_eq!(rig.get(b"absent"), None);
    assert!(!rig.remove(b"absent").unwrap());
    assert_eq!(rig.run(rig.cache().touch(b"absent", secs(5))).unwrap(), None);
    rig.put(b"absent", &body(1, 10), &for_secs(100)).unwrap();
    assert_eq!(rig.sim.counts().reads, before);
}

/// Changes "one" while "two" has the same hash, both in memory and on the device.
fn changes_leave_the_other(change: impl Fn(&Rig)) {
    for on_device in [false, true] {
        let rig = Rig::with(SMALL, colliding());
        rig.put(b"one", &body(1, QUARTER), &for_secs(100)).unwrap();
        rig.put(b"two", &body(2, QUARTER), &for_secs(100)).unwrap();
        if on_device {
            rig.fill("filler", 3, 100);
            rig.sleep(secs(2));
        }
        let before = rig.cache().lookup(b"two");
        let before = rig.run(before).unwrap().lifetime();
        change(&rig);
        assert_eq!(rig.get(b"two").unwrap(), body(2, QUARTER), "on device: {on_device}");
        let after = rig.run(rig.cache().lookup(b"two")).unwrap().lifetime();
        assert_eq!(before, after);
        rig.cache().device_store().check_accounting();
    }
}

#[test]
fn an_overwrite_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        rig.put(b"one", &body(3, 100), &for_secs(100)).unwrap();
        assert_eq!(rig.get(b"one").unwrap(), body(3, 100));
    });
}

#[test]
fn a_delete_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        assert!(rig.remove(b"one").unwrap());
        assert_eq!(rig.get(b"one"), None);
        assert!(!rig.remove(b"three").unwrap(), "a third key with the hash is not there");
    });
}

#[test]
fn a_touch_leaves_a_key_with_the_same_hash() {
    changes_leave_the_other(|rig| {
        let lifetime = rig.run(rig.cache().touch(b"one", secs(7))).unwrap().unwrap();
        assert_eq!(lifetime.keep_until, START.plus(secs(7)));
        rig.clock.advance(secs(8));
        assert_eq!(rig.get(b"one"), None);
    });
}
