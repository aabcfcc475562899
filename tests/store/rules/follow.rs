//! Followers of a store in progress: they get what is there at once and the rest as it comes, are told of every
//! failure and of nothing but a whole body as the end, hold nobody up, and read the device no more than they must.

use bytes::Bytes;
use futures_util::future::{join, join_all};
use rawcached::cache::{
    Cache, CacheOptions, Condition, FollowError, Follower, Purge, StoreError, StoreOptions, Stored,
    Writer,
};
use rawcached::device::{Delay, Effect, Fault, OperationKind};

use crate::rig::*;

const DISK: Disk = Disk { regions: 40, ..SMALL };
/// Lifetime of everything here: nothing expires.
const LONG: u64 = 100_000;
const MIB: usize = 1 << 20;

fn followed() -> StoreOptions {
    options!(StoreOptions { follow: true, metadata: "text".into(), ..for_secs(LONG) })
}

fn begin(rig: &Rig, key: &[u8]) -> Writer {
    rig.cache().store(key, followed()).unwrap()
}

fn slice(rig: &Rig) -> usize {
    rig.cache().device_store().layout().slice_size as usize
}

async fn collect(follower: &mut Follower) -> Result<Vec<u8>, FollowError> {
    let mut bytes = Vec::new();
    while let Some(piece) = follower.next_chunk().await? {
        assert!(!piece.is_empty() && piece.len() <= MIB);
        bytes.extend_from_slice(&piece);
        assert_eq!(follower.position(), bytes.len() as u64);
    }
    Ok(bytes)
}

/// Sends a body in pieces, and lets others run between them.
async fn send(writer: &mut Writer, body: &[u8], piece_len: usize) {
    for piece in body.chunks(piece_len) {
        writer.write_chunk(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// Whether nothing more has come.
async fn waits(follower: &mut Follower) -> bool {
    tokio::time::timeout(millis(100), follower.next_chunk()).await.is_err()
}

async fn next(follower: &mut Follower) -> Bytes {
    follower.next_chunk().await.unwrap().unwrap()
}

#[test]
fn what_is_there_comes_at_once_and_the_rest_as_it_comes() {
    let rig = Rig::new();
    let mut writer = begin(&rig, b"key");
    rig.run(async {
        writer.write_chunk(b"first").await.unwrap();
        let mut follower = rig.cache().follow(b"key").unwrap();
        assert_eq!(next(&mut follower).await, "first");
        assert!(waits(&mut follower).await, "a wait that is given up loses nothing");
        let began = tokio::time::Instant::now();
        let (piece, ()) = join(next(&mut follower), async {
            tokio::time::sleep(millis(7)).await;
            writer.write_chunk(b"second").await.unwrap();
        })
        .await;
        assert_eq!((piece, began.elapsed()), (Bytes::from("second"), millis(7)));
        assert_eq!(follower.metadata(), b"text");
        assert_eq!(follower.lifetime().keep_until, rig.clock.after(secs(LONG)));
        assert_eq!(follower.len_hint(), None);
        let (end, _) = join(follower.next_chunk(), writer.finalize(Condition::Always)).await;
        assert_eq!(end.unwrap(), None);
        assert_eq!(follower.next_chunk().await.unwrap(), None);
    });
}

#[test]
fn bodies_of_every_length_come_whole() {
    let rig = Rig::with(DISK, plain());
    let slice = slice(&rig);
    for len in [0, 1, 8192, slice - 1, slice, slice + 1, 2 * slice, 9 * slice + 7] {
        for piece_len in [999, 8192, 100_000, usize::MAX] {
            let large = body(len as u64, len);
            rig.run(async {
                let mut writer = rig.cache().store(b"key", followed()).unwrap();
                let mut others = [writer.follower().unwrap(), writer.follower().unwrap()];
                let [near, late] = &mut others;
                let stored = async {
                    send(&mut writer, &large, piece_len).await;
                    writer.finalize(Condition::Always).await.unwrap()
                };
                let (found, _) = join(collect(near), stored).await;
                assert!(found.unwrap() == large, "{len} bytes, near");
                assert!(collect(late).await.unwrap() == large, "{len} bytes, after the end");
                assert!(rig.cache().follow(b"key").is_none(), "it is not in progress");
                assert!(read(rig.cache(), b"key").await.unwrap() == large);
            });
        }
    }
    rig.cache().device_store().check_accounting();
}

#[test]
fn only_stores_that_allow_it_are_followed_the_newest_of_the_very_key() {
    let rig = Rig::with(SMALL, colliding());
    let plain = rig.cache().store(b"key", for_secs(LONG)).unwrap();
    assert!(rig.cache().follow(b"key").is_none() && plain.follower().is_none());
    let mut first = begin(&rig, b"key");
    let mut second = begin(&rig, b"key");
    rig.run(async {
        first.write_chunk(b"first").await.unwrap();
        second.write_chunk(b"second").await.unwrap();
        assert!(rig.cache().follow(b"other").is_none(), "another key with its hash");
        assert_eq!(next(&mut rig.cache().follow(b"key").unwrap()).await, "second");
        assert_eq!(next(&mut first.follower().unwrap()).await, "first");
        drop(second);
        assert_eq!(next(&mut rig.cache().follow(b"key").unwrap()).await, "first");
        first.finalize(Condition::Always).await.unwrap();
        assert!(rig.cache().follow(b"key").is_none());
    });
}

#[test]
fn a_follower_near_the_writer_is_served_from_memory_and_one_behind_from_the_device() {
    // A quarter of it keeps what is near.
    let options = options!(CacheOptions { write_buffer_bytes: 4 * MIB as u64, ..plain() });
    let rig = Rig::with(Disk { region_size: MIB as u64, ..DISK }, options);
    let large = body(1, 8 * MIB);
    rig.run(async {
        let mut writer = rig.cache().store(b"key", followed()).unwrap();
        let (mut near, mut behind) = (writer.follower().unwrap(), writer.follower().unwrap());
        let before = rig.sim.counts().bytes_read;
        let (found, ()) = join(collect(&mut near), async {
            for piece in large.chunks(50_000) {
                writer.write_chunk(piece).await.unwrap();
                // What is full is written meanwhile, and is in the log's memory no more.
                tokio::time::sleep(millis(20)).await;
            }
            tokio::time::sleep(secs(2)).await;
            writer.finalize(Condition::Always).await.unwrap();
        })
        .await;
        assert!(found.unwrap() == large);
        // The end of the log is read before a block of it is written again.
        let bytes = rig.sim.counts().bytes_read - before;
        assert!(bytes < 64 << 10, "{bytes} bytes read, all of it was in memory");
        assert!(collect(&mut behind).await.unwrap() == large);
        let bytes = rig.sim.counts().bytes_read - before;
        assert!((6 * MIB..9 * MIB).contains(&usize::try_from(bytes).unwrap()), "{bytes} bytes");
    });
}

/// As long as the test says, of a body of `len` bytes one of 100 followers does not read; gives the bytes that
/// the device read.
fn stall_one_of_100(rig: &Rig, len: usize) -> u64 {
    let large = body(1, len);
    let before = rig.sim.counts().bytes_read;
    rig.run(async {
        let mut writer = rig.cache().store(b"key", followed()).unwrap();
        let mut stalled = writer.follower().unwrap();
        let mut followers: Vec<Follower> = (0..99).map(|_| writer.follower().unwrap()).collect();
        let all = join_all(followers.iter_mut().map(|follower| check(follower, &large)));
        join(all, async {
            send(&mut writer, &large, 64 << 10).await;
            writer.finalize(Condition::Always).await.unwrap();
        })
        .await;
        tokio::time::sleep(secs(2)).await;
        check(&mut stalled, &large).await;
    });
    rig.sim.counts().bytes_read - before
}

/// Compares every byte that comes.
async fn check(follower: &mut Follower, expected: &[u8]) {
    let mut at = 0;
    while let Some(piece) = follower.next_chunk().await.unwrap_or_else(|e| panic!("{e} at {at}")) {
        assert!(piece == expected[at..at + piece.len()], "wrong bytes from {at} on");
        at += piece.len();
    }
    assert_eq!(at, expected.len());
}

#[test]
fn a_stalled_follower_among_100_costs_one_read_of_the_body() {
    let len = 32 * MIB;
    let rig = Rig::with(Disk { regions: 80, region_size: MIB as u64, ..DISK }, plain());
    let bytes = stall_one_of_100(&rig, len);
    println!("{bytes} bytes read of {len}");
    assert!(bytes < 2 * len as u64, "{bytes} bytes read");
}

#[test]
fn followers_that_fell_behind_together_share_their_reads() {
    let len = 8 * MIB;
    let rig = Rig::with(Disk { region_size: MIB as u64, ..DISK }, plain());
    let large = body(1, len);
    rig.run(async {
        let mut writer = rig.cache().store(b"key", followed()).unwrap();
        let mut followers: Vec<Follower> = (0..50).map(|_| writer.follower().unwrap()).collect();
        writer.write_chunk(&large).await.unwrap();
        tokio::time::sleep(secs(2)).await;
        // All of them want the same bytes before anybody has them.
        rig.sim.set_delay(Delay::Sleep(millis(1)));
        let before = rig.sim.counts().bytes_read;
        let all = join_all(followers.iter_mut().map(|follower| check(follower, &large)));
        let stored = join(all, writer.finalize(Condition::Always)).await.1;
        assert!(stored.is_ok());
        let bytes = rig.sim.counts().bytes_read - before;
        assert!(bytes < 2 * len as u64, "{bytes} bytes read");
    });
}

#[test]
fn a_writer_that_is_dropped_is_an_error_for_every_follower_and_never_an_end() {
    let rig = Rig::with(DISK, plain());
    for len in [0, 10, slice(&rig), 5 * slice(&rig) + 10] {
        let mut writer = begin(&rig, b"key");
        let mut behind = rig.cache().follow(b"key").unwrap();
        let mut waiting = rig.cache().follow(b"key").unwrap();
        rig.run(async {
            writer.write_chunk(&body(1, len)).await.unwrap();
            while waiting.position() < len as u64 {
                next(&mut waiting).await;
            }
            let (given, ()) = join(waiting.next_chunk(), async { drop(writer) }).await;
            assert!(matches!(given, Err(FollowError::GivenUp)), "{given:?}");
            for follower in [&mut behind, &mut waiting] {
                let given = collect(follower).await;
                assert!(matches!(given, Err(FollowError::GivenUp)), "{given:?}");
                assert!(follower.next_chunk().await.is_err(), "once and for all");
            }
            assert!(rig.cache().follow(b"key").is_none());
        });
    }
}

#[test]
fn a_writer_that_fails_is_an_error_for_every_follower() {
    let rig = Rig::new();
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    rig.run(async {
        writer.write_chunk(b"first").await.unwrap();
        let too_large = usize::try_from(rig.cache().object_len_max()).unwrap();
        let (given, failed) =
            join(collect(&mut follower), writer.write_chunk(&vec![1; too_large])).await;
        assert!(matches!(failed, Err(StoreError::TooLarge { .. })));
        let is_told =
            |error: &FollowError| matches!(error, FollowError::Failed(StoreError::TooLarge { .. }));
        assert!(given.as_ref().is_err_and(is_told), "{given:?}");
        let mut late = writer.follower().unwrap();
        assert!(collect(&mut late).await.is_err_and(|error| is_told(&error)));
        assert!(writer.finalize(Condition::Always).await.is_err());
    });
}

#[test]
fn a_store_that_lost_a_chunk_half_way_is_an_error() {
    let rig = Rig::with(SMALL, little_memory());
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    rig.run(async {
        let _others = use_up_memory(&rig).await;
        // It has no memory, and the caller does not wait.
        let large = body(2, slice(&rig));
        let given_up = tokio::time::timeout(millis(1), writer.write_chunk(&large)).await;
        assert!(given_up.is_err());
        let finalized = writer.finalize(Condition::Always).await;
        assert!(matches!(finalized, Err(StoreError::Incomplete)), "{finalized:?}");
        let given = collect(&mut follower).await;
        assert!(matches!(given, Err(FollowError::GivenUp)), "{given:?}");
    });
}

/// Stores a body that will not be published; the follower was attached before.
fn refuse(
    rig: &Rig,
    len: usize,
    (why, condition): (impl AsyncFn(&Cache), Condition),
) -> Result<Stored, StoreError> {
    let large = body(len as u64, len);
    let mut writer = begin(rig, b"key");
    rig.run(async {
        let half = len / 2;
        let (mut near, mut late) = (writer.follower().unwrap(), writer.follower().unwrap());
        let (found, stored) = join(collect(&mut near), async {
            send(&mut writer, &large[..half], 5000).await;
            why(rig.cache()).await;
            send(&mut writer, &large[half..], 5000).await;
            writer.finalize(condition).await
        })
        .await;
        assert!(found.unwrap() == large, "{len} bytes, near");
        assert!(rig.cache().follow(b"key").is_none(), "nobody attaches any more");
        assert!(collect(&mut late).await.unwrap() == large, "{len} bytes, late");
        stored
    })
}

#[test]
fn those_attached_get_all_of_a_body_whose_key_was_purged_and_nobody_new_attaches() {
    let rig = Rig::with(DISK, plain());
    let purge_key = async |cache: &Cache| {
        let writer = cache.store(b"other", followed()).unwrap();
        cache.remove(b"key").await.unwrap();
        assert!(cache.follow(b"key").is_none() && cache.follow(b"other").is_some());
        assert!(writer.follower().is_some());
    };
    let purge_all = async |cache: &Cache| {
        let writer = cache.store(b"other", followed()).unwrap();
        cache.purge_all(Purge::Hard).await.unwrap();
        assert!(cache.follow(b"key").is_none() && cache.follow(b"other").is_none());
        assert!(writer.follower().is_none(), "not by its writer either");
    };
    for len in [0, 10, slice(&rig), 7 * slice(&rig) + 10] {
        let stored = refuse(&rig, len, (purge_key, Condition::Always));
        assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
        let stored = refuse(&rig, len, (purge_all, Condition::Always));
        assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
        assert_eq!(rig.get(b"key"), None);
    }
}

#[test]
fn those_attached_get_all_of_a_body_that_its_condition_refused() {
    let rig = Rig::with(DISK, plain());
    rig.put(b"key", &body(1, 10), &for_secs(LONG)).unwrap();
    for len in [0, 10, slice(&rig), 7 * slice(&rig) + 10] {
        let stored = refuse(&rig, len, (async |_: &Cache| {}, Condition::Absent));
        assert_eq!(stored.unwrap(), Stored::Exists);
    }
    assert_eq!(rig.get(b"key").unwrap(), body(1, 10), "it is as it was");
}

/// Memory for four slices, one of which is the reserve.
fn little_memory() -> CacheOptions {
    options!(CacheOptions { write_buffer_bytes: 4 * (REGION / 4), ..plain() })
}

/// Other stores take all memory there is.
async fn use_up_memory(rig: &Rig) -> Vec<Writer> {
    let mut writers = Vec::new();
    for n in 0..4u8 {
        let mut writer = rig.cache().store(&[n], for_secs(LONG)).unwrap();
        let whole = body(n.into(), slice(rig));
        let staged = tokio::time::timeout(millis(1), writer.write_chunk(&whole)).await;
        writers.push(writer);
        if staged.is_err() {
            break;
        }
    }
    writers
}

#[test]
fn where_memory_is_short_followers_read_slices_and_nobody_waits_for_them() {
    let rig = Rig::with(DISK, little_memory());
    let large = body(1, 20 * slice(&rig) + 10);
    rig.run(async {
        let mut writer = rig.cache().store(b"key", followed()).unwrap();
        let mut stalled = writer.follower().unwrap();
        let (mut near, mut other) = (writer.follower().unwrap(), writer.follower().unwrap());
        let began = tokio::time::Instant::now();
        let both = join(collect(&mut near), collect(&mut other));
        let (found, ()) = join(both, async {
            send(&mut writer, &large, 10_000).await;
            let stats = rig.cache().stats();
            assert!(stats.write_buffer_bytes <= stats.write_buffer_bytes_max);
            writer.finalize(Condition::Always).await.unwrap();
        })
        .await;
        assert_eq!(began.elapsed(), secs(0), "nobody waited for memory");
        assert!(found.0.unwrap() == large && found.1.unwrap() == large);
        let others = use_up_memory(&rig).await;
        assert!(collect(&mut stalled).await.unwrap() == large);
        drop((others, stalled, near, other));
        assert_eq!(rig.cache().stats().write_buffer_bytes, 0);
    });
}

#[test]
fn what_is_kept_for_followers_goes_with_the_last_of_them() {
    let rig = Rig::with(DISK, plain());
    let mut writer = begin(&rig, b"key");
    let (mut first, mut second) = (writer.follower().unwrap(), writer.follower().unwrap());
    rig.run(async {
        let large = body(1, 5 * slice(&rig) / 2);
        send(&mut writer, &large, 5000).await;
        while first.position() < large.len() as u64 {
            next(&mut first).await;
        }
        next(&mut second).await;
        let used = || rig.cache().stats().write_buffer_bytes;
        assert!(used() > slice(&rig) as u64, "slices are kept, and counted");
        drop((first, second));
        assert!(used() <= slice(&rig) as u64, "{} bytes for half a slice", used());
    });
}

#[test]
fn a_follower_that_finds_all_in_memory_lets_others_run() {
    let rig = Rig::with(DISK, plain());
    let large = body(1, 10 * slice(&rig));
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    rig.run(async {
        writer.write_chunk(&large).await.unwrap();
        writer.finalize(Condition::Always).await.unwrap();
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = check(&mut follower, &large) => {}
            () = others => {}
        }
        assert!(turns >= 8, "{turns} turns");
    });
}

#[test]
fn a_short_body_is_kept_for_its_followers_until_memory_is_short() {
    for (condition, is_published) in [(Condition::Always, true), (Condition::Present, false)] {
        let rig = Rig::with(DISK, little_memory());
        let short = body(1, slice(&rig) / 2);
        rig.run(async {
            let mut writer = rig.cache().store(b"key", followed()).unwrap();
            let (mut late, mut later) = (writer.follower().unwrap(), writer.follower().unwrap());
            send(&mut writer, &short, 5000).await;
            writer.finalize(condition).await.unwrap();
            assert!(rig.cache().stats().write_buffer_bytes >= short.len() as u64, "it is counted");
            assert!(collect(&mut late).await.unwrap() == short);
            let _others = use_up_memory(&rig).await;
            let given = collect(&mut later).await;
            if is_published {
                assert!(given.unwrap() == short, "its entry has it");
            } else {
                assert!(matches!(given, Err(FollowError::Lost)), "{given:?}");
            }
        });
    }
}

#[test]
fn a_short_body_that_was_replaced_is_not_taken_for_the_one_that_is_followed() {
    let rig = Rig::with(DISK, little_memory());
    let short = body(1, slice(&rig) / 2);
    let mut writer = begin(&rig, b"key");
    let mut late = writer.follower().unwrap();
    rig.run(async {
        send(&mut writer, &short, 5000).await;
        writer.finalize(Condition::Always).await.unwrap();
    });
    rig.put(b"key", &body(2, slice(&rig) / 2), &for_secs(LONG)).unwrap();
    rig.run(async {
        let _others = use_up_memory(&rig).await;
        let given = collect(&mut late).await;
        assert!(matches!(given, Err(FollowError::Lost)), "{given:?}");
    });
}

#[test]
fn slices_stay_for_a_slow_follower_while_the_store_runs_and_may_be_evicted_after_it() {
    let rig = Rig::with(DISK, little_memory());
    let large = body(1, 30 * slice(&rig));
    let capacity = rig.stats().store.capacity_bytes;
    let mut writer = begin(&rig, b"key");
    let (mut slow, mut slower) = (writer.follower().unwrap(), writer.follower().unwrap());
    rig.run(send(&mut writer, &large, 60_000));
    // Two turns of the log.
    rig.fill("during", 2 * capacity / QUARTER as u64, LONG);
    rig.run(async {
        rig.cache().remove(b"key").await.unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < large.len() {
            bytes.extend_from_slice(&next(&mut slow).await);
        }
        assert!(bytes == large);
        next(&mut slower).await;
        let stored = writer.finalize(Condition::Always).await;
        assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
        assert_eq!(slow.next_chunk().await.unwrap(), None);
    });
    // What was read is written again as it is evicted; what was purged is not.
    rig.run(rig.cache().purge_all(Purge::Hard)).unwrap();
    rig.fill("after", 2 * capacity / QUARTER as u64, LONG);
    let given = rig.run(collect_rest(&mut slower));
    assert!(matches!(given, Err(FollowError::Lost)), "{given:?}");
}

async fn collect_rest(follower: &mut Follower) -> Result<(), FollowError> {
    while follower.next_chunk().await?.is_some() {}
    Ok(())
}

#[test]
fn slices_that_the_device_does_not_read_are_an_error() {
    let rig = Rig::with(Disk { region_size: MIB as u64, ..DISK }, plain());
    let large = body(1, 8 * MIB);
    let mut writer = begin(&rig, b"key");
    let mut behind = writer.follower().unwrap();
    rig.run(send(&mut writer, &large, 60_000));
    rig.sleep(secs(2));
    rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read).always());
    rig.run(async {
        writer.finalize(Condition::Always).await.unwrap();
        let given = collect(&mut behind).await;
        assert!(matches!(given, Err(FollowError::Lost)), "{given:?}");
    });
}

#[test]
fn a_body_that_came_whole_ends_cleanly_though_the_device_fails_to_keep_it() {
    let rig = Rig::new();
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    let large = body(1, 3 * slice(&rig));
    rig.run(async {
        let (found, stored) = join(collect(&mut follower), async {
            send(&mut writer, &large, 5000).await;
            rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Write).always());
            rig.sim.inject(Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Flush).always());
            tokio::time::sleep(secs(3)).await;
            writer.finalize(Condition::Always).await
        })
        .await;
        assert!(stored.is_err(), "{stored:?}");
        assert!(found.unwrap() == large);
    });
}

#[test]
fn after_a_chunk_that_was_refused_nothing_more_is_taken_or_given() {
    let rig = Rig::with(DISK, plain());
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    rig.run(async {
        writer.write_chunk(b"begin").await.unwrap();
        assert_eq!(next(&mut follower).await, "begin");
        let too_long = vec![0; usize::try_from(rig.cache().object_len_max()).unwrap()];
        let refused = writer.write_chunk(&too_long).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
        let later = writer.write_chunk(b"end").await;
        assert!(matches!(later, Err(StoreError::Incomplete)), "its place is not known: {later:?}");
        assert!(follower.next_chunk().await.is_err());
    });
    assert!(rig.cache().follow(b"key").is_none(), "nobody attaches to what has failed");
}

#[test]
fn those_attached_get_all_of_a_large_body_after_a_purge_of_everything() {
    let rig = Rig::with(DISK, plain());
    let body = body(1, 20 * slice(&rig));
    let mut writer = begin(&rig, b"key");
    let mut follower = writer.follower().unwrap();
    let (first, rest) = body.split_at(body.len() / 2);
    rig.run(send(&mut writer, first, 50_000));
    rig.run(rig.cache().purge_all(Purge::Hard)).unwrap();
    // What was purged is reclaimed first.
    for round in 0..6 {
        rig.fill(&format!("after-{round}"), 30, LONG);
        rig.sleep(secs(1));
    }
    rig.run(send(&mut writer, rest, 50_000));
    let stored = rig.run(writer.finalize(Condition::Always));
    assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
    assert!(rig.run(collect(&mut follower)).unwrap() == body);
}
