//! Requests of both protocols with every outcome.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rawcached::cache::{Cache, CacheOptions};
use rawcached::config::ListenAddress;
use rawcached::metrics::{Metrics, ProcessStart};
use rawcached::server::listener::{Listener, Permissions, Protocol, Rules};
use rawcached::server::peers::Peers;
use rawcached::server::{Options, RunError, Server, write_server};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Seen, clock, open, put, sim, without_ram};
use crate::support::http::Connection;
use crate::support::memcached::Client;
use crate::support::waiting::eventually;

/// Every command with every outcome.
fn work_commands(path: &Path, cache: &Cache, seen: &mut Seen, metrics: &Metrics) {
    let mut client = Client::connect(path);
    client.ask("set n 0 0 1\r\n5\r\n", "STORED\r\n");
    let found = "VALUE n 0 1\r\n5\r\nEND\r\n";
    client.ask("get n\r\n", found);
    client.ask("get n\r\n", found);
    client.ask("get none\r\n", "END\r\n");
    client.ask("touch n 100\r\ntouch none 1\r\n", "TOUCHED\r\nNOT_FOUND\r\n");
    client.ask("incr n 1\r\nincr none 1\r\n", "6\r\nNOT_FOUND\r\n");
    client.ask("decr n 1\r\ndecr none 1\r\n", "5\r\nNOT_FOUND\r\n");
    let cas = cache_value(cache);
    client.ask(format!("cas n 0 0 1 {cas}\r\n7\r\n"), "STORED\r\n");
    client.ask("cas n 0 0 1 1\r\n7\r\ncas none 0 0 1 1\r\n7\r\n", "EXISTS\r\nNOT_FOUND\r\n");
    client.ask("delete n\r\ndelete n\r\n", "DELETED\r\nNOT_FOUND\r\n");
    client.ask("flush_all\r\n", "OK\r\n");
    client.ask("nonsense\r\n", "ERROR\r\n");
    let too_large = format!("set n 0 0 9999\r\n{}\r\n", "x".repeat(9999));
    client.ask(&too_large, "SERVER_ERROR object too large for cache\r\n");
    let mut rejected = String::new();
    let _second = UnixStream::connect(path).unwrap();
    UnixStream::connect(path).unwrap().read_to_string(&mut rejected).unwrap();
    assert!(rejected.starts_with("SERVER_ERROR too many"), "{rejected}");
    client.ask("set kept 0 0 1\r\n5\r\nget kept\r\n", "STORED\r\nVALUE kept 0 1\r\n5\r\nEND\r\n");
    // The kernel counts processor time in hundredths of a second.
    std::hint::black_box((0..50_000_000u64).fold(0, |sum, n| sum ^ std::hint::black_box(n)));
    seen.scrape(metrics);
    let _ = futures_block(cache.shutdown());
    client.ask("set n 0 0 1\r\n5\r\n", "SERVER_ERROR");
    seen.scrape(metrics);
}

fn futures_block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn cache_value(cache: &Cache) -> u64 {
    futures_block(cache.lookup(b"n")).unwrap().cas()
}

/// One HTTP request on a connection of its own, and the status of the answer.
fn http(path: &Path, request: &str, status: &str) {
    let (line, body) = request.split_once('|').unwrap_or((request, ""));
    let len = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}");
    let (answer, _) = Connection::open(path).ask_last(format!("{head}\r\n\r\n{body}"));
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer} to {request}");
}

/// A server on a socket, whose counters the metrics show.
struct Served {
    path: PathBuf,
    /// The socket of a second listener, to which nobody may connect.
    closed: PathBuf,
    _directory: TempDir,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Served {
    fn start(protocol: Protocol, options: Options, cache: &Cache, metrics: &Metrics) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let closed = directory.path().join("closed");
        let bind = |path: &Path| {
            let address = ListenAddress::Unix(path.to_owned());
            Listener::bind(&address, &Permissions::default()).unwrap().speaking(protocol)
        };
        let nobody = Rules { peers: Some(Peers::default()), ..Rules::default() };
        let listeners = vec![bind(&path), bind(&closed).with_rules(nobody)];
        let server = Server::new(options, cache.clone());
        let counters = server.counters().clone();
        metrics
            .add(move |page| write_server(page, &counters.snapshot(), &counters.listeners()))
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(listeners, async {
            stopped.await.ok();
        }));
        Served { path, closed, _directory: directory, stop, running }
    }

    async fn stop(self) {
        drop(self.stop);
        self.running.await.unwrap().unwrap();
    }
}

/// HTTP requests of every operation and tier, one of them in progress.
pub async fn http_requests(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, _) = open(device.open(), CacheOptions::default(), &clock()).await;
    put(&cache, "disk", 10).await;
    cache.shutdown().await.unwrap();
    let (cache, metrics) = open(device.open(), CacheOptions::default(), &clock()).await;
    let served = Served::start(Protocol::Http, Options::default(), &cache, &metrics);
    let path = served.path.clone();
    let (mut mine, shown, closing) = (std::mem::take(seen), metrics.clone(), cache.clone());
    *seen = tokio::task::spawn_blocking(move || {
        let key = "/v1/objects/k";
        http(&path, "GET /v1/objects/disk", "200");
        http(&path, "GET /v1/objects/disk", "200");
        http(&path, &format!("PUT {key}|body"), "201");
        http(&path, &format!("GET {key}"), "200");
        http(&path, &format!("HEAD {key}"), "200");
        http(&path, "GET /v1/objects/none", "404");
        http(&path, &format!("PATCH {key}"), "400");
        http(&path, &format!("DELETE {key}"), "204");
        http(&path, "GET two targets", "400");
        for method in ["GET", "HEAD"] {
            http(&path, &format!("{method} /v1/objects/disk"), "200");
            http(&path, &format!("{method} /"), "404");
            http(
                &path,
                &format!("{method} /v1/objects/disk HTTP/1.1\r\nIf-None-Match: *\r\nX:"),
                "304",
            );
        }
        for (method, answer) in
            [("PUT", "201"), ("PATCH", "204"), ("DELETE", "204"), ("PURGE", "404")]
        {
            let head = "HTTP/1.1\r\nX-Rawcached-TTL: 50\r\nX:";
            http(&path, &format!("{method} {key} {head}"), answer);
            http(&path, &format!("{method} /"), "404");
        }
        http(&path, &format!("PUT {key}|body"), "201");
        http(&path, &format!("PURGE {key}"), "204");
        let mut waiting = Connection::open(&path);
        let head = "HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
        waiting.send(format!("PUT {key} {head}"));
        assert_eq!(waiting.head().len(), 25);
        mine.scrape(&shown);
        futures_block(closing.shutdown()).unwrap();
        for method in ["PUT", "PATCH", "DELETE", "PURGE"] {
            let head = "HTTP/1.1\r\nX-Rawcached-TTL: 50\r\nX:";
            http(&path, &format!("{method} /v1/objects/disk {head}"), "503");
        }
        mine.scrape(&shown);
        mine
    })
    .await
    .unwrap();
    served.stop().await;
}

/// A server with all that a scrape of the daemon shows.
pub async fn commands(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, metrics) = open(device.open(), CacheOptions::default(), &clock()).await;
    ProcessStart::now().add_to(&metrics).unwrap();
    let options = Options { connections_max: 2, value_len_max: 5000, ..Options::default() };
    let served = Served::start(Protocol::Memcached, options, &cache, &metrics);
    let path = served.path.clone();
    assert!(Client::connect(&served.closed).rest().starts_with(b"SERVER_ERROR this user"));
    let mut mine = std::mem::take(seen);
    let (work, shown) = (cache.clone(), metrics.clone());
    *seen = tokio::task::spawn_blocking(move || {
        work_commands(&path, &work, &mut mine, &shown);
        mine
    })
    .await
    .unwrap();
    served.stop().await;
}

/// Clients that do not read beside one that does.
pub async fn standing(seen: &mut Seen) {
    let device = sim(32 << 20).await;
    let (cache, metrics) = open(device.open(), CacheOptions::default(), &clock()).await;
    put(&cache, "large", 4 << 20).await;
    put(&cache, "some", 20_000).await;
    // First buffers of 8 KiB, and a pool that does not reach for the longest one.
    let options = Options {
        connections_max: 100,
        socket_buffer_bytes_max: 3 << 20,
        unsent_bytes_max: 300_000,
        ..Options::default()
    };
    let served = Served::start(Protocol::Memcached, options, &cache, &metrics);
    let (path, shown) = (served.path.clone(), metrics.clone());
    let mut mine = std::mem::take(seen);
    *seen = tokio::task::spawn_blocking(move || {
        let cut = |reason: &str| {
            let line = format!("rawcached_connections_cut_total{{reason=\"{reason}\"}} 0\n");
            !shown.render().contains(&line)
        };
        let head = format!("VALUE large 0 {}\r\n", 4 << 20);
        let large = [head.as_bytes(), &vec![1; 4 << 20], b"\r\nEND\r\n"].concat();
        // It takes nothing for a moment: a server that sends no faster than its client reads never finds a buffer full.
        let ask_and_wait = |client: &mut Client, key: &str, answer: &[u8]| {
            client.send(format!("get {key}\r\n"));
            std::thread::sleep(Duration::from_millis(20));
            client.expect(answer);
        };
        let buffers = || {
            let text = shown.render();
            let mut lines = text.lines();
            let len = lines.find_map(|line| line.strip_prefix("rawcached_socket_buffer_bytes "));
            len.unwrap().parse::<u64>().unwrap()
        };
        let some = [b"VALUE some 0 20000\r\n", &[1; 20_000][..], b"\r\nEND\r\n"].concat();
        let mut standing = Client::connect(&path);
        standing.ask("verbosity 1\r\n", "OK\r\n");
        let short = buffers();
        let is_long = eventually(|| {
            ask_and_wait(&mut standing, "some", &some);
            buffers() > short
        });
        assert!(is_long, "{}", shown.render());
        standing.send("get large\r\n");
        let mut reading = Client::connect(&path);
        let cut_for_reader = eventually(|| {
            ask_and_wait(&mut reading, "large", &large);
            cut("buffer")
        });
        assert!(cut_for_reader, "{}", shown.render());
        assert!(!cut("unsent"), "{}", shown.render());
        assert!(standing.rest().len() < 4 << 20);
        let mut crowd: Vec<Client> = (0..10).map(|_| Client::connect(&path)).collect();
        crowd.iter_mut().for_each(|client| client.send("get large\r\n"));
        assert!(eventually(|| cut("unsent")), "{}", shown.render());
        mine.scrape(&shown);
        mine
    })
    .await
    .unwrap();
    served.stop().await;
    cache.shutdown().await.unwrap();
}

/// Disk hits, values cut short and stores refused for lack of memory, through a server.
pub async fn disk_commands(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    put(&cache, "disk", 10).await;
    put(&cache, "cut", 3 << 20).await;
    cache.shutdown().await.unwrap();
    drop((cache, metrics));
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    let options = Options { input_bytes_max: 1, ..Options::default() };
    let served = Served::start(Protocol::Memcached, options, &cache, &metrics);
    let path = served.path.clone();
    let (mut mine, shown) = (std::mem::take(seen), metrics.clone());
    // The middle of the large value goes bad; its head, written last, and its first slices stay.
    let middle = 1 << 20;
    let work = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path);
        client.ask("get disk\r\n", "VALUE disk 0 10\r\n");
        let mut rest = [0; 10 + 7];
        client.0.read_exact(&mut rest).unwrap();
        let large = "x".repeat(500_000);
        client.ask(format!("append disk 0 0 500000\r\n{large}\r\n"), "SERVER_ERROR");
        let mut waiting = Client::connect(&path);
        waiting.send("verbosity 1\r\nget half a");
        waiting.expect("OK\r\n");
        mine.scrape(&shown);
        let mut cut = Client::connect(&path);
        device.overwrite(middle, &vec![0; 1 << 20]);
        cut.send("get cut\r\n");
        let mut answer = Vec::new();
        cut.0.read_to_end(&mut answer).unwrap();
        assert!(answer.len() < 3 << 20);
        mine
    });
    *seen = work.await.unwrap();
    seen.scrape(&metrics);
    served.stop().await;
    cache.shutdown().await.unwrap();
}

/// Connections that rest, and such that stand still in a command, for too long.
pub async fn timeouts(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    let short = Duration::from_millis(50);
    let options = Options {
        memcached_idle_timeout: Some(short),
        memcached_stall_timeout: short,
        ..Options::default()
    };
    let served = Served::start(Protocol::Memcached, options, &cache, &metrics);
    let path = served.path.clone();
    let work = tokio::task::spawn_blocking(move || {
        for begun in ["", "set a 0 0 5\r\nab"] {
            let mut client = Client::connect(&path);
            client.send(begun);
            assert_eq!(client.rest(), b"");
        }
    });
    work.await.unwrap();
    served.stop().await;
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
}
