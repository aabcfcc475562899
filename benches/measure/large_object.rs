//! One very large object in an image file: how it is stored is measured elsewhere, every byte of it compared here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use rawcached::clock::Stopwatch;
use rawcached::{Cache, CacheOptions, Hit};

use crate::long_body::LongBody;
use crate::resident::resident_peak;

pub const KEY: &[u8] = b"object";
pub const MIB: u64 = 1 << 20;
/// Lifetime of the object.
pub const LONG: Duration = Duration::from_secs(100_000);
/// Most memory of the process, in bytes.
const RESIDENT_MAX: u64 = 256 * MIB;

/// Stores a very large object and reads it.
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

/// Measures with an image file of this name and an object of so many bytes, in little memory.
pub fn run(
    image: &str,
    measure: impl AsyncFnOnce(&Path, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let path = arguments.directory.join(image);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&path, arguments.mib * MIB));
    std::fs::remove_file(&path).ok();
    measured?;
    let resident = resident_peak();
    println!("memory at most: {} MiB", resident / MIB);
    ensure!(resident < RESIDENT_MAX, "in little memory");
    Ok(())
}

fn options() -> CacheOptions {
    options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() })
}

/// A cache for an object of `len` bytes, without a RAM tier.
pub async fn create(path: &Path, len: u64) -> anyhow::Result<Cache> {
    let cache = Cache::create(path, Some(len / 2 * 5), options()).await?;
    cache.ready().await;
    Ok(cache)
}

/// Stops the cache and starts it again.
pub async fn restart(cache: Cache, path: &Path) -> anyhow::Result<Cache> {
    cache.shutdown().await?;
    drop(cache);
    let cache = Cache::open(path, options()).await?;
    cache.ready().await;
    Ok(cache)
}

/// Bytes written to the device so far.
pub fn bytes_written(cache: &Cache) -> u64 {
    cache.device_store().device().stats().bytes_written
}

/// Reads the object to its end and compares every byte.
pub async fn compare(who: &str, mut hit: Hit, (body, len): (&LongBody, u64)) -> anyhow::Result<()> {
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
