//! Starts and reclaim on simulated devices of 1, 16 and 64 TB, nearly every region of which is in use. What
//! takes time on the device is counted on a clock of its own, on which each read takes 10 ms; what takes the
//! processor is its time.
//!
//! `cargo bench --bench scale -- [--quick]`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
mod fill;
#[path = "../recovery/memory.rs"]
#[allow(dead_code, reason = "another benchmark uses the rest")]
mod memory;

use std::time::Duration;

use clap::Parser;
use rawcached::cache::{Cache, CacheOptions};
use rawcached::cli::bench::process::ProcessorTime;
use rawcached::clock::{Clock, Stopwatch, Timestamp};
use rawcached::device::{Delay, SimDevice};
use tokio::time::Instant;

use fill::{fill, key_of};
use memory::resident_bytes;

/// Reads take up to this long, half of it on the average.
const READ_MAX: Duration = Duration::from_millis(20);
/// How often the clock of the device is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Regions that are free at the start: reclaim has some to empty until as many are free as it wants.
const FREE: u32 = 2;
/// Choices, and looks at the statistics, that are timed.
const CHOICES: u32 = 20_000;
const STATS: u32 = 200;
const TB: u64 = 1_000_000_000_000;
/// Name, bytes, and bytes of a region where it is not left to the format.
const DEVICES: [(&str, u64, Option<u64>); 3] =
    [("1 TB", TB, Some(1 << 30)), ("16 TB", 16 * TB, None), ("64 TB", 64 * TB, None)];

/// Times starts and reclaim on devices of many regions.
#[derive(Debug, Parser)]
struct Arguments {
    /// The smallest device only
    #[arg(long)]
    quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a start took.
struct Start {
    cache: Cache,
    /// Until it was open: time, and reads.
    opened: Duration,
    reads: u64,
    /// On the clock of the device.
    headers: Duration,
    ready: Duration,
    processor: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!(
        "{:6} {:>7} {:>10}  {:9} {:>8} {:>6} {:>10} {:>8} {:>8} {:>10} {:>10} {:>9} {:>10}",
        "device",
        "regions",
        "of MiB",
        "start",
        "open ms",
        "reads",
        "headers s",
        "ready s",
        "CPU s",
        "tables MiB",
        "choice us",
        "stats us",
        "round us"
    );
    let count = if arguments.quick { 1 } else { DEVICES.len() };
    for device in &DEVICES[..count] {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build()?;
        runtime.block_on(measure(device))?;
    }
    Ok(())
}

async fn measure(&(name, size, region_size): &(&str, u64, Option<u64>)) -> anyhow::Result<()> {
    let clock = Clock::manual(Timestamp(1_000_000));
    let sim = SimDevice::new(size, 4096);
    let layout = fill(&sim.open(), region_size, FREE, clock.pair()).await?;
    sim.kill();
    let mut cells = Vec::new();
    for kind in ["footers", "snapshot"] {
        let before = resident_bytes();
        let start = start(&sim, &clock).await?;
        let cache = &start.cache;
        let tables = resident_bytes().saturating_sub(before);
        let from_snapshot = cache.stats().store.counters.snapshots_loaded == 1;
        anyhow::ensure!(from_snapshot == (kind == "snapshot"), "not a start from {kind}");
        anyhow::ensure!(cache.lookup(&key_of(layout.region_count / 2)).await.is_some());
        let round = match kind {
            "footers" => format!("{:.0}", reclaim(cache).await?),
            _ => String::new(),
        };
        let choice = repeated(CHOICES, || cache.device_store().has_victim())?;
        let stats = repeated(STATS, || cache.stats().store.regions > 0)?;
        cells.push(format!(
            "{kind:9} {:>8.1} {:>6} {:>10.2} {:>8.2} {:>8.2} {:>10.1} {choice:>10.2} {stats:>9.1} \
             {round:>10}",
            start.opened.as_secs_f64() * 1e3,
            start.reads,
            start.headers.as_secs_f64(),
            start.ready.as_secs_f64(),
            start.processor.as_secs_f64(),
            tables as f64 / f64::from(1 << 20),
        ));
        sim.set_delay(Delay::None);
        cache.shutdown().await?;
        sim.kill();
    }
    for cells in cells {
        let (regions, mib) = (layout.region_count, layout.region_size >> 20);
        println!("{name:6} {regions:>7} {mib:>10}  {cells}");
    }
    Ok(())
}

async fn start(sim: &SimDevice, clock: &Clock) -> anyhow::Result<Start> {
    sim.set_delay(Delay::Sleep(READ_MAX));
    let (watch, began) = (Stopwatch::start(), Instant::now());
    let (reads, processor) = (sim.counts().reads, ProcessorTime::own()?.total());
    let options =
        options!(CacheOptions { ram_bytes: 0, scrub_bytes_per_sec: 0, ..CacheOptions::default() });
    let cache = Cache::open_device(sim.open(), options, clock.clone()).await?;
    let (opened, reads) = (watch.elapsed() + began.elapsed(), sim.counts().reads - reads);
    let is_reading = |cache: &Cache| {
        let recovery = cache.stats().store.recovery;
        recovery.headers_total == 0 || recovery.headers_done < recovery.headers_total
    };
    while is_reading(&cache) {
        tokio::time::sleep(LOOK).await;
    }
    let headers = began.elapsed();
    cache.ready().await;
    let ready = began.elapsed();
    sim.set_delay(Delay::None);
    let processor = ProcessorTime::own()?.total() - processor;
    Ok(Start { cache, opened, reads, headers, ready, processor })
}

/// Lets reclaim free regions; gives the microseconds of the processor for each.
async fn reclaim(cache: &Cache) -> anyhow::Result<f64> {
    // Nothing is emptied before the first change.
    let new = bytes::Bytes::from_static(b"new");
    let freed = |cache: &Cache| cache.stats().store.counters.regions_freed;
    let (before, processor) = (freed(cache), ProcessorTime::own()?.total());
    cache.put(b"new", new, rawcached::cache::Condition::Always, &Default::default()).await?;
    let mut last = before;
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        if std::mem::replace(&mut last, freed(cache)) == freed(cache) && last > before {
            break;
        }
    }
    let took = ProcessorTime::own()?.total() - processor;
    Ok(took.as_secs_f64() * 1e6 / (last - before) as f64)
}

/// Microseconds of the processor that something takes which must be true.
fn repeated(times: u32, holds: impl Fn() -> bool) -> anyhow::Result<f64> {
    let before = ProcessorTime::own()?.total();
    for _ in 0..times {
        anyhow::ensure!(holds());
    }
    let took = ProcessorTime::own()?.total() - before;
    Ok(took.as_secs_f64() * 1e6 / f64::from(times))
}
