//! A cache on a simulated device that a test can stop, kill, cut the power of and open again.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{
    Ack, Cache, CacheOptions, CacheStats, Condition, StoreError, StoreOptions, Stored,
};
use rawcached::clock::{Clock, TimePair, Timestamp};
use rawcached::device::SimDevice;
use rawcached::format::{Secret, Uuid};
use rawcached::store::{FormatOptions, Store, TestKnobs};
use tokio::runtime::Runtime;

use crate::fill::Fill;

pub const REGION: u64 = 256 << 10;
pub const UUID: Uuid = Uuid([7; 16]);
/// Bytes before the first region and after the last.
pub const SUPERBLOCK: u64 = 128 << 10;
/// Where the test clock begins.
pub const START: Timestamp = Timestamp(1_000_000);
/// Where its wall clock does.
pub const WALL: i64 = 1_000_000;
/// Length of a body of which four fill a region.
pub const QUARTER: usize = 60_000;

/// A seed with which a power cut loses every write that was not flushed.
const LOSE_ALL: u64 = 12;

/// How long a step may take on the paused clock before it counts as hung.
const HUNG: Duration = Duration::from_secs(600);

/// What to format.
#[derive(Clone, Copy)]
pub struct Disk {
    pub regions: u64,
    pub region_size: u64,
    pub alignment: u32,
}

pub const SMALL: Disk = Disk { regions: 10, region_size: REGION, alignment: 4096 };

/// A device, a clock and, most of the time, an open cache.
pub struct Rig {
    pub sim: SimDevice,
    format: FormatOptions,
    pub clock: Clock,
    pub options: CacheOptions,
    life: Option<(Cache, Runtime)>,
}

/// No RAM tier: what is not in the log's memory comes from the device.
pub fn plain() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() })
}

/// Every key has the same hash.
pub fn colliding() -> CacheOptions {
    plain().with_knobs(TestKnobs { hash_mask: 0, ..TestKnobs::default() })
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A device of `regions` regions with `entries` entries of 8 bytes, which is not open.
pub fn filled(entries: u64, regions: u64) -> Rig {
    let mut rig = Rig::with(Disk { regions, ..SMALL }, plain());
    rig.stop();
    let fill = Fill {
        entries,
        body_len: 8,
        region_size: Some(REGION),
        alignment: 4096,
        time: TimePair { cache: START, wall: WALL },
        keep_until: START.plus(secs(1000)),
    };
    runtime().block_on(fill.write(&rig.sim.open())).unwrap();
    rig
}

/// Bytes that differ from those of any other seed.
pub fn body(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    Bytes::from(bytes)
}

pub fn for_secs(n: u64) -> StoreOptions {
    options!(StoreOptions { ttl: Some(secs(n)), ..StoreOptions::default() })
}

pub fn flushed() -> StoreOptions {
    options!(StoreOptions { ack: Some(Ack::Flushed), ..for_secs(3000) })
}

/// Looks a key up and reads its whole body; a body that ends short is a miss.
pub async fn read(cache: &Cache, key: &[u8]) -> Option<Vec<u8>> {
    let mut hit = cache.lookup(key).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = hit.next_chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len() as u64, hit.len());
    Some(bytes)
}

impl Rig {
    /// A small device, formatted and open, with no RAM tier.
    pub fn new() -> Rig {
        Rig::with(SMALL, plain())
    }

    pub fn with(disk: Disk, options: CacheOptions) -> Rig {
        crate::support::log::init();
        let size = disk.regions * disk.region_size + 2 * SUPERBLOCK;
        let format = options!(FormatOptions {
            size: None,
            alignment: Some(disk.alignment),
            region_size: Some(disk.region_size),
            ..FormatOptions::default().with_uuid(UUID).with_secret(Secret(UUID.0))
        });
        Rig::on(SimDevice::new(size, disk.alignment), &format, options)
    }

    /// A device formatted so, and open.
    pub fn on(sim: SimDevice, format: &FormatOptions, options: CacheOptions) -> Rig {
        let mut rig =
            Rig { sim, format: *format, clock: Clock::manual(START), options, life: None };
        rig.format();
        rig.open();
        rig
    }

    /// Formats the device, which is not open.
    pub fn format(&self) {
        runtime().block_on(Store::format(&self.sim.open(), &self.format, &self.clock)).unwrap();
    }

    pub fn cache(&self) -> &Cache {
        &self.life.as_ref().unwrap().0
    }

    pub fn stats(&self) -> CacheStats {
        self.cache().stats()
    }

    /// Runs one step; a step that never ends fails the test.
    pub fn run<T>(&self, step: impl Future<Output = T>) -> T {
        let (_, runtime) = self.life.as_ref().unwrap();
        runtime.block_on(async { tokio::time::timeout(HUNG, step).await }).expect("hung")
    }

    /// Lets time pass on tokio's clock: flushes happen, entries do not expire.
    pub fn sleep(&self, time: Duration) {
        self.run(async { tokio::time::sleep(time).await });
    }

    pub fn put(&self, key: &[u8], body: &Bytes, options: &StoreOptions) -> Result<u64, StoreError> {
        let stored = self.run(self.cache().put(key, body.clone(), Condition::Always, options))?;
        let Stored::Yes(cas) = stored else { panic!("{stored:?} without a condition") };
        Ok(cas)
    }

    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.run(read(self.cache(), key))
    }

    /// Whether a caller that asks for stale entries gets the key.
    pub fn has_stale(&self, key: &[u8]) -> bool {
        self.run(self.cache().lookup_stale(key)).is_some()
    }

    pub fn remove(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.run(self.cache().remove(key))
    }

    /// Stores `count` bodies of a quarter region under new keys that begin with `name`.
    pub fn fill(&self, name: &str, count: u64, ttl: u64) {
        for n in 0..count {
            let key = format!("{name}-{n}");
            self.put(key.as_bytes(), &body(n, QUARTER), &for_secs(ttl)).unwrap();
        }
    }

    /// More group commits than one region has blocks for, and then what fills a region and ends; `purge` does
    /// one more thing before each.
    pub fn turn(&self, round: u64, mut purge: impl FnMut(u64)) {
        for n in 0..20 {
            purge(n);
            let key = format!("short-{round}-{n}");
            self.put(key.as_bytes(), &body(n, 5000), &for_secs(5)).unwrap();
            self.remove(key.as_bytes()).unwrap();
        }
        self.fill(&format!("short-{round}"), 4, 5);
        self.clock.advance(secs(60));
        self.sleep(secs(2));
    }

    /// Ends this process without a shutdown; the storage keeps what a device would.
    pub fn stop(&mut self) {
        drop(self.life.take());
        self.sim.kill();
    }

    /// Opens the cache, as a new process would; recovery may still be running.
    pub fn begin(&mut self) -> Result<(), rawcached::cache::OpenError> {
        let runtime = runtime();
        let open = Cache::open_device(self.sim.open(), self.options, self.clock.clone());
        let cache = runtime.block_on(open)?;
        self.life = Some((cache, runtime));
        Ok(())
    }

    /// Opens the cache and waits until it has recovered.
    pub fn open(&mut self) {
        self.begin().unwrap();
        self.run(self.cache().ready());
    }

    /// SIGKILL and a new start.
    pub fn kill(&mut self) {
        self.stop();
        self.open();
    }

    /// SIGKILL and a new start, the wall clock at `wall` meanwhile.
    pub fn kill_and_set(&mut self, wall: i64) {
        self.stop();
        self.boot_at(wall);
        self.open();
    }

    /// A new process gets a new clock, set from the wall clock alone.
    pub fn boot_at(&mut self, wall: i64) {
        self.clock = Clock::manual(Timestamp(0));
        self.clock.set_wall(wall);
    }

    /// The wall clock is set right and reported as synchronised; the store has time to notice.
    pub fn synchronise(&self, wall: i64) {
        self.clock.set_wall(wall);
        self.clock.set_synchronised(true);
        self.sleep(secs(2));
    }

    /// Begins to open the cache; the device answers so many operations and no more.
    pub fn open_cut_off_after(&mut self, operations: u64) {
        let device = self.sim.open();
        self.sim.freeze_after(operations);
        let open = Cache::open_device(device, self.options, self.clock.clone());
        // Either it hangs on the device, or it was done before.
        runtime().block_on(async { drop(tokio::time::timeout(secs(1), open).await) });
    }

    /// A power cut that loses all that was not flushed, and a new start.
    pub fn power_cut(&mut self) {
        self.power_cut_with(LOSE_ALL);
        self.open();
    }

    /// A power cut that loses what its seed says of what was not flushed.
    pub fn power_cut_with(&mut self, seed: u64) {
        drop(self.life.take());
        self.sim.power_cut(seed);
    }

    /// A clean stop and a new start.
    pub fn restart(&mut self) {
        self.run(self.cache().shutdown()).unwrap();
        self.kill();
    }

    /// Where on the device `bytes` are.
    pub fn find(&self, bytes: &[u8]) -> u64 {
        let size = self.cache().device_store().device().geometry().size;
        let contents = self.sim.contents(0..size);
        let at = contents.windows(bytes.len()).position(|window| window == bytes);
        at.expect("the bytes are on the device") as u64
    }

    /// First byte of the region that holds the byte at `offset` of the device.
    pub fn region_start(&self, offset: u64) -> u64 {
        let size = self.cache().device_store().layout().region_size;
        SUPERBLOCK + (offset - SUPERBLOCK) / size * size
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}
