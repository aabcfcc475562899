//! Goal: whatever moment a SIGKILL hits, what was acknowledged before the flush window is there and
//! right after the restart, a delete that was acknowledged stays, and nothing is ever wrong bytes or
//! older than it may be. Method: 200 kills of the real daemon on a loop device under load; each
//! client remembers what it asked for and when it was answered.
//!
//! `RAWCACHED_TEST_SIGKILL_SEED` and `RAWCACHED_TEST_SIGKILLS` repeat or lengthen a run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::time::{Duration, Instant};

use crate::support::binary;
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::require;
use crate::support::memcached::Client;
use crate::support::waiting::now;

const KILLS: u64 = 200;
const CLIENTS: usize = 4;
const KEYS_PER_CLIENT: usize = 150;
/// The daemon writes every 100 ms; the rest is for the write itself on a busy machine.
const FLUSH_WINDOW: Duration = Duration::from_millis(300);
/// Longer values are cut into slices.
const SLICE: usize = 1 << 20;
/// A kill comes this many milliseconds after the load has begun.
const KILL_DELAY_MS: std::ops::Range<u64> = 50..550;
/// Large and sparse: each start begins a new region, and none may be reclaimed, as that loses hits.
const DEVICE_SIZE: u64 = 32 << 30;

/// What a key holds: a version of its value, or nothing.
type State = Option<u64>;

/// A change that was asked for.
struct Change {
    to: State,
    acknowledged: Option<Instant>,
}

/// One key, changed by one client only.
struct Key {
    name: String,
    /// What it held, durably, before `changes`.
    base: State,
    changes: Vec<Change>,
    last_version: u64,
}

impl Key {
    fn state(&self) -> State {
        self.changes.last().map_or(self.base, |change| change.to)
    }

    /// All that it may hold after a kill at `killed`.
    fn possible(&self, killed: Instant) -> Vec<State> {
        let durable = self.changes.iter().rposition(|change| {
            change.acknowledged.is_some_and(|at| change.to.is_none() || at + FLUSH_WINDOW < killed)
        });
        let later = self.changes.iter().skip(durable.unwrap_or(0)).map(|change| change.to);
        durable.is_none().then_some(self.base).into_iter().chain(later).collect()
    }

    /// Whether a value of several slices was not durable yet. Its head and its slices are written side by
    /// side: a kill may keep the head and lose a slice, which leaves none of the key's versions.
    fn may_be_torn(&self, killed: Instant) -> bool {
        let is_large = |version| value(&self.name, version).len() > SLICE;
        self.possible(killed).into_iter().skip(1).flatten().any(is_large)
    }

    /// Whether exactly one answer is right.
    fn is_certain(&self, killed: Instant) -> bool {
        let possible = self.possible(killed);
        possible.iter().all(|state| *state == possible[0])
    }
}

/// The bytes of one version of a key, of a length that follows from it.
fn value(key: &str, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(version);
    for byte in key.bytes() {
        random = fastrand::Rng::with_seed(random.u64(..) ^ u64::from(byte));
    }
    let len = match random.u32(..1000) {
        0..5 => random.usize(100_000..1_500_000),
        5..100 => random.usize(2000..40_000),
        _ => random.usize(0..2000),
    };
    let mut bytes = format!("{key} {version} ").into_bytes();
    let head = bytes.len();
    bytes.resize(head + len, 0);
    random.fill(&mut bytes[head..]);
    bytes
}

fn set(client: &mut Client, key: &str, version: u64) -> io::Result<String> {
    let value = value(key, version);
    let head = format!("set {key} {} 86400 {}\r\n", version % 1000, value.len());
    client.try_send([head.as_bytes(), &value, b"\r\n"].concat())?;
    client.try_line()
}

/// The version of a found value.
///
/// # Panics
/// Panics on bytes that were never stored under the key.
fn get(client: &mut Client, key: &str) -> io::Result<State> {
    let Some(found) = client.try_get(key)? else { return Ok(None) };
    let head: Vec<&[u8]> = found.body.splitn(3, |byte| *byte == b' ').collect();
    let version = String::from_utf8_lossy(head[1]).parse::<u64>();
    let version = version.unwrap_or_else(|_| panic!("wrong bytes in {key}"));
    assert!(found.body == value(key, version), "wrong bytes in {key}, version {version}");
    assert_eq!(found.flags, (version % 1000).to_string(), "{key}");
    Ok(Some(version))
}

/// Changes and reads keys until the connection breaks. A delete makes the daemon write all that
/// came before it, so without `deletes` the flush interval alone does.
fn load(
    client: &mut Client,
    keys: &mut [Key],
    deletes: bool,
    random: &mut fastrand::Rng,
) -> io::Result<()> {
    loop {
        let key = &mut keys[random.usize(..KEYS_PER_CLIENT)];
        match random.u32(if deletes { 0 } else { 3 }..20) {
            3..13 => {
                key.last_version += 1;
                key.changes.push(Change { to: Some(key.last_version), acknowledged: None });
                let answer = set(client, &key.name, key.last_version)?;
                assert_eq!(answer, "STORED", "{}", key.name);
            }
            0..3 => {
                let before = key.state();
                key.changes.push(Change { to: None, acknowledged: None });
                let answer = client.try_command(&format!("delete {}", key.name))?;
                let expected = if before.is_some() { "DELETED" } else { "NOT_FOUND" };
                assert_eq!(answer, expected, "{}", key.name);
            }
            13..15 => {
                let ttl = random.u32(10_000..100_000);
                let answer = client.try_command(&format!("touch {} {ttl}", key.name))?;
                let expected = if key.state().is_some() { "TOUCHED" } else { "NOT_FOUND" };
                assert_eq!(answer, expected, "{}", key.name);
                continue;
            }
            _ => {
                assert_eq!(get(client, &key.name)?, key.state(), "{}", key.name);
                continue;
            }
        }
        key.changes.last_mut().unwrap().acknowledged = Some(now());
        std::thread::sleep(Duration::from_micros(random.u64(..3000)));
    }
}

/// Results of the checks after the kills.
#[derive(Debug, Default)]
struct Tally {
    keys: u64,
    certain: u64,
    deletes: u64,
    unflushed_lost: u64,
    torn: u64,
}

/// Compares the values found after a restart with the allowed ones.
fn check(daemon: &Daemon, keys: &mut [Key], killed: Instant, tally: &mut Tally) {
    let mut client = daemon.connect();
    for key in keys {
        let found = get(&mut client, &key.name).unwrap();
        let possible = key.possible(killed);
        let ages = key.changes.iter().map(|change| {
            (change.to, change.acknowledged.map(|at| killed.checked_duration_since(at)))
        });
        let is_torn = found.is_none() && !possible.contains(&None) && key.may_be_torn(killed);
        assert!(
            possible.contains(&found) || is_torn,
            "{} holds {found:?} and may hold {possible:?}; base {:?}, changes with their age at the \
             kill: {:?}\n{}",
            key.name,
            key.base,
            ages.collect::<Vec<_>>(),
            daemon.log()
        );
        tally.keys += 1;
        tally.torn += u64::from(is_torn);
        tally.certain += u64::from(key.is_certain(killed));
        tally.deletes += u64::from(found.is_none() && !key.changes.is_empty());
        tally.unflushed_lost += u64::from(found != key.state());
        key.base = found;
        key.changes.clear();
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_deleted_comes_back() {
    let Some(disk) = require(LoopDevice::create(DEVICE_SIZE, 4096)) else { return };
    let seed = number_from("RAWCACHED_TEST_SIGKILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number_from("RAWCACHED_TEST_SIGKILLS").unwrap_or(KILLS);
    println!("RAWCACHED_TEST_SIGKILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "");
    // Little memory: most reads come from the device.
    daemon.configure_more("[ram]\nsize = \"1MiB\"\n");
    daemon.restart();
    let name = |client, key| format!("client-{client}-key-{key}");
    let key = |name| Key { name, base: None, changes: Vec::new(), last_version: 0 };
    let mut keys: Vec<Vec<Key>> = (0..CLIENTS)
        .map(|client| (0..KEYS_PER_CLIENT).map(|number| key(name(client, number))).collect())
        .collect();
    let mut tally = Tally::default();
    for round in 0..kills {
        let delay = Duration::from_millis(random.u64(KILL_DELAY_MS));
        let deletes = random.bool();
        let killed = std::thread::scope(|scope| {
            let clients: Vec<_> = keys
                .iter_mut()
                .map(|keys| {
                    let (mut client, mut random) = (daemon.connect(), random.fork());
                    scope.spawn(move || load(&mut client, keys, deletes, &mut random))
                })
                .collect();
            std::thread::sleep(delay);
            let killed = now();
            daemon.kill();
            for client in clients {
                let broken = client.join().expect("seed and reason are above").unwrap_err();
                let broken = broken.kind();
                let ends = [
                    io::ErrorKind::UnexpectedEof,
                    io::ErrorKind::BrokenPipe,
                    io::ErrorKind::ConnectionReset,
                ];
                assert!(ends.contains(&broken), "{broken}");
            }
            killed
        });
        daemon.restart();
        keys.iter_mut().for_each(|keys| check(&daemon, keys, killed, &mut tally));
        for unwanted in ["rawcached_evicted_entries_total", "rawcached_damaged_entries_total"] {
            assert_eq!(daemon.metric(unwanted), 0, "after kill {round}");
        }
    }
    println!("{kills} kills: {tally:?}");
    assert!(daemon.stop().success());
}
