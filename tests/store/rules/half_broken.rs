//! A disk that is unreadable in part: unreadable regions are left alone after a few tries, and the
//! rest goes on.

use rawcached::cache::Condition;
use rawcached::device::{Delay, Effect, Fault, OperationKind};
use rawcached::format::{LogKind, REGION_HEADER_LEN, RegionHeader, RegionUse};
use tokio::time::Instant;

use crate::rig::*;

const DISK: Disk = Disk { regions: 64, ..SMALL };
/// Most reads that one region may cost before it is left alone.
const READS_MAX: u64 = 40;

fn failing_reads() -> Fault {
    Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read)
}

/// A full device on which each request takes its time.
fn full() -> Rig {
    let rig = Rig::with(DISK, plain());
    rig.fill("first", DISK.regions * 4, 100_000);
    rig.sleep(secs(3));
    rig.sim.set_delay(Delay::Sleep(millis(10)));
    rig
}

/// As [`full`], but all save the first eight regions has expired: those are emptied before they are the
/// oldest, and so must be read.
fn full_of_expired() -> Rig {
    let rig = Rig::with(DISK, plain());
    rig.fill("first", 8 * 4, 100_000);
    rig.fill("expired", (DISK.regions - 8) * 4, 60);
    rig.sleep(secs(3));
    rig.clock.advance(secs(100));
    rig.sim.set_delay(Delay::Sleep(millis(10)));
    rig
}

/// Stores that end within 10 s on the clock of the device; none is refused.
fn stores_in_10_secs(rig: &Rig) -> u64 {
    let cache = rig.cache();
    rig.run(async {
        let (until, bytes) = (Instant::now() + secs(10), body(7, QUARTER));
        let mut stored = 0;
        while Instant::now() < until {
            let key = format!("more-{stored}");
            let options = for_secs(100_000);
            cache.put(key.as_bytes(), bytes.clone(), Condition::Always, &options).await.unwrap();
            stored += 1;
            tokio::time::sleep(millis(1)).await;
        }
        stored
    })
}

#[test]
fn a_disk_of_which_half_cannot_be_read_takes_more_than_half_of_the_stores() {
    let healthy = stores_in_10_secs(&full());
    let rig = full();
    for region in (0..DISK.regions).step_by(2) {
        let start = SUPERBLOCK + region * REGION;
        rig.sim.inject(failing_reads().within(start..start + REGION).always());
    }
    let stored = stores_in_10_secs(&rig);
    assert!(stored > healthy / 2, "{stored} of {healthy}");
    let stats = rig.stats().store;
    let broken = DISK.regions / 2;
    // The oldest goes unread; others that cannot be read are left alone for a while.
    assert!(stats.counters.regions_freed > 0 && stats.regions_set_aside <= broken);
    let faults = rig.sim.counts().faults;
    assert!(faults <= broken * READS_MAX, "{faults} failed reads");
    let tells = !rig.cache().device_store().troubles().is_empty();
    assert_eq!(tells, stats.regions_set_aside > 0, "readiness tells");
    // They are tried again, and count as sound once they can be read.
    rig.sim.clear_faults();
    rig.sim.set_delay(Delay::None);
    rig.clock.advance(secs(4000));
    for n in 0..DISK.regions * 8 {
        rig.put(format!("last-{n}").as_bytes(), &body(n, QUARTER), &for_secs(100_000)).unwrap();
        if n % 4 == 0 {
            rig.sleep(millis(200));
        }
    }
    assert_eq!(rig.stats().store.regions_set_aside, 0);
}

#[test]
fn regions_that_must_be_read_and_cannot_be_are_left_alone_after_a_few_tries() {
    let healthy = stores_in_10_secs(&full_of_expired());
    // Without any of it, and with the first block only.
    for readable in [0, 4096] {
        let rig = full_of_expired();
        for region in (0..DISK.regions).step_by(2) {
            let start = SUPERBLOCK + region * REGION;
            rig.sim.inject(failing_reads().within(start + readable..start + REGION).always());
        }
        let stored = stores_in_10_secs(&rig);
        let aside = rig.stats().store.regions_set_aside;
        let faults = rig.sim.counts().faults;
        assert!(aside > 20, "{aside} regions set aside");
        assert!(stored > healthy / 2, "{stored} of {healthy}");
        assert!(faults <= DISK.regions / 2 * READS_MAX, "{faults} failed reads");
    }
}

#[test]
fn a_disk_of_which_every_other_read_fails_takes_more_than_half_of_the_stores() {
    let healthy = stores_in_10_secs(&full());
    let rig = full();
    for n in 0..1500 {
        rig.sim.inject(failing_reads().after(n * 2));
    }
    let stored = stores_in_10_secs(&rig);
    assert!(rig.sim.counts().faults > 20, "{} reads failed", rig.sim.counts().faults);
    assert!(stored > healthy / 2, "{stored} of {healthy}");
}

#[test]
fn a_region_of_purges_that_cannot_be_read_is_left_alone() {
    let rig = Rig::with(DISK, plain());
    rig.fill("first", 4 * DISK.regions, 100_000);
    for n in 0..100 {
        rig.put(format!("key-{n}").as_bytes(), &body(n, 100), &flushed()).unwrap();
    }
    let first = purges_region(&rig);
    assert!(first.is_none(), "nothing was purged");
    rig.remove(b"key-0").unwrap();
    let region = purges_region(&rig).unwrap();
    rig.sim.inject(failing_reads().within(region..region + REGION).always());
    // More group commits than a region has blocks for: it is sealed.
    for n in 1..100 {
        rig.remove(format!("key-{n}").as_bytes()).unwrap();
    }
    let freed = rig.stats().store.counters.regions_freed;
    rig.fill("more", 2 * DISK.regions, 100_000);
    rig.sleep(secs(3));
    assert!(rig.stats().store.counters.regions_freed > freed + 10);
    let faults = rig.sim.counts().faults;
    assert!((1..=READS_MAX).contains(&faults), "{faults} failed reads");
    assert_eq!(rig.stats().store.regions_set_aside, 1);
}

/// Where the first region of the log of purges begins.
fn purges_region(rig: &Rig) -> Option<u64> {
    (0..DISK.regions).map(|region| SUPERBLOCK + region * REGION).find(|at| {
        let number = u32::try_from((at - SUPERBLOCK) / REGION).unwrap();
        let block = rig.sim.contents(*at..at + REGION_HEADER_LEN as u64);
        let header = RegionHeader::decode(&block, UUID, number);
        header.is_ok_and(|header| {
            header.region_use == RegionUse::Log && header.log == LogKind::Purges
        })
    })
}
