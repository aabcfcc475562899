//! A thread that stores, streams, touches, updates and removes its own keys, one by one and by their tag, or fills
//! those that are missing. Owns what it was promised.

use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::{
    Ack, Condition, Found, Purge, StoreError, StoreOptions, Stored, UpdateOptions,
};

use super::values::{KEYS, name_of, value_of};
use super::{Shared, WRITERS, parts};

/// Bytes that a streamed store sends at a time.
const PIECE_LEN: usize = 30_000;

/// Changes every so manyth key until the test is over.
pub async fn write(shared: &Shared, writer: usize) {
    let mut random = Rng::with_seed(writer as u64 + 77);
    while !shared.is_over() {
        let key = random.usize(0..KEYS / WRITERS) * WRITERS + writer;
        match random.u32(0..20) {
            0..8 => put(shared, key, &mut random).await,
            8 => parts::store_some(shared, &mut random).await,
            9..11 => update(shared, key, &mut random).await,
            11 if random.bool() => fill(shared, key, &mut random).await,
            11 if random.bool() => parts::declare(shared, key, &options(&mut random, writer)).await,
            11 => parts::store_some(shared, &mut random).await,
            12..15 if random.u32(0..300) == 0 => remove_all(shared, writer).await,
            12..15 => remove(shared, key).await,
            15..18 => {
                let ttl = Duration::from_secs(random.u64(1000..50_000));
                shared.cache.touch(name_of(key).as_bytes(), ttl).await.unwrap();
            }
            _ => stream(shared, key, &mut random).await,
        }
    }
}

pub fn options(random: &mut Rng, writer: usize) -> StoreOptions {
    let ack = if random.u32(0..10) == 0 { Ack::Flushed } else { Ack::Buffered };
    // Some expire while the test runs, and some of these are in RAM only.
    let ttl = if random.u32(0..12) == 0 { random.u64(2..5) } else { 10_000 };
    options!(StoreOptions {
        ack: Some(ack),
        tags: vec![tag_of(writer).into()],
        ttl: Some(Duration::from_secs(ttl)),
        ..StoreOptions::default()
    })
}

fn tag_of(writer: usize) -> String {
    format!("writer {writer}")
}

/// New metadata over the same body, or a new lifetime.
async fn update(shared: &Shared, key: usize, random: &mut Rng) {
    let metadata = (random.u32(0..4) > 0).then(|| vec![1; random.usize(0..5000)].into());
    let ttl = Some(Duration::from_secs(random.u64(1000..50_000)));
    let options = options!(UpdateOptions { metadata, ttl, ..UpdateOptions::default() });
    match shared.cache.update(name_of(key).as_bytes(), Condition::Always, &options).await {
        Ok(_) | Err(StoreError::Busy(_) | StoreError::Evicted | StoreError::Crowded { .. }) => {}
        Err(error) => panic!("a sound device: {error}"),
    }
}

/// Stores a key that is missing, with the lease of it.
async fn fill(shared: &Shared, key: usize, random: &mut Rng) {
    let found = shared.cache.lookup_or_fill(name_of(key).as_bytes(), Duration::ZERO).await;
    if let Found::Lease(lease) = found {
        let (version, options) = (shared.keys.next_version(key), options(random, key % WRITERS));
        let stored = lease.put(value_of(key, version), &options).await;
        ended(shared, (key, version), stored, &options);
    }
}

/// Purges all keys of a writer by their tag.
async fn remove_all(shared: &Shared, writer: usize) {
    let own = (0..KEYS / WRITERS).map(|n| n * WRITERS + writer);
    let versions: Vec<_> = own.map(|key| (key, shared.keys.next_version(key))).collect();
    match shared.cache.purge_tag(tag_of(writer), Purge::Hard).await {
        Ok(()) => {
            for (key, version) in versions {
                shared.keys.raise_floor(key, version, true);
            }
        }
        Err(StoreError::Busy(_)) => {}
        Err(error) => panic!("a sound device: {error}"),
    }
}

async fn put(shared: &Shared, key: usize, random: &mut Rng) {
    let (version, options) = (shared.keys.next_version(key), options(random, key % WRITERS));
    let value = value_of(key, version);
    let name = name_of(key);
    let stored = shared.cache.put(name.as_bytes(), value, Condition::Always, &options).await;
    ended(shared, (key, version), stored, &options);
}

/// Stored or not, the old version is gone.
fn ended(
    shared: &Shared,
    (key, version): (usize, u64),
    stored: Result<Stored, StoreError>,
    options: &StoreOptions,
) {
    match stored {
        Ok(Stored::Yes(_)) => {
            shared.keys.raise_floor(key, version, options.ack == Some(Ack::Flushed));
        }
        Err(StoreError::Busy(_) | StoreError::Evicted) => {
            shared.keys.raise_floor(key, version, false);
        }
        other => panic!("a sound device: {other:?}"),
    }
}

async fn stream(shared: &Shared, key: usize, random: &mut Rng) {
    let (version, options) = (shared.keys.next_version(key), options(random, key % WRITERS));
    let mut writer = shared.cache.store(name_of(key).as_bytes(), options.clone()).unwrap();
    for piece in value_of(key, version).chunks(PIECE_LEN) {
        if writer.write_chunk(piece).await.is_err() || random.u32(0..100) == 0 {
            // Given up: the old version stays.
            return;
        }
    }
    ended(shared, (key, version), writer.finalize(Condition::Always).await, &options);
}

async fn remove(shared: &Shared, key: usize) {
    // A version that is never stored: versions found later must be newer.
    let version = shared.keys.next_version(key);
    match shared.cache.remove(name_of(key).as_bytes()).await {
        Ok(_) => shared.keys.raise_floor(key, version, true),
        Err(StoreError::Busy(_)) => {}
        Err(error) => panic!("a sound device: {error}"),
    }
}
