//! A device restored from an old copy: it holds the entries of that time, whole and right. Later
//! deletions are undone: the copy does not have them.

use std::fs;
use std::path::Path;

use super::ledger::{Allowed, Ledger, expect_sound};
use crate::support::binary::run;
use crate::support::daemon::Daemon;
use crate::support::memcached::Client;

fn body_of(client: &mut Client, name: &str) -> Option<String> {
    client.get(name).map(|body| String::from_utf8_lossy(&body).into_owned())
}

fn set(client: &mut Client, name: &str, body: &str) {
    client.send(format!("set {name} 0 0 {}\r\n{body}\r\n", body.len()));
    assert_eq!(client.line(), "STORED");
}

/// Copies an image, holes and all.
fn copy(from: &Path, to: &Path) {
    crate::support::machine::command("cp", &[&"--sparse=always", &from, &to]).unwrap();
}

#[test]
fn a_restored_copy_holds_what_it_held_then_and_deletes_since_are_undone() {
    let directory = tempfile::tempdir().unwrap();
    let (image, saved) = (directory.path().join("cache.img"), directory.path().join("copy.img"));
    assert!(run(&[&"format", &image, &"--size", &"64MiB", &"--force"]).status.success());
    let mut daemon = Daemon::start(&image);
    let mut client = daemon.connect();
    let mut then = Ledger::default();
    then.fill(&mut client, "then", (100, 20_000));
    for name in ["deleted", "overwritten"] {
        set(&mut client, name, "old");
    }
    assert!(daemon.stop().success());
    copy(&image, &saved);

    daemon.restart();
    let mut client = daemon.connect();
    let mut since = Ledger::default();
    // More than the device holds: the regions of the copy are used again.
    for round in 0..4 {
        since.fill(&mut client, &format!("since-{round}"), (60, 300_000));
    }
    let answer = client.command("delete deleted");
    assert!(["DELETED", "NOT_FOUND"].contains(&answer.as_str()), "{answer}");
    set(&mut client, "overwritten", "new");
    assert!(daemon.stop().success());

    fs::remove_file(&image).unwrap();
    copy(&saved, &image);
    daemon.restart();
    let found = then.check(&daemon, Allowed::Nothing);
    let mut client = daemon.connect();
    assert_eq!(body_of(&mut client, "deleted").as_deref(), Some("old"), "as promised: undone");
    assert_eq!(body_of(&mut client, "overwritten").as_deref(), Some("old"));
    assert_eq!(client.get("since-3-59"), None);
    println!("restored: {found:?}");
    assert_eq!(daemon.metric("rawcached_damaged_entries_total"), 0);
    // `flush_all` is the remedy, and it holds.
    assert_eq!(client.command("flush_all"), "OK");
    set(&mut client, "fresh", "new");
    assert!(daemon.stop().success());
    daemon.restart();
    let mut client = daemon.connect();
    assert_eq!(body_of(&mut client, "deleted"), None);
    assert_eq!(body_of(&mut client, "then-1"), None);
    assert_eq!(body_of(&mut client, "fresh").as_deref(), Some("new"));
    assert!(daemon.stop().success());
    expect_sound(&image);
}

#[test]
fn a_copy_of_a_running_daemon_s_image_is_right_or_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    let (image, saved) = (directory.path().join("cache.img"), directory.path().join("copy.img"));
    assert!(run(&[&"format", &image, &"--size", &"128MiB", &"--force"]).status.success());
    let daemon = Daemon::start(&image);
    let mut client = daemon.connect();
    let mut ledger = Ledger::default();
    ledger.fill(&mut client, "early", (100, 20_000));
    assert!(ledger.delete(&mut client, "early-5"));
    ledger.settle();
    std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(&image, &saved));
        let mut busy = 0;
        while !copying.is_finished() {
            let name = format!("early-{}", busy % 100);
            busy += 1;
            ledger.set(&mut client, &name, 30_000);
        }
        println!("{busy} stores while the copy was made");
    });
    drop(daemon);
    let mut restored = Daemon::new(&saved, "");
    restored.restart();
    let found = ledger.check(&restored, Allowed::LateChanges);
    println!("a copy made under way: {found:?}");
    assert!(restored.stop().success());
}
