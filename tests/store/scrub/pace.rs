//! How fast the scrubber goes, on the paused clock, and what it gives way to.

use rawcached::cache::CacheOptions;
use rawcached::device::Delay;
use rawcached::store::Scrubber;
use tokio::time::Instant;

use super::{counters, filled};
use crate::rig::*;

/// A store that scrubs by itself, after the pause that a start has.
fn scrubbing(bytes_per_sec: u64) -> Rig {
    let rig =
        Rig::with(SMALL, options!(CacheOptions { scrub_bytes_per_sec: bytes_per_sec, ..plain() }));
    rig.fill("a", 17, 100_000);
    rig.sleep(secs(5));
    rig.sleep(secs(500));
    assert_eq!(counters(&rig).scrub_bytes, 0, "the start comes first");
    rig.sleep(secs(99));
    rig
}

#[test]
fn the_rate_is_kept_and_a_pass_begins_once_a_day() {
    let (rate, chunk) = (20_000, 256 << 10);
    let rig = scrubbing(rate);
    let begin = counters(&rig).scrub_bytes;
    for second in 1..40 {
        rig.sleep(secs(1));
        let bytes = counters(&rig).scrub_bytes - begin;
        // A chunk is paid for after it was read.
        assert!(bytes <= second * rate + chunk, "{bytes} bytes after {second} s");
        assert!(bytes + chunk >= second * rate, "{bytes} bytes after {second} s");
    }
    rig.sleep(secs(30));
    let once = counters(&rig).scrub_bytes;
    assert_eq!(counters(&rig).scrub_passes, 1);
    assert!(counters(&rig).scrub_pass_us > 40_000_000, "{:?}", counters(&rig));
    rig.sleep(secs(500));
    assert_eq!(counters(&rig).scrub_bytes, once, "enough for a day");
    for _ in 0..24 * 12 {
        rig.sleep(secs(300));
    }
    assert_eq!(counters(&rig).scrub_passes, 2);
}

#[test]
fn a_rate_of_zero_turns_it_off() {
    let rig = scrubbing(0);
    rig.sleep(secs(500));
    assert_eq!(counters(&rig).scrub_bytes, 0);
}

#[test]
fn lookups_go_first() {
    let mut rig = filled();
    rig.kill();
    rig.sim.set_delay(Delay::Sleep(millis(300)));
    for seed in 0..10 {
        rig.run(async {
            let begun = Instant::now();
            let lookup = async {
                assert!(rig.cache().lookup(format!("b-{}", seed % 8).as_bytes()).await.is_some());
                begun.elapsed()
            };
            let scrub = async {
                tokio::task::yield_now().await;
                // The first read of a pass.
                let reads = rig.sim.counts().reads;
                let store = rig.cache().device_store();
                let mut scrubber = Scrubber::starting_at(store.clone(), 0);
                let mut step = std::pin::pin!(scrubber.step());
                loop {
                    let next = tokio::time::timeout(millis(1), step.as_mut()).await;
                    if next.is_ok() || rig.sim.counts().reads > reads {
                        return begun.elapsed();
                    }
                }
            };
            let (looked_up, scrubbed) = tokio::join!(lookup, scrub);
            assert!(scrubbed >= looked_up, "{scrubbed:?} before {looked_up:?}");
        });
    }
    assert!(counters(&rig).scrub_yields >= 5, "{:?}", counters(&rig).scrub_yields);
}

#[test]
fn lookups_without_end_slow_it_down_but_do_not_stop_it() {
    let mut rig = filled();
    rig.kill();
    rig.sim.set_delay(Delay::Sleep(millis(5)));
    let bytes = rig.run(async {
        let busy = async {
            loop {
                let lookups = [b"b-0", b"b-1", b"b-2", b"b-3"].map(|key| rig.cache().lookup(key));
                futures_util::future::join_all(lookups).await;
            }
        };
        let scrub = async {
            let store = rig.cache().device_store().clone();
            let (mut scrubber, mut bytes) = (Scrubber::starting_at(store, 0), 0);
            let end = Instant::now() + secs(20);
            while Instant::now() < end {
                bytes += scrubber.step().await.bytes;
            }
            bytes
        };
        tokio::select! { bytes = scrub => bytes, () = busy => unreachable!() }
    });
    assert!(bytes > 0, "it goes on");
}

#[test]
fn a_stop_in_the_middle_takes_milliseconds() {
    for delay in 0..20 {
        let rig = scrubbing(1 << 20);
        // Nothing but a read of the scrubber is under way.
        rig.sim.set_delay(Delay::Sleep(secs(30)));
        rig.sleep(secs(2) + millis(100 * delay));
        rig.sim.set_delay(Delay::None);
        let took = rig.run(async {
            let begun = Instant::now();
            rig.cache().shutdown().await.unwrap();
            begun.elapsed()
        });
        assert!(took < millis(10), "{took:?}");
        let bytes = counters(&rig).scrub_bytes;
        rig.sleep(secs(100));
        assert_eq!(counters(&rig).scrub_bytes, bytes, "it has ended");
    }
}
