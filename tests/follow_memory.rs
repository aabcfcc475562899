//! Goal: 100 followers of one large object get every byte of it in little memory, and one that stands still among
//! them costs the device one read of it. Method: a process by itself, whose memory the kernel counts; an image;
//! every byte compared; a source that is about as fast as the followers. `RAWCACHED_TEST_FOLLOW_MIB` says how large the object is.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
mod support;
#[path = "support/long_body.rs"]
mod long_body;
#[path = "support/resident.rs"]
mod resident;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use long_body::LongBody;
use rawcached::cache::{Cache, CacheOptions, Condition, StoreOptions, Stored};
use rawcached::{Follower, clock::Stopwatch};
use resident::resident_peak;

const MIB: u64 = 1 << 20;
/// Of an object if the environment names no other length; 1024 in CI.
const OBJECT_MIB: u64 = 128;
const FOLLOWERS: usize = 100;
/// Bytes that the writer sends at a time.
const PIECE_LEN: u64 = 64 << 10;
/// Bytes that followers are behind the source, in the mean, when it waits: it is about as fast as they are.
const BEHIND_MAX: u64 = 512 << 10;
/// Bytes that followers have taken, all but the one that stands still.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Of all memory of the process.
const RESIDENT_MAX: u64 = 256 * MIB;

async fn check(mut follower: Follower, body: Arc<LongBody>, (len, taken): (u64, &AtomicU64)) {
    let mut at = 0;
    while let Some(piece) = follower.next_chunk().await.unwrap() {
        assert!(piece == body.at(at, piece.len()), "wrong bytes from {at} on");
        at += piece.len() as u64;
        taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    assert_eq!(at, len);
}

#[test]
fn a_hundred_followers_get_every_byte_in_little_memory() {
    let mib = std::env::var("RAWCACHED_TEST_FOLLOW_MIB").map(|mib| mib.parse().unwrap());
    let len = mib.unwrap_or(OBJECT_MIB) * MIB;
    let directory = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let options = options!(CacheOptions {
            ram_bytes: 0,
            write_buffer_bytes: 32 * MIB,
            range_buffer_bytes: 32 * MIB,
            ..CacheOptions::default()
        });
        let size = 2 * len + 512 * MIB;
        let cache = Cache::create(directory.path().join("image"), Some(size), options).await;
        let cache = cache.unwrap();
        cache.ready().await;
        let options = options!(StoreOptions {
            follow: true,
            len_hint: Some(len),
            ..StoreOptions::default()
        });
        let body = Arc::new(LongBody::new());
        let mut writer = cache.store(b"object", options).unwrap();
        let stalled = writer.follower().unwrap();
        let mut tasks = Vec::new();
        for _ in 1..FOLLOWERS {
            let follower = cache.follow(b"object").unwrap();
            tasks.push(tokio::spawn(check(follower, Arc::clone(&body), (len, &TAKEN))));
        }
        let watch = Stopwatch::start();
        for at in (0..len).step_by(usize::try_from(PIECE_LEN).unwrap()) {
            let piece = body.at(at, usize::try_from(PIECE_LEN.min(len - at)).unwrap());
            writer.write_chunk(piece).await.unwrap();
            let others = FOLLOWERS as u64 - 1;
            while (TAKEN.load(Ordering::Relaxed) / others) + BEHIND_MAX < at {
                tokio::task::yield_now().await;
            }
        }
        let stored = writer.finalize(Condition::Always).await.unwrap();
        assert!(matches!(stored, Stored::Yes(_)));
        let stored_ms = watch.elapsed().as_millis();
        for task in tasks {
            task.await.unwrap();
        }
        let near_ms = watch.elapsed().as_millis();
        let near = cache.device_store().device().stats().bytes_read;
        check(stalled, body, (len, &AtomicU64::new(0))).await;
        let read = cache.device_store().device().stats().bytes_read;
        let peak = resident_peak();
        println!(
            "{len} bytes: stored in {stored_ms} ms, 99 followers done in {near_ms} ms, the last one in {} ms; \
             {near} bytes read by 99, {read} by all; {} MiB of memory at most",
            watch.elapsed().as_millis(),
            peak / MIB
        );
        assert!(read < 2 * len, "{read} bytes read");
        assert!(peak < RESIDENT_MAX, "{peak} bytes of memory");
        cache.shutdown().await.unwrap();
    });
}
