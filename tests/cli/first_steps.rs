//! Goal: what a new user meets first says what is so and what to do next. Method: run the built binary
//! as a new user does, mistakes included.

use std::process::Output;

use crate::serve::Daemon;
use crate::support::devices::MountedImage;
use crate::support::machine::require;
use crate::{directory, rawcached, stderr};

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
    let made = std::fs::remove_file(path).is_ok();
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
        let _ = std::fs::remove_file(&path);
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
