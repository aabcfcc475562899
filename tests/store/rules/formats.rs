//! What the superblock says of a device: which program may use it, how much of it, and where its
//! copies are.

use rawcached::cache::OpenError;
use rawcached::device::{Effect, Fault, OperationKind, SimDevice};
use rawcached::format::{Features, LOCATOR_OFFSET, Superblock};
use rawcached::store::{FormatOptions, read_superblocks};

use crate::rig::*;

const SIZE: u64 = SMALL.regions * SMALL.region_size + 2 * SUPERBLOCK;

/// Replaces superblock copies by ones with these features.
fn announce(rig: &Rig, copies: &[u64], features: Features) {
    let superblock = Superblock::decode(&rig.sim.contents(0..512)).unwrap();
    for at in copies {
        rig.sim.overwrite(*at, &Superblock { features, ..superblock }.encode());
    }
}

fn refusal(rig: &mut Rig) -> OpenError {
    let before = rig.sim.contents(0..SIZE);
    let refusal = rig.begin().unwrap_err();
    assert!(rig.sim.contents(0..SIZE) == before, "the device is as it was");
    refusal
}

#[test]
fn a_device_with_an_unknown_feature_is_refused_by_its_name() {
    // One copy is enough: the other may be of before the feature was in use.
    for copies in [&[0, SIZE - SUPERBLOCK][..], &[0], &[SIZE - SUPERBLOCK]] {
        let mut rig = Rig::new();
        rig.stop();
        announce(&rig, copies, Features { incompatible: 1 << 1 | 1 << 50, ..Features::default() });
        let refusal = refusal(&mut rig);
        assert!(matches!(refusal, OpenError::Newer(_)), "{refusal}");
        let said = refusal.to_string();
        assert!(said.contains("two_logs, bit 50") && !said.contains("damaged"), "{said}");
    }
}

#[test]
fn a_device_that_may_only_be_read_is_inspected_and_not_served() {
    let mut rig = Rig::new();
    rig.stop();
    let features = Features { read_only_compatible: 1, ..Features::default() };
    announce(&rig, &[0, SIZE - SUPERBLOCK], features);
    let refusal = refusal(&mut rig);
    assert!(matches!(refusal, OpenError::ReadOnly(_)), "{refusal}");
    assert!(refusal.to_string().contains("journal"), "{refusal}");
    let found = runtime().block_on(read_superblocks(&rig.sim.open())).unwrap();
    assert_eq!(found.best.features, features);
}

fn first_bytes(size: u64) -> FormatOptions {
    options!(FormatOptions {
        size: Some(size),
        region_size: Some(REGION),
        ..FormatOptions::default()
    })
}

#[test]
fn a_part_of_a_device_is_used_and_the_rest_left_alone() {
    // In the middle: signatures of other software at both ends are erased all the same.
    const ELSEWHERE: std::ops::Range<u64> = 16 << 20..48 << 20;
    let sim = SimDevice::new(52 << 20, 4096);
    sim.overwrite(20 << 20, b"somebody else's");
    let before = sim.contents(ELSEWHERE);
    let mut rig = Rig::on(sim, &first_bytes(SIZE), plain());
    for n in 0..200 {
        rig.put(format!("key-{n}").as_bytes(), &body(n, QUARTER), &for_secs(1000)).unwrap();
        rig.sleep(millis(100));
    }
    rig.put(b"key", &body(1, 300_000), &flushed()).unwrap();
    rig.power_cut();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 300_000));
    assert!(rig.sim.contents(ELSEWHERE) == before);
    let behind = rig.sim.contents(SIZE..ELSEWHERE.start);
    assert!(behind.iter().all(|byte| *byte == 0));
}

#[test]
fn more_than_there_is_of_a_device_is_refused() {
    let sim = SimDevice::new(SIZE, 4096);
    let clock = rawcached::clock::Clock::manual(START);
    let format = rawcached::store::Store::format;
    let refused = runtime().block_on(format(&sim.open(), &first_bytes(SIZE + 1), &clock));
    assert!(refused.unwrap_err().to_string().contains("cannot be used"));
}

#[test]
fn a_copy_that_is_not_at_the_end_is_found_without_the_first() {
    let mut rig = Rig::on(SimDevice::new(3 * SIZE, 4096), &first_bytes(SIZE), plain());
    rig.put(b"key", &body(1, 100), &flushed()).unwrap();
    rig.stop();
    rig.sim.overwrite(0, &[0; 4096]);
    // The bytes at the end are not its own.
    let bad = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    rig.sim.inject(bad.within(2 * SIZE..3 * SIZE).always());
    rig.open();
    assert_eq!(rig.get(b"key").unwrap(), body(1, 100));
    assert_eq!(rig.stats().store.counters.superblocks_repaired, 1);
    rig.stop();
    rig.sim.clear_faults();
    rig.sim.overwrite(0, &[0; 4096]);
    rig.sim.overwrite(LOCATOR_OFFSET, &[0; 4096]);
    assert!(matches!(rig.begin(), Err(OpenError::NotFormatted(_))), "nothing tells where it is");
}

#[test]
fn devices_up_to_64_tib_are_formatted_filled_and_recovered() {
    const TB: u64 = 1_000_000_000_000;
    // Each start reads the end of each region, so there are as few regions as possible.
    let format = options!(FormatOptions { region_size: Some(1 << 30), ..FormatOptions::default() });
    for (size, granule) in [(18 * TB, 32), (40 * TB, 64), (64 << 40, 64)] {
        let mut rig = Rig::on(SimDevice::new(size, 4096), &format, plain());
        let layout = *rig.cache().device_store().layout();
        assert_eq!(layout.granule, granule);
        assert!(layout.region_count <= 64 << 10, "{layout:?}");
        for n in 0..300 {
            let len = [0, 100, 5000, QUARTER][usize::try_from(n % 4).unwrap()];
            rig.put(format!("key-{n}").as_bytes(), &body(n, len), &for_secs(1000)).unwrap();
        }
        rig.put(b"large", &body(1, 3 << 20), &flushed()).unwrap();
        rig.remove(b"key-7").unwrap();
        rig.kill();
        for n in 0..300 {
            let len = [0, 100, 5000, QUARTER][usize::try_from(n % 4).unwrap()];
            let found = rig.get(format!("key-{n}").as_bytes());
            let expected = (n != 7).then(|| body(n, len).to_vec());
            assert!(found == expected, "{size}: key {n}");
        }
        assert_eq!(rig.get(b"large").unwrap(), body(1, 3 << 20));
        rig.cache().device_store().check_accounting();
    }
}
