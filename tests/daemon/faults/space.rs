//! No room for writes: a full file system under an image file, or under the file behind a loop
//! device.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::ledger::{
    Allowed, Ledger, errors_in, expect_healed, expect_only_given_up, expect_refusals,
};
use crate::support::binary::format;
use crate::support::daemon::Daemon;
use crate::support::devices::{LoopDevice, MountedImage};
use crate::support::machine::{command, require};

const MIB: u64 = 1 << 20;

/// Takes all but about `left` bytes of the file system.
fn leave(mounted: &Path, left: u64) {
    let free = command("stat", &[&"-f", &"-c", &"%f %S", &mounted]).unwrap();
    let (blocks, size) = free.split_once(' ').unwrap();
    let free = blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap();
    let len = (free - left).to_string();
    command("fallocate", &[&"-l", &len, &mounted.join("ballast")]).unwrap();
}

fn fill_the_file_system(through_a_loop_device: bool) {
    let Some(mounted) = require(MountedImage::create("ext4", 400 * MIB)) else { return };
    let image = mounted.file("cache.img", 256 * MIB);
    let disk = through_a_loop_device.then(|| require(LoopDevice::of_file(&image, 4096)));
    let device = match &disk {
        Some(None) => return,
        Some(Some(disk)) => disk.path(),
        None => &image,
    };
    format(device);
    let mut daemon = Daemon::new(device, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (40, 100_000));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    command("sync", &[&"-f", &mounted.path()]).unwrap();
    leave(mounted.path(), 20 * MIB);

    let stored = expect_refusals(&daemon, &mut ledger, ("late", 1_000_000));
    let kept = ledger.check(&daemon, Allowed::Misses);
    assert!(ledger.set(&mut client, "early-0", 10) || !ledger.delete(&mut client, "early-1"));
    ledger.check(&daemon, Allowed::Misses);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(daemon.metric("rawcached_log_write_errors_total") >= 2);
    assert!(daemon.metric("rawcached_index_entries") >= 39, "the early entries stay");
    let lines = errors_in(&daemon.log());
    assert!((1..8).contains(&lines), "{}", daemon.log());
    println!("full after {stored} stores: {kept:?}, {lines} lines of errors");

    fs::remove_file(mounted.path().join("ballast")).unwrap();
    expect_healed(&daemon);
    ledger.fill(&mut client, "after", (50, 200_000));
    ledger.check(&daemon, Allowed::Misses);
    assert!(daemon.log().contains("the device takes writes again"), "{}", daemon.log());
    assert!(daemon.stop().success());
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    let mut client = daemon.connect();
    for number in 0..50 {
        assert!(client.get(&format!("after-{number}")).is_some(), "what came after the fault");
    }
    println!("after the restart: {found:?}");
    assert!(daemon.stop().success());
    expect_only_given_up(device);
}

#[test]
fn a_full_file_system_under_an_image_refuses_stores_until_there_is_space() {
    fill_the_file_system(false);
}

#[test]
fn a_full_file_system_under_a_loop_device_refuses_stores_until_there_is_space() {
    fill_the_file_system(true);
}

#[test]
fn an_image_that_does_not_fit_is_not_made() {
    let Some(mounted) = require(MountedImage::create("ext4", 64 * MIB)) else { return };
    let mut ballast = File::create(mounted.path().join("ballast")).unwrap();
    for piece in [1 << 20, 4096, 512] {
        while ballast.write_all(&vec![1; piece]).and_then(|()| ballast.sync_all()).is_ok() {}
    }
    drop(ballast);
    let image = mounted.path().join("cache.img");
    let mut daemon = Daemon::new(&image, "");
    daemon.configure_more("size = \"32MiB\"\n");
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert!(status.code() == Some(1) && log.contains("No space left"), "{log}");
    assert!(!image.exists(), "nothing half made stands where the image belongs");
    fs::remove_file(mounted.path().join("ballast")).unwrap();
    daemon.restart();
    assert!(daemon.stop().success());
    println!("{log}");
}
