//! What it costs to keep the head of a body of 64 KiB to 1 MiB apart from it: a hit without the RAM tier, in reads of the
//! device and in time; and an update of its metadata, in bytes written. Bodies come with their head in one entry, and
//! have it apart from the first update of their metadata on.
//!
//! `cargo bench --bench heads -- [--directory PATH]`

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rawcached::clock::Stopwatch;
use rawcached::{Ack, Cache, CacheOptions, Condition, StoreOptions, Stored, UpdateOptions};

/// Bytes of a body.
const LENS: [usize; 4] = [72 << 10, 128 << 10, 256 << 10, 900 << 10];
/// Objects of each kind and length.
const COUNT: usize = 300;
/// Rounds in turns; the median counts.
const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(100_000);

/// Measures heads apart from their bodies.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory for the image file of 3 GiB
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a round of hits took.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
struct Cost {
    micros: f64,
    cpu_micros: f64,
    reads: f64,
}

fn main() -> anyhow::Result<()> {
    let path = Arguments::parse().directory.join("heads.img");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let options = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
        let cache = Cache::create(&path, Some(3 << 30), options).await?;
        cache.ready().await;
        measure(&cache).await?;
        cache.shutdown().await?;
        Ok(())
    });
    std::fs::remove_file(&path).ok();
    measured
}

fn key(kind: &str, len: usize, number: usize) -> Vec<u8> {
    format!("{kind}-{len}-{number}").into_bytes()
}

async fn measure(cache: &Cache) -> anyhow::Result<()> {
    for len in LENS {
        for kind in ["beside", "apart"] {
            for number in 0..COUNT {
                let body = vec![number.to_le_bytes()[0]; len];
                let stored = options!(StoreOptions { ttl: Some(LONG), ..StoreOptions::default() });
                let key = key(kind, len, number);
                let put = cache.put(&key, &body, Condition::Always, &stored).await?;
                ensure!(matches!(put, Stored::Yes(_)), "it is stored");
            }
        }
    }
    println!("length    update   bytes written each");
    for len in LENS {
        for (what, metadata) in [("first", 1_u8), ("second", 2)] {
            flush(cache).await?;
            let before = cache.device_store().device().stats().bytes_written;
            for number in 0..COUNT {
                let update = options!(UpdateOptions {
                    metadata: Some(vec![metadata; 300].into()),
                    ack: Some(Ack::Buffered),
                    ..UpdateOptions::default()
                });
                let key = key("apart", len, number);
                let updated = cache.update(&key, Condition::Always, &update).await?;
                ensure!(matches!(updated, Stored::Yes(_)), "it is updated");
            }
            flush(cache).await?;
            let written = cache.device_store().device().stats().bytes_written - before;
            println!("{len:7}   {what:6}   {}", written / COUNT as u64);
        }
    }
    println!("length    head     us a hit   CPU us   reads");
    for len in LENS {
        let mut costs = [[Cost::default(); ROUNDS]; 2];
        for round in 0..ROUNDS {
            for (kind, costs) in ["beside", "apart"].iter().zip(&mut costs) {
                costs[round] = hits(cache, kind, len).await?;
            }
        }
        for (kind, mut costs) in ["beside", "apart"].iter().zip(costs) {
            costs.sort_by(|one, other| one.micros.total_cmp(&other.micros));
            let Cost { micros, cpu_micros, reads } = costs[ROUNDS / 2];
            println!("{len:7}   {kind:6}   {micros:8.1}   {cpu_micros:6.1}   {reads:5.2}");
        }
    }
    Ok(())
}

/// Has all on the device that was stored.
async fn flush(cache: &Cache) -> anyhow::Result<()> {
    let last = options!(StoreOptions { ack: Some(Ack::Flushed), ..StoreOptions::default() });
    cache.put(b"last", b"", Condition::Always, &last).await?;
    Ok(())
}

/// One hit on each object.
async fn hits(cache: &Cache, kind: &str, len: usize) -> anyhow::Result<Cost> {
    let reads = || cache.device_store().device().stats().reads;
    let cpu = || -> anyhow::Result<i64> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
    };
    let (reads_before, cpu_before, watch) = (reads(), cpu()?, Stopwatch::start());
    for number in 0..COUNT {
        let mut hit = cache.lookup(&key(kind, len, number)).await.context("it is there")?;
        let mut read = 0;
        while let Some(piece) = hit.next_chunk().await? {
            ensure!(piece.iter().all(|byte| *byte == number.to_le_bytes()[0]), "its bytes");
            read += piece.len();
        }
        ensure!(read == len, "all of them");
    }
    let each = |total: f64| total / COUNT as f64;
    Ok(Cost {
        micros: each(watch.elapsed().as_secs_f64() * 1e6),
        cpu_micros: each((cpu()? - cpu_before) as f64),
        reads: each((reads() - reads_before) as f64),
    })
}
