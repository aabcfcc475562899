//! Goal: what a new user meets first says what is so and what to do next. Method: run the built binary
//! as a new user does, mistakes included.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::serve::Daemon;
use crate::support::devices::MountedImage;
use crate::support::machine::require;
use crate::{directory, rawcached, stderr, stdout};

/// Runs a command in a directory of its own.
fn run(arguments: &[&str]) -> Output {
    rawcached(directory().path()).args(arguments).output().unwrap()
}

#[test]
fn a_missing_device_is_not_answered_with_the_advice_to_make_a_file_there() {
    let path = "/dev/rawcached-no-such-device";
    let output = run(&["serve", "--server-admin", "", "--device-path", path]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&format!("there is no device {path}: lsblk")), "{message}");
    assert!(!message.contains("rawcached format"), "{message}");

    let output = run(&["format", path, "--size", "64MiB", "--yes"]);
    let made = fs::remove_file(path).is_ok();
    let message = stderr(&output);
    assert!(!made && output.status.code() == Some(2), "{message}");
    assert!(message.contains("would be a file in memory: name a device"), "{message}");
}

#[test]
fn an_image_in_memory_is_made_by_force_only() {
    let Some(memory) = require(MountedImage::create("tmpfs", 32 << 20)) else { return };
    let path = memory.path().join("x.img");
    let image = path.to_str().unwrap();
    let format = ["format", image, "--size", "16MiB"];
    let output = run(&format);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("add --force"), "{}", stderr(&output));
    assert!(!path.exists());
    let output = run(&[&format[..], &["--force"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    // What is there is not to be made.
    let output = run(&format);
    assert!(stderr(&output).contains("is there already"), "{}", stderr(&output));
}

#[test]
fn an_image_larger_than_what_is_free_is_made_with_a_warning() {
    let Some(memory) = require(MountedImage::create("tmpfs", 32 << 20)) else { return };
    let path = memory.path().join("x.img");
    let format = |size| {
        let _ = fs::remove_file(&path);
        let output = run(&["format", path.to_str().unwrap(), "--size", size, "--force"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert_eq!(format("16MiB"), "");
    let message = format("64MiB");
    let expected = format!("rawcached: {} may grow to 64MiB, and its file system", path.display());
    assert!(message.starts_with(&expected), "{message}");

    let path = memory.path().join("y.img");
    let mut daemon = Daemon::spawn(
        rawcached(memory.path())
            .args(["serve", "--server-admin", "", "--device-size", "64MiB", "--device-path"])
            .arg(&path),
    );
    daemon.wait_for("may grow to 64MiB");
}

#[test]
fn probe_tells_which_store_is_on_a_device_in_use_or_not() {
    let directory = directory();
    let path = directory.path().join("x.img");
    let run = |arguments: &[&str]| -> Value {
        let output = rawcached(directory.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let store = || {
        let report = run(&["probe", "x.img", "--json"]);
        (report["store_uuid"].clone(), report["store_damage"].clone())
    };
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(store(), (Value::Null, Value::Null));

    let format = rawcached(directory.path()).args(["format", "x.img", "--yes"]).output().unwrap();
    assert!(format.status.success(), "{}", stderr(&format));
    let uuid = run(&["inspect", "x.img", "--json"])["uuid"].clone();
    assert_eq!(store(), (uuid.clone(), Value::Null));
    let text = rawcached(directory.path()).args(["probe", "x.img"]).output().unwrap();
    let uuid_text = uuid.as_str().unwrap();
    assert!(
        stdout(&text)
            .lines()
            .any(|line| line.starts_with("store uuid") && line.ends_with(uuid_text))
    );

    let mut daemon = Daemon::spawn(rawcached(directory.path()).args([
        "serve",
        "--server-admin",
        "",
        "--device-path",
        "x.img",
    ]));
    daemon.wait_for("serving");
    assert_eq!(store(), (uuid.clone(), Value::Null));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));

    damage(&path, 0);
    let found = store();
    assert_eq!(found, (uuid, json!("first superblock copy: checksum mismatch")));
    damage(&path, (64 << 20) - (128 << 10));
    let both = json!("both superblock copies: checksum mismatch, checksum mismatch");
    assert_eq!(store(), (Value::Null, both));
}

/// Changes a byte of the superblock copy at `offset`: of the size of the device, which ends with zeros.
fn damage(path: &Path, offset: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xff], offset + 88).unwrap();
}
