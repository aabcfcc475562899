//! Goal: lookups through the page cache never answer with what a write has replaced. Method: random
//! stores, touches, removals and lookups against a model, on a simulated device whose page cache
//! never drops a page, and on loop devices and image files whose page cache somebody fills all the
//! time, by both engines. `RAWCACHED_TEST_SEED=n` replays a failure on the simulated device.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::devices::{LoopDevice, MountedImage};
use crate::support::log::warnings_of;
use crate::support::machine::require;
use crate::support::seccomp::{CACHESTAT, refusing};
use rawcached::cache::{Cache, CacheOptions, Condition, RangeOptions, StoreOptions};
use rawcached::clock::{Clock, Stopwatch, Timestamp};
use rawcached::device::{
    AdaptiveOptions, Delay, Device, Effect, EngineKind, Fault, IoMode, OpenOptions, OperationKind,
    SimDevice, Way, create_image,
};
use rawcached::format::Uuid;
use rawcached::store::{FormatOptions, Store};

const MIB: u64 = 1 << 20;
const DEVICE_LEN: u64 = 14 * MIB;
const KEYS: u64 = 40;
const START: Timestamp = Timestamp(1_000_000);
const ENGINES: [EngineKind; 2] = [EngineKind::IoUring, EngineKind::Threads];

/// All reads that may go through the page cache do.
fn cached_always() -> AdaptiveOptions {
    AdaptiveOptions { first: Way::PageCache, sample_one_in: u32::MAX, ..AdaptiveOptions::default() }
}

/// No RAM tier, and ranges in parallel where there are several slices.
fn cache_options() -> CacheOptions {
    let range = options!(RangeOptions { threshold: 1, ..RangeOptions::default() });
    options!(CacheOptions { ram_bytes: 0, range, ..CacheOptions::default() })
}

async fn format(device: &Device, uuid: u8) {
    let options = options!(FormatOptions {
        region_size: Some(1 << 20),
        ..FormatOptions::default().with_uuid(Uuid([uuid; 16]))
    });
    Store::format(device, &options, &Clock::manual(START)).await.unwrap();
}

async fn open(device: Device) -> (Cache, Clock) {
    let clock = Clock::manual(START);
    let cache = Cache::open_device(device, cache_options(), clock.clone()).await.unwrap();
    cache.ready().await;
    (cache, clock)
}

/// A cache on a simulated device, with an entry that is on the device and no longer in memory.
async fn simulated() -> (SimDevice, Cache, Clock) {
    let sim = SimDevice::new(DEVICE_LEN, 512);
    format(&sim.open(), 7).await;
    let (cache, clock) = open(sim.open_adaptive(cached_always())).await;
    store(&cache, b"key", &body(1, 9000), 3000).await;
    for filler in 0..4 {
        store(&cache, format!("filler-{filler}").as_bytes(), &body(2, 400_000), 3000).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    (sim, cache, clock)
}

fn body(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

async fn store(cache: &Cache, key: &[u8], body: &[u8], ttl: u64) {
    let ttl = Some(Duration::from_secs(ttl));
    let options = options!(StoreOptions { ttl, ..StoreOptions::default() });
    let mut writer = cache.store(key, options).unwrap();
    writer.write_chunk(body).await.unwrap();
    writer.finalize(Condition::Always).await.unwrap();
}

/// The body and the expiry of the entry that a lookup finds; a body that ends short is a miss.
async fn lookup(cache: &Cache, key: &[u8]) -> Option<(Vec<u8>, Timestamp)> {
    let hit = cache.lookup_stale_head(key).await?;
    let keep_until = hit.lifetime().keep_until;
    let len = hit.len();
    let mut reader = hit.range(0..len).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next_chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len() as u64, len);
    Some((bytes, keep_until))
}

/// A cache, and a model of the answers that it may give.
struct Model {
    cache: Cache,
    clock: Clock,
    random: fastrand::Rng,
    /// Seed and length of the body, end of life.
    entries: HashMap<u64, (u64, usize, Timestamp)>,
    hits: u64,
}

impl Model {
    fn new((cache, clock): (Cache, Clock), seed: u64) -> Model {
        let random = fastrand::Rng::with_seed(seed);
        Model { cache, clock, random, entries: HashMap::new(), hits: 0 }
    }

    async fn step(&mut self) {
        let number = self.random.u64(..KEYS);
        let key = format!("key-{number}").into_bytes();
        match self.random.u32(..20) {
            0..3 => {
                let (seed, ttl) = (self.random.u64(..), self.random.u64(50..5000));
                let len = match self.random.u32(..4) {
                    0 => self.random.usize(300_000..600_000),
                    _ => self.random.usize(1..40_000),
                };
                store(&self.cache, &key, &body(seed, len), ttl).await;
                let end = Timestamp(self.clock.now().0 + u32::try_from(ttl).unwrap());
                self.entries.insert(number, (seed, len, end));
            }
            3..6 => self.touch(number, &key).await,
            6 => {
                self.cache.remove(&key).await.unwrap();
                self.entries.remove(&number);
            }
            7 => self.clock.advance(Duration::from_secs(self.random.u64(..20))),
            _ => {
                let expected = self.entries.get(&number).map(|entry| vec![*entry]);
                self.check(&key, &expected.unwrap_or_default()).await;
            }
        }
    }

    /// A touch, with lookups at the same time and one after it.
    async fn touch(&mut self, number: u64, key: &[u8]) {
        let ttl = self.random.u64(50..5000);
        let before = self.entries.get(&number).copied();
        let (cache, during) = (self.cache.clone(), self.cache.clone());
        let (touched, seen) = tokio::join!(cache.touch(key, Duration::from_secs(ttl)), async {
            (lookup(&during, key).await, lookup(&during, key).await)
        });
        let touched = touched.unwrap();
        let Some((seed, len, end)) = before else {
            assert_eq!((touched, seen), (None, (None, None)));
            return;
        };
        let Some(lifetime) = touched else {
            self.entries.remove(&number);
            return;
        };
        let either = [(seed, len, end), (seed, len, lifetime.keep_until)];
        for found in [seen.0, seen.1].into_iter().flatten() {
            assert!(is_one_of(&found, &either), "{:?} is none of {either:?}", found.1);
        }
        self.entries.insert(number, either[1]);
        self.check(key, &either[1..]).await;
    }

    async fn check(&mut self, key: &[u8], expected: &[(u64, usize, Timestamp)]) {
        let Some(found) = lookup(&self.cache, key).await else { return };
        self.hits += 1;
        let key = String::from_utf8_lossy(key);
        assert!(is_one_of(&found, expected), "{key} until {:?}: {expected:?}", found.1);
        assert!(found.1 > self.clock.now(), "{key} has expired");
    }

    /// Checks the end state, and that the cases of interest occurred.
    fn finish(&self) {
        let stats = self.cache.stats().store.counters;
        assert_eq!((stats.damaged, stats.read_errors), (0, 0), "a stale page is no damage");
        assert!(self.hits > 0 && stats.regions_freed > 0 && stats.touched > 0, "{}", self.hits);
        let device = self.cache.device_store().device().stats();
        assert!(device.cached_reads > 0 && device.cached_reads < device.reads, "{device:?}");
        println!(
            "{} hits, {} of {} reads cached, {} distrusted",
            self.hits, device.cached_reads, device.reads, device.distrusted
        );
    }
}

fn is_one_of(found: &(Vec<u8>, Timestamp), expected: &[(u64, usize, Timestamp)]) -> bool {
    expected.iter().any(|(seed, len, end)| found.1 == *end && found.0 == body(*seed, *len))
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_page_cache_that_drops_nothing_changes_no_answer() {
    let seed = std::env::var("RAWCACHED_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("RAWCACHED_TEST_SEED={seed}");
    paused().block_on(async {
        let sim = SimDevice::new(DEVICE_LEN, 512);
        format(&sim.open(), 7).await;
        sim.set_delay(Delay::Yields(4));
        let opened = open(sim.open_adaptive(cached_always())).await;
        let mut model = Model::new(opened, seed);
        for step in 0..4000 {
            if step % 50 == 0 {
                sim.fill_page_cache();
            }
            model.step().await;
        }
        model.finish();
        let device = model.cache.device_store().device().stats();
        assert!(device.distrusted > 0, "nothing was stale");
    });
}

#[test]
fn a_touched_entry_is_read_direct_until_its_region_has_a_new_life() {
    paused().block_on(async {
        let (sim, cache, clock) = simulated().await;
        let cached = || cache.device_store().device().stats().cached_reads;
        assert!(lookup(&cache, b"key").await.is_some());
        assert!(cached() > 0, "the page cache has the header");
        cache.touch(b"key", Duration::from_secs(10)).await.unwrap().unwrap();
        let before = cached();
        let (_, keep_until) = lookup(&cache, b"key").await.unwrap();
        assert_eq!((keep_until, cached()), (Timestamp(START.0 + 10), before));
        clock.advance(Duration::from_secs(11));
        assert!(lookup(&cache, b"key").await.is_none());
        assert_eq!(sim.broken_rules(), Vec::<String>::new());
    });
}

#[test]
fn a_touch_during_a_read_makes_it_read_again() {
    paused().block_on(async {
        let (sim, cache, clock) = simulated().await;
        cache.touch(b"filler-3", Duration::from_secs(1)).await.unwrap().unwrap();
        store(&cache, b"late", &body(3, 9000), 20).await;
        for filler in 4..7 {
            store(&cache, format!("filler-{filler}").as_bytes(), &body(2, 400_000), 3000).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        sim.fill_page_cache();
        // The read takes a second; the touch, at once, ends before it.
        sim.inject(Fault::new(Effect::Short(512)).on(OperationKind::Read));
        sim.set_delay(Delay::Sleep(Duration::from_secs(2)));
        let reading = tokio::spawn({
            let cache = cache.clone();
            async move { lookup(&cache, b"late").await }
        });
        tokio::task::yield_now().await;
        sim.set_delay(Delay::None);
        cache.touch(b"late", Duration::from_secs(3000)).await.unwrap().unwrap();
        clock.advance(Duration::from_secs(100));
        let (_, keep_until) = reading.await.unwrap().expect("it lives on");
        assert_eq!(keep_until, Timestamp(START.0 + 3000));
        assert!(lookup(&cache, b"late").await.is_some(), "nor was it forgotten");
    });
}

#[test]
fn a_failed_read_through_the_page_cache_is_made_again_direct() {
    paused().block_on(async {
        let (sim, cache, _) = simulated().await;
        sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read));
        let (bytes, _) = lookup(&cache, b"key").await.unwrap();
        assert!(bytes == body(1, 9000));
        let stats = cache.device_store().device().stats();
        assert_eq!((stats.read_errors, stats.distrusted), (1, 1));
    });
}

/// Reads a device through the page cache without end, as a scanner of disks might.
fn scan(path: &Path, stop: &AtomicBool) {
    let file = fs::File::open(path).unwrap();
    let mut random = fastrand::Rng::new();
    let mut bytes = vec![0; 16 << 10];
    while !stop.load(Ordering::Relaxed) {
        let offset = random.u64(..DEVICE_LEN / 4096 - 4) * 4096;
        file.read_exact_at(&mut bytes, offset).unwrap();
    }
}

fn survives_scans(path: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (uuid, engine) in (1..).zip(ENGINES) {
        let options = options!(OpenOptions {
            io: IoMode::Adaptive,
            engine,
            ..OpenOptions::new(path).with_adaptive(cached_always())
        });
        runtime.block_on(format(&Device::open(&OpenOptions::new(path)).unwrap(), uuid));
        let device = Device::open(&options).unwrap();
        let info = device.info().clone();
        assert_eq!((info.direct, info.adaptive, info.adaptive_fallback), (true, true, None));
        let stop = Arc::new(AtomicBool::new(false));
        let scan = {
            let (path, stop) = (path.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || scan(&path, &stop))
        };
        let mut model = Model::new(runtime.block_on(open(device)), fastrand::u64(..));
        let watch = Stopwatch::start();
        runtime.block_on(async {
            while watch.elapsed() < Duration::from_secs(4)
                || model.cache.stats().store.counters.regions_freed == 0
            {
                model.step().await;
            }
            model.finish();
            model.cache.shutdown().await.unwrap();
        });
        drop(model);
        stop.store(true, Ordering::Relaxed);
        scan.join().unwrap();
    }
}

#[test]
fn a_block_device_that_others_read_gives_nothing_old() {
    let Some(disk) = require(LoopDevice::create(DEVICE_LEN, 4096)) else { return };
    survives_scans(disk.path());
}

#[test]
fn an_image_file_that_others_read_gives_nothing_old() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    create_image(&image, DEVICE_LEN).unwrap();
    survives_scans(&image);
}

#[test]
fn reads_go_where_they_are_faster() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    // Reads of a sparse file would reach no disk.
    let mut file = fs::File::create(&image).unwrap();
    file.write_all(&body(1, 1 << 20)).unwrap();
    file.sync_all().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let adaptive = AdaptiveOptions {
        sample_one_in: 4,
        samples_min: 64,
        window: Duration::from_millis(50),
        ..AdaptiveOptions::default()
    };
    let options = options!(OpenOptions {
        io: IoMode::Adaptive,
        ..OpenOptions::new(&image).with_adaptive(adaptive)
    });
    let device = Device::open(&options).unwrap();
    let watch = Stopwatch::start();
    runtime.block_on(async {
        for block in (0..64).cycle() {
            let buf = device.geometry().read_buffer(16 << 10);
            device.read_adaptive(block * (16 << 10), buf).await.unwrap();
            if device.stats().adaptive.switches > 0 {
                break;
            }
            assert!(watch.elapsed() < Duration::from_secs(30), "a hot megabyte stays direct");
        }
    });
    let stats = device.stats();
    assert_eq!(stats.adaptive.prefers_buffered, [true, false, false]);
    assert!(stats.cached_reads * 8 < stats.reads, "few until it was decided: {stats:?}");
}

#[test]
fn without_direct_reads_it_is_buffered_with_the_one_warning() {
    let Some(mounted) = require(MountedImage::create("tmpfs", 4 * MIB)) else { return };
    let image = mounted.file("image", MIB);
    let options = options!(OpenOptions { io: IoMode::Adaptive, ..OpenOptions::new(&image) });
    let (device, warnings) = warnings_of(|| Device::open(&options).unwrap());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!device.info().direct && !device.info().adaptive);
    assert!(device.info().fallback.is_some() && device.info().adaptive_fallback.is_none());
}

#[test]
fn where_the_kernel_does_not_tell_what_is_cached_reads_are_direct_with_the_one_warning() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    create_image(&image, MIB).unwrap();
    // An older kernel, and a profile that does not know the call.
    for (errno, message) in
        [(libc::ENOSYS, "Function not implemented"), (libc::EPERM, "Operation not permitted")]
    {
        let options = options!(OpenOptions {
            io: IoMode::Adaptive,
            // Not the one that might be refused too, with a warning of its own.
            engine: EngineKind::Threads,
            ..OpenOptions::new(&image).with_adaptive(cached_always())
        });
        let open = || warnings_of(|| Device::open(&options).unwrap());
        let Some((device, warnings)) = require(refusing(CACHESTAT, errno, open)) else { return };
        let off = "adaptive reads are off: all are direct";
        assert!(warnings.len() == 1 && warnings[0].contains(off), "{warnings:?}");
        let info = device.info();
        assert_eq!((info.direct, info.adaptive), (true, false));
        let why = info.adaptive_fallback.clone().unwrap();
        assert!(why.contains("does not tell what is cached") && why.contains(message), "{why}");
        let buf = device.geometry().read_buffer(16 << 10);
        runtime.block_on(device.read_adaptive(0, buf)).unwrap();
        let stats = device.stats();
        assert_eq!((stats.reads, stats.cached_reads), (1, 0));
    }
}
