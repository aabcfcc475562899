//! Goal: hundreds of clients that ask for much and read nothing do not use up the memory, and clients
//! that read beside them are answered as ever. Method: the built daemon in a memory cgroup, which counts
//! what the kernel keeps for its sockets too; the numbers are printed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::cgroup::Cgroup;
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::http::{Connection, body, target};
use crate::support::machine::require;
use crate::support::memcached::Client;
use crate::support::waiting::{PATIENCE, eventually, now};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 256 * MIB;
const STANDING: usize = 600;
const NORMAL: usize = 16;
const KEYS: usize = 8;
const LEN: usize = 1 << 20;
/// How long the standing ones stand: long enough for some to be cut.
const STAND: Duration = Duration::from_secs(8);
/// Longest that a client that reads may have to wait beside them on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Both tests open hundreds of files.
static TURN: Mutex<()> = Mutex::new(());

fn key(n: usize) -> String {
    format!("big-{}", n % KEYS)
}

fn value(n: usize) -> Vec<u8> {
    let mut value = body(LEN);
    value[0] = b'0' + u8::try_from(n % KEYS).unwrap();
    value
}

/// The protocol in which the clients of a test speak.
#[derive(Clone, Copy)]
enum Speech {
    Memcached,
    Http,
}

impl Speech {
    fn socket(self, daemon: &Daemon) -> PathBuf {
        match self {
            Speech::Memcached => daemon.socket(),
            Speech::Http => daemon.directory().join("http.sock"),
        }
    }

    fn request(self, n: usize) -> String {
        match self {
            Speech::Memcached => format!("get {}\r\n", key(n)),
            Speech::Http => format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", target(&key(n))),
        }
    }

    /// Reads values until `done` and compares every byte; gives the longest wait.
    fn read(self, path: &Path, start: usize, done: &AtomicBool, count: &AtomicU64) -> Duration {
        let mut longest = Duration::ZERO;
        let mut client = Client::connect(path);
        let mut http = Connection::open(path);
        for n in start.. {
            let began = now();
            let found = match self {
                Speech::Memcached => client.get(&key(n)).expect("it was stored"),
                Speech::Http => http.ask("GET", &target(&key(n)), "", b"").expect(200).body,
            };
            longest = longest.max(began.elapsed());
            assert!(found == value(n), "other bytes");
            count.fetch_add(1, Ordering::Relaxed);
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
        longest
    }
}

/// A client that asks for much and reads nothing. Every other one asks on and on.
fn stand(speech: Speech, path: &Path, n: usize) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_nonblocking(true).unwrap();
    let asked = speech.request(n).repeat(if n.is_multiple_of(2) { 2 } else { 5000 });
    // The daemon takes as much of it as it wants.
    let _ = stream.write(asked.as_bytes());
    stream
}

fn endure(speech: Speech, name: &str) {
    let _turn = TURN.lock();
    let Some(cgroup) = require(Cgroup::create(name, LIMIT)) else { return };
    let Some(disk) = require(LoopDevice::create(512 * MIB, 4096)) else { return };
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "max_connections = 1024");
    let http = daemon.directory().join("http.sock");
    let config = fs::read_to_string(daemon.config()).unwrap();
    let listener = format!("[server]\nhttp = [\"unix:{}\"]\n", http.display());
    daemon.configure(&config.replace("[server]\n", &listener));
    daemon.configure_more("[memory]\nsocket_buffers = \"48MiB\"\n");
    daemon.launch_in(&cgroup);
    daemon.restart();
    for n in 0..KEYS {
        assert_eq!(daemon.connect().set(&key(n), &value(n)), "STORED");
    }
    let path = speech.socket(&daemon);
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..NORMAL)
            .map(|n| {
                scope.spawn({
                    let (path, done, count) = (&path, &done, &count);
                    move || speech.read(path, n, done, count)
                })
            })
            .collect();
        let alone = now();
        std::thread::sleep(Duration::from_secs(2));
        let rate_alone = count.swap(0, Ordering::Relaxed) as f64 / alone.elapsed().as_secs_f64();
        let start = now();
        let standing: Vec<_> = (0..STANDING).map(|n| stand(speech, &path, n)).collect();
        let (mut kernel, mut own) = (0, 0);
        while start.elapsed() < STAND && cgroup.kills() == 0 {
            kernel = kernel.max(cgroup.kernel());
            own = own.max(cgroup.own());
            std::thread::sleep(Duration::from_millis(50));
        }
        let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        let kills = cgroup.kills();
        println!(
            "{name}: {STANDING} standing beside {NORMAL}: {kills} kills, kernel {} MiB, its own {} MiB, \
             cgroup {} MiB of {} MiB; {rate_alone:.0} answers/s alone, {rate:.0} beside them",
            kernel / MIB,
            own / MIB,
            cgroup.peak() / MIB,
            LIMIT / MIB,
        );
        assert_eq!(kills, 0, "the kernel killed the daemon");
        let metrics = daemon.metrics();
        done.store(true, Ordering::Relaxed);
        // Each read every byte and was never cut, or it has panicked.
        let longest = readers.into_iter().map(|reader| reader.join().unwrap()).max().unwrap();
        let lines = metrics.lines().filter(|line| {
            ["socket_buffer", "unsent", "connections_cut", "_connections "]
                .iter()
                .any(|part| line.contains(part) && !line.starts_with('#'))
        });
        println!("longest wait {longest:?}\n{}", lines.collect::<Vec<_>>().join("\n"));
        assert!(kernel + own < LIMIT, "{} MiB", (kernel + own) / MIB);
        let buffers = daemon.metric("rawcached_socket_buffer_max_bytes");
        assert!(kernel < buffers, "the kernel has {} MiB", kernel / MIB);
        assert!(longest < ANSWER_MAX, "a client that reads waited {longest:?}");
        let unsent = daemon.metric("rawcached_unsent_bytes");
        assert!(unsent <= daemon.metric("rawcached_unsent_max_bytes"), "{unsent} B unsent");
        let cut = daemon.metric("rawcached_connections_cut_total{reason=\"unsent\"}");
        // Who was cut hears so after what the kernel has for it; the others' connections stand.
        let ended = standing.into_iter().filter(has_ended).count() as u64;
        println!("{cut} cut, {ended} ended");
        assert!(ended >= cut, "{ended} of {cut} that were cut hear of it");
    });
    let left = || daemon.metric("rawcached_connections");
    assert!(eventually(|| left() == 0), "{} connections are left", left());
    assert_eq!(daemon.metric("rawcached_socket_buffer_bytes"), 0);
    assert_eq!(daemon.metric("rawcached_unsent_bytes"), 0);
    assert_eq!(daemon.metric("rawcached_connection_panics_total"), 0, "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// Whether the daemon has shut the connection down.
fn has_ended(mut stream: &UnixStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut scratch = vec![0; 64 << 10];
    // Others get more for as long as they read.
    for _ in 0..64 {
        match stream.read(&mut scratch) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[test]
fn memcached_clients_that_read_nothing() {
    endure(Speech::Memcached, "memcached");
}

#[test]
fn http_clients_that_read_nothing() {
    assert!(STAND < PATIENCE);
    endure(Speech::Http, "http");
}
