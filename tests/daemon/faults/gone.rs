//! A device that goes away, shrinks or loses its file under the daemon.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ledger::{
    Allowed, Ledger, errors_in, expect_healed, expect_only_given_up, expect_refusals, expect_sound,
};
use crate::support::binary::{format, run};
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::{command, require};
use crate::support::waiting::eventually;

const MIB: u64 = 1 << 20;

fn set_len(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// A daemon that reads everything from the device, and what it holds durably.
fn serve(device: &Path) -> (Daemon, Ledger) {
    let mut daemon = Daemon::new(device, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (100, 50_000));
    assert!(ledger.set(&mut client, "victim", 1) && ledger.delete(&mut client, "victim"));
    ledger.settle();
    (daemon, ledger)
}

#[test]
fn a_device_that_is_gone_is_all_misses_and_goes_on_when_it_is_back() {
    let Some(disk) = require(LoopDevice::create(128 * MIB, 4096)) else { return };
    format(disk.path());
    let (mut daemon, mut ledger) = serve(disk.path());
    let contents = fs::read(disk.backing()).unwrap();
    set_len(disk.backing(), 0);
    disk.take_length_of_file();

    let stored = expect_refusals(&daemon, &mut ledger, ("late", 10_000));
    let found = ledger.check(&daemon, Allowed::Misses);
    println!("gone: refused after {stored} stores, {found:?}");
    // Entries that are still in the memory of the log may be found.
    assert!(found.hits < 10, "{found:?}");
    assert!(daemon.metric("rawcached_entry_read_errors_total") >= 90);
    assert!(daemon.metric("rawcached_device_errors_total{operation=\"read\"}") >= 90);
    let mut client = daemon.connect();
    assert!(!ledger.delete(&mut client, "early-3"));
    assert!((1..6).contains(&errors_in(&daemon.log())), "{}", daemon.log());

    File::options().write(true).open(disk.backing()).unwrap().write_all_at(&contents, 0).unwrap();
    disk.take_length_of_file();
    expect_healed(&daemon);
    let found = ledger.check(&daemon, Allowed::Misses);
    println!("back: {found:?}");
    assert!(found.hits >= 99, "what was on the device is found again");
    ledger.fill(&mut client, "after", (50, 50_000));
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    println!("after the restart: {found:?}");
    assert!(found.hits >= 149);
    assert!(daemon.stop().success());
    expect_only_given_up(disk.path());
}

#[test]
fn a_detached_loop_device_works_until_the_daemon_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk");
    fs::write(&file, "").unwrap();
    set_len(&file, 128 * MIB);
    let Some(mut disk) = require(LoopDevice::of_file(&file, 4096)) else { return };
    format(disk.path());
    let (mut daemon, mut ledger) = serve(disk.path());
    disk.detach();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "late", (50, 50_000));
    assert!(ledger.delete(&mut client, "early-1"));
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    let detached = || command("losetup", &[&"--associated", &file]).unwrap().is_empty();
    assert!(eventually(detached), "the kernel lets go of it with the last user");
    let Some(disk) = require(LoopDevice::of_file(&file, 4096)) else { return };
    let mut again = Daemon::new(disk.path(), "");
    again.restart();
    let found = ledger.check(&again, Allowed::Nothing);
    println!("attached again: {found:?}");
    assert!(again.stop().success());
    expect_sound(disk.path());
}

fn cut_short(loop_device: bool) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.img");
    fs::write(&file, "").unwrap();
    set_len(&file, 128 * MIB);
    let disk = loop_device.then(|| require(LoopDevice::of_file(&file, 4096)));
    let device = match &disk {
        Some(None) => return,
        Some(Some(disk)) => disk.path(),
        None => &file,
    };
    format(device);
    let (mut daemon, mut ledger) = serve(device);
    set_len(&file, 3 * MIB);
    let found = ledger.check(&daemon, Allowed::Misses);
    println!("cut to 3 MiB: {found:?}");
    assert!(found.hits > 10 && found.misses > 10, "{found:?}");
    let counted = daemon.metric("rawcached_entry_read_errors_total")
        + daemon.metric("rawcached_damaged_entries_total");
    assert!(counted >= 10, "misses are counted");
    let mut client = daemon.connect();
    // A file grows again where it is written to.
    ledger.fill(&mut client, "late", (20, 50_000));
    ledger.check(&daemon, Allowed::Misses);
    assert!(ledger.delete(&mut client, "late-1"));
    assert!(daemon.stop().success(), "{}", daemon.log());
    if fs::metadata(&file).unwrap().len() < 128 * MIB {
        if loop_device {
            disk.as_ref().unwrap().as_ref().unwrap().take_length_of_file();
        }
        daemon.spawn();
        let (status, log) = daemon.wait();
        assert!(status.code() == Some(1) && log.contains("truncated"), "{log}");
        set_len(&file, 128 * MIB);
        if loop_device {
            disk.as_ref().unwrap().as_ref().unwrap().take_length_of_file();
        }
    }
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    println!("as long as before: {found:?}");
    // The header of the region that was open is cut off too, and with it what came later.
    assert!(found.hits >= 40, "what lies before the cut is there");
    assert!(daemon.stop().success());
    let check = run(&[&"check", &device]);
    println!("{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn an_image_cut_short_under_the_daemon_is_misses() {
    cut_short(false);
}

#[test]
fn the_file_of_a_loop_device_cut_short_under_the_daemon_is_misses() {
    cut_short(true);
}

#[test]
fn a_deleted_image_works_until_the_daemon_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    let (mut daemon, mut ledger) = serve(&image);
    fs::remove_file(&image).unwrap();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "late", (50, 50_000));
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert!(status.code() == Some(1) && log.contains("does not exist"), "{log}");
    println!("{log}");
}
