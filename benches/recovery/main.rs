//! Starts of a store that holds millions of small entries: from footers, and from the snapshot of
//! a clean stop. Prints what each took; nothing is asserted of time.
//!
//! `cargo bench --bench recovery -- [--quick] [--entries N] [--device PATH] [--directory PATH]`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod fill;
mod memory;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Stopwatch};
use rawcached::device::{Device, OpenOptions, create_image};

use fill::{Fill, body_of, key_of};
use memory::{PeakMemory, resident_bytes};

/// Body lengths: time must not depend on them.
const BODY_LENS: [usize; 2] = [32, 400];

/// Fills a device with small entries and times how a store starts on it.
#[derive(Debug, Parser)]
struct Arguments {
    /// A tenth of the entries
    #[arg(long)]
    quick: bool,
    /// Entries on the device
    #[arg(long, default_value_t = 10_000_000)]
    entries: u64,
    /// Block device to use instead of an image file; what is on it is lost
    #[arg(long)]
    device: Option<PathBuf>,
    /// Directory for the image file
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let entries = if arguments.quick { arguments.entries / 10 } else { arguments.entries };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!(
        "{:9} {:>8} {:>10} {:>9} {:>12} {:>12} {:>12} {:>9} {:>9}",
        "start",
        "body",
        "entries",
        "ms",
        "entries/s",
        "new hit ms",
        "index B/e",
        "peak B/e",
        "left B/e"
    );
    for body_len in BODY_LENS {
        let now = Clock::system().now();
        let plan = Fill {
            entries,
            body_len,
            region_size: None,
            alignment: 4096,
            stored_at: now,
            keep_until: now.plus(Duration::from_secs(86_400)),
        };
        let path = match &arguments.device {
            Some(device) => device.clone(),
            None => {
                let path = arguments.directory.join(format!("recovery-{}.img", std::process::id()));
                create_image(&path, plan.device_size())?;
                path
            }
        };
        let measured = runtime.block_on(measure(&path, &plan));
        if arguments.device.is_none() {
            std::fs::remove_file(&path)?;
        }
        measured?;
    }
    Ok(())
}

async fn measure(path: &Path, plan: &Fill) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    plan.write(&Device::open(&OpenOptions::new(path))?).await?;
    eprintln!("{} entries written in {:.1} s", plan.entries, watch.elapsed().as_secs_f64());
    // Without a change there is no snapshot, so the second start reads footers too.
    for store in [false, false, true] {
        stop(start("footers", path, plan, store).await?).await?;
    }
    for _ in 0..2 {
        stop(start("snapshot", path, plan, false).await?).await?;
    }
    Ok(())
}

async fn stop(cache: Cache) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    cache.shutdown().await?;
    eprintln!("clean stop in {:.0} ms", watch.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Opens the cache, stores and finds a new entry if `store`, and waits until all is recovered.
async fn start(name: &str, path: &Path, plan: &Fill, store: bool) -> anyhow::Result<Cache> {
    let (memory, before) = (PeakMemory::watch(), resident_bytes());
    let watch = Stopwatch::start();
    let options = CacheOptions { ram_bytes: 0, ..CacheOptions::default() };
    let cache =
        Cache::open(Device::open(&OpenOptions::new(path))?, options, Clock::system()).await?;
    let mut first_hit = None;
    if store {
        let body = Bytes::from_static(b"new");
        cache.put(b"new", body, Condition::Always, &StoreOptions::default()).await?;
        anyhow::ensure!(cache.lookup(b"new").await.is_some(), "a new entry hits at once");
        first_hit = Some(watch.elapsed());
    }
    cache.ready().await;
    let took = watch.elapsed();
    let peak = memory.grown();
    let stats = cache.stats().store;
    for n in (0..plan.entries).step_by(usize::try_from(plan.entries / 100).unwrap().max(1)) {
        let mut hit = cache.lookup(&key_of(n)).await.expect("a recovered entry hits");
        let body = hit.next_chunk().await.unwrap().unwrap_or_default();
        anyhow::ensure!(body == body_of(n, plan.body_len), "entry {n} is as it was written");
    }
    let per_entry = |bytes: u64| bytes as f64 / plan.entries as f64;
    let first_hit =
        first_hit.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3));
    println!(
        "{name:9} {:>8} {:>10} {:>9.0} {:>12.0} {first_hit:>12} {:>12.2} {:>9.2} {:>9.2}",
        plan.body_len,
        stats.entries,
        took.as_secs_f64() * 1e3,
        plan.entries as f64 / took.as_secs_f64(),
        per_entry(stats.index_bytes),
        per_entry(peak.saturating_sub(stats.index_bytes)),
        per_entry(resident_bytes().saturating_sub(before).saturating_sub(stats.index_bytes)),
    );
    Ok(cache)
}
