//! Goal: the simulation loses what a device may lose and never what it may not. Method:
//! small scripts, and many seeds for what chance decides.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use super::*;
use crate::device::{OperationKind, WriteSlice};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

fn block(device: &Device, byte: u8) -> Vec<WriteSlice> {
    let mut buf = device.geometry().zeroed_buffer(device.geometry().alignment as usize);
    let len = buf.len();
    buf.fill(0, &vec![byte; len]);
    vec![WriteSlice::whole(Arc::new(buf))]
}

#[test]
fn a_power_cut_keeps_flushed_writes_and_any_subset_of_the_sectors_after() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let sim = SimDevice::new(4096, 1024);
        let device = sim.open();
        run(async {
            device.write(0, block(&device, 1)).await.unwrap();
            device.flush().await.unwrap();
            device.write(0, block(&device, 2)).await.unwrap();
            device.write(0, block(&device, 3)).await.unwrap();
        });
        assert_eq!(sim.contents(0..1), [3]);
        assert_eq!(sim.volatile_sectors(), 2);
        sim.power_cut(seed);
        let contents = sim.contents(0..1024);
        for sector in contents.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors do not tear");
        }
        seen.insert((contents[0], contents[512]));
        assert_eq!(sim.volatile_sectors(), 0);
    }
    let every = (1..=3).flat_map(|first| (1..=3).map(move |second| (first, second)));
    assert_eq!(seen, every.collect(), "each sector is durable, older or newest, independently");
}

/// A header that is rewritten in place lies in one sector: nothing else may tear it.
#[test]
fn a_write_that_is_cut_short_tears_no_sector() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let sim = SimDevice::new(4096, 1024);
        let device = sim.open();
        run(async {
            device.write(0, block(&device, 1)).await.unwrap();
            device.flush().await.unwrap();
            sim.inject(Fault::new(Effect::Short(700)).on(OperationKind::Write));
            device.write(0, block(&device, 2)).await.unwrap();
        });
        assert_eq!(sim.contents(0..1024), [2; 1024], "it was continued");
        sim.power_cut(seed);
        let contents = sim.contents(0..1024);
        for sector in contents.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn");
        }
        seen.insert((contents[0], contents[512]));
    }
    let every = (1..=2).flat_map(|first| (1..=2).map(move |second| (first, second)));
    assert_eq!(seen, every.collect());
}

#[test]
fn a_power_cut_is_the_same_for_the_same_seed() {
    let contents = |seed| {
        let sim = SimDevice::new(1 << 20, 512);
        let device = sim.open();
        for index in 0..100 {
            run(device.write(index * 512, block(&device, 7))).unwrap();
        }
        sim.power_cut(seed);
        sim.contents(0..1 << 20)
    };
    assert_eq!(contents(5), contents(5));
    assert_ne!(contents(5), contents(6));
}

#[test]
fn a_kill_keeps_completed_writes_and_ends_the_handles() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    run(device.write(0, block(&device, 4))).unwrap();
    sim.kill();
    assert_eq!(sim.contents(0..4096), [4; 4096]);
    let error = run(device.write(0, block(&device, 5))).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc::ENODEV));
    assert!(run(device.flush()).is_err());
    assert!(run(device.read_exact(0..1)).is_err());
    let again = sim.open();
    assert_eq!(&run(again.read_exact(0..2)).unwrap()[..], [4, 4]);
    assert_eq!(sim.counts().refused, 3);
    sim.power_cut(1);
    assert!(run(again.read_exact(0..1)).is_err());
}

#[test]
fn a_write_under_way_at_a_kill_lands_or_not_but_never_later() {
    let mut seen = BTreeSet::new();
    for round in 0..32u64 {
        let sim = SimDevice::new(8192, 512);
        let device = sim.open();
        sim.state.lock().random = random::SplitMix::new(round);
        run(async {
            sim.set_delay(Delay::Sleep(Duration::from_secs(1)));
            let write = tokio::spawn({
                let device = device.clone();
                async move { device.write(0, block(&device, 6)).await }
            });
            tokio::task::yield_now().await;
            sim.kill();
            let after_kill = sim.contents(0..1)[0];
            assert!(write.await.unwrap().is_err());
            assert_eq!(sim.contents(0..1)[0], after_kill);
            seen.insert(after_kill);
        });
    }
    assert_eq!(seen, BTreeSet::from([0, 6]));
}

#[test]
fn a_flush_covers_only_writes_completed_before_it_was_submitted() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    run(async {
        sim.set_delay(Delay::Sleep(Duration::from_secs(1)));
        let flush = tokio::spawn({
            let device = device.clone();
            async move { device.flush().await }
        });
        tokio::task::yield_now().await;
        sim.set_delay(Delay::None);
        device.write(0, block(&device, 1)).await.unwrap();
        flush.await.unwrap().unwrap();
    });
    assert_eq!(sim.volatile_sectors(), 8);
}

#[test]
fn no_later_flush_saves_the_writes_before_a_failed_one() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    run(async {
        device.write(0, block(&device, 1)).await.unwrap();
        sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
        assert!(device.flush().await.is_err());
        device.write(4096, block(&device, 2)).await.unwrap();
        device.flush().await.unwrap();
    });
    assert_eq!(sim.volatile_sectors(), 8, "only the second block became durable");
}

#[test]
fn faults_strike_the_operation_they_name_and_no_other() {
    let sim = SimDevice::new(1 << 16, 4096);
    let device = sim.open();
    let fault = Fault::new(Effect::Fail(libc::EIO));
    sim.inject(fault.on(OperationKind::Write).within(8192..12288).after(1));
    run(async {
        device.write(0, block(&device, 1)).await.unwrap();
        device.write(8192, block(&device, 1)).await.unwrap();
        device.read_exact(8192..8193).await.unwrap();
        device.flush().await.unwrap();
        assert!(device.write(8192, block(&device, 2)).await.is_err());
        device.write(8192, block(&device, 3)).await.unwrap();
    });
    assert_eq!(sim.counts().faults, 1);
}

#[test]
fn silent_faults_report_success() {
    let sim = SimDevice::new(1 << 16, 4096);
    let device = sim.open();
    run(async {
        sim.inject(Fault::new(Effect::Lost));
        device.write(0, block(&device, 1)).await.unwrap();
        sim.inject(Fault::new(Effect::Misdirected(8192)));
        device.write(4096, block(&device, 2)).await.unwrap();
        sim.inject(Fault::new(Effect::Corrupt(3, 0x80)));
        device.write(12288, block(&device, 3)).await.unwrap();
    });
    assert_eq!(sim.contents(0..1), [0]);
    assert_eq!((sim.contents(4096..4097)[0], sim.contents(8192..8193)[0]), (0, 2));
    assert_eq!(sim.contents(12288..12292), [3, 3, 3, 0x83]);
    sim.corrupt(12291, 0x80);
    assert_eq!(sim.contents(12291..12292), [3]);
}

#[test]
fn a_failed_write_may_have_written_its_first_bytes() {
    let sim = SimDevice::new(8192, 4096);
    let device = sim.open();
    sim.inject(Fault::new(Effect::FailAfter(700, libc::EIO)));
    assert!(run(device.write(0, block(&device, 9))).is_err());
    let contents = sim.contents(0..4096);
    assert_eq!(contents.iter().filter(|byte| **byte == 9).count(), 700);
}

#[test]
fn delays_interleave_the_same_way_every_time() {
    let order = || {
        let sim = SimDevice::new(1 << 16, 512);
        let device = sim.open();
        sim.set_delay(Delay::Yields(9));
        run(async {
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for index in 0..16u64 {
                let (device, order) = (device.clone(), Arc::clone(&order));
                tasks.push(tokio::spawn(async move {
                    device.read_exact(index * 512..index * 512 + 1).await.unwrap();
                    order.lock().push(index);
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            assert!(sim.counts().in_flight_max > 1);
            Arc::into_inner(order).unwrap().into_inner()
        })
    };
    let first = order();
    assert_ne!(first, (0..16).collect::<Vec<_>>(), "completions overtake each other");
    assert_eq!(first, order());
}
