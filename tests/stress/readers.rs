//! Lookups that take their time and look at every byte. Owns what may not be seen.

use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::Hit;

use super::values::{KEYS, LABEL_LEN, name_of, value_of, version_of};
use super::{Shared, parts};

/// Keys that are read more often than others, so that several readers read one body at a time.
const HOT_KEYS: usize = 30;
const PAUSE_MS_MAX: u64 = 40;

/// Reads keys until the test is over.
pub async fn read(shared: &Shared, reader: u64) {
    let mut random = Rng::with_seed(reader + 777);
    while !shared.is_over() {
        let keys = if random.bool() { HOT_KEYS } else { KEYS };
        let key = random.usize(0..keys);
        look_at(shared, key, Some(&mut random)).await;
        let key = random.usize(0..keys);
        parts::look_at(shared, key, &mut random).await;
    }
}

/// Looks at every key once; gives how many were there.
pub async fn look_at_all(shared: &Shared) -> usize {
    let mut found = 0;
    for key in 0..KEYS {
        found += usize::from(look_at(shared, key, None).await);
    }
    found
}

/// Looks a key up and verifies the answer, with pauses if any are drawn.
async fn look_at(shared: &Shared, key: usize, mut random: Option<&mut Rng>) -> bool {
    let floor = shared.keys.floor(key);
    let Some(mut hit) = shared.cache.lookup(name_of(key).as_bytes()).await else {
        // Other threads get a turn, and this one's own.
        tokio::task::yield_now().await;
        return false;
    };
    let latest = shared.keys.latest(key);
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let mut at = 0;
    while let Some(piece) = next_piece(&mut hit).await {
        bytes.extend_from_slice(&piece);
        if bytes.len() < LABEL_LEN {
            // The first part of an object that came part by part may be short.
            continue;
        }
        if expected.is_empty() {
            let version = version_of(&bytes).unwrap();
            assert!(version >= floor, "key {key}: version {version}, dead since {floor}");
            assert!(version <= latest, "key {key}: version {version}, which nobody stored");
            expected = value_of(key, version);
            assert_eq!(hit.len(), expected.len() as u64, "key {key}: version {version}");
        }
        assert!(
            expected.get(at..bytes.len()) == Some(&bytes[at..]),
            "key {key}: wrong bytes from {at} on"
        );
        at = bytes.len();
        if let Some(random) = &mut random
            && random.u32(0..3) > 0
        {
            tokio::time::sleep(Duration::from_millis(random.u64(0..PAUSE_MS_MAX))).await;
        }
    }
    true
}

/// The next piece; none at the end, and none if the rest was evicted.
async fn next_piece(hit: &mut Hit) -> Option<bytes::Bytes> {
    hit.next_chunk().await.ok().flatten()
}
