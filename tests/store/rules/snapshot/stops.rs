//! Stops that are cut off, or whose writes fail.

use rawcached::device::{Delay, Effect, Fault, OperationKind};

use super::{NONE, check_large, counts, large, stop_cleanly};
use crate::rig::*;

#[test]
fn a_stop_that_is_cut_off_at_any_write_leaves_a_right_store() {
    let entries = 30_000;
    let writes = {
        let mut rig = large(entries, 40);
        let before = rig.sim.counts().writes;
        stop_cleanly(&mut rig);
        rig.sim.counts().writes - before
    };
    assert!(writes >= 5, "{writes} writes at a stop");
    let mut loaded = 0;
    for cut in 0..=writes {
        for seed in [None, Some(3), Some(4), Some(12)] {
            let mut rig = large(entries, 40);
            let lost = || Fault::new(Effect::Lost).always();
            rig.sim.inject(lost().on(OperationKind::Write).after(cut));
            // Once a write is lost no flush happens either, but which one is not known here: the
            // last two are those of the snapshot.
            rig.run(rig.cache().shutdown()).unwrap();
            match seed {
                None => rig.stop(),
                Some(seed) => {
                    rig.stop();
                    rig.sim.power_cut(seed);
                }
            }
            rig.sim.clear_faults();
            rig.open();
            let [_, _, now, _] = counts(&rig);
            assert!(now == 0 || cut == writes, "a snapshot whose write {cut} was lost");
            loaded += now;
            check_large(&rig, entries);
        }
    }
    assert_eq!(loaded, 4, "the whole one counts");
}

#[test]
fn a_power_cut_between_the_flushes_of_a_stop_leaves_a_right_store() {
    let entries = 30_000;
    for flush in 0..4 {
        for seed in 0..6 {
            let mut rig = large(entries, 40);
            let lost = Fault::new(Effect::Lost).on(OperationKind::Flush);
            rig.sim.inject(lost.after(flush).always());
            rig.run(rig.cache().shutdown()).unwrap();
            rig.stop();
            rig.sim.power_cut(seed);
            rig.sim.clear_faults();
            rig.open();
            check_large(&rig, entries);
        }
    }
}

#[test]
fn a_stop_whose_writes_fail_leaves_a_right_store() {
    let entries = 30_000;
    for operation in 0..6 {
        let mut rig = large(entries, 40);
        rig.sleep(secs(2));
        let failing = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write);
        rig.sim.inject(failing.after(operation));
        let stopped = rig.run(rig.cache().shutdown());
        assert!(stopped.is_ok() || operation == 0);
        rig.stop();
        rig.sim.clear_faults();
        rig.open();
        check_large(&rig, entries);
    }
}

#[test]
fn without_free_regions_there_is_no_snapshot_and_the_start_is_right() {
    let entries = 100_000;
    let mut rig = large(entries, 47);
    let stats = rig.stats().store;
    assert!(stats.regions_free < 4 && stats.entries * 10 > 4 * REGION - 80_000);
    assert_eq!(stop_cleanly(&mut rig), [0, 1, 0, 0]);
    rig.open();
    assert_eq!(counts(&rig), NONE);
    check_large(&rig, entries);
}

#[test]
fn a_stop_while_the_snapshot_is_read_finds_no_fault_with_it() {
    let entries = 30_000;
    let mut rig = large(entries, 40);
    stop_cleanly(&mut rig);
    rig.begin().unwrap();
    rig.sim.set_delay(Delay::Sleep(millis(500)));
    rig.run(async {
        let groups = || rig.stats().store.recovery.parts_done;
        while groups() == 0 {
            tokio::time::sleep(millis(1)).await;
        }
        rig.cache().shutdown().await.unwrap();
    });
    assert_eq!(counts(&rig)[2..], [0, 0], "neither used nor refused");
    rig.sim.set_delay(Delay::None);
    rig.stop();
    rig.open();
    assert_eq!(counts(&rig)[2..], [1, 0]);
    check_large(&rig, entries);
}
