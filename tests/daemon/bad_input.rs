//! Goal: whatever clients send, the daemon lives on, its memory stays bounded, and clients that
//! behave are answered as ever. Method: crowds of bad clients against the real daemon on a loop
//! device, with one good client beside them. What the answers are is tested over in-memory
//! devices in `tests/server`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::machine::require;
use crate::support::waiting::{eventually, now};

const MIB: u64 = 1 << 20;
/// What the daemon may hold: 16 MiB of entries, 128 MiB of values in transfer, the log's buffers,
/// and 2 MiB for each of 100 connections at the very most. The bad clients offer far more.
const RESIDENT_MAX: u64 = 400 * MIB;
/// Longest that a good client may have to wait beside bad ones on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A daemon that keeps little in memory, so that what it uses is for connections.
fn start(disk: &LoopDevice) -> Daemon {
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("[ram]\nsize = \"16MiB\"\n");
    daemon.restart();
    daemon
}

/// A connection of a bad client: it gives up soon when the daemon takes nothing more.
fn impatient(daemon: &Daemon) -> UnixStream {
    let stream = daemon.stream();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream
}

/// Stores and reads until `done`; gives the longest wait. Every answer must be right.
fn behave(daemon: &Daemon, done: &AtomicBool) -> Duration {
    let mut client = daemon.connect();
    let mut longest = Duration::ZERO;
    for round in 0_u64.. {
        let value = format!("{round} ").repeat(usize::try_from(round % 500).unwrap() + 1);
        let start = now();
        let request =
            format!("set good 0 0 {}\r\n{value}\r\nget good\r\nget steady\r\n", value.len());
        client.send(request);
        let expected = format!(
            "STORED\r\nVALUE good 0 {}\r\n{value}\r\nEND\r\nVALUE steady 0 3\r\nyes\r\nEND\r\n",
            value.len()
        );
        client.expect(expected);
        longest = longest.max(start.elapsed());
        if done.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}

fn set(daemon: &Daemon, key: &str, value: &[u8]) {
    assert_eq!(daemon.connect().set(key, value), "STORED");
}

/// Runs bad clients beside a good one; `attack` returns what must stay open until memory was
/// measured. Afterwards the daemon must have released their memory.
fn endure<T>(daemon: &Daemon, attack: impl FnOnce() -> T) {
    set(daemon, "steady", b"yes");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| behave(daemon, &done));
        let held = attack();
        let resident = daemon.resident_bytes();
        drop(held);
        done.store(true, Ordering::Relaxed);
        let longest = good.join().expect("the good client was served");
        println!("resident {} MiB, longest wait {longest:?}", resident / MIB);
        assert!(resident < RESIDENT_MAX, "{} MiB resident", resident / MIB);
        assert!(longest < ANSWER_MAX, "a good client waited {longest:?}");
    });
    assert!(eventually(|| daemon.metric("rawcached_connections") == 0), "{}", daemon.metrics());
    assert!(
        eventually(|| daemon.metric("rawcached_write_buffer_bytes") == 0),
        "{}",
        daemon.metrics()
    );
    assert_eq!(daemon.metric("rawcached_connection_panics_total"), 0, "{}", daemon.log());
    let complaints = daemon.log();
    let bad = complaints.lines().filter(|line| line.contains("ERROR") || line.contains("panicked"));
    assert_eq!(bad.count(), 0, "{complaints}");
}

#[test]
fn garbage_of_every_kind_from_many_clients() {
    let Some(disk) = require(LoopDevice::create(256 * MIB, 4096)) else { return };
    let mut daemon = start(&disk);
    let long_key = "k".repeat(300);
    let binary: Vec<u8> = [&[0x80, 0, 0, 1][..], &[0; 20], b"k"].concat();
    let pieces: [Vec<u8>; 14] = [
        vec![0; 3000],
        vec![b'\n'; 3000],
        b"\r\n".repeat(2000),
        binary,
        format!("get {long_key}\r\n").into_bytes(),
        format!("set {long_key} 0 0 5\r\nhello\r\n").into_bytes(),
        b"set a 0 0 5\r\nhello world, this is too long\r\n".to_vec(),
        b"set a 0 0 50\r\ntoo short\r\n".to_vec(),
        b"set a 0 0 -5\r\n".to_vec(),
        b"set a 0 0 18446744073709551616\r\n".to_vec(),
        b"set a 99999999999 0 1\r\nx\r\n".to_vec(),
        b"set a 0 0".to_vec(),
        b"get a\0b\xff\xfe\r\ncas a 0 0 1 x\r\nincr a -\r\ntouch\r\n".to_vec(),
        b"gat\r\ndelete a b c d\r\nverbosity\r\nstats x\r\n".to_vec(),
    ];
    endure(&daemon, || {
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (daemon, pieces) = (&daemon, &pieces);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..300 {
                        let mut stream = impatient(daemon);
                        for _ in 0..random.usize(1..6) {
                            let mut bytes = pieces[random.usize(..pieces.len())].clone();
                            if random.bool() {
                                bytes.truncate(random.usize(..=bytes.len()));
                            }
                            if random.u8(..4) == 0 && !bytes.is_empty() {
                                let at = random.usize(..bytes.len());
                                bytes[at] = random.u8(..);
                            }
                            let _ = stream.write_all(&bytes);
                        }
                        if random.bool() {
                            let _ = stream.read(&mut [0; 4096]);
                        }
                    }
                });
            }
        });
    });
    assert!(daemon.stop().success());
}

#[test]
fn values_that_are_announced_and_never_completed() {
    let Some(disk) = require(LoopDevice::create(1024 * MIB, 4096)) else { return };
    let mut daemon = start(&disk);
    let part = vec![b'x'; 4 << 20];
    endure(&daemon, || {
        let clients = (0..100).map(|number| {
            let mut stream = impatient(&daemon);
            let head = format!("set half-{} 0 0 {}\r\n", number % 10, 60 << 20);
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&part);
            stream
        });
        clients.collect::<Vec<_>>()
    });
    let mut client = daemon.connect();
    client.send("get half-1 half-2\r\nquit\r\n");
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "END\r\n");
    assert!(daemon.stop().success());
}

#[test]
fn values_over_the_limit_are_swallowed_without_being_kept() {
    let Some(disk) = require(LoopDevice::create(256 * MIB, 4096)) else { return };
    let mut daemon = start(&disk);
    let piece = vec![b'x'; 1 << 20];
    endure(&daemon, || {
        let mut client = daemon.connect();
        // Twice the limit, and then on with the same connection.
        client.send(format!("set big 0 0 {}\r\n", 128 << 20));
        for _ in 0..128 {
            client.send(&piece);
        }
        client.send("\r\nget big\r\n");
        client.expect("SERVER_ERROR object too large for cache\r\nEND\r\n");
    });
    assert!(daemon.stop().success());
}

#[test]
fn connections_closed_in_the_middle_of_a_body() {
    let Some(disk) = require(LoopDevice::create(256 * MIB, 4096)) else { return };
    let mut daemon = start(&disk);
    let old = vec![b'o'; 2 << 20];
    set(&daemon, "k", &old);
    let part = vec![b'x'; 5 << 20];
    // Several times the capacity of the device: unfinished values must be given up.
    endure(&daemon, || {
        for _ in 0..150 {
            let mut stream = impatient(&daemon);
            let _ = stream.write_all(format!("set k 0 0 {}\r\n", 10 << 20).as_bytes());
            let _ = stream.write_all(&part);
        }
    });
    let mut client = daemon.connect();
    client.send("get k\r\nquit\r\n");
    let mut answer = Vec::new();
    client.0.read_to_end(&mut answer).unwrap();
    // The old value may have had to make room, but nothing else may be there.
    let expected = [b"VALUE k 0 2097152\r\n", old.as_slice(), b"\r\nEND\r\n"].concat();
    assert!(answer == expected || answer == b"END\r\n", "{} bytes", answer.len());
    assert!(daemon.stop().success());
}

#[test]
fn readers_that_do_not_read() {
    let Some(disk) = require(LoopDevice::create(512 * MIB, 4096)) else { return };
    let mut daemon = start(&disk);
    set(&daemon, "big", &vec![b'v'; 30 << 20]);
    set(&daemon, "small", &vec![b'v'; 100_000]);
    endure(&daemon, || {
        let clients = (0..100).map(|number| {
            let mut stream = impatient(&daemon);
            let key = if number % 2 == 0 { "big" } else { "small" };
            let _ = stream.write_all(format!("get {key}\r\n").repeat(2000).as_bytes());
            stream
        });
        let clients: Vec<UnixStream> = clients.collect();
        std::thread::sleep(Duration::from_secs(1));
        clients
    });
    assert!(daemon.stop().success());
}
