//! Goal: what other people wrote to use and to test memcached works with the daemon on a real device.
//! Method: the scripts of tests/daemon/scripts, over a Unix socket and over loopback TCP: the tests that
//! a client's package carries, and for clients whose package has none, programs of ours that use them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::require;

/// Runs a script of tests/daemon/scripts, which says `SKIPPED` itself; gives what it printed.
fn script(name: &str, arguments: &[&dyn AsRef<OsStr>]) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/scripts").join(name);
    let output = Command::new(path)
        .args(arguments.iter().map(|argument| argument.as_ref()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{printed}\n{complaints}", output.status);
    // The harness looks for this at the start of a line.
    println!("{printed}");
    (!printed.contains("SKIPPED: ")).then_some(printed)
}

/// Looks at the summary of pytest.
fn expect_all_passed(printed: &str) {
    let summary = printed.lines().rev().find(|line| line.contains(" passed")).unwrap();
    for bad in ["failed", "error", "skipped"] {
        assert!(!summary.contains(bad), "{printed}");
    }
}

fn daemon(disk: &LoopDevice, server: &str) -> Daemon {
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), server);
    daemon.restart();
    daemon
}

#[test]
fn all_integration_tests_of_pymemcache_pass_over_the_unix_socket() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    // One of the tests stores a value that must exceed the limit, as with memcached's default.
    let daemon = daemon(&disk, "max_object_size = \"1MiB\"");
    let Some(printed) = script("pymemcache.sh", &[&daemon.socket()]) else { return };
    expect_all_passed(&printed);
}

#[test]
fn all_tests_of_python_memcached_pass_over_the_unix_socket() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    // One of the tests stores a value of 1 MiB, which memcached's limit of 1 MiB refuses: it counts key
    // and header too.
    let daemon = daemon(&disk, "max_object_size = \"1048575B\"");
    let Some(printed) = script("python-memcached.sh", &[&daemon.socket()]) else { return };
    expect_all_passed(&printed);
}

#[test]
fn cache_memcached_of_perl_works_over_the_unix_socket() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    let daemon = daemon(&disk, "max_object_size = \"1MiB\"");
    let Some(printed) = script("cache-memcached.pl", &[&daemon.socket()]) else { return };
    assert!(printed.contains("1..42\n") && !printed.contains("not ok"), "{printed}");
}

#[test]
fn php_memcached_works_over_the_unix_socket() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    let daemon = daemon(&disk, "max_object_size = \"1MiB\"");
    let Some(printed) = script("php-memcached.sh", &[&daemon.socket()]) else { return };
    assert!(printed.contains("all 56 checks passed"), "{printed}");
}

#[test]
fn meta_memcache_works_over_the_unix_socket() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 4096)) else { return };
    let daemon = daemon(&disk, "max_object_size = \"1MiB\"");
    let Some(printed) = script("meta-memcache.sh", &[&daemon.socket()]) else { return };
    assert!(printed.contains("all 71 checks passed"), "{printed}");
}

#[test]
fn memccapable_passes_over_loopback_tcp() {
    let Some(disk) = require(LoopDevice::create(128 << 20, 512)) else { return };
    let daemon = daemon(&disk, "memcached = [\"unix:SOCKET\", \"tcp:127.0.0.1:0\"]");
    let log = daemon.log();
    let port = log.lines().find_map(|line| line.split("tcp:127.0.0.1:").nth(1)).unwrap().trim();
    let Some(printed) = script("memccapable.sh", &[&"127.0.0.1", &port]) else { return };
    assert!(printed.contains("All tests passed"), "{printed}");
}
