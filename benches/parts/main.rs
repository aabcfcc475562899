//! A very large object that four writers store part by part, in random order: what it writes, and in how much
//! memory it is stored, read and found again after a start. Every byte is compared.
//!
//! `cargo bench --bench parts -- [--mib 10240] [--directory PATH]`

#[macro_use]
#[path = "../../tests/support/options.rs"]
mod options;
#[path = "../../tests/support/long_body.rs"]
mod long_body;
#[path = "../../tests/support/resident.rs"]
mod resident;

#[path = "../measure/large_object.rs"]
mod large_object;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use large_object::{KEY, LONG, MIB, bytes_written, compare, create, restart, run};
use long_body::LongBody;
use parking_lot::Mutex;
use rawcached::clock::Stopwatch;
use rawcached::{Parts, StoreOptions, Validator};

const WRITERS: u64 = 4;
/// Length of a part: no multiple of what is stored in one piece.
const PART: u64 = 8 * MIB + 12_345;
/// Bytes that are given to a writer at a time.
const CHUNK: u64 = 100_000;
/// Most bytes that may be written for each byte of the object.
const WRITTEN_MAX: f64 = 1.1;

fn main() -> anyhow::Result<()> {
    run("parts.img", measure)
}

async fn measure(path: &Path, len: u64) -> anyhow::Result<()> {
    let cache = create(path, len).await?;
    let body = Arc::new(LongBody::new());

    let validator = Validator::etag(b"\"v1\"").context("it is strong")?;
    let stored = options!(StoreOptions { ttl: Some(LONG), ..StoreOptions::default() });
    let parts = cache.declare(KEY, len, &validator, &stored).await?.context("it is new")?;
    let mut starts: Vec<u64> = (0..len).step_by(usize::try_from(PART)?).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut starts);
    let starts = Arc::new(Mutex::new(starts));
    let before = bytes_written(&cache);
    let watch = Stopwatch::start();
    let writers = (0..WRITERS)
        .map(|_| tokio::spawn(write(parts.clone(), Arc::clone(&body), Arc::clone(&starts))));
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    ensure!(parts.missing(0..len).await.is_empty(), "all of it is there");
    println!("{WRITERS} writers stored {} MiB in {:.1?}", len / MIB, watch.elapsed());
    // All of it is on its way to the device.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = bytes_written(&cache) - before;
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let factor = written as f64 / len as f64;
    println!("{factor:.3} bytes written for each byte of the object");
    ensure!(factor <= WRITTEN_MAX, "little more than the object is written");
    drop(parts);
    let hit = cache.lookup(KEY).await.context("it is an ordinary object")?;
    compare("a reader", hit, (&body, len)).await?;

    let cache = restart(cache, path).await?;
    let watch = Stopwatch::start();
    let hit = cache.lookup(KEY).await.context("it is there after a start")?;
    println!("found after a start in {:.1?}", watch.elapsed());
    compare("a reader after a start", hit, (&body, len)).await?;
    let watch = Stopwatch::start();
    cache.lookup(KEY).await.context("it is there")?;
    println!("found once more in {:.1?}", watch.elapsed());
    cache.shutdown().await?;
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
