//! Replays requests through the real cache on a simulated device. Owns the set-up and what is
//! counted; verifies every hit.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions, Tier};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::SimDevice;
use rawcached::format::{SUPERBLOCK_SPACE, Uuid};
use rawcached::store::{FormatOptions, Store};

use crate::draws::mix;
use crate::trace::{Request, Trace};

/// The unit of transfer, as on most disks.
const ALIGNMENT: u32 = 4096;
/// Smallest region of this alignment.
const REGION_SIZE_MIN: u64 = 256 << 10;
/// Bodies are windows of a pattern that is this much longer than the largest of them.
const PATTERN_SLACK: usize = 1 << 20;
/// Turns of the background work for each request.
const TURNS: usize = 4;

/// A cache to be built.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes of regions: all of the device but the superblocks.
    pub bytes: u64,
    /// Regions there should be at least, as far as they can be that small.
    pub regions: u64,
    /// Bytes of the RAM tier, which come on top; 0 turns it off.
    pub ram_bytes: u64,
}

impl Setup {
    /// The largest region size that gives enough regions.
    pub fn region_size(&self) -> u64 {
        let most = (self.bytes / self.regions).max(1);
        (1 << most.ilog2()).max(REGION_SIZE_MIN)
    }
}

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub misses: u64,
    pub bytes: u64,
    pub miss_bytes: u64,
    /// Hits that the RAM tier answered.
    pub ram_hits: u64,
    /// Bytes that the device was given to write.
    pub written: u64,
    /// Bytes of bodies that the cache accepted.
    pub accepted: u64,
    /// Bytes that reclaim wrote again.
    pub reinserted: u64,
    pub region_count: u32,
}

/// Replays a trace: a lookup for each request, a store where it misses.
pub fn replay(trace: &Trace, setup: Setup) -> anyhow::Result<Outcome> {
    // With the clock of the timers stopped the outcome is the same every time.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(replay_all(trace, setup))
}

async fn replay_all(trace: &Trace, setup: Setup) -> anyhow::Result<Outcome> {
    let (cache, device) = open(setup).await?;
    let bodies = Bodies::new(trace);
    let mut outcome =
        Outcome { region_count: cache.device_store().layout().region_count, ..Outcome::default() };
    let mut at_secs = 0;
    for request in &trace.requests {
        cache.clock().advance(Duration::from_secs(request.at_secs - at_secs));
        at_secs = request.at_secs;
        ask(&cache, request, &bodies, &mut outcome).await?;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
    let counters = cache.stats().store.counters;
    ensure!(counters.refused == 0, "{} stores were refused", counters.refused);
    ensure!(counters.damaged == 0, "{} entries were damaged", counters.damaged);
    cache.shutdown().await?;
    outcome.written = device.counts().bytes_written;
    outcome.accepted = counters.body_bytes;
    outcome.reinserted = counters.reinserted_bytes;
    Ok(outcome)
}

async fn open(setup: Setup) -> anyhow::Result<(Cache, SimDevice)> {
    let region_size = setup.region_size();
    let size = 2 * SUPERBLOCK_SPACE + setup.bytes / region_size * region_size;
    let device = SimDevice::new(size, ALIGNMENT);
    let handle = device.open();
    let clock = Clock::manual(Timestamp(1_000_000_000));
    let format = options!(FormatOptions {
        alignment: Some(ALIGNMENT),
        region_size: Some(region_size),
        ..FormatOptions::default().with_uuid(Uuid([7; 16]))
    });
    Store::format(&handle, &format, &clock).await?;
    let options = options!(CacheOptions {
        ram_bytes: setup.ram_bytes,
        ttl_max: crate::trace::NO_END,
        scrub_bytes_per_sec: 0,
        ..CacheOptions::default()
    });
    let cache = Cache::open_device(handle, options, clock).await?;
    cache.ready().await;
    Ok((cache, device))
}

async fn ask(
    cache: &Cache,
    request: &Request,
    bodies: &Bodies,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let key = request.key.to_be_bytes();
    let size = u64::from(request.size);
    outcome.requests += 1;
    outcome.bytes += size;
    if let Some(hit) = cache.lookup(&key).await {
        outcome.ram_hits += u64::from(hit.tier() == Tier::Ram);
        let len = usize::try_from(hit.len())?;
        let mut body = hit.range(0..hit.len()).await?;
        let mut read = 0;
        while let Some(piece) = body.next_chunk().await? {
            let expected = bodies.of(request.key, len).slice(read..read + piece.len());
            ensure!(piece == expected, "a hit gives other bytes than were stored");
            read += piece.len();
        }
        ensure!(read == len, "a hit gives fewer bytes than were stored");
        return Ok(());
    }
    outcome.misses += 1;
    outcome.miss_bytes += size;
    let body = bodies.of(request.key, usize::try_from(request.size)?);
    let options = options!(StoreOptions { ttl: Some(request.ttl), ..StoreOptions::default() });
    cache.put(&key, body, Condition::Always, &options).await.context("a store failed")?;
    Ok(())
}

/// Bodies that differ from key to key and cost no memory.
struct Bodies {
    pattern: Bytes,
}

impl Bodies {
    fn new(trace: &Trace) -> Bodies {
        let largest = trace.requests.iter().map(|request| request.size).max().unwrap_or(0);
        let len = largest as usize + PATTERN_SLACK;
        let words = (0..len.div_ceil(8) as u64).flat_map(|number| mix(number).to_le_bytes());
        Bodies { pattern: words.collect::<Vec<u8>>().into() }
    }

    fn of(&self, key: u64, len: usize) -> Bytes {
        let start = usize::try_from(mix(key) % PATTERN_SLACK as u64).unwrap_or(0);
        self.pattern.slice(start..start + len)
    }
}
