//! Goal: a device that is not fit is refused with a message that says what to do, and not a byte
//! of it changes; one that is fit is served whatever its sectors or the file system around it.
//! Method: the real binary on real loop devices and image files, hashed before and after.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::binary::{format, rawcached, run, stderr};
use crate::support::daemon::Daemon;
use crate::support::devices::{LoopDevice, MountedImage};
use crate::support::machine::{command, require};
use crate::support::process::Process;
use xxhash_rust::xxh3::Xxh3;

const MIB: u64 = 1 << 20;
/// Bytes at both ends of a device that are for a superblock copy.
const SUPERBLOCK_SPACE: u64 = 128 << 10;

/// A hash of all bytes, read through the file behind a device or the image itself.
fn hash(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap();
    let mut hash = Xxh3::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return hash.digest(),
            len => hash.update(&piece[..len]),
        }
    }
}

/// Writes to a device that others have open.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

/// `serve` ends at once, says all of `expected`, and leaves `bytes` as they are.
#[track_caller]
fn expect_refusal(device: &Path, bytes: &Path, expected: &[&str]) {
    let before = hash(bytes);
    let mut daemon = Daemon::new(device, "");
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in expected {
        assert!(log.contains(part), "{part:?} in:\n{log}");
    }
    assert!(!daemon.socket().exists(), "a socket is left behind");
    assert_eq!(hash(bytes), before, "{} has changed", bytes.display());
}

/// A command ends with exit code 2, says all of `expected`, and leaves `bytes` as they are.
#[track_caller]
fn expect_failure(arguments: &[&dyn AsRef<std::ffi::OsStr>], bytes: &Path, expected: &[&str]) {
    let before = hash(bytes);
    let output = run(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for part in expected {
        assert!(message.contains(part), "{part:?} in:\n{message}");
    }
    assert_eq!(hash(bytes), before, "{} has changed", bytes.display());
}

fn set(daemon: &Daemon, key: &str, value: &[u8]) {
    assert_eq!(daemon.connect().set(key, value), "STORED");
}

#[track_caller]
fn expect(daemon: &Daemon, key: &str, value: &[u8]) {
    let mut client = daemon.connect();
    client.send(format!("get {key}\r\nquit\r\n"));
    let mut answer = Vec::new();
    client.0.read_to_end(&mut answer).unwrap();
    let head = format!("VALUE {key} 0 {}\r\n", value.len());
    assert!(answer == [head.as_bytes(), value, b"\r\nEND\r\n"].concat(), "{key}: {}", daemon.log());
}

fn body(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Serves, stores, is killed, and serves what it stored.
fn serve_and_recover(device: &Path) {
    let bodies = [0, 1, 511, 5000, 70_000, 3_000_000].map(body);
    let mut daemon = Daemon::new(device, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    for body in &bodies {
        set(&daemon, &format!("k{}", body.len()), body);
    }
    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    daemon.restart();
    for body in &bodies {
        expect(&daemon, &format!("k{}", body.len()), body);
    }
    assert!(daemon.stop().success());
}

fn serve_a_loop_device(sector_size: u32) {
    let Some(disk) = require(LoopDevice::create(128 * MIB, sector_size)) else { return };
    format(disk.path());
    serve_and_recover(disk.path());
}

#[test]
fn a_device_that_has_grown_is_served_as_it_was_and_the_log_says_so() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    format(disk.path());
    let mut daemon = Daemon::start(disk.path());
    set(&daemon, "k", b"v");
    assert!(daemon.stop().success() && !daemon.log().contains("is not used"), "{}", daemon.log());
    File::options().write(true).open(disk.backing()).unwrap().set_len(96 * MIB).unwrap();
    command("losetup", &[&"--set-capacity", &disk.path()]).unwrap();
    daemon.restart();
    expect(&daemon, "k", b"v");
    assert!(daemon.log().contains("the rest is not used"), "{}", daemon.log());
    daemon.kill();
    // Its second copy is where it was, not at the new end.
    overwrite(disk.path(), 0, &[0; 512]);
    daemon.restart();
    expect(&daemon, "k", b"v");
}

#[test]
fn a_part_of_a_device_is_used() {
    let Some(disk) = require(LoopDevice::create(160 * MIB, 4096)) else { return };
    let output = run(&[&"format", &disk.path(), &"--size", &"128MiB", &"--yes", &"--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("134217728"), "its size is told");
    let rest = || fs::read(disk.backing()).unwrap().split_off(128 << 20);
    assert!(rest().iter().all(|byte| *byte == 0));
    serve_and_recover(disk.path());
    assert!(rest().iter().all(|byte| *byte == 0), "the rest is left alone");
    let large = run(&[&"format", &disk.path(), &"--size", &"1GiB", &"--yes", &"--force"]);
    assert!(stderr(&large).contains("cannot be used"), "{}", stderr(&large));
}

#[test]
fn sectors_of_512_bytes_are_served() {
    serve_a_loop_device(512);
}

#[test]
fn sectors_of_4096_bytes_are_served() {
    serve_a_loop_device(4096);
}

#[test]
fn sectors_of_65536_bytes_are_served() {
    serve_a_loop_device(65_536);
}

fn serve_an_image_on(file_system: &str) {
    let Some(mounted) = require(MountedImage::create(file_system, 400 * MIB)) else { return };
    let image = mounted.file("cache.img", 128 * MIB);
    format(&image);
    serve_and_recover(&image);
}

#[test]
fn an_image_on_ext4_is_served() {
    serve_an_image_on("ext4");
}

#[test]
fn an_image_on_xfs_is_served() {
    serve_an_image_on("xfs");
}

#[test]
fn a_mounted_device_is_refused() {
    let Some(mounted) = require(MountedImage::create("ext4", 64 * MIB)) else { return };
    fs::write(mounted.path().join("precious"), "mine").unwrap();
    command("sync", &[&"-f", &mounted.path()]).unwrap();
    let disk = mounted.device().unwrap();
    let place = format!("mounted at {}", mounted.path().display());
    let precious = mounted.path().join("precious");
    expect_refusal(disk.path(), &precious, &[&place, "in use"]);
    expect_failure(&[&"format", &disk.path(), &"--yes", &"--force"], &precious, &[&place]);
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let Some(disk) = require(LoopDevice::create(MIB, 512)) else { return };
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 3] = [&"format", &disk.path(), &"--yes"];
    expect_failure(&arguments, disk.backing(), &["1048576 bytes", "are needed"]);
    expect_refusal(disk.path(), disk.backing(), &["rawcached format"]);
}

#[test]
fn a_raw_device_is_never_formatted_by_serve() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 4096)) else { return };
    overwrite(disk.path(), 8 * MIB, b"somebody's bytes");
    let command = format!("rawcached format {}", disk.path().display());
    expect_refusal(disk.path(), disk.backing(), &["not formatted", &command]);
    // Not with a size either: a size is for image files that do not exist yet.
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("size = \"32MiB\"\n");
    let before = hash(disk.backing());
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert!(status.code() == Some(2) && log.contains("has a size of its own"), "{log}");
    assert_eq!(hash(disk.backing()), before);
}

#[test]
fn what_others_have_put_on_a_device_is_refused_and_named() {
    let Some(disk) = require(LoopDevice::create(400 * MIB, 512)) else { return };
    let put_there = |name: &str| match name {
        "ext4" => command("mkfs.ext4", &[&disk.path()]).map(drop),
        "XFS" => command("mkfs.xfs", &[&disk.path()]).map(drop),
        "swap" => command("mkswap", &[&disk.path()]).map(drop),
        _ => {
            overwrite(disk.path(), 512, b"EFI PART\0\0\x01\0");
            Ok(())
        }
    };
    for name in ["ext4", "XFS", "swap", "GPT"] {
        command("blkdiscard", &[&"-z", &"-f", &disk.path()]).unwrap();
        if require(put_there(name)).is_none() {
            continue;
        }
        command("sync", &[]).unwrap();
        let report = run(&[&"probe", &disk.path()]);
        let report = String::from_utf8_lossy(&report.stdout).into_owned();
        assert!(report.contains(name), "{name} in:\n{report}");
        let advice = format!("rawcached format {} --force", disk.path().display());
        expect_refusal(disk.path(), disk.backing(), &[name, &advice]);
        let arguments: [&dyn AsRef<std::ffi::OsStr>; 3] = [&"format", &disk.path(), &"--yes"];
        expect_failure(&arguments, disk.backing(), &[name, "--force", "nothing was changed"]);
    }
}

#[test]
fn a_device_that_was_cut_short_is_refused() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    format(disk.path());
    File::options().write(true).open(disk.backing()).unwrap().set_len(32 * MIB).unwrap();
    command("losetup", &[&"--set-capacity", &disk.path()]).unwrap();
    expect_refusal(disk.path(), disk.backing(), &["truncated", "33554432", "67108864"]);
    // An image file alike.
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    File::options().write(true).open(&image).unwrap().set_len(63 * MIB).unwrap();
    expect_refusal(&image, &image, &["truncated"]);
}

#[test]
fn a_device_in_use_by_another_daemon_is_refused() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 4096)) else { return };
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    fs::write(&image, "").unwrap();
    File::options().write(true).open(&image).unwrap().set_len(64 * MIB).unwrap();
    for (path, bytes) in [(disk.path(), disk.backing()), (&image, &image)] {
        format(path);
        let daemon = Daemon::start(path);
        set(&daemon, "k", b"v");
        std::thread::sleep(Duration::from_millis(500));
        let holder = format!("process {}", daemon.pid());
        expect_refusal(path, bytes, &["in use", &holder]);
        expect_failure(&[&"format", &path, &"--yes", &"--force"], bytes, &["in use", &holder]);
        expect(&daemon, "k", b"v");
    }
}

#[test]
fn a_read_only_device_is_refused() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    format(disk.path());
    /// The setting outlives the loop device.
    struct Writable<'a>(&'a Path);
    impl Drop for Writable<'_> {
        fn drop(&mut self) {
            command("blockdev", &[&"--setrw", &self.0]).unwrap();
        }
    }
    let _writable = Writable(disk.path());
    command("blockdev", &[&"--setro", &disk.path()]).unwrap();
    expect_refusal(disk.path(), disk.backing(), &["read-only", "blockdev --setrw"]);
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 3] = [&"format", &disk.path(), &"--yes"];
    expect_failure(&arguments, disk.backing(), &["read-only"]);
}

#[test]
fn a_path_that_names_no_device_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let nothing = directory.path().join("nothing");
    fs::write(&nothing, "").unwrap();
    for (path, expected) in [
        (Path::new("/dev/null"), "neither a block device nor a regular file"),
        (directory.path(), "neither a block device nor a regular file"),
        (Path::new("/dev/no-such-disk"), "there is no device /dev/no-such-disk"),
        (&nothing, "has 0 bytes"),
    ] {
        expect_refusal(path, &nothing, &[expected, &path.display().to_string()]);
    }
}

#[test]
fn one_damaged_superblock_copy_is_repaired_and_reported() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 4096)) else { return };
    format(disk.path());
    let mut daemon = Daemon::start(disk.path());
    set(&daemon, "k", b"kept");
    assert!(daemon.stop().success());
    let garbage = body(usize::try_from(SUPERBLOCK_SPACE).unwrap());
    let last = 64 * MIB - SUPERBLOCK_SPACE;
    let flipped = |offset: u64| {
        let mut bytes = [0; 1];
        File::open(disk.path()).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        [!bytes[0]]
    };
    let damages: [(u64, &[u8]); 4] =
        [(0, &garbage), (last, &garbage), (40, &flipped(40)), (last + 20, &flipped(last + 20))];
    for (offset, bytes) in damages {
        overwrite(disk.path(), offset, bytes);
        let inspect = |expected: &str| {
            let output = run(&[&"inspect", &disk.path(), &"--json"]);
            let report = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{}", stderr(&output));
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let good = report["superblocks"].as_array().unwrap().iter().filter(|c| *c == "good");
            assert_eq!(good.count().to_string(), expected, "{report}");
        };
        inspect("1");
        daemon.restart();
        expect(&daemon, "k", b"kept");
        assert_eq!(daemon.metric("rawcached_superblock_repairs_total"), 1);
        assert!(daemon.log().contains("superblock copy is damaged"), "{}", daemon.log());
        daemon.kill();
        inspect("2");
    }
    daemon.restart();
    expect(&daemon, "k", b"kept");
    assert_eq!(daemon.metric("rawcached_superblock_repairs_total"), 0);
}

#[test]
fn two_damaged_superblock_copies_are_left_alone() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 4096)) else { return };
    format(disk.path());
    let mut daemon = Daemon::start(disk.path());
    set(&daemon, "k", b"kept");
    assert!(daemon.stop().success());
    let last = 64 * MIB - SUPERBLOCK_SPACE;
    let mut head = [0; 512];
    let mut tail = [0; 512];
    let file = File::open(disk.path()).unwrap();
    file.read_exact_at(&mut head, 0).unwrap();
    file.read_exact_at(&mut tail, last).unwrap();
    drop(file);
    // After the magic number, so that the store is recognised.
    overwrite(disk.path(), 100, &[0xff; 200]);
    overwrite(disk.path(), last + 100, &[0xff; 200]);
    let path = disk.path().display().to_string();
    expect_refusal(disk.path(), disk.backing(), &["both superblock copies are damaged", &path]);
    expect_failure(&[&"inspect", &disk.path()], disk.backing(), &["both superblock copies"]);
    // The store could be saved: erasing it takes more than a yes.
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 3] = [&"format", &disk.path(), &"--yes"];
    expect_failure(&arguments, disk.backing(), &["both superblock copies", "--force"]);
    // Nothing recognisable is left.
    overwrite(disk.path(), 0, &[0; 512]);
    overwrite(disk.path(), last, &[0; 512]);
    let command = format!("rawcached format {path}");
    expect_refusal(disk.path(), disk.backing(), &["not formatted", &command]);
    // Whoever restores a copy has everything back: nothing else was touched.
    overwrite(disk.path(), last, &tail);
    daemon.restart();
    expect(&daemon, "k", b"kept");
}

#[test]
fn a_format_that_is_killed_can_be_repeated() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 4096)) else { return };
    let mut random = fastrand::Rng::with_seed(7);
    let (mut formatted, mut refused) = (0, 0);
    for _ in 0..30 {
        command("blkdiscard", &[&"-z", &"-f", &disk.path()]).unwrap();
        let child = rawcached()
            .args(["format", "--yes"])
            .arg(disk.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = Process(child.unwrap());
        std::thread::sleep(Duration::from_micros(random.u64(..30_000)));
        drop(process);
        let inspected = run(&[&"inspect", &disk.path()]);
        if inspected.status.success() {
            formatted += 1;
        } else {
            refused += 1;
            assert!(stderr(&inspected).contains("rawcached format"), "{}", stderr(&inspected));
        }
        // The rest of an unfinished format is ours: no force is needed.
        let again = run(&[&"format", &disk.path(), &"--yes"]);
        assert!(again.status.success(), "{}", stderr(&again));
    }
    println!("{formatted} were done before the kill, {refused} were not");
    let daemon = Daemon::start(disk.path());
    set(&daemon, "k", b"v");
    expect(&daemon, "k", b"v");
}

#[test]
fn a_start_that_is_killed_while_it_makes_an_image_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..20 {
        let mut daemon = Daemon::new(&image, "");
        daemon.configure_more("size = \"64MiB\"\n");
        daemon.spawn();
        std::thread::sleep(Duration::from_micros(random.u64(..30_000)));
        daemon.kill();
        daemon.restart();
        set(&daemon, "k", b"v");
        drop(daemon);
        fs::remove_file(&image).unwrap();
    }
}

/// Two disks that trade places: each has a store that opens.
#[test]
fn a_store_that_is_not_the_wanted_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str| directory.path().join(name);
    let [one, other] = ["one", "other"].map(of);
    for image in [&one, &other] {
        assert!(run(&[&"format", image, &"--size", &"64MiB", &"--force"]).status.success());
    }
    let mut daemon = Daemon::start(&one);
    let page = daemon.metrics();
    let info = page.lines().find_map(|line| line.strip_prefix("rawcached_store_info{uuid=\""));
    let uuid = info.expect("the metrics name the store").strip_suffix("\"} 1").unwrap().to_owned();
    assert!(daemon.log().contains(&format!("uuid={uuid}")), "{}", daemon.log());
    let text = fs::read_to_string(daemon.config()).unwrap();
    let pinned = text + &format!("uuid = \"{}\"\n", uuid.to_uppercase());
    assert!(daemon.stop().success());
    daemon.configure(&pinned);
    daemon.restart();
    set(&daemon, "k", b"of one");
    assert!(daemon.stop().success());
    fs::rename(&one, of("away")).unwrap();
    fs::rename(&other, &one).unwrap();
    let before = hash(&one);
    daemon.spawn();
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("device.uuid wants {uuid}")), "{log}");
    assert_eq!(hash(&one), before, "it was changed");
    fs::rename(of("away"), &one).unwrap();
    daemon.restart();
    expect(&daemon, "k", b"of one");
    assert!(daemon.stop().success());
}
