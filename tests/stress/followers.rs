//! Threads that follow stores in progress, and the stores: dropped short, refused and purged while they go on.
//! Owns which end a follower may be told of.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use rawcached::cache::{
    Cache, Condition, FollowError, Follower, StoreError, StoreOptions, Stored, Writer,
};

use super::Shared;

/// Keys that are stored again and again, each by one writer at a time.
const KEYS: u64 = 4;
const BODY_LEN_MAX: usize = 3 << 20;
const PIECE_LEN_MAX: usize = 40_000;
/// Bytes of metadata: a version, the length of its body.
const LABEL_LEN: usize = 16;

/// What became of versions, as their writers know it before any follower may be told.
#[derive(Default)]
pub struct Ends {
    /// All bytes were sent.
    whole: Mutex<HashSet<u64>>,
    /// A call of the writer failed.
    failed: Mutex<HashSet<u64>>,
}

fn body_of(version: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::with_seed(version).fill(&mut bytes);
    bytes
}

fn key_of(key: u64) -> String {
    format!("followed-{key}")
}

/// Streams one version after the other under one key until the test is over.
pub async fn write(shared: &Shared, ends: &Arc<Ends>, key: u64) {
    let mut random = Rng::with_seed(key + 7000);
    let mut version = key << 32;
    while !shared.is_over() {
        version += 1;
        let len = random.usize(0..BODY_LEN_MAX);
        let mut label = version.to_le_bytes().to_vec();
        label.extend_from_slice(&(len as u64).to_le_bytes());
        let options = options!(StoreOptions {
            follow: true,
            metadata: label.into(),
            ..StoreOptions::default()
        });
        let mut writer = shared.cache.store(key_of(key).as_bytes(), options).unwrap();
        let handed_out = writer.follower().expect("nobody purged it");
        let own = {
            let (ends, random) = (Arc::clone(ends), random.fork());
            tokio::spawn(async move { follow(&ends, handed_out, random).await })
        };
        let is_dropped = random.u32(0..4) == 0;
        send(&mut writer, (version, len, is_dropped), (shared, ends, key), &mut random).await;
        if !is_dropped && !ends.failed.lock().contains(&version) {
            ends.whole.lock().insert(version);
            let condition =
                if random.u32(0..4) == 0 { Condition::Absent } else { Condition::Always };
            let stored = writer.finalize(condition).await;
            let is_expected = matches!(
                stored,
                Ok(Stored::Yes(_) | Stored::Exists)
                    | Err(StoreError::Purged | StoreError::Busy(_) | StoreError::Evicted)
            );
            assert!(is_expected, "a sound device: {stored:?}");
        } else {
            drop(writer);
        }
        own.await.unwrap();
    }
}

async fn send(
    writer: &mut Writer,
    (version, len, is_dropped): (u64, usize, bool),
    (shared, ends, key): (&Shared, &Ends, u64),
    random: &mut Rng,
) {
    let body = body_of(version, len);
    let end = if is_dropped { random.usize(0..=len) } else { len };
    let mut at = 0;
    while at < end {
        let piece = &body[at..end.min(at + random.usize(1..PIECE_LEN_MAX))];
        at += piece.len();
        // Before the call, after which followers know.
        ends.failed.lock().insert(version);
        if writer.write_chunk(piece).await.is_err() {
            return;
        }
        ends.failed.lock().remove(&version);
        match random.u32(0..150) {
            0 => drop(shared.cache.remove(key_of(key).as_bytes()).await),
            1..20 => tokio::time::sleep(Duration::from_millis(random.u64(0..3))).await,
            20..80 => tokio::task::yield_now().await,
            _ => {}
        }
    }
}

/// Follows whatever is being stored until the test is over; gives how many bodies came whole, and how many not.
pub async fn follow_all(
    cache: &Cache,
    ends: &Ends,
    seed: u64,
    is_over: impl Fn() -> bool,
) -> [u64; 2] {
    let mut random = Rng::with_seed(seed + 9000);
    let mut counts = [0; 2];
    while !is_over() {
        match cache.follow(key_of(random.u64(0..KEYS)).as_bytes()) {
            Some(follower) => {
                let is_whole = follow(ends, follower, random.fork()).await;
                counts[usize::from(!is_whole)] += 1;
            }
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    counts
}

/// Follows one body and looks at every byte; whether it came whole.
async fn follow(ends: &Ends, mut follower: Follower, mut random: Rng) -> bool {
    let label: [u8; LABEL_LEN] = follower.metadata().try_into().unwrap();
    let [version, len] =
        [&label[..8], &label[8..]].map(|half| u64::from_le_bytes(half.try_into().unwrap()));
    let body = body_of(version, usize::try_from(len).unwrap());
    let is_slow = random.u32(0..3) == 0;
    let mut at = 0;
    loop {
        if is_slow && random.u32(0..4) == 0 {
            tokio::time::sleep(Duration::from_millis(random.u64(0..30))).await;
        }
        let was_whole = ends.whole.lock().contains(&version);
        match follower.next_chunk().await {
            Ok(Some(piece)) => {
                let end = at + piece.len();
                assert!(
                    body.get(at..end) == Some(&piece[..]),
                    "version {version}: wrong bytes at {at}"
                );
                at = end;
            }
            Ok(None) => {
                assert_eq!(at, body.len(), "version {version} ended early");
                assert!(ends.whole.lock().contains(&version), "version {version} is not whole");
                return true;
            }
            Err(FollowError::Lost) => return false,
            Err(error) => {
                assert!(!was_whole, "version {version} came whole, and is an error: {error}");
                return false;
            }
        }
    }
}

/// Threads that write, and threads that follow.
pub fn works(shared: &Shared) -> Vec<std::thread::JoinHandle<()>> {
    let ends = Arc::new(Ends::default());
    let mut threads = Vec::new();
    for key in 0..KEYS {
        let (shared, ends) = (shared.clone(), Arc::clone(&ends));
        threads.push(super::in_thread(async move || write(&shared, &ends, key).await));
    }
    for thread in 0..2_u64 {
        let (shared, ends) = (shared.clone(), Arc::clone(&ends));
        threads.push(super::in_thread(async move || {
            let follow = |n| follow_all(&shared.cache, &ends, 10 * thread + n, || shared.is_over());
            let counts = futures_util::future::join_all((0..8).map(follow)).await;
            let [whole, short] = counts.iter().fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
            println!("{whole} bodies came whole, {short} did not");
            assert!(whole > 0 && short > 0);
        }));
    }
    threads
}
