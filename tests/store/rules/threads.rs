//! Threads side by side, like the server's workers: what one is still copying into the log, the
//! others wait for, and a touch is not lost on a lookup that runs beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use parking_lot::Mutex;
use rawcached::cache::{Ack, Cache, Condition, Lifetime, StoreOptions, Stored};
use rawcached::clock::Clock;
use rawcached::device::SimDevice;
use rawcached::store::{Entry, FormatOptions, Options, Place, Resident, Stale, Store, Value};

use crate::rig::*;

const KEYS: u64 = 6;
const WRITERS: u64 = 3;
const READERS: u64 = 2;
/// Stores of each writer; all together fill less than the device.
const STORES: u64 = 400;
const DEVICE_LEN: u64 = 384 << 20;

/// A body that tells which one it is; half of them are copied in pieces.
fn numbered(number: u64) -> Vec<u8> {
    let len = fastrand::Rng::with_seed(number).usize(1000..200_000);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body(number, len));
    bytes
}

fn assert_whole(bytes: &[u8]) {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == numbered(number), "a part of body {number} is another's");
}

/// Stores under all keys, every eighth time until it is flushed, and records that.
async fn store(cache: &Cache, writer: u64, flushed: &[AtomicU64]) {
    for n in 0..STORES {
        let number = writer * STORES + n;
        let key = n % KEYS;
        let ack = if n % 8 == 0 { Ack::Flushed } else { Ack::Buffered };
        let options = options!(StoreOptions { ack: Some(ack), ..for_secs(1000) });
        let body = numbered(number);
        let stored = cache.put(&key.to_le_bytes(), body, Condition::Always, &options).await;
        let Stored::Yes(cas) = stored.unwrap() else { panic!("stored without a condition") };
        if ack == Ack::Flushed {
            flushed[usize::try_from(key).unwrap()].fetch_max(cas, Ordering::AcqRel);
        }
    }
}

/// Reads all keys until told to stop: a stored key is never missed again, and never gets older.
async fn look_up(cache: &Cache, stop: &AtomicBool) -> u64 {
    let (mut seen, mut hits) = ([0; 6], 0);
    while !stop.load(Ordering::Acquire) {
        for key in 0..KEYS {
            let newest = &mut seen[usize::try_from(key).unwrap()];
            let Some(mut hit) = cache.lookup(&key.to_le_bytes()).await else {
                assert_eq!(*newest, 0, "key {key} was there");
                continue;
            };
            assert!(hit.cas() >= *newest, "an older version of key {key}");
            *newest = hit.cas();
            let mut bytes = Vec::new();
            while let Some(chunk) = hit.next_chunk().await.unwrap() {
                bytes.extend_from_slice(&chunk);
            }
            assert_whole(&bytes);
            hits += 1;
        }
    }
    hits
}

fn in_thread<T: Send + 'static>(
    work: impl FnOnce(&tokio::runtime::Runtime) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        work(&tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap())
    })
}

#[test]
fn threads_store_and_read_large_entries_side_by_side() {
    let sim = SimDevice::new(DEVICE_LEN, 4096);
    let clock = Clock::manual(START);
    let background = tokio::runtime::Runtime::new().unwrap();
    let format = options!(FormatOptions {
        region_size: Some(8 << 20),
        ..FormatOptions::default().with_uuid(UUID)
    });
    let open = || {
        let cache = Cache::open_device(sim.open(), plain(), clock.clone());
        let cache = background.block_on(cache).unwrap();
        background.block_on(cache.ready());
        cache
    };
    background.block_on(Store::format(&sim.open(), &format, &clock)).unwrap();
    let cache = open();
    let flushed: Arc<[AtomicU64]> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (cache, stop) = (cache.clone(), Arc::clone(&stop));
            in_thread(move |runtime| runtime.block_on(look_up(&cache, &stop)))
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (cache, flushed) = (cache.clone(), Arc::clone(&flushed));
            in_thread(move |runtime| runtime.block_on(store(&cache, writer, &flushed)))
        })
        .collect();
    let stored: Vec<_> = writers.into_iter().map(thread::JoinHandle::join).collect();
    stop.store(true, Ordering::Release);
    let hits: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(stored.iter().all(Result::is_ok) && hits > 0);
    assert_eq!(cache.stats().store.counters.damaged, 0);
    // A kill: the flushed version or a later one is found.
    sim.kill();
    drop(cache);
    let cache = open();
    for (key, cas) in (0..KEYS).zip(&*flushed) {
        let mut hit = background.block_on(cache.lookup(&key.to_le_bytes())).unwrap();
        assert!(hit.cas() >= cas.load(Ordering::Acquire), "key {key}");
        assert_whole(&background.block_on(hit.next_chunk()).unwrap().unwrap());
    }
}

/// A RAM tier in which a lookup finds the copy from before a touch just when the touch replaces it, and goes
/// on with it once the touch is over.
struct Overtaken {
    copies: Mutex<HashMap<Place, Entry>>,
    is_awaited: AtomicBool,
    begin: Barrier,
    found: Barrier,
    touched: Barrier,
}

const SLOW_LOOKUP: &str = "slow lookup";

impl Resident for Overtaken {
    fn admits(&self, _: u64) -> bool {
        true
    }

    fn get(&self, place: Place) -> Option<Entry> {
        let copy = self.copies.lock().get(&place).cloned();
        if thread::current().name() == Some(SLOW_LOOKUP)
            && self.is_awaited.swap(false, Ordering::AcqRel)
        {
            self.found.wait();
            self.touched.wait();
        }
        copy
    }

    fn insert(&self, entry: Entry) -> Vec<Entry> {
        if self.is_awaited.load(Ordering::Acquire) {
            self.begin.wait();
            self.found.wait();
        }
        self.copies.lock().insert(entry.place(), entry);
        Vec::new()
    }

    fn remove(&self, place: Place) {
        self.copies.lock().remove(&place);
    }

    fn is_on(&self) -> bool {
        true
    }
}

#[test]
fn a_lookup_that_found_the_copy_from_before_a_touch_does_not_end_the_entry() {
    let sim = SimDevice::new(SMALL.regions * REGION + 2 * SUPERBLOCK, 4096);
    let clock = Clock::manual(START);
    let tier = Arc::new(Overtaken {
        copies: Mutex::default(),
        is_awaited: AtomicBool::new(false),
        begin: Barrier::new(2),
        found: Barrier::new(2),
        touched: Barrier::new(2),
    });
    let runtime = runtime();
    let store = runtime.block_on(async {
        let format = options!(FormatOptions {
            region_size: Some(REGION),
            ..FormatOptions::default().with_uuid(UUID)
        });
        Store::format(&sim.open(), &format, &clock).await.unwrap();
        let tier = Arc::clone(&tier) as _;
        let open = Store::open(sim.open(), Options::default(), clock.clone(), tier);
        let store = open.await.unwrap();
        store.recovered().await;
        let soon = START.plus(secs(100));
        let lifetime =
            Lifetime { stored_at: START, age_secs: 0, fresh_until: soon, keep_until: soon };
        let value = Value { metadata: &[], body: &[1; 100], lifetime, tags: &[], ram_only: false };
        store.put(b"key", &value, Condition::Always, None).await.unwrap();
        assert!(store.lookup(b"key", Stale::Refuse).await.is_some(), "the tier has a copy");
        store
    });
    let slow = {
        let (store, tier) = (store.clone(), Arc::clone(&tier));
        let work = move || {
            tier.begin.wait();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(store.lookup(b"key", Stale::Refuse))
        };
        thread::Builder::new().name(SLOW_LOOKUP.into()).spawn(work).unwrap()
    };
    tier.is_awaited.store(true, Ordering::Release);
    let later = START.plus(secs(1000));
    let touched = runtime.block_on(store.touch(b"key", later, later)).unwrap();
    assert!(touched.is_some());
    clock.advance(secs(200));
    tier.touched.wait();
    let (entry, _) = slow.join().unwrap().expect("its end is later now");
    assert_eq!(entry.lifetime().keep_until, later);
    assert!(runtime.block_on(store.purge(b"key")).unwrap(), "the purge has something to purge");
}
