//! What a client asked for and what was answered; judges what is found later.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::binary::{run, stderr};
use crate::support::daemon::Daemon;
use crate::support::memcached::Client;
use crate::support::waiting::eventually;

/// What a key holds: a version of its value, or nothing.
type State = Option<u32>;

/// One key.
#[derive(Default)]
struct Key {
    /// What may be on the device, oldest first; the last is what a lookup may give now.
    states: Vec<State>,
    versions: u32,
}

/// How much a fault may have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing: each key holds the last that was acknowledged.
    Nothing,
    /// Values, never replaced by older ones.
    Misses,
    /// Changes that were not durable: the older values that they replaced may be back.
    LateChanges,
}

/// The result of looking all keys up.
#[derive(Debug, Default)]
pub struct Tally {
    pub hits: usize,
    pub misses: usize,
}

/// All keys of one test.
#[derive(Default)]
pub struct Ledger {
    keys: BTreeMap<String, Key>,
}

/// The bytes of one version of a key: `len` random ones that both decide.
fn value(name: &str, version: u32, len: usize) -> Vec<u8> {
    let mut seed = u64::from(version);
    for byte in name.bytes() {
        seed = fastrand::Rng::with_seed(seed ^ u64::from(byte)).u64(..);
    }
    let mut bytes = format!("{name} {version} {len} ").into_bytes();
    let head = bytes.len();
    bytes.resize(head.max(len), 0);
    fastrand::Rng::with_seed(seed).fill(&mut bytes[head..]);
    bytes
}

fn version_of(name: &str, body: &[u8]) -> u32 {
    let head = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let fields: Vec<&str> = head.splitn(4, ' ').collect();
    assert_eq!(fields[0], name, "another key's bytes");
    let (version, len) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
    assert!(body == value(name, version, len), "wrong bytes in {name}, version {version}");
    version
}

impl Ledger {
    /// Stores a new version of `len` bytes; true if it was acknowledged, false if refused.
    pub fn set(&mut self, client: &mut Client, name: &str, len: usize) -> bool {
        let key = self.keys.entry(name.to_owned()).or_default();
        key.versions += 1;
        let bytes = value(name, key.versions, len);
        let head = format!("set {name} 0 86400 {}\r\n", bytes.len());
        client.send([head.as_bytes(), &bytes, b"\r\n"].concat());
        let answer = client.line();
        key.states.push(Some(key.versions));
        if answer != "STORED" {
            assert!(answer.starts_with("SERVER_ERROR "), "{answer}");
            key.states.push(None);
        }
        answer == "STORED"
    }

    /// Stores `count` keys of `len` bytes, all of which must be acknowledged.
    pub fn fill(&mut self, client: &mut Client, prefix: &str, (count, len): (usize, usize)) {
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            assert!(self.set(client, &name, len), "{name} is refused");
        }
    }

    /// Deletes a key; true if that was acknowledged.
    pub fn delete(&mut self, client: &mut Client, name: &str) -> bool {
        let answer = client.command(&format!("delete {name}"));
        let key = self.keys.get_mut(name).unwrap();
        let done = ["DELETED", "NOT_FOUND"].contains(&answer.as_str());
        assert!(done || answer.starts_with("SERVER_ERROR "), "{answer}");
        if done {
            // A delete is durable, or it is not acknowledged.
            key.states = vec![None];
        } else {
            key.states.push(None);
        }
        done
    }

    /// All acknowledged changes are durable: the daemon was stopped, or had time to write.
    pub fn settle(&mut self) {
        for key in self.keys.values_mut() {
            key.states.drain(..key.states.len().saturating_sub(1));
        }
    }

    pub fn forget(&mut self, prefix: &str) {
        self.keys.retain(|name, _| !name.starts_with(prefix));
    }

    /// Looks all keys up. What is found after a restart is what the device holds from then on.
    #[track_caller]
    pub fn check(&mut self, daemon: &Daemon, allowed: Allowed) -> Tally {
        let mut client = daemon.connect();
        let mut tally = Tally::default();
        for (name, key) in &mut self.keys {
            let found = client.get(name).map(|body| version_of(name, &body));
            let last = key.states.last().copied().flatten();
            let right = match allowed {
                Allowed::Nothing => found == last,
                Allowed::Misses => found.is_none() || found == last,
                Allowed::LateChanges => found.is_none() || key.states.contains(&found),
            };
            let states = &key.states;
            assert!(right, "{name} holds {found:?} of {states:?}\n{}", daemon.log());
            if allowed == Allowed::LateChanges {
                key.states = vec![found];
            }
            match found {
                Some(_) => tally.hits += 1,
                None => tally.misses += 1,
            }
        }
        tally
    }
}

/// Waits until stores are refused and `/readyz` says why.
#[track_caller]
pub fn expect_refusals(
    daemon: &Daemon,
    ledger: &mut Ledger,
    (prefix, len): (&str, usize),
) -> usize {
    let mut client = daemon.connect();
    let mut stored = 0;
    let refused = eventually(|| {
        let name = format!("{prefix}-{stored}");
        stored += 1;
        let refused = !ledger.set(&mut client, &name, len);
        refused && daemon.readiness().contains("the device refuses writes")
    });
    assert!(refused, "stores go on: {}", daemon.log());
    assert_eq!(daemon.metric("rawcached_ready"), 0);
    stored
}

/// Waits until the daemon, not restarted, is ready and stores again.
#[track_caller]
pub fn expect_healed(daemon: &Daemon) {
    let mut client = daemon.connect();
    let healed = eventually(|| {
        let set = "set healed 0 0 2\r\nok\r\n";
        client.send(set);
        client.line() == "STORED" && daemon.readiness().starts_with("HTTP/1.1 200 ")
    });
    assert!(healed, "it does not go on: {}", daemon.log());
    let deleted = eventually(|| {
        client.command("delete healed") == "DELETED" || {
            client.send(b"set healed 0 0 2\r\nok\r\n");
            client.line();
            false
        }
    });
    assert!(deleted, "nothing is durable: {}", daemon.log());
}

/// `rawcached check` says whether a device has damage, and the test whether it may.
#[track_caller]
pub fn expect_sound(device: &Path) {
    let output = run(&[&"check", &device]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{report}{}", stderr(&output));
}

/// After failed writes only abandoned regions may be damaged: without a header or a footer, or with
/// a footer for entries that were not written.
#[track_caller]
pub fn expect_only_given_up(device: &Path) {
    let output = run(&[&"check", &device]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let given_up = [
        "region header: no magic number",
        "entry header: no magic number",
        "body of entry",
        "the footer has",
        "the region has no footer",
    ];
    for line in report.lines().filter(|line| line.starts_with("region ")) {
        let expected = given_up.iter().any(|part| line.contains(part));
        assert!(expected, "{line} in\n{report}");
    }
    let summary = report.lines().rfind(|line| line.starts_with("damaged"));
    println!("check after failed writes: {}", summary.unwrap_or("nothing damaged"));
}

/// Lines of the log at level ERROR.
pub fn errors_in(log: &str) -> usize {
    log.lines().filter(|line| line.contains("ERROR")).count()
}
