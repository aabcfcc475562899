//! Limits of the process: the size of files, open files.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;

use super::ledger::{
    Allowed, Ledger, errors_in, expect_healed, expect_only_given_up, expect_refusals, expect_sound,
};
use crate::support::binary::{rawcached, run};
use crate::support::daemon::Daemon;
use crate::support::http::{Connection, target};
use crate::support::machine::{command, require};
use crate::support::waiting::eventually;

fn set_limit(daemon: &Daemon, limit: &str) {
    let pid = daemon.pid().to_string();
    command("prlimit", &[&"--pid", &pid, &limit]).unwrap();
}

#[test]
fn the_limit_on_the_size_of_files_is_an_error_and_not_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    assert!(run(&[&"format", &image, &"--size", &"128MiB", &"--force"]).status.success());
    let mut daemon = Daemon::new(&image, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    if require(command("prlimit", &[&"--version"])).is_none() {
        return;
    }
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (50, 50_000));
    std::thread::sleep(std::time::Duration::from_millis(500));
    set_limit(&daemon, "--fsize=16384:");
    let stored = expect_refusals(&daemon, &mut ledger, ("late", 10_000));
    let found = ledger.check(&daemon, Allowed::Misses);
    println!("refused after {stored} stores: {found:?}");
    assert!(found.hits >= 50, "{found:?}");
    assert!(daemon.log().contains("File too large"), "{}", daemon.log());
    assert!(errors_in(&daemon.log()) < 6, "{}", daemon.log());
    set_limit(&daemon, "--fsize=unlimited:");
    expect_healed(&daemon);
    ledger.fill(&mut client, "after", (50, 50_000));
    assert!(daemon.stop().success());
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::LateChanges);
    assert!(found.hits >= 100, "{found:?}");
    assert!(daemon.stop().success());
    expect_only_given_up(&image);
}

#[test]
fn an_image_larger_than_the_limit_is_refused_with_words() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    let program = rawcached().get_program().to_owned();
    let output = std::process::Command::new("prlimit")
        .args(["--fsize=1048576"])
        .arg(program)
        .args(["format", "--size", "64MiB", "--force"])
        .arg(&image)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message} {:?}", output.status);
    assert!(message.contains("File too large"), "{message}");
    assert!(!image.exists());
}

#[test]
fn a_daemon_short_of_open_files_says_so_and_refuses_connections_beyond_them() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    let http = directory.path().join("http.sock");
    let listeners = format!("workers = 1\nhttp = [\"unix:{}\"]", http.display());
    let mut daemon = Daemon::new(&image, &listeners);
    daemon.launch_with(&["prlimit", "--nofile=120"]);
    daemon.restart();
    assert!(daemon.log().contains("the limit on open files is too low"), "{}", daemon.log());
    let mut ledger = Ledger::default();
    let mut first = daemon.connect();
    ledger.fill(&mut first, "early", (20, 10_000));
    let room = daemon.metric("rawcached_connections_max");
    assert!((20..120).contains(&room), "{room}");
    let mut crowd: Vec<UnixStream> = (0..100).map(|_| daemon.stream()).collect();
    // Whoever speaks another protocol, or only looks, finds room, even while others look too.
    let admin = daemon.admin().to_owned();
    let looking: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(&admin).unwrap()).collect();
    assert!(eventually(|| daemon.metric("rawcached_connections_rejected_total") > 50));
    let mut other = Connection::open(&http);
    other.ask("GET", &target("none"), "", b"").expect(404);
    let mut answer = String::new();
    crowd.pop().unwrap().read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "SERVER_ERROR too many open connections\r\n");
    assert_eq!(daemon.metric("rawcached_accept_errors_total"), 0, "{}", daemon.log());
    drop(looking);
    // Open connections are served, and stored values are written.
    ledger.fill(&mut first, "late", (20, 10_000));
    assert!(ledger.delete(&mut first, "late-3"));
    assert_eq!(first.get("late-3"), None);
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());
    drop((crowd, other));
    // It takes a moment to see that they have gone.
    assert!(eventually(|| daemon.metric("rawcached_connections") <= 1));
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    daemon.launch_with(&[]);
    daemon.restart();
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.stop().success());
    expect_sound(&image);
}

#[test]
fn a_daemon_without_files_enough_to_start_ends_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("cache.img");
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    let before = fs::read(&image).unwrap();
    for files in [5, 6, 10, 20, 40, 63, 64] {
        let mut daemon = Daemon::new(&image, "");
        daemon.launch_with(&["prlimit", &format!("--nofile={files}")]);
        daemon.spawn();
        let mut ended = None;
        let settled = eventually(|| {
            let log = daemon.log();
            // The message comes in several writes.
            let is_refused = log.contains("rawcached: ") && log.ends_with('\n');
            if log.contains("recovery complete") || is_refused {
                ended = Some(is_refused);
            }
            ended.is_some() || log.contains("error while loading shared libraries")
        });
        let log = daemon.log();
        assert!(settled, "{files} files: neither served nor refused\n{log}");
        let status = daemon.kill_or_ended();
        println!("{files} files: {status}, {}", log.lines().last().unwrap_or_default());
        assert!(!log.contains("panicked"), "{files} files: {log}");
        if ended == Some(true) {
            assert!(log.contains("Too many open files"), "{files} files: {log}");
        }
    }
    assert!(fs::read(&image).unwrap() == before, "nothing was written");
}
