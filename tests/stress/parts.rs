//! Objects that come part by part from several threads, and readers of what is there of them. Owns that no part
//! is of another version.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use parking_lot::Mutex;
use rawcached::cache::{Ack, Parts, StoreError, StoreOptions, Validator};

use super::Shared;
use super::values::{name_of, value_of};

/// Objects that are under way.
pub type Pool = Arc<Mutex<Vec<Partial>>>;

/// An object that comes part by part.
#[derive(Clone)]
pub struct Partial {
    key: usize,
    version: u64,
    parts: Parts,
}

/// Objects under way at most.
const POOL_MAX: usize = 12;
/// Parts that are stored in one go.
const PARTS: usize = 30;
const PART_LEN_MAX: usize = 40_000;

/// Begins a version of a key that comes part by part.
pub async fn declare(shared: &Shared, key: usize, options: &StoreOptions) {
    // One that is long, if there is one among the next.
    let mut version = shared.keys.next_version(key);
    for _ in 0..8 {
        if value_of(key, version).len() < 100_000 {
            version = shared.keys.next_version(key);
        }
    }
    let validator = Validator::etag(format!("\"{version}\"").as_bytes()).unwrap();
    let len = value_of(key, version).len() as u64;
    match shared.cache.declare(name_of(key).as_bytes(), len, &validator, options).await {
        Ok(Some(parts)) => {
            assert!(parts.is_new(), "nobody else has this version");
            shared.keys.raise_floor(key, version, options.ack == Some(Ack::Flushed));
            let mut pool = shared.partial.lock();
            if pool.len() == POOL_MAX {
                pool.remove(0);
            }
            pool.push(Partial { key, version, parts });
        }
        Ok(None) => panic!("key {key}: no version is newer than {version}"),
        Err(StoreError::Busy(_)) => {}
        Err(error) => panic!("a sound device: {error}"),
    }
}

/// Stores parts of an object that anybody began.
pub async fn store_some(shared: &Shared, random: &mut Rng) {
    let partial = random.choice(shared.partial.lock().iter()).cloned();
    let Some(Partial { key, version, parts }) = partial else { return };
    let value = value_of(key, version);
    for _ in 0..PARTS {
        let start = random.usize(0..value.len());
        let end = value.len().min(start + random.usize(1..=PART_LEN_MAX));
        match parts.fill(start as u64, &value[start..end]).await {
            Ok(()) => {}
            Err(StoreError::Busy(_) | StoreError::Fragmented) => {}
            Err(StoreError::Gone | StoreError::Purged) => return,
            Err(error) => panic!("a sound device: {error}"),
        }
    }
}

/// Looks at what is there of an object.
pub async fn look_at(shared: &Shared, key: usize, random: &mut Rng) {
    let floor = shared.keys.floor(key);
    let Some(hit) = shared.cache.lookup_head(name_of(key).as_bytes()).await else { return };
    let latest = shared.keys.latest(key);
    let Some(validator) = hit.validator() else { return };
    let version = std::str::from_utf8(validator.as_etag().unwrap()).unwrap();
    let version: u64 = version.trim_matches('"').parse().unwrap();
    assert!((floor..=latest).contains(&version), "key {key}: {version} of {floor}..={latest}");
    let value = value_of(key, version);
    assert_eq!(hit.len(), value.len() as u64, "key {key}: version {version}");
    let start = random.usize(0..value.len());
    let asked = start as u64..random.usize(start..value.len()) as u64 + 1;
    let missing = hit.missing(asked.clone()).await;
    for range in between(&asked, &missing) {
        let mut at = usize::try_from(range.start).unwrap();
        let Ok(mut reader) = hit.range(range).await else { continue };
        // Nothing more comes if the rest was evicted.
        while let Ok(Some(piece)) = reader.next_chunk().await {
            let end = at + piece.len();
            assert!(value.get(at..end) == Some(&piece[..]), "key {key}: wrong bytes from {at}");
            at = end;
            shared.parts_read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is left of a range without the gaps in it.
fn between(asked: &Range<u64>, gaps: &[Range<u64>]) -> Vec<Range<u64>> {
    let starts = [asked.start].into_iter().chain(gaps.iter().map(|gap| gap.end));
    let ends = gaps.iter().map(|gap| gap.start).chain([asked.end]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
}
