//! Goal: every metric is documented, and every metric that can be moved moves. Method: scrape a
//! daemon and compare the names with `docs/metrics.md`; work caches and servers in several ways and
//! see that no value stays zero, but for those that only a failing machine moves.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use crate::support::binary;
use crate::support::http::{self, Connection};
use crate::support::memcached::Client;
use crate::support::seccomp::{CACHESTAT, refusing};
use bytes::Bytes;
use rawcached::cache::{Ack, Cache, CacheOptions, Condition, RangeOptions, StoreOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::config::ListenAddress;
use rawcached::device::{
    AdaptiveOptions, Delay, Device, Effect, Fault, IoMode, OpenOptions, OperationKind, SimDevice,
    Way,
};
use rawcached::format::Layout;
use rawcached::format::Uuid;
use rawcached::metrics::{Metrics, ProcessStart, write_cache, write_device};
use rawcached::server::listener::{Listener, Permissions, Protocol};
use rawcached::server::{Options, Server, write_server};
use rawcached::store::{FormatOptions, Scrubber, Store};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

/// What only a failing machine or a bug moves.
const UNMOVED: &[&str] = &[
    "rawcached_accept_errors_total",
    "rawcached_connection_panics_total",
    "rawcached_device_direct_io_fallback",
    "rawcached_device_lost_rings_total",
    "rawcached_forgotten_starts_total",
];

/// The series with a value other than zero; buckets are left out, their counts tell the same.
fn moved(text: &str) -> impl Iterator<Item = String> + '_ {
    series(text).filter(|(_, value)| *value != "0").map(|(name, _)| name.to_owned())
}

fn series(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
    lines.filter_map(|line| line.rsplit_once(' '))
}

/// Gathers what was seen over all scenarios.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl Seen {
    fn scrape(&mut self, metrics: &Metrics) {
        let text = metrics.render();
        let named = |(name, _): (&str, &str)| match name.starts_with("rawcached_device_info") {
            true => "rawcached_device_info".to_owned(),
            false => name.to_owned(),
        };
        self.all.extend(series(&text).map(named));
        self.moved.extend(moved(&text));
        self.moved.insert("rawcached_device_info".to_owned());
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp(1_800_000_000))
}

async fn format(device: &Device) {
    let options = FormatOptions { uuid: Uuid([7; 16]), ..FormatOptions::default() };
    Store::format(device, &options, &clock()).await.unwrap();
}

async fn open(device: Device, options: CacheOptions, clock: &Clock) -> (Cache, Metrics) {
    let cache = Cache::open_device(device, options, clock.clone()).await.unwrap();
    cache.ready().await;
    let metrics = Metrics::new();
    let counted = cache.clone();
    metrics
        .add(move |page| {
            write_cache(page, &counted.stats());
            let device = counted.device_store().device();
            write_device(page, device.info(), &device.stats());
        })
        .unwrap();
    (cache, metrics)
}

async fn sim(size: u64) -> SimDevice {
    let device = SimDevice::new(size, 512);
    format(&device.open()).await;
    device
}

fn without_ram() -> CacheOptions {
    CacheOptions { ram_bytes: 0, ..CacheOptions::default() }
}

fn flushed() -> StoreOptions {
    StoreOptions { ack: Some(Ack::Flushed), ..StoreOptions::default() }
}

async fn put(cache: &Cache, key: &str, len: usize) {
    let body = Bytes::from(vec![1; len]);
    cache.put(key.as_bytes(), body, Condition::Always, &flushed()).await.unwrap();
}

/// Every command with every outcome.
fn work_commands(path: &std::path::Path, cache: &Cache, seen: &mut Seen, metrics: &Metrics) {
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
fn http(path: &std::path::Path, request: &str, status: &str) {
    let (line, body) = request.split_once('|').unwrap_or((request, ""));
    let len = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}");
    let (answer, _) = Connection::open(path).ask_last(format!("{head}\r\n\r\n{body}"));
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer} to {request}");
}

/// HTTP requests of every operation and tier, one of them under way.
async fn http_requests(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, _) = open(device.open(), CacheOptions::default(), &clock()).await;
    put(&cache, "disk", 10).await;
    cache.shutdown().await.unwrap();
    let (cache, metrics) = open(device.open(), CacheOptions::default(), &clock()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http");
    let listener =
        Listener::bind(&ListenAddress::Unix(path.clone()), &Permissions::default()).unwrap();
    let server = Server::new(Options::default(), cache.clone());
    let counters = server.counters().clone();
    metrics.add(move |page| write_server(page, &counters.snapshot(), 2)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(vec![listener.speaking(Protocol::Http)], async {
        stopped.await.ok();
    }));
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
    drop(stop);
    running.await.unwrap().unwrap();
}

/// A server with all that a scrape of the daemon shows.
async fn commands(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, metrics) = open(device.open(), CacheOptions::default(), &clock()).await;
    ProcessStart::now().add_to(&metrics).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener =
        Listener::bind(&ListenAddress::Unix(path.clone()), &Permissions::default()).unwrap();
    let options = Options { connections_max: 2, value_len_max: 5000, ..Options::default() };
    let server = Server::new(options, cache.clone());
    let counters = server.counters().clone();
    metrics.add(move |page| write_server(page, &counters.snapshot(), 2)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(vec![listener], async {
        stopped.await.ok();
    }));
    let mut mine = std::mem::take(seen);
    let (work, shown) = (cache.clone(), metrics.clone());
    *seen = tokio::task::spawn_blocking(move || {
        work_commands(&path, &work, &mut mine, &shown);
        mine
    })
    .await
    .unwrap();
    drop(stop);
    running.await.unwrap().unwrap();
}

/// Disk hits, values cut short and stores refused for want of memory, through a server.
async fn disk_commands(seen: &mut Seen) {
    let device = sim(16 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    put(&cache, "disk", 10).await;
    put(&cache, "cut", 3 << 20).await;
    cache.shutdown().await.unwrap();
    drop((cache, metrics));
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener =
        Listener::bind(&ListenAddress::Unix(path.clone()), &Permissions::default()).unwrap();
    let options = Options { staging_len_max: 1, ..Options::default() };
    let server = Server::new(options, cache.clone());
    let counters = server.counters().clone();
    metrics.add(move |page| write_server(page, &counters.snapshot(), 2)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(vec![listener], async {
        stopped.await.ok();
    }));
    // The middle of the large value goes bad; its head, written last, and its first slices stay.
    let middle = 1 << 20;
    let work = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path);
        client.ask("get disk\r\n", "VALUE disk 0 10\r\n");
        let mut rest = [0; 10 + 7];
        client.0.read_exact(&mut rest).unwrap();
        let large = "x".repeat(500_000);
        client.ask(format!("append disk 0 0 500000\r\n{large}\r\n"), "SERVER_ERROR");
        let mut cut = Client::connect(&path);
        device.overwrite(middle, &vec![0; 1 << 20]);
        cut.send("get cut\r\n");
        let mut answer = Vec::new();
        cut.0.read_to_end(&mut answer).unwrap();
        assert!(answer.len() < 3 << 20);
    });
    work.await.unwrap();
    seen.scrape(&metrics);
    drop(stop);
    running.await.unwrap().unwrap();
    cache.shutdown().await.unwrap();
}

/// A full device: reclaim, re-insertion, tombstones, expiry, touch, recovery.
async fn reclaim(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let clock = clock();
    let (cache, metrics) = open(device.open(), without_ram(), &clock).await;
    // Overwrites that expire before what they replaced: their tombstones must be carried on.
    let soon = StoreOptions { ttl: Some(Duration::from_secs(60)), ..flushed() };
    for n in 0..12 {
        put(&cache, &format!("old-{n}"), 30_000).await;
        put(&cache, &format!("neighbour-{n}"), 30_000).await;
    }
    for n in 0..12 {
        let (key, body) = (format!("old-{n}"), Bytes::from(vec![2; 60_000]));
        cache.put(key.as_bytes(), body, Condition::Always, &soon).await.unwrap();
    }
    clock.advance(Duration::from_secs(61));
    for n in 0..200 {
        put(&cache, &format!("key-{n}"), 60_000).await;
        if n % 3 == 0 {
            cache.remove(format!("key-{n}").as_bytes()).await.unwrap();
        }
        if n % 5 == 0 {
            put(&cache, "hot", 1000).await;
        }
        cache.lookup(format!("key-{}", n / 2 * 2).as_bytes()).await;
        cache.lookup(b"hot").await;
    }
    cache.touch(b"key-190", Duration::from_secs(9)).await.unwrap();
    clock.advance(Duration::from_secs(10));
    assert!(cache.lookup(b"key-190").await.is_none());
    let mut writer = cache.store(b"streamed", StoreOptions::default()).unwrap();
    writer.write_chunk(&[1; 10]).await.unwrap();
    // Its slices are in the way of everything that comes after them.
    let mut large = cache.store(b"large", StoreOptions::default()).unwrap();
    for n in 0..150 {
        large.write_chunk(&[1; 10_000]).await.unwrap();
        put(&cache, &format!("beside-{n}"), 60_000).await;
    }
    seen.scrape(&metrics);
    drop((writer, large));
    cache.shutdown().await.unwrap();
    seen.scrape(&metrics);
    device.corrupt(20, 1);
    let (cache, metrics) = open(device.open(), without_ram(), &clock).await;
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
    // The device fails just when the snapshot is read, and then when it is to be written.
    let fail = |kind| Fault::new(Effect::Fail(libc::EIO)).on(kind);
    let opening = device.open();
    // Reads of two superblocks and 15 region headers come first.
    device.inject(fail(OperationKind::Read).after(17));
    // Before 1970: nobody knows how long it was down.
    clock.set_wall(-1);
    let (cache, metrics) = open(opening, without_ram(), &clock).await;
    put(&cache, "last", 10).await;
    // Reclaim has come to rest by then: the next writes are those of the snapshot.
    tokio::time::sleep(Duration::from_secs(1)).await;
    device.inject(fail(OperationKind::Write).after(1).always());
    cache.shutdown().await.unwrap();
    device.clear_faults();
    seen.scrape(&metrics);
}

/// Stores keys until one shares its fingerprint with more than a lookup looks at.
async fn crowd(cache: &Cache) {
    let crowded = || cache.stats().store.counters.crowded;
    for n in 0..2000 {
        if crowded() > 0 {
            return;
        }
        put(cache, &format!("crowd-{n}"), 10).await;
    }
    panic!("no fingerprint is crowded");
}

/// Bytes that went bad, collisions, and a device that fails.
async fn trouble(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let options = CacheOptions { hash_mask: 0x3f, ..without_ram() };
    let (cache, metrics) = open(device.open(), options, &clock()).await;
    for n in 0..100 {
        put(&cache, &format!("key-{n}"), 5000).await;
    }
    cache.shutdown().await.unwrap();
    let (cache, metrics_after) = open(device.open(), options, &clock()).await;
    drop(metrics);
    for n in 0..100 {
        cache.lookup(format!("key-{n}").as_bytes()).await;
    }
    crowd(&cache).await;
    device.inject(Fault::new(Effect::Short(512)).on(OperationKind::Read));
    cache.lookup(b"key-1").await;
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    cache.lookup(b"key-2").await;
    device.clear_faults();
    for at in (70_000..(3 << 20)).step_by(1000) {
        device.corrupt(at, 1);
    }
    for n in 0..100 {
        cache.lookup(format!("key-{n}").as_bytes()).await;
    }
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush));
    let put = |key: &'static [u8]| cache.put(key, Bytes::new(), Condition::Always, &NOW);
    put(b"a").await.unwrap_err();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write));
    let _ = put(b"b").await;
    let _ = cache.put(b"b", Bytes::new(), Condition::Always, &flushed()).await;
    seen.scrape(&metrics_after);
}

/// A region that cannot be read at the start, and later can.
async fn unreadable(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..30 {
        put(&cache, &format!("key-{n}"), 60_000).await;
    }
    drop((cache, metrics));
    device.kill();
    let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
    // The fifth region; others are emptied meanwhile.
    let region = (128 << 10) + 4 * (256 << 10);
    device.inject(fault.within(region..region + (256 << 10)).always());
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..24 {
        for hot in 0..30 {
            cache.lookup(format!("key-{hot}").as_bytes()).await;
        }
        put(&cache, &format!("more-{n}"), 60_000).await;
    }
    seen.scrape(&metrics);
    device.clear_faults();
    tokio::time::sleep(Duration::from_secs(600)).await;
    seen.scrape(&metrics);
}

static NOW: std::sync::LazyLock<StoreOptions> = std::sync::LazyLock::new(flushed);

/// No region becomes free because nothing can be written.
async fn stalls(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    put(&cache, "first", 10).await;
    // A request under way, and bytes that wait for it.
    device.set_delay(Delay::Sleep(Duration::from_secs(10)));
    let slow = cache.clone();
    let pending = tokio::spawn(async move { put(&slow, "slow", 9000).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    seen.scrape(&metrics);
    pending.await.unwrap();
    device.set_delay(Delay::None);
    // Nothing can be read, and so nothing be freed.
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    for n in 0..70 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("full-{n}");
        let _ = cache.put(key.as_bytes(), body, Condition::Always, &StoreOptions::default()).await;
    }
    seen.scrape(&metrics);
    device.clear_faults();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
    let options = StoreOptions::default();
    for n in 0..200 {
        let body = Bytes::from(vec![1; 60_000]);
        let key = format!("key-{n}");
        if cache.put(key.as_bytes(), body, Condition::Always, &options).await.is_err() {
            break;
        }
    }
    cache.remove(b"first").await.unwrap_err();
    seen.scrape(&metrics);
}

/// A device that becomes slow, and then hardly answers.
async fn limps(seen: &mut Seen) {
    let sim = sim(4 << 20).await;
    sim.set_read_deadline(Duration::from_secs(1));
    let (cache, metrics) = open(sim.open(), without_ram(), &clock()).await;
    let device = cache.device_store().device();
    let read = || device.read_in_time(0, device.geometry().read_buffer(4096));
    for delay in [2, 100] {
        sim.set_delay(Delay::Sleep(Duration::from_millis(delay)));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for _ in 0..8 {
                read().await.unwrap();
            }
        }
    }
    sim.set_delay(Delay::Sleep(Duration::from_secs(100_000)));
    futures_util::future::join_all((0..128).map(|_| read())).await;
    read().await.unwrap_err();
    seen.scrape(&metrics);
}

/// Large bodies read in parallel: whole, dropped half way, after a read that failed, too slowly.
async fn ranges(seen: &mut Seen) {
    let device = sim(32 << 20).await;
    let options = CacheOptions {
        range: RangeOptions { threshold: 1, ..RangeOptions::default() },
        ..without_ram()
    };
    let (cache, metrics) = open(device.open(), options, &clock()).await;
    put(&cache, "large", 6 << 20).await;
    put(&cache, "filler", 2 << 20).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let hit = cache.lookup_head(b"large").await.unwrap();
    device.set_delay(Delay::Sleep(Duration::from_millis(5)));
    let mut whole = hit.range(0..u64::MAX).await.unwrap();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read));
    while whole.next_chunk().await.unwrap().is_some() {
        seen.scrape(&metrics);
    }
    let mut slow = hit.range(0..u64::MAX).await.unwrap();
    device.set_delay(Delay::Sleep(Duration::from_secs(1000)));
    while slow.next_chunk().await.is_ok() {}
    drop(slow);
    seen.scrape(&metrics);
}

/// Damage of each kind on the device, found by one pass of the scrubber.
async fn scrub(seen: &mut Seen) {
    let device = sim(4 << 20).await;
    let (cache, metrics) = open(device.open(), without_ram(), &clock()).await;
    for n in 0..16 {
        put(&cache, &format!("key-{n}"), 60_000).await;
    }
    cache.remove(b"key-9").await.unwrap();
    for n in 0..4 {
        put(&cache, &format!("more-{n}"), 60_000).await;
    }
    let layout = Layout::plan(4 << 20, 512, None).unwrap();
    let start = |region: u32| layout.region_offset(region);
    device.corrupt(layout.superblock_offsets()[1] + 20, 1);
    // An entry's body, a header, a footer; where the tombstone is, the scrubber shows.
    device.corrupt(start(0) + 30_000, 1);
    device.corrupt(start(1) + 20, 1);
    device.corrupt(start(2) + layout.region_size - 5, 1);
    let contents = device.contents(0..4 << 20);
    let kill =
        (0..contents.len() - 8).step_by(16).find(|at| contents[at + 4..at + 8] == [0xC5, 4, 0, 0]);
    device.corrupt(kill.unwrap() as u64, 1);
    device.set_delay(Delay::Sleep(Duration::from_millis(3)));
    let pass = async {
        let mut scrubber = Scrubber::starting_at(cache.device_store().clone(), 0);
        while !scrubber.step().await.pass_ended {}
    };
    // Not the damaged one: it is for the scrubber to find.
    let lookups = async {
        for n in 10..16 {
            cache.lookup(format!("key-{n}").as_bytes()).await;
        }
    };
    tokio::join!(pass, lookups);
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    Scrubber::starting_at(cache.device_store().clone(), 0).step().await;
    seen.scrape(&metrics);
}

async fn buffered(seen: &mut Seen) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let options = OpenOptions { io: IoMode::Buffered, ..OpenOptions::new(file.path()) };
    let device = Device::open(&options).unwrap();
    format(&device).await;
    let (cache, metrics) = open(device, without_ram(), &clock()).await;
    put(&cache, "k", 10).await;
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
}

/// Adaptive reads where the kernel does not tell what is cached.
async fn adaptive_off(seen: &mut Seen) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let options = OpenOptions { io: IoMode::Adaptive, ..OpenOptions::new(file.path()) };
    format(&Device::open(&OpenOptions::new(file.path())).unwrap()).await;
    let device = refusing(CACHESTAT, libc::ENOSYS, || Device::open(&options).unwrap()).unwrap();
    let (cache, metrics) = open(device, without_ram(), &clock()).await;
    seen.scrape(&metrics);
    assert!(metrics.render().contains("rawcached_device_adaptive 0\n"));
    assert!(metrics.render().contains("rawcached_device_adaptive_fallback 1\n"));
    cache.shutdown().await.unwrap();
}

async fn adaptive(seen: &mut Seen) {
    // Times on a simulated device are noise: a contest that any difference decides.
    let options = AdaptiveOptions {
        first: Way::PageCache,
        sample_one_in: 2,
        margin_percent: 0,
        samples_min: 1,
        window: Duration::ZERO,
    };
    let sim = sim(16 << 20).await;
    let device = sim.open_adaptive(options);
    let (cache, metrics) = open(device.clone(), without_ram(), &clock()).await;
    seen.scrape(&metrics);
    put(&cache, "k", 10).await;
    for _ in 0..6 {
        put(&cache, "filler", 1 << 20).await;
    }
    // Each read fails: reclaim reads at the same time, and could meet a single fault instead.
    sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    assert!(cache.lookup(b"k").await.is_none());
    sim.clear_faults();
    for block in 0.. {
        let buf = device.geometry().read_buffer(512);
        device.read_adaptive(block % 1000 * 512, buf).await.unwrap();
        if device.stats().adaptive.switches > 0 {
            break;
        }
    }
    seen.scrape(&metrics);
    cache.shutdown().await.unwrap();
}

#[test]
fn every_metric_that_can_be_moved_moves() {
    let mut seen = Seen::default();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    threads.block_on(async {
        commands(&mut seen).await;
        disk_commands(&mut seen).await;
        http_requests(&mut seen).await;
        buffered(&mut seen).await;
        adaptive(&mut seen).await;
        adaptive_off(&mut seen).await;
    });
    let mut paused = tokio::runtime::Builder::new_current_thread();
    paused.enable_all().start_paused(true).build().unwrap().block_on(async {
        reclaim(&mut seen).await;
        trouble(&mut seen).await;
        stalls(&mut seen).await;
        unreadable(&mut seen).await;
        ranges(&mut seen).await;
        limps(&mut seen).await;
        scrub(&mut seen).await;
    });
    let still: Vec<&String> =
        seen.all.difference(&seen.moved).filter(|name| !UNMOVED.contains(&name.as_str())).collect();
    assert!(still.is_empty(), "never moved: {still:#?}");
    for name in UNMOVED {
        assert!(seen.all.contains(*name) && !seen.moved.contains(*name), "{name}");
    }
}

/// Starts the daemon on an image of its own and scrapes it once.
fn daemon_scrape() -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = binary::rawcached()
        .args(["serve", "--server-admin", "127.0.0.1:0"])
        .current_dir(directory.path())
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let line = log.find(|line| line.as_ref().unwrap().contains("admin listener"));
    let line = line.unwrap().unwrap();
    let address = line.rsplit('=').next().unwrap().trim().to_owned();
    let _ = log.find(|line| line.as_ref().unwrap().contains("serving"));
    let text = http::get(&address, "/metrics").expect("the admin listener answers");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    text
}

/// Name, type and names of labels of each family, as in the items of the document.
fn exported(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let row = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let mut labels: Vec<&str> = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}{suffix}{{"))?.split('}').next())
            .map(|labels| labels.split(',').filter_map(|pair| pair.split('=').next()).collect())
            .unwrap_or_default();
        labels.sort_unstable();
        let by = if labels.is_empty() { "" } else { " by " };
        format!("`{name}` ({kind}{by}{}", labels.join(", "))
    };
    types.map(row).collect()
}

#[test]
fn the_document_lists_what_is_exported() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    // An item is a name, type and labels in brackets, and the meaning, which may go on in the next line.
    let rows = document.lines().filter(|line| line.starts_with("- `rawcached_"));
    let documented: BTreeSet<String> = rows
        .map(|row| {
            let (metric, meaning) = row["- ".len()..].split_once("): ").unwrap();
            assert!(meaning.len() > 10, "the meaning of {row}");
            metric.to_owned()
        })
        .collect();
    let exported = exported(&daemon_scrape());
    let missing: Vec<_> = exported.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&exported).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}\nstale: {stale:#?}");
}
