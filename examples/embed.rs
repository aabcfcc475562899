//! The cache without the daemon: make or open one, stream an object in, look a range of it up, shut
//! down. Run with `cargo run --example embed -- PATH`; an image file is made if nothing is at PATH.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rawcached::{Ack, Cache, CacheOptions, Condition, StoreOptions};

const IMAGE_SIZE: u64 = 256 << 20;
const KEY: &[u8] = b"videos/1/segment-7";
/// Bytes of the object, and where the part of it is that is looked up.
const LEN: usize = 10_000_000;
const PART: Range<usize> = 6_999_990..7_000_010;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let path = path.context("name a device or an image file")?;
    // The runtime that opens a cache does its background work: it must have I/O and time.
    tokio::runtime::Runtime::new()?.block_on(run(path))
}

async fn run(path: PathBuf) -> anyhow::Result<()> {
    let options = CacheOptions::default();
    let cache = match path.exists() {
        true => Cache::open(&path, options).await?,
        false => Cache::create(&path, Some(IMAGE_SIZE), options).await?,
    };
    cache.ready().await;

    let body: Vec<u8> = (0..=255).cycle().take(LEN).collect();
    let mut options = StoreOptions::default();
    options.ttl = Some(Duration::from_secs(3600));
    options.ack = Some(Ack::Flushed);
    let mut writer = cache.store(KEY, options)?;
    // Chunks may have any length; dropping the writer before `finalize` leaves the old object.
    for chunk in body.chunks(100_000) {
        writer.write_chunk(chunk).await?;
    }
    writer.finalize(Condition::Always).await?;
    println!("stored {LEN} bytes");

    let found = range(&cache, PART).await.context("the object is gone")?;
    ensure!(found == body[PART], "other bytes");
    println!("bytes {} to {} are {found:?}", PART.start, PART.end - 1);

    cache.shutdown().await?;
    Ok(())
}

/// The bytes `part` of the object; `None` if it is not there, or not all of it.
async fn range(cache: &Cache, part: Range<usize>) -> Option<Vec<u8>> {
    let hit = cache.lookup_head(KEY).await?;
    // Other options than the cache's own may say how to read, and when to do it in parallel.
    let mut reader = hit.range(part.start as u64..part.end as u64).await.ok()?;
    let mut found = Vec::with_capacity(part.len());
    while let Some(piece) = reader.next_chunk().await.ok()? {
        found.extend_from_slice(&piece);
    }
    Some(found)
}
