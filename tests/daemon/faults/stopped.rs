//! A daemon that is stopped for a while (SIGSTOP, a debugger, a frozen virtual machine): what it
//! promised stays true, and the time it missed counts.

use std::io::Read;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::ledger::{Allowed, Ledger, expect_sound};
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::http;
use crate::support::machine::require;

/// Longer than the flush interval, the pause between flushes and a client's patience.
const STOPPED: Duration = Duration::from_secs(4);

#[test]
fn a_daemon_that_was_stopped_keeps_its_promises_and_counts_the_time() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("[ttl]\nmin_to_disk = \"1s\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (50, 10_000));
    assert!(ledger.delete(&mut client, "early-9"));
    for name in ["brief", "long"] {
        let ttl = if name == "brief" { 3 } else { 100 };
        client.send(format!("set {name} 0 {ttl} 2\r\nok\r\n"));
        assert_eq!(client.line(), "STORED");
    }
    assert!(client.get("brief").is_some());

    daemon.signal(Signal::SIGSTOP);
    // A client that gives up while it waits: its store was never acknowledged.
    let mut impatient = daemon.stream();
    impatient.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    std::io::Write::write_all(&mut impatient, b"set impatient 0 0 2\r\nok\r\n").unwrap();
    assert!(impatient.read(&mut [0; 16]).is_err(), "nobody answers");
    drop(impatient);
    std::thread::sleep(STOPPED);
    daemon.signal(Signal::SIGCONT);

    assert_eq!(client.get("brief"), None, "its time has passed");
    assert!(client.get("long").is_some());
    ledger.check(&daemon, Allowed::Nothing);
    ledger.fill(&mut client, "late", (50, 10_000));
    assert!(ledger.delete(&mut client, "late-9"));
    assert!(http::get(daemon.admin(), "/readyz").unwrap().starts_with("HTTP/1.1 200 "));
    let impatient = client.get("impatient");
    println!("the store that nobody waited for left {impatient:?}");
    assert!(impatient.is_none_or(|body| body == b"ok"));
    // Stopped again and killed: values that were durable before are there.
    ledger.settle();
    daemon.signal(Signal::SIGSTOP);
    daemon.kill();
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::Nothing);
    println!("after the kill: {found:?}");
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}

#[test]
fn a_stop_that_was_asked_for_while_stopped_is_carried_out_afterwards() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::start(disk.path());
    let mut ledger = Ledger::default();
    ledger.fill(&mut daemon.connect(), "early", (50, 10_000));
    daemon.signal(Signal::SIGSTOP);
    daemon.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(1500));
    daemon.signal(Signal::SIGCONT);
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    daemon.restart();
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}
