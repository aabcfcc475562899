//! What a device of many regions costs: it is opened by a few reads, and no repeated work looks at
//! all regions.

use rawcached::cache::StoreError;
use rawcached::device::Delay;

use crate::rig::*;

/// As many regions as the largest devices have, of 256 MiB each: 16 TiB.
const LARGEST: Disk = Disk { regions: 64 << 10, region_size: 256 << 20, alignment: 4096 };
/// Enough regions that their headers take a while on a slow device.
const MANY: Disk = Disk { regions: 2000, ..SMALL };

#[test]
fn a_device_of_65536_regions_is_opened_by_a_few_reads() {
    let mut rig = Rig::with(LARGEST, plain());
    rig.put(b"key", &body(1, 1000), &flushed()).unwrap();
    for ends in [Rig::stop, stop_cleanly] {
        ends(&mut rig);
        let before = rig.sim.counts().reads;
        rig.begin().unwrap();
        let reads = rig.sim.counts().reads - before;
        assert!(reads <= 8, "{reads} reads before it was open");
        rig.run(rig.cache().ready());
        assert!(rig.sim.counts().reads - before > LARGEST.regions);
        assert_eq!(rig.get(b"key").unwrap(), body(1, 1000));
    }
}

fn stop_cleanly(rig: &mut Rig) {
    rig.run(rig.cache().shutdown()).unwrap();
    rig.stop();
}

/// Opens a cache on a device whose reads take so long that it does not know its regions for a while.
fn begin_slowly(rig: &mut Rig) {
    rig.sim.set_delay(Delay::Sleep(secs(10)));
    rig.begin().unwrap();
    rig.sleep(secs(15));
    let recovery = rig.stats().store.recovery;
    assert!((1..recovery.headers_total).contains(&recovery.headers_done), "{recovery:?}");
}

#[test]
fn before_regions_are_known_nothing_is_served_and_stores_are_refused_in_time() {
    for ends in [Rig::stop, stop_cleanly] {
        let mut rig = Rig::with(MANY, plain());
        rig.put(b"old", &body(1, 1000), &flushed()).unwrap();
        rig.put(b"purged", &body(2, 1000), &flushed()).unwrap();
        rig.put(b"given up", &body(4, 1000), &flushed()).unwrap();
        ends(&mut rig);
        begin_slowly(&mut rig);
        assert_eq!(rig.get(b"old"), None, "it may be superseded in a region that is not known");
        let began = rig.run(async { tokio::time::Instant::now() });
        let refused = rig.put(b"new", &body(3, 1000), &for_secs(1000));
        assert!(matches!(refused, Err(StoreError::Busy(_))), "{refused:?}");
        let waited = rig.run(async move { began.elapsed() });
        assert!(waited < secs(6), "{waited:?}");
        let given_up = rig.run(async {
            let removal = rig.cache().remove(b"given up");
            tokio::time::timeout(secs(1), removal).await.is_err()
        });
        assert!(given_up);
        let cache = rig.cache().clone();
        let (done, purge) = tokio::sync::oneshot::channel();
        rig.run(async {
            tokio::spawn(async move { done.send(cache.remove(b"purged").await) });
        });
        rig.sleep(secs(1));
        rig.sim.set_delay(Delay::None);
        rig.run(rig.cache().ready());
        assert_eq!(rig.get(b"given up"), None, "its removal holds though nobody waited for it");
        rig.run(purge).unwrap().unwrap();
        assert_eq!(rig.get(b"purged"), None);
        assert_eq!(rig.get(b"old").unwrap(), body(1, 1000));
        rig.put(b"new", &body(3, 1000), &flushed()).unwrap();
        rig.power_cut();
        assert_eq!((rig.get(b"purged"), rig.get(b"given up")), (None, None));
        assert_eq!(rig.get(b"new").unwrap(), body(3, 1000));
    }
}

#[test]
fn no_round_of_reclaim_walks_over_all_regions() {
    let rig = Rig::new();
    rig.fill("before", 60, 1000);
    let walks = || rig.cache().device_store().region_walks();
    let (before, freed) = (walks(), rig.stats().store.counters.regions_freed);
    for round in 0..100 {
        rig.fill(&format!("more-{round}"), 4, if round % 3 == 0 { 2 } else { 1000 });
        rig.remove(format!("more-{round}-1").as_bytes()).unwrap();
        rig.get(format!("more-{}-0", round / 2).as_bytes());
        rig.sleep(millis(200));
    }
    let freed = rig.stats().store.counters.regions_freed - freed;
    assert!(freed > 80, "{freed} regions freed");
    // Only the looks of the stats above, which add up live counts.
    assert!(walks() - before <= 2, "{} walks over all regions", walks() - before);
}
