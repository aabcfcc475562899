//! A device that does not answer for a while: the file system under the image is frozen. Reads go
//! on, writes wait, and every acknowledgement is kept.

use std::path::Path;
use std::time::Duration;

use super::ledger::{Allowed, Ledger, expect_sound};
use crate::support::binary::format;
use crate::support::daemon::Daemon;
use crate::support::devices::MountedImage;
use crate::support::machine::{command, require};
use crate::support::waiting::now;

const MIB: u64 = 1 << 20;

/// Thaws the file system when dropped.
struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        command("fsfreeze", &[&"--unfreeze", &self.0]).unwrap();
    }
}

#[test]
fn a_device_that_hangs_delays_deletes_and_nothing_else() {
    let Some(mounted) = require(MountedImage::create("ext4", 300 * MIB)) else { return };
    let image = mounted.file("cache.img", 128 * MIB);
    format(&image);
    let mut daemon = Daemon::new(&image, "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let mut ledger = Ledger::default();
    let mut client = daemon.connect();
    ledger.fill(&mut client, "early", (100, 30_000));
    assert!(ledger.delete(&mut client, "early-1"));
    if require(command("fsfreeze", &[&"--freeze", &mounted.path()])).is_none() {
        return;
    }
    let frozen = Frozen(mounted.path());
    let start = now();
    ledger.check(&daemon, Allowed::Nothing);
    ledger.fill(&mut client, "late", (50, 30_000));
    ledger.check(&daemon, Allowed::Nothing);
    assert!(daemon.readiness().starts_with("HTTP/1.1 200 "));
    println!("200 lookups and 50 stores took {:?}", start.elapsed());
    std::thread::scope(|scope| {
        let mut second = daemon.connect();
        let deleting = scope.spawn(move || second.command("delete early-2"));
        std::thread::sleep(Duration::from_secs(3));
        assert!(!deleting.is_finished(), "a delete is not durable, and nobody says that it is");
        assert_eq!(client.get("early-2"), None, "but gone");
        drop(frozen);
        assert_eq!(deleting.join().unwrap(), "DELETED");
    });
    assert!(ledger.delete(&mut client, "early-2"));
    ledger.check(&daemon, Allowed::Nothing);
    daemon.kill();
    daemon.restart();
    let found = ledger.check(&daemon, Allowed::Nothing);
    println!("after a kill: {found:?}");
    assert!(daemon.stop().success());
    expect_sound(&image);
}
