//! A device that turns read-only under the daemon: by hand, or by a file system that found an
//! error in itself.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::ledger::{
    Allowed, Ledger, errors_in, expect_healed, expect_only_given_up, expect_refusals, expect_sound,
};
use crate::support::binary::{format, run};
use crate::support::daemon::Daemon;
use crate::support::devices::{LoopDevice, MountedImage};
use crate::support::machine::{command, require};

const MIB: u64 = 1 << 20;

/// A block device set read-only. That outlives a loop device, so it is undone when dropped.
struct ReadOnly<'a>(&'a Path);

impl ReadOnly<'_> {
    fn set(device: &Path) -> ReadOnly<'_> {
        command("blockdev", &[&"--setro", &device]).unwrap();
        ReadOnly(device)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        command("blockdev", &[&"--setrw", &self.0]).unwrap();
    }
}

#[test]
fn a_device_set_read_only_is_read_on_and_written_when_that_is_undone() {
    let Some(disk) = require(LoopDevice::create(128 * MIB, 4096)) else { return };
    format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (100, 20_000));
    assert!(ledger.set(&mut client, "victim", 100) && ledger.delete(&mut client, "victim"));
    ledger.settle();

    let read_only = ReadOnly::set(disk.path());
    let stored = expect_refusals(&daemon, &mut ledger, ("late", 10_000));
    ledger.check(&daemon, Allowed::Misses);
    assert!(!ledger.delete(&mut client, "early-7"), "a purge that is not durable is no purge");
    assert_eq!(client.get("early-7"), None, "but the entry is gone for now");
    assert!(client.command("touch early-8 1000").starts_with("SERVER_ERROR"));
    assert!(client.command("flush_all").starts_with("SERVER_ERROR"));
    assert_eq!(client.get("early-9"), None, "gone for now, too");
    let lines = errors_in(&daemon.log());
    println!("refused after {stored} stores, {lines} lines of errors");
    assert!((1..6).contains(&lines), "{}", daemon.log());

    drop(read_only);
    expect_healed(&daemon);
    // The purge of everything was refused, but it stands in the superblock that is written next.
    ledger.forget("");
    assert!(ledger.set(&mut client, "again", 5000));
    assert_eq!(client.get("early-9"), None);
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.restart();
    ledger.check(&daemon, Allowed::Nothing);
    assert_eq!(daemon.connect().get("early-9"), None);
    assert!(daemon.stop().success());
    expect_only_given_up(disk.path());
}

#[test]
fn a_stop_while_the_device_is_read_only_says_that_something_may_be_lost() {
    let Some(disk) = require(LoopDevice::create(128 * MIB, 4096)) else { return };
    format(disk.path());
    let mut daemon = Daemon::start(disk.path());
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (50, 5000));
    assert!(ledger.set(&mut client, "victim", 1) && ledger.delete(&mut client, "victim"));
    ledger.settle();
    let read_only = ReadOnly::set(disk.path());
    assert!(ledger.set(&mut client, "late", 5000), "accepted before anybody knows");
    daemon.signal(Signal::SIGTERM);
    let (status, log) = daemon.wait();
    drop(read_only);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("could not be written out"), "{log}");
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    println!("after the restart: {found:?}");
    assert!(found.hits >= 50, "only the late one may be missing");
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}

#[test]
fn an_image_whose_file_system_turns_read_only_is_read_on() {
    let Some(mounted) = require(MountedImage::create("ext4", 300 * MIB)) else { return };
    let image = mounted.file("cache.img", 128 * MIB);
    command("mount", &[&"-o", &"remount,errors=remount-ro", &mounted.path()]).unwrap();
    format(&image);
    let mut daemon = Daemon::new(&image, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (100, 20_000));
    assert!(ledger.set(&mut client, "victim", 1) && ledger.delete(&mut client, "victim"));
    ledger.settle();
    let disk = mounted.device().unwrap().path().to_owned();
    let name = disk.file_name().unwrap().to_string_lossy().into_owned();
    fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();

    let stored = expect_refusals(&daemon, &mut ledger, ("late", 10_000));
    let found = ledger.check(&daemon, Allowed::Misses);
    assert!(found.hits >= 99, "{found:?}");
    println!("refused after {stored} stores: {found:?}");
    // Only mounting it anew helps against this, and for that the daemon has to leave.
    daemon.signal(Signal::SIGTERM);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    command("umount", &[&mounted.path()]).unwrap();
    let repaired = std::process::Command::new("e2fsck").arg("-fy").arg(&disk).output().unwrap();
    assert!(repaired.status.code().is_some_and(|code| code <= 1), "{repaired:?}");
    command("mount", &[&disk, &mounted.path()]).unwrap();
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    assert!(found.hits >= 99, "{found:?}");
    println!("after the repair: {found:?}");
    assert!(daemon.stop().success());
    expect_sound(&image);
}

#[test]
fn an_image_on_a_read_only_file_system_is_refused() {
    let Some(mounted) = require(MountedImage::create("ext4", 100 * MIB)) else { return };
    let image = mounted.file("cache.img", 64 * MIB);
    format(&image);
    command("mount", &[&"-o", &"remount,ro", &mounted.path()]).unwrap();
    let mut daemon = Daemon::new(&image, "");
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert!(status.code() == Some(1) && log.contains("read-only"), "{log}");
    let output = run(&[&"format", &image, &"--yes"]);
    assert_eq!(output.status.code(), Some(2));
    command("mount", &[&"-o", &"remount,rw", &mounted.path()]).unwrap();
    daemon.restart();
    assert!(daemon.stop().success());
}
