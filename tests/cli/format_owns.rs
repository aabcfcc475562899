//! Goal: after `format` a device is ours alone: no tool takes it for what it was, nobody changes it
//! between question and answer, and a start finds it free as soon as a killed daemon has let it go.
//! Method: the real binary on loop devices and image files, asked about by wipefs and blkid.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::binary::{format, rawcached, run, stderr};
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::{Missing, command, require};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

const MIB: u64 = 1 << 20;
/// XFS takes no less than 300 MB.
const SIZE: u64 = 320 * MIB;

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

/// Signatures that wipefs and blkid find on a device.
fn known_as(device: &Path) -> String {
    let asked = |name: &str, arguments: &[&str]| {
        let output = Command::new(name).args(arguments).arg(device).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    asked("wipefs", &["--noheadings", "-O", "TYPE,OFFSET"])
        + &asked("blkid", &["-p", "-o", "value", "-s", "TYPE", "-s", "PTTYPE"])
}

/// Writes a signature of other software to the device.
type Make = fn(&Path) -> Result<(), Missing>;

fn md_at_the_end(device: &Path) -> Result<(), Missing> {
    // Version 1.0: a magic number, a version and a checksum at 8 KiB from the end.
    let mut head = vec![0; 1024];
    head[..8].copy_from_slice(b"\xfc\x4e\x2b\xa9\x01\0\0\0");
    let at = SIZE - 8192;
    head[128 + 16..128 + 24].copy_from_slice(&(at / 512).to_le_bytes());
    overwrite(device, at, &head);
    Ok(())
}

const KINDS: [(&str, Make); 7] = [
    ("ext4", |device| command("mkfs.ext4", &[&"-q", &"-F", &device]).map(drop)),
    ("xfs", |device| command("mkfs.xfs", &[&"-q", &"-f", &device]).map(drop)),
    ("btrfs", |device| command("mkfs.btrfs", &[&"-q", &"-f", &device]).map(drop)),
    ("swap", |device| command("mkswap", &[&device]).map(drop)),
    ("swap of large pages", |device| command("mkswap", &[&"-p", &"65536", &device]).map(drop)),
    ("GPT", |device| {
        overwrite(device, 512, b"EFI PART\0\0\x01\0");
        overwrite(device, SIZE - 512, b"EFI PART\0\0\x01\0");
        Ok(())
    }),
    ("MD RAID", md_at_the_end),
];

#[test]
fn nobody_knows_a_device_by_what_it_was_before() {
    for (name, make) in KINDS {
        let Some(disk) = require(LoopDevice::create(SIZE, 512)) else { return };
        if require(make(disk.path())).is_none() {
            continue;
        }
        let refused = run(&[&"format", &disk.path(), &"--yes"]);
        assert_eq!(refused.status.code(), Some(2), "{name}: {}", stderr(&refused));
        let forced = run(&[&"format", &disk.path(), &"--yes", &"--force"]);
        assert!(forced.status.success(), "{name}: {}", stderr(&forced));
        assert_eq!(known_as(disk.path()), "", "{name}");
        let again = run(&[&"format", &disk.path(), &"--yes"]);
        assert!(again.status.success(), "{name}: {}", stderr(&again));
        let daemon = Daemon::start(disk.path());
        assert!(daemon.socket().exists(), "{name}");
    }
}

/// Answers the question of `format` with yes after `meanwhile`; gives whether it formatted, and
/// what it said.
fn format_while(path: &Path, meanwhile: impl FnOnce()) -> (bool, String) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    for end in [&terminal.master, &terminal.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let mut command = rawcached();
    command.args([Path::new("format"), path]).stdin(terminal.slave);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = child.stderr.take().unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"Type yes to go on: ") {
        assert_eq!(said.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    meanwhile();
    // Open until the command has read it.
    let mut answer = File::from(terminal.master);
    answer.write_all(b"yes\n").unwrap();
    said.read_to_end(&mut text).unwrap();
    (child.wait().unwrap().success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_was_made_while_the_question_waited_is_not_erased() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    File::create(&image).unwrap().set_len(64 * MIB).unwrap();
    let mut made = None;
    let (formatted, said) = format_while(&image, || {
        made = require(command("mkfs.ext4", &[&"-q", &"-F", &image]));
    });
    if made.is_some() {
        assert!(!formatted && said.contains("has changed"), "{said}");
        assert!(known_as(&image).contains("ext4"));
    }
}

#[test]
fn a_device_that_waits_for_the_answer_can_be_claimed_by_nobody() {
    let Some(disk) = require(LoopDevice::create(64 * MIB, 512)) else { return };
    let mut refused = true;
    let (formatted, said) = format_while(disk.path(), || {
        refused = command("mkfs.ext4", &[&"-q", &disk.path()]).is_err();
    });
    assert!(formatted && refused, "{said}");
}

/// Kills a daemon that is storing and starts one on the same bytes by another way at once.
fn start_after_kill(first: &Path, second: impl FnOnce() -> Option<LoopDevice>) {
    let mut daemon = Daemon::new(first, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut client = daemon.connect();
    let stores = std::thread::spawn(move || {
        let set = [b"set k 0 0 500000\r\n", &vec![7; 500_000][..], b"\r\n"].concat();
        let mut answer = [0; 64];
        while client.try_send(&set).is_ok() && client.0.read(&mut answer).is_ok_and(|len| len > 0) {
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    daemon.kill();
    let disk = second();
    let path = disk.as_ref().map_or(first, LoopDevice::path);
    let mut next = Daemon::new(path, "");
    next.restart();
    next.kill();
    stores.join().unwrap();
}

#[test]
fn a_start_right_after_a_kill_waits_for_the_kernel_whatever_the_way_to_the_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    File::create(&image).unwrap().set_len(256 * MIB).unwrap();
    format(&image);
    for _ in 0..4 {
        start_after_kill(&image, || None);
        if require(LoopDevice::of_file(&image, 512)).is_none() {
            return;
        }
        start_after_kill(&image, || Some(LoopDevice::of_file(&image, 512).unwrap()));
    }
}
