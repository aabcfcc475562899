//! Goal: every metric is documented, and every metric that can be moved moves. Method: scrape a
//! daemon and compare the names with `docs/metrics.md`; work caches and servers in several ways and
//! see that no value stays zero, but for those that only a failing machine moves.

mod monitoring;
mod read_through;
mod requests;
mod stores;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::support::binary;
use crate::support::http;
use crate::support::seccomp::{CACHESTAT, refusing};
use bytes::Bytes;
use rawcached::cache::{Ack, Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::{
    AdaptiveOptions, Device, Effect, Fault, IoMode, OpenOptions, OperationKind, SimDevice, Way,
};
use rawcached::format::Uuid;
use rawcached::metrics::{Metrics, write_cache, write_device};
use rawcached::store::{FormatOptions, Store};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

/// Metrics that only a failing machine or a bug moves.
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

/// The page without the addresses of listeners, which are others each time.
fn without_listeners(text: &str) -> String {
    let parts = text.split("listener=\"").enumerate();
    let rest = |(at, part): (usize, &str)| match part.split_once('"').filter(|_| at > 0) {
        Some((_, rest)) => format!("listener=\"\"{rest}"),
        None => part.to_owned(),
    };
    parts.map(rest).collect()
}

/// Gathers what was seen over all scenarios.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl Seen {
    fn scrape(&mut self, metrics: &Metrics) {
        let text = without_listeners(&metrics.render());
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
    let options = FormatOptions::default().with_uuid(Uuid([7; 16]));
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
    options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() })
}

fn flushed() -> StoreOptions {
    options!(StoreOptions { ack: Some(Ack::Flushed), ..StoreOptions::default() })
}

async fn put_part(cache: &Cache) {
    let validator = rawcached::Validator::etag(b"\"v\"").unwrap();
    let parts = cache.declare(b"part", 20, &validator, &flushed()).await.unwrap().unwrap();
    parts.fill(10, b"0123456789").await.unwrap();
}

async fn put(cache: &Cache, key: &str, len: usize) {
    let body = Bytes::from(vec![1; len]);
    cache.put(key.as_bytes(), body, Condition::Always, &flushed()).await.unwrap();
}

async fn buffered(seen: &mut Seen) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let options = options!(OpenOptions { io: IoMode::Buffered, ..OpenOptions::new(file.path()) });
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
    let options = options!(OpenOptions { io: IoMode::Adaptive, ..OpenOptions::new(file.path()) });
    format(&Device::open(&OpenOptions::new(file.path())).unwrap()).await;
    let device = refusing(CACHESTAT, libc::ENOSYS, || Device::open(&options).unwrap()).unwrap();
    let (cache, metrics) = open(device, without_ram(), &clock()).await;
    seen.scrape(&metrics);
    assert!(metrics.render().contains("rawcached_device_adaptive 0\n"));
    assert!(metrics.render().contains("rawcached_device_adaptive_fallback 1\n"));
    cache.shutdown().await.unwrap();
}

async fn adaptive(seen: &mut Seen) {
    // Times on a simulated device are noise: any difference decides the comparison.
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
    put_part(&cache).await;
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
        requests::commands(&mut seen).await;
        requests::disk_commands(&mut seen).await;
        requests::http_requests(&mut seen).await;
        requests::timeouts(&mut seen).await;
        requests::standing(&mut seen).await;
        buffered(&mut seen).await;
        adaptive(&mut seen).await;
        adaptive_off(&mut seen).await;
    });
    read_through::outcomes(&mut seen);
    let mut paused = tokio::runtime::Builder::new_current_thread();
    paused.enable_all().start_paused(true).build().unwrap().block_on(async {
        stores::reclaim(&mut seen).await;
        stores::trouble(&mut seen).await;
        stores::purges(&mut seen).await;
        stores::memory(&mut seen).await;
        stores::stalls(&mut seen).await;
        stores::unreadable(&mut seen).await;
        stores::ranges(&mut seen).await;
        stores::limps(&mut seen).await;
        stores::scrub(&mut seen).await;
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
