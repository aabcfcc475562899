//! Starts of a store that holds millions of small entries: from footers, and from the snapshot of
//! a clean stop. Prints what each took; nothing is asserted of time. "found" is the memory for what
//! recovery found, "peak" and "left" are memory of the process beyond the index at the peak and at the
//! end. "footers+" stores an entry at once and finds it; the others change nothing.
//!
//! `cargo bench --bench recovery -- [--quick] [--entries N] [--device PATH] [--directory PATH]`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
mod fill;
mod memory;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions};
use rawcached::clock::{Clock, Stopwatch};
use rawcached::device::{Device, OpenOptions, create_image};

use fill::{Fill, body_of, key_of};
use memory::{peak_bytes, resident_bytes};

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
    /// Times one start and stop on a filled device, in a process of its own
    #[arg(long, hide = true)]
    start: Option<String>,
    /// Length of the bodies on the filled device
    #[arg(long, hide = true, default_value_t = 0)]
    body_len: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(name) = &arguments.start {
        return runtime.block_on(start(name, &arguments));
    }
    if arguments.quick {
        arguments.entries /= 10;
    }
    println!(
        "{:10} {:>5} {:>10} {:>7} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "start",
        "body",
        "entries",
        "ms",
        "entries/s",
        "new hit ms",
        "index B/e",
        "found B/e",
        "peak B/e",
        "left B/e",
        "stop ms"
    );
    for body_len in BODY_LENS {
        let time = Clock::system().pair();
        let plan = Fill {
            entries: arguments.entries,
            body_len,
            region_size: None,
            alignment: 4096,
            time,
            keep_until: time.cache.plus(Duration::from_secs(86_400)),
        };
        let image = arguments.directory.join(format!("recovery-{}.img", std::process::id()));
        let path = arguments.device.clone().unwrap_or_else(|| image.clone());
        if arguments.device.is_none() {
            create_image(&path, plan.device_size())?;
        }
        let measured = runtime.block_on(measure(&path, &plan));
        if arguments.device.is_none() {
            std::fs::remove_file(&image)?;
        }
        measured?;
    }
    Ok(())
}

/// Fills the device and starts on it in new processes, so that each begins with no memory.
async fn measure(path: &Path, plan: &Fill) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    plan.write(&Device::open(&OpenOptions::new(path))?).await?;
    eprintln!("{} entries written in {:.1} s", plan.entries, watch.elapsed().as_secs_f64());
    // Without a change there is no snapshot, so the second start reads footers too.
    for name in ["footers", "footers", "footers+", "snapshot", "snapshot"] {
        let status = Command::new(std::env::current_exe()?)
            .args(["--start", name, "--entries", &plan.entries.to_string()])
            .args(["--body-len", &plan.body_len.to_string(), "--device"])
            .arg(path)
            .status()?;
        anyhow::ensure!(status.success(), "the start {name} failed");
    }
    Ok(())
}

/// Opens the cache, stores and finds a new entry if the name says so, waits until all is
/// recovered, and stops.
async fn start(name: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let path = arguments.device.as_deref().unwrap_or(Path::new(""));
    let (entries, body_len) = (arguments.entries, arguments.body_len);
    let before = resident_bytes();
    let watch = Stopwatch::start();
    let options = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
    let cache =
        Cache::open_device(Device::open(&OpenOptions::new(path))?, options, Clock::system())
            .await?;
    let mut first_hit = "-".to_owned();
    if name.ends_with('+') {
        let body = Bytes::from_static(b"new");
        cache.put(b"new", body, Condition::Always, &StoreOptions::default()).await?;
        anyhow::ensure!(cache.lookup(b"new").await.is_some(), "a new entry hits at once");
        first_hit = format!("{:.1}", watch.elapsed().as_secs_f64() * 1e3);
    }
    cache.ready().await;
    let took = watch.elapsed();
    let (peak, left) = (peak_bytes(), resident_bytes());
    let stats = cache.stats().store;
    let from_snapshot = stats.counters.snapshots_loaded == 1;
    anyhow::ensure!(from_snapshot == (name == "snapshot"), "not a start from what was asked for");
    for n in (0..entries).step_by(usize::try_from(entries / 100).unwrap().max(1)) {
        let mut hit = cache.lookup(&key_of(n)).await.expect("a recovered entry hits");
        let body = hit.next_chunk().await.unwrap().unwrap_or_default();
        anyhow::ensure!(body == body_of(n, body_len), "entry {n} is as it was written");
    }
    let stopping = Stopwatch::start();
    cache.shutdown().await?;
    let per_entry = |bytes: u64| bytes as f64 / entries as f64;
    let beyond = |bytes: u64| per_entry(bytes.saturating_sub(before + stats.index_bytes));
    println!(
        "{name:10} {body_len:>5} {:>10} {:>7.0} {:>11.0} {first_hit:>11} {:>9.2} {:>9.2} {:>9.2} \
         {:>9.2} {:>8.0}",
        stats.entries,
        took.as_secs_f64() * 1e3,
        entries as f64 / took.as_secs_f64(),
        per_entry(stats.index_bytes),
        per_entry(stats.recovery.scratch_peak_bytes),
        beyond(peak),
        beyond(left),
        stopping.elapsed().as_secs_f64() * 1e3,
    );
    Ok(())
}
