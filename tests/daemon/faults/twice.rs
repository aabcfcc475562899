//! Two daemons for the same bytes by different ways to them: the second is refused, names the
//! first, and changes nothing.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::ledger::{Allowed, Ledger, expect_sound};
use crate::support::binary::{format, run, stderr};
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::require;

const MIB: u64 = 1 << 20;

/// A second daemon on `path`, and a format of it, are refused and say `why`.
#[track_caller]
fn expect_in_use(path: &Path, why: &str) {
    let mut second = Daemon::new(path, "");
    second.spawn();
    let (status, log) = second.wait();
    assert_eq!(status.code(), Some(1), "{}: {log}", path.display());
    assert!(log.contains("in use") && log.contains(why), "{why} in: {log}");
    println!("{}", log.lines().last().unwrap_or_default());
    let formatted = run(&[&"format", &path, &"--yes", &"--force"]);
    assert_eq!(formatted.status.code(), Some(2), "{}", stderr(&formatted));
}

#[test]
fn an_image_in_use_is_refused_by_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    File::create(&image).unwrap().set_len(128 * MIB).unwrap();
    format(&image);
    let (soft, hard) = (directory.path().join("soft"), directory.path().join("hard"));
    symlink(&image, &soft).unwrap();
    fs::hard_link(&image, &hard).unwrap();
    let mut daemon = Daemon::start(&image);
    let mut ledger = Ledger::default();
    ledger.fill(&mut daemon.connect(), "key", (50, 10_000));
    let process = format!("process {}", daemon.pid());
    expect_in_use(&image, &process);
    expect_in_use(&soft, &process);
    expect_in_use(&hard, "");
    if let Some(disk) = require(LoopDevice::of_file(&image, 4096)) {
        expect_in_use(disk.path(), "is locked");
    }
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    daemon.restart();
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    expect_sound(&image);
}

#[test]
fn a_device_in_use_is_refused_by_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk");
    let (soft, hard) = (directory.path().join("soft"), directory.path().join("hard"));
    File::create(&file).unwrap().set_len(128 * MIB).unwrap();
    fs::hard_link(&file, &hard).unwrap();
    let Some(disk) = require(LoopDevice::of_file(&file, 4096)) else { return };
    format(disk.path());
    symlink(disk.path(), &soft).unwrap();
    let mut daemon = Daemon::start(disk.path());
    let mut ledger = Ledger::default();
    ledger.fill(&mut daemon.connect(), "key", (50, 10_000));
    expect_in_use(disk.path(), &format!("process {}", daemon.pid()));
    expect_in_use(&soft, "");
    let attached = format!("attached to {}", disk.path().display());
    expect_in_use(&file, &attached);
    expect_in_use(&hard, &attached);
    for path in [&file, &hard] {
        let Some(second) = require(LoopDevice::of_file(path, 4096)) else { return };
        expect_in_use(second.path(), &attached);
    }
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    daemon.restart();
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    expect_sound(disk.path());
}
