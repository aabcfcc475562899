//! SIGKILL while the daemon recovers or stops. `tests/sigkill.rs` kills it under load,
//! `tests/daemon/bad_devices.rs` while it formats.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::ledger::{Allowed, Ledger, expect_sound};
use crate::support::binary::format;
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::require;
use crate::support::memcached::Client;
use crate::support::waiting::eventually;

/// Large and sparse, so that each start has many regions to look at and none is reclaimed.
const DEVICE_SIZE: u64 = 4 << 30;
/// Kills of each test.
const ROUNDS: u32 = 25;
/// Changes older than this are on the device: the flush interval and time for a busy machine.
const FLUSH_WINDOW: Duration = Duration::from_millis(300);

fn seed() -> fastrand::Rng {
    let given = std::env::var("RAWCACHED_TEST_FAULTS_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("RAWCACHED_TEST_FAULTS_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

fn serve() -> Option<(LoopDevice, Daemon)> {
    let disk = require(LoopDevice::create(DEVICE_SIZE, 4096))?;
    format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("[ram]\nsize = \"1MiB\"\n");
    daemon.restart();
    Some((disk, daemon))
}

#[test]
fn a_kill_while_the_daemon_stops_loses_nothing_that_was_durable() {
    let mut random = seed();
    let Some((disk, mut daemon)) = serve() else { return };
    let mut ledger = Ledger::default();
    let (mut stopped, mut killed) = (0, 0);
    for round in 0..ROUNDS {
        let mut client = daemon.connect();
        for _ in 0..random.usize(5..25) {
            let name = format!("key-{}", random.u32(..200));
            assert!(ledger.set(&mut client, &name, random.usize(100..60_000)));
        }
        let deleted = format!("deleted-{round}");
        assert!(ledger.set(&mut client, &deleted, 5000));
        std::thread::sleep(FLUSH_WINDOW);
        ledger.settle();
        // The delete is durable when it is answered, the others when the stop is complete.
        for _ in 0..random.usize(..200) {
            let name = format!("late-{}", random.u32(..100));
            assert!(ledger.set(&mut client, &name, random.usize(100..60_000)));
        }
        assert!(ledger.delete(&mut client, &deleted));
        for _ in 0..random.usize(..100) {
            let name = format!("late-{}", random.u32(..100));
            assert!(ledger.set(&mut client, &name, random.usize(100..60_000)));
        }
        daemon.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_micros(random.u64(..40_000)));
        let status = daemon.kill_or_ended();
        daemon.restart();
        if status.success() {
            stopped += 1;
            ledger.settle();
            ledger.check(&daemon, Allowed::Nothing);
        } else {
            killed += 1;
            assert_eq!(status.code(), None, "{status}");
            let found = ledger.check(&daemon, Allowed::LateChanges);
            assert!(found.hits > 0, "{found:?}");
        }
        assert_eq!(daemon.metric("rawcached_damaged_entries_total"), 0, "round {round}");
    }
    println!("{stopped} stops were complete, {killed} were cut off");
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}

#[test]
fn a_kill_while_the_daemon_recovers_loses_nothing() {
    let mut random = seed();
    let Some((disk, mut daemon)) = serve() else { return };
    let mut ledger = Ledger::default();
    ledger.fill(&mut daemon.connect(), "base", (300, 3000));
    assert!(daemon.stop().success());
    ledger.settle();
    let (mut recovering, mut changed) = (0, 0);
    for round in 0..ROUNDS {
        daemon.spawn();
        assert!(eventually(|| daemon.socket().exists()), "{}", daemon.log());
        std::thread::sleep(Duration::from_micros(random.u64(..30_000)));
        // Changes while recovery runs: some are durable when they are answered, by a delete.
        if let Ok(stream) = std::os::unix::net::UnixStream::connect(daemon.socket()) {
            let mut client = Client::over(stream);
            let name = format!("base-{}", random.u32(..300));
            assert!(ledger.set(&mut client, &name, 4000));
            if random.bool() {
                assert!(ledger.set(&mut client, &format!("victim-{round}"), 10));
                assert!(ledger.delete(&mut client, &format!("victim-{round}")));
                ledger.settle();
                changed += 1;
            }
        }
        recovering += u32::from(!daemon.log().contains("recovery complete"));
        daemon.kill();
        daemon.restart();
        let found = ledger.check(&daemon, Allowed::LateChanges);
        assert_eq!(found.hits, 300, "{found:?}");
        assert_eq!(daemon.metric("rawcached_damaged_entries_total"), 0, "round {round}");
        daemon.kill();
    }
    println!("{recovering} of {ROUNDS} kills hit recovery, {changed} after durable changes");
    assert!(recovering > 0, "no kill came in time");
    daemon.restart();
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}
