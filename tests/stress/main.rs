//! Goal: real threads side by side never get another key's bytes, an older version or a purged one, on
//! a device so small that its regions are reclaimed and used again all the time. Method: writers that
//! own their keys, readers that take their time and look at every byte, on the simulated device and
//! through io_uring on an image. What the simulation cannot have: more than one thread.
//!
//! `RAWCACHED_TEST_STRESS_SECS` says for how long each test runs; without it for a few seconds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod followers;
mod parts;
mod readers;
mod values;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rawcached::cache::{Cache, CacheOptions};
use rawcached::clock::{Clock, Stopwatch};
use rawcached::device::{Device, EngineKind, OpenOptions, SimDevice};
use rawcached::format::Uuid;
use rawcached::store::{FormatOptions, Store};
use tokio::runtime::Runtime;

use values::Keys;

const DEVICE_LEN: u64 = 26 << 20;
const REGION_LEN: u64 = 1 << 20;
const WRITERS: usize = 3;
const READER_THREADS: u64 = 2;
/// Readers in each thread, which pause one by one.
const READERS: u64 = 8;

/// What all threads of a test share.
#[derive(Clone)]
struct Shared {
    cache: Cache,
    keys: Arc<Keys>,
    stop: Arc<AtomicBool>,
    /// Objects that come part by part: whoever has nothing else to do stores some of them.
    partial: parts::Pool,
    /// Ranges of objects that come part by part that were read and compared.
    parts_read: Arc<AtomicU64>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn options(ram_bytes: u64) -> CacheOptions {
    options!(CacheOptions {
        ram_bytes,
        min_to_disk: Duration::from_secs(3),
        // Enough for one long body at a time: all others are released after each piece.
        range_buffer_bytes: 300_000,
        ..CacheOptions::default()
    })
}

fn duration() -> Duration {
    let secs = std::env::var("RAWCACHED_TEST_STRESS_SECS").map(|secs| secs.parse().unwrap());
    Duration::from_secs(secs.unwrap_or(5))
}

/// Runs `work` in a thread with a runtime of its own.
fn in_thread(work: impl AsyncFnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work());
    })
}

fn side_by_side(shared: &Shared) {
    let mut threads = Vec::new();
    for writer in 0..WRITERS {
        let shared = shared.clone();
        threads.push(in_thread(async move || writers::write(&shared, writer).await));
    }
    for thread in 0..READER_THREADS {
        let shared = shared.clone();
        threads.push(in_thread(async move || {
            let reader = |n| readers::read(&shared, thread * READERS + n);
            futures_util::future::join_all((0..READERS).map(reader)).await;
        }));
    }
    run_for_a_while(shared, threads);
}

/// Lets threads run until the test is over.
fn run_for_a_while(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    let watch = Stopwatch::start();
    while watch.elapsed() < duration() && !threads.iter().any(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(50));
    }
    shared.stop.store(true, Ordering::Relaxed);
    let ends: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
    assert!(ends.iter().all(Result::is_ok), "a thread panicked");
}

fn open(device: Device, ram_bytes: u64, background: &Runtime) -> Cache {
    let cache = Cache::open_device(device, options(ram_bytes), Clock::system());
    let cache = background.block_on(cache).unwrap();
    background.block_on(cache.ready());
    cache
}

/// Threads side by side, a clean stop, a start; once more, and a kill.
fn run(open_device: impl Fn() -> Device, ram_bytes: u64) {
    let format = options!(FormatOptions {
        alignment: Some(4096),
        region_size: Some(REGION_LEN),
        ..FormatOptions::default().with_uuid(Uuid([9; 16]))
    });
    let keys = Arc::new(Keys::new());
    for (life, is_killed) in [(0, false), (1, true), (2, false)] {
        let background =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let background = background.unwrap();
        if life == 0 {
            let (device, clock) = (open_device(), Clock::system());
            background.block_on(Store::format(&device, &format, &clock)).unwrap();
        }
        let cache = open(open_device(), ram_bytes, &background);
        let shared = Shared {
            cache,
            keys: Arc::clone(&keys),
            stop: Arc::default(),
            partial: Arc::default(),
            parts_read: Arc::default(),
        };
        let look_at_all = readers::look_at_all(&shared);
        println!("life {life} begins with {} entries", background.block_on(look_at_all));
        if life == 2 {
            break;
        }
        side_by_side(&shared);
        let counters = shared.cache.stats().store.counters;
        println!("{counters:?}");
        assert_eq!(counters.damaged, 0, "a sound device");
        assert!(counters.regions_freed > 0, "regions were reclaimed");
        assert!(shared.parts_read.load(Ordering::Relaxed) > 0, "parts were read");
        if is_killed {
            keys.forget_what_a_kill_may_undo();
            // Before the cache, which would close by itself.
            drop(background);
        } else {
            shared.cache.device_store().check_accounting();
            background.block_on(shared.cache.shutdown()).unwrap();
            keys.all_is_durable();
        }
    }
}

#[test]
fn threads_follow_stores_to_their_end_or_are_told_of_an_error() {
    let sim = SimDevice::new(DEVICE_LEN, 4096);
    for ram_bytes in [0, 2 << 20] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let background = runtime.unwrap();
        let format = options!(FormatOptions {
            alignment: Some(4096),
            region_size: Some(REGION_LEN),
            ..FormatOptions::default().with_uuid(Uuid([9; 16]))
        });
        let (device, clock) = (sim.open(), Clock::system());
        background.block_on(Store::format(&device, &format, &clock)).unwrap();
        let cache = open(sim.open(), ram_bytes, &background);
        let shared = Shared {
            cache,
            keys: Arc::new(Keys::new()),
            stop: Arc::default(),
            partial: Arc::default(),
            parts_read: Arc::default(),
        };
        run_for_a_while(&shared, followers::works(&shared));
        let stats = shared.cache.stats();
        assert_eq!((stats.write_buffer_bytes, stats.store.counters.damaged), (0, 0));
        shared.cache.device_store().check_accounting();
    }
}

#[test]
fn threads_get_no_wrong_bytes_on_a_simulated_device() {
    let sim = SimDevice::new(DEVICE_LEN, 4096);
    run(|| sim.open(), 2 << 20);
}

#[test]
fn threads_get_no_wrong_bytes_without_a_ram_tier() {
    let sim = SimDevice::new(DEVICE_LEN, 4096);
    run(|| sim.open(), 0);
}

#[test]
fn threads_get_no_wrong_bytes_through_io_uring() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    rawcached::device::create_image(&image, DEVICE_LEN).unwrap();
    let open = || {
        let options =
            options!(OpenOptions { engine: EngineKind::IoUring, ..OpenOptions::new(&image) });
        Device::open(&options).map_err(|error| support::machine::Missing(error.to_string()))
    };
    if support::machine::require(open()).is_none() {
        return;
    }
    run(|| open().map_err(|support::machine::Missing(why)| why).unwrap(), 2 << 20);
}
