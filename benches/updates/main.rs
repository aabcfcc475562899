//! A new head for a very large object: what it writes, and in how much memory it is stored, read and found
//! again after a start. Every byte is compared.
//!
//! `cargo bench --bench updates -- [--mib 10240] [--directory PATH]`

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
use std::time::Duration;

use anyhow::{Context as _, ensure};
use large_object::{KEY, LONG, MIB, bytes_written, compare, create, restart, run};
use long_body::LongBody;
use rawcached::clock::Stopwatch;
use rawcached::{Ack, Condition, StoreOptions, Stored, UpdateOptions};

/// Most bytes that an update may write, of whatever object.
const WRITTEN_MAX: u64 = 128 << 10;

fn main() -> anyhow::Result<()> {
    run("updates.img", measure)
}

async fn measure(path: &Path, len: u64) -> anyhow::Result<()> {
    let cache = create(path, len).await?;
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
    println!("stored {} MiB in {:.1?}", len / MIB, watch.elapsed());

    let old = cache.lookup_head(KEY).await.context("it is there")?;
    let version = old.cas();
    for (what, metadata) in [("a lifetime", None), ("60 KiB of metadata", Some(vec![7; 60 << 10]))]
    {
        // Nothing else is on its way.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = bytes_written(&cache);
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
        let written = bytes_written(&cache) - before;
        println!("{what}: {written} bytes written in {took:.1?}");
        ensure!(written < WRITTEN_MAX, "an update writes little");
    }
    compare("a reader of the old head", old, (&body, len)).await?;

    let cache = restart(cache, path).await?;
    let hit = cache.lookup(KEY).await.context("it is there after a start")?;
    ensure!(hit.metadata().len() == 60 << 10, "with its new head");
    compare("a reader after a start", hit, (&body, len)).await?;
    cache.shutdown().await?;
    Ok(())
}
