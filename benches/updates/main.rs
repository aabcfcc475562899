//! A new head for a very large object: what it writes, and in how much memory it is stored, read and found
//! again after a start. Every byte is compared.
//!
//! `cargo bench --bench updates -- [--mib 10240] [--directory PATH]`

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
#[path = "../../tests/support/long_body.rs"]
mod long_body;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use long_body::{LongBody, resident_peak};
use rawcached::clock::Stopwatch;
use rawcached::{Ack, Cache, CacheOptions, Condition, Hit, StoreOptions, Stored, UpdateOptions};

const KEY: &[u8] = b"object";
const MIB: u64 = 1 << 20;
/// Most bytes that an update may write, of whatever object.
const WRITTEN_MAX: u64 = 128 << 10;
/// Most memory of the process, in bytes.
const RESIDENT_MAX: u64 = 256 * MIB;
const LONG: Duration = Duration::from_secs(100_000);

/// Stores a large object, updates it and reads it.
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
    let path = arguments.directory.join("updates.img");
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
    let body = LongBody::new();

    let watch = Stopwatch::start();
    let stored =
        options!(StoreOptions { ttl: Some(LONG), len_hint: Some(len), ..StoreOptions::default() });
    let mut writer = cache.store(KEY, stored)?;
    let mut at = 0;
    while at < len {
        let piece = body.at(at, usize::try_from(MIB.min(len - at))?);
        writer.write_chunk(piece).await?;
        at += piece.len() as u64;
    }
    writer.finalize(Condition::Always).await?;
    println!("stored {} MiB in {:.1?}", arguments.mib, watch.elapsed());

    let old = cache.lookup_head(KEY).await.context("it is there")?;
    let version = old.cas();
    for (what, metadata) in [("a lifetime", None), ("60 KiB of metadata", Some(vec![7; 60 << 10]))]
    {
        // Nothing else is on its way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = cache.device_store().device().stats().bytes_written;
        let watch = Stopwatch::start();
        let update = options!(UpdateOptions {
            metadata: metadata.map(Into::into),
            ttl: Some(LONG),
            ack: Some(Ack::Flushed),
            ..UpdateOptions::default()
        });
        let updated = cache.update(KEY, Condition::Unchanged(version), &update).await?;
        ensure!(matches!(updated, Stored::Yes(_)), "{updated:?}");
        let took = watch.elapsed();
        let written = cache.device_store().device().stats().bytes_written - before;
        println!("{what}: {written} bytes written in {took:.1?}");
        ensure!(written < WRITTEN_MAX, "an update writes little");
    }
    compare("a reader of the old head", old, (&body, len)).await?;
    cache.shutdown().await?;
    drop(cache);

    let cache = Cache::open(path, options()).await?;
    cache.ready().await;
    let hit = cache.lookup(KEY).await.context("it is there after a start")?;
    ensure!(hit.metadata().len() == 60 << 10, "with its new head");
    compare("a reader after a start", hit, (&body, len)).await?;
    cache.shutdown().await?;
    let resident = resident_peak();
    println!("memory at most: {} MiB", resident / MIB);
    ensure!(resident < RESIDENT_MAX, "in little memory");
    Ok(())
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
