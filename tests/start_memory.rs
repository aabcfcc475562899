//! Goal: a start takes no more memory for regions with very many entries than its parts of memory are,
//! whether they were sealed or not, and so do emptying them and what goes on afterwards. Method: an allocator
//! that counts the bytes in use, a device that was filled with more memory, and no other test in the process.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../benches/recovery/fill.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod fill;
#[macro_use]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::SimDevice;

use crate::fill::{Fill, key_of};

struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(len: usize) {
    let used = USED.fetch_add(len, Ordering::Relaxed) + len;
    PEAK.fetch_max(used, Ordering::Relaxed);
}

fn shrunk(len: usize) {
    USED.fetch_sub(len, Ordering::Relaxed);
}

// SAFETY: everything is the system allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // Both are there while the bytes are copied.
        grown(len);
        // SAFETY: the caller's promise.
        let moved = unsafe { System.realloc(start, layout, len) };
        shrunk(layout.size());
        moved
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MIB: usize = 1 << 20;
const REGION: u64 = 64 << 20;
const REGIONS: u64 = 8;
/// Regions that are not blank when the image is opened.
const OLD_REGIONS: u64 = 3;
/// Of the entries in sealed regions: about 620 000 fit into one.
const SEALED: u64 = 1_000_000;
/// Of those that a killed run left in a region without a footer.
const UNSEALED: u64 = 250_000;

/// For one of the sealed regions and the unsealed one.
const INDEX: usize = 20 * MIB;
const RECOVERY: usize = 4 * MIB;
/// Besides: a scan of slots with what it finds, the ends of regions before it is known how long their footers
/// are, the region table.
const OTHERS: usize = 9 * MIB;
/// Entries that wait to be written, buffers on their way to the device, and the body of a store.
const WRITES: usize = 16 * MIB;

/// The most bytes in use while `work` goes on, besides those before.
fn peak_of<T>(before: usize, work: impl FnOnce() -> T) -> (usize, T) {
    PEAK.store(USED.load(Ordering::Relaxed), Ordering::Relaxed);
    let done = work();
    (PEAK.load(Ordering::Relaxed).saturating_sub(before), done)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(index: usize, recovery: usize) -> CacheOptions {
    options!(CacheOptions {
        ram_bytes: 0,
        index_bytes_max: index as u64,
        recovery_bytes_max: recovery as u64,
        backlog_bytes_max: 4 << 20,
        ..CacheOptions::default()
    })
}

async fn put(cache: &Cache, key: &[u8], body: &[u8]) {
    let options = options!(StoreOptions {
        ttl: Some(Duration::from_secs(50_000)),
        ..StoreOptions::default()
    });
    cache.put(key, body, Condition::Always, &options).await.unwrap();
}

/// An image with regions of long footers, and a long region without a footer.
fn fill_image(path: &Path) {
    let size = REGIONS * REGION + (256 << 10);
    let sim = SimDevice::new(size, 4096);
    let fill = Fill {
        entries: SEALED,
        body_len: 8,
        region_size: Some(REGION),
        alignment: 4096,
        time: Clock::system().pair(),
        keep_until: Timestamp(u32::MAX),
    };
    let runtime = runtime();
    runtime.block_on(async {
        fill.write(&sim.open()).await.unwrap();
        let much = options(1 << 30, 1 << 30);
        let open = Cache::open_device(sim.open(), much, Clock::system());
        let cache = open.await.unwrap();
        cache.ready().await;
        for n in SEALED..SEALED + UNSEALED {
            put(&cache, &key_of(n), b"new body").await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        // A killed run leaves just this.
        let image = std::fs::File::create(path).unwrap();
        image.set_len(size).unwrap();
        for at in (0..size).step_by(MIB) {
            let bytes = sim.contents(at..size.min(at + MIB as u64));
            if bytes.iter().any(|byte| *byte != 0) {
                image.write_all_at(&bytes, at).unwrap();
            }
        }
    });
}

async fn open(path: &Path) -> Cache {
    let cache = Cache::open(path, options(INDEX, RECOVERY)).await.unwrap();
    cache.ready().await;
    cache
}

#[test]
fn a_start_with_little_memory_after_one_with_much_stays_within_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fill_image(&path);
    let runtime = runtime();
    let before = USED.load(Ordering::Relaxed);
    let (peak, cache) = peak_of(before, || runtime.block_on(open(&path)));
    let stats = cache.stats().store;
    let (passes, left_out) = (stats.counters.recovery_passes, stats.counters.regions_left_out);
    println!(
        "start: {} KiB at most, {passes} passes, {} entries, {left_out} regions left out",
        peak >> 10,
        stats.entries,
    );
    assert!(passes > 1 && left_out > 0);
    assert!(stats.entries > UNSEALED, "a region with a long footer is in the index too");
    let index = usize::try_from(stats.index_bytes).unwrap();
    assert!(peak < index + RECOVERY + OTHERS, "{peak} bytes, {index} of them for the index");
    // New entries fill the device: all of the old regions are emptied.
    let body = vec![7; MIB];
    let (peak, ()) = peak_of(before, || {
        runtime.block_on(async {
            for n in 0..(REGIONS + 1) * (REGION >> 20) {
                put(&cache, &key_of(n), &body).await;
            }
        });
    });
    let freed = cache.stats().store.counters.regions_freed;
    println!("emptying: {} KiB at most, {freed} regions freed", peak >> 10);
    assert!(freed >= OLD_REGIONS, "{freed} regions freed");
    assert!(peak < index + WRITES, "{peak} bytes, {index} of them for the index");
    runtime.block_on(cache.shutdown()).unwrap();
}
