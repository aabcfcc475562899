//! A very large object that four writers store part by part, in random order: what it writes, and in how much
//! memory it is stored, read and found again after a start. Every byte is compared.
//!
//! `cargo bench --bench parts -- [--mib 10240] [--directory PATH]`

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
#[path = "../../tests/support/long_body.rs"]
mod long_body;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use long_body::{LongBody, resident_peak};
use parking_lot::Mutex;
use rawcached::clock::Stopwatch;
use rawcached::{Cache, CacheOptions, Hit, Parts, StoreOptions, Validator};

const KEY: &[u8] = b"object";
const MIB: u64 = 1 << 20;
const WRITERS: u64 = 4;
/// Length of a part: no multiple of what is stored in one piece.
const PART: u64 = 8 * MIB + 12_345;
/// Bytes that are given to a writer at a time.
const CHUNK: u64 = 100_000;
/// Most bytes that may be written for each byte of the object.
const WRITTEN_MAX: f64 = 1.1;
/// Most memory of the process, in bytes.
const RESIDENT_MAX: u64 = 256 * MIB;
const LONG: Duration = Duration::from_secs(100_000);

/// Stores a large object part by part and reads it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Length of the object in MiB
    #[arg(long, default_value_t = 10 << 10)]
    mib: u64,
    /// Directory for the image file, which takes two and a half times as much
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let path = arguments.directory.join("parts.img");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&arguments, &path));
    std::fs::remove_file(&path).ok();
    measured
}

fn options() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() })
}

async fn measure(arguments: &Arguments, path: &std::path::Path) -> anyhow::Result<()> {
    let len = arguments.mib * MIB;
    let cache = Cache::create(path, Some(len / 2 * 5), options()).await?;
    cache.ready().await;
    let body = Arc::new(LongBody::new());

    let validator = Validator::etag(b"\"v1\"").context("it is strong")?;
    let stored = options!(StoreOptions { ttl: Some(LONG), ..StoreOptions::default() });
    let parts = cache.declare(KEY, len, &validator, &stored).await?.context("it is new")?;
    let mut starts: Vec<u64> = (0..len).step_by(usize::try_from(PART)?).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut starts);
    let starts = Arc::new(Mutex::new(starts));
    let before = cache.device_store().device().stats().bytes_written;
    let watch = Stopwatch::start();
    let writers = (0..WRITERS)
        .map(|_| tokio::spawn(write(parts.clone(), Arc::clone(&body), Arc::clone(&starts))));
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    ensure!(parts.missing(0..len).await.is_empty(), "all of it is there");
    println!("{WRITERS} writers stored {} MiB in {:.1?}", arguments.mib, watch.elapsed());
    // All of it is on its way to the device.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = cache.device_store().device().stats().bytes_written - before;
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let factor = written as f64 / len as f64;
    println!("{factor:.3} bytes written for each byte of the object");
    ensure!(factor <= WRITTEN_MAX, "little more than the object is written");
    drop(parts);
    let hit = cache.lookup(KEY).await.context("it is an ordinary object")?;
    compare("a reader", hit, (&body, len)).await?;
    cache.shutdown().await?;
    drop(cache);

    let cache = Cache::open(path, options()).await?;
    cache.ready().await;
    let watch = Stopwatch::start();
    let hit = cache.lookup(KEY).await.context("it is there after a start")?;
    println!("found after a start in {:.1?}", watch.elapsed());
    compare("a reader after a start", hit, (&body, len)).await?;
    let watch = Stopwatch::start();
    cache.lookup(KEY).await.context("it is there")?;
    println!("found once more in {:.1?}", watch.elapsed());
    cache.shutdown().await?;
    let resident = resident_peak();
    println!("memory at most: {} MiB", resident / MIB);
    ensure!(resident < RESIDENT_MAX, "in little memory");
    Ok(())
}

/// Stores parts as long as there are any.
async fn write(
    parts: Parts,
    body: Arc<LongBody>,
    starts: Arc<Mutex<Vec<u64>>>,
) -> anyhow::Result<()> {
    loop {
        let Some(start) = starts.lock().pop() else { return Ok(()) };
        let end = parts.len().min(start + PART);
        let (mut writer, mut at) = (parts.writer(start), start);
        while at < end {
            let chunk = body.at(at, usize::try_from(CHUNK.min(end - at))?);
            writer.write_chunk(chunk).await?;
            at += chunk.len() as u64;
        }
        writer.finish().await?;
    }
}

async fn compare(who: &str, mut hit: Hit, (body, len): (&LongBody, u64)) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    let mut at = 0;
    while let Some(piece) = hit.next_chunk().await? {
        ensure!(piece == body.at(at, piece.len()), "wrong bytes from {at} on");
        at += piece.len() as u64;
    }
    ensure!(at == len, "{at} bytes of {len}");
    println!("{who}: {} MiB, all as they were stored, in {:.1?}", at / MIB, watch.elapsed());
    Ok(())
}
