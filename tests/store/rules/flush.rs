//! Rule 7: flushes. An acknowledgement promises what it says, and no more is lost than allowed.

use rawcached::cache::{Condition, StoreError};

use crate::rig::*;

#[test]
fn a_flushed_store_survives_a_power_cut_right_after() {
    for len in [0, 100, 50_000, 400_000] {
        let mut rig = Rig::new();
        rig.put(b"key", &body(1, len), &flushed()).unwrap();
        rig.power_cut();
        assert_eq!(rig.get(b"key").unwrap(), body(1, len));
    }
}

#[test]
fn a_flushed_stream_survives_a_power_cut_right_after() {
    let mut rig = Rig::new();
    rig.run(async {
        let mut writer = rig.cache().store(b"key", flushed()).unwrap();
        for chunk in body(1, 500_000).chunks(1234) {
            writer.write_chunk(chunk).await.unwrap();
        }
        writer.finalize(Condition::Always).await.unwrap();
    });
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 500_000));
}

#[test]
fn what_came_before_a_flushed_store_survives_with_it() {
    let mut rig = Rig::new();
    rig.put(b"before", &body(1, 100), &for_secs(1000)).unwrap();
    rig.put(b"key", &body(2, 100), &flushed()).unwrap();
    rig.power_cut();
    assert!(rig.get(b"before").is_some() && rig.get(b"key").is_some());
}

#[test]
fn a_kill_loses_at_most_the_flush_interval() {
    let mut rig = Rig::new();
    rig.put(b"early", &body(1, 100), &for_secs(1000)).unwrap();
    rig.sleep(millis(60));
    rig.put(b"late", &body(2, 100), &for_secs(1000)).unwrap();
    rig.sleep(millis(41));
    rig.kill();
    assert_eq!(rig.get(b"early").unwrap(), body(1, 100), "101 ms old");
}

#[test]
fn a_steady_stream_of_stores_does_not_put_the_flush_off() {
    let mut rig = Rig::new();
    rig.put(b"early", &body(1, 100), &for_secs(1000)).unwrap();
    for n in 0..12 {
        rig.sleep(millis(10));
        rig.put(format!("late-{n}").as_bytes(), &body(n, 100), &for_secs(1000)).unwrap();
    }
    rig.kill();
    assert!(rig.get(b"early").is_some());
}

#[test]
fn a_power_cut_loses_at_most_what_followed_the_last_flush() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &for_secs(1000)).unwrap();
    rig.sleep(millis(1150));
    rig.power_cut();
    assert!(rig.get(b"key").is_some(), "written after 100 ms, flushed 1 s later");
}

#[test]
fn a_touch_is_flushed_like_any_other_change() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.fill("filler", 5, 1000);
    rig.sleep(secs(3));
    let lifetime = rig.run(rig.cache().touch(b"key", secs(9000))).unwrap().unwrap();
    rig.sleep(millis(1150));
    rig.power_cut();
    assert_eq!(rig.run(rig.cache().lookup(b"key")).unwrap().lifetime(), lifetime);
}

#[test]
fn an_acknowledged_purge_survives_a_power_cut() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    assert!(rig.remove(b"key").unwrap());
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn an_acknowledged_purge_of_everything_survives_a_power_cut() {
    let mut rig = Rig::new();
    rig.fill("key", 6, 1000);
    rig.put(b"last", &body(1, 100), &flushed()).unwrap();
    rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"last"), None);
    assert_eq!(rig.get(b"key-0"), None);
}

#[test]
fn a_purge_of_an_entry_that_a_touch_let_expire_survives_a_power_cut() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.fill("filler", 5, 3000);
    rig.sleep(secs(3));
    rig.run(rig.cache().touch(b"key", secs(1))).unwrap().unwrap();
    rig.clock.advance(secs(5));
    assert_eq!(rig.get(b"key"), None, "expired, and forgotten");
    rig.remove(b"key").unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None, "the lost touch does not bring it back");
}

#[test]
fn a_purge_of_a_key_whose_overwrite_expired_survives_a_power_cut() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.put(b"key", &body(2, 100), &for_secs(10)).unwrap();
    rig.clock.advance(secs(20));
    assert_eq!(rig.get(b"key"), None);
    rig.remove(b"key").unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_refused_store_removes_the_old_value() {
    let rig = Rig::new();
    rig.put(b"key", &body(1, 100), &for_secs(1000)).unwrap();
    let limit = usize::try_from(rig.cache().object_len_max()).unwrap();
    let refused = rig.put(b"key", &body(2, limit + 1), &for_secs(1000));
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(rig.get(b"key"), None);
}

#[test]
fn a_clean_stop_loses_nothing() {
    let mut rig = Rig::new();
    rig.put(b"key", &body(1, 100), &for_secs(1000)).unwrap();
    rig.run(rig.cache().shutdown()).unwrap();
    rig.power_cut();
    assert!(rig.get(b"key").is_some());
}

#[test]
fn changes_after_a_stop_are_refused_and_end() {
    for change_before in [false, true] {
        let rig = Rig::new();
        if change_before {
            rig.put(b"key", &body(1, 100), &for_secs(1000)).unwrap();
        }
        rig.run(rig.cache().shutdown()).unwrap();
        rig.run(rig.cache().shutdown()).unwrap();
        assert!(rig.put(b"late", &body(1, 100), &for_secs(1000)).is_err());
        assert!(rig.put(b"late", &body(1, 400_000), &for_secs(1000)).is_err());
        let _ = rig.remove(b"late");
        let _ = rig.run(rig.cache().touch(b"key", secs(5)));
        assert!(rig.run(rig.cache().purge_all(rawcached::Purge::Hard)).is_err());
        assert_eq!(rig.get(b"key").is_some(), change_before);
    }
}
