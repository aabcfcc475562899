//! Goal: of those who want a key one fills it, and the others wait no longer than they must. Method: callers at one
//! time, a clock that stands still.

use super::*;
use crate::cache::{Ack, CacheOptions, Purge};
use crate::clock::{Clock, Timestamp};
use crate::device::{Delay, SimDevice};
use crate::store::FormatOptions;

async fn cache() -> Cache {
    let clock = Clock::manual(Timestamp(1000));
    let device = SimDevice::new(16 << 20, 512).open();
    Cache::format_device(&device, &FormatOptions::default(), &clock).await.unwrap();
    let cache = Cache::open_device(device, CacheOptions::default(), clock).await.unwrap();
    cache.ready().await;
    cache
}

fn for_secs(secs: u64) -> StoreOptions {
    StoreOptions { ttl: Some(Duration::from_secs(secs)), ..StoreOptions::default() }
}

/// The answer to each of `count` callers that ask at once.
fn ask(cache: &Cache, count: usize, wait: Duration) -> Vec<tokio::task::JoinHandle<Found>> {
    let ask = |_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.lookup_or_fill(b"key", wait).await })
    };
    (0..count).map(ask).collect()
}

const LONG: Duration = Duration::from_secs(60);

async fn lease(cache: &Cache) -> Lease {
    match cache.lookup_or_fill(b"key", LONG).await {
        Found::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn body(found: Found) -> Vec<u8> {
    match found {
        Found::Hit(hit) => hit.bytes().await.unwrap().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_fills_and_all_others_get_what_it_stored() {
    let cache = cache().await;
    let lease = lease(&cache).await;
    assert!(lease.is_awaited() && lease.key() == b"key");
    let others = ask(&cache, 50, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(others.iter().all(|other| !other.is_finished()));
    lease.put(b"body", &for_secs(10)).await.unwrap();
    for other in others {
        assert_eq!(body(other.await.unwrap()).await, b"body");
    }
    assert_eq!(cache.inner.leases.len(), 0, "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_follow_as_soon_as_the_store_begins() {
    let cache = cache().await;
    let lease = lease(&cache).await;
    let others = ask(&cache, 20, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let options = StoreOptions { follow: true, ..for_secs(10) };
    let mut writer = lease.store(options).unwrap();
    writer.write_chunk(b"first").await.unwrap();
    let mut followers = Vec::new();
    for other in others {
        let Found::Follow(mut follower) = other.await.unwrap() else { panic!() };
        assert_eq!(follower.next_chunk().await.unwrap().unwrap(), "first");
        followers.push(follower);
    }
    let later = cache.lookup_or_fill(b"key", LONG).await;
    assert!(matches!(later, Found::Follow(_)), "{later:?}");
    writer.finalize(Condition::Always).await.unwrap();
    for mut follower in followers {
        assert!(follower.next_chunk().await.unwrap().is_none());
    }
    assert_eq!(body(cache.lookup_or_fill(b"key", LONG).await).await, b"first");
}

/// Others neither follow what a purge covers nor wait for its end.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_that_was_purged_meanwhile() {
    let cache = cache().await;
    let tags = vec![bytes::Bytes::from("tag")];
    let options = StoreOptions { follow: true, tags, grace: LONG, ..for_secs(10) };
    for how in 0..5 {
        let mut writer = lease(&cache).await.store(options.clone()).unwrap();
        writer.write_chunk(b"old").await.unwrap();
        match how {
            0 => drop(cache.remove(b"key").await.unwrap()),
            1 => drop(cache.expire(b"key", Condition::Always).await.unwrap()),
            2 => cache.purge_tag(b"tag", Purge::Soft).await.unwrap(),
            3 => cache.purge_tag(b"tag", Purge::Hard).await.unwrap(),
            _ => cache.purge_all(Purge::Hard).await.unwrap(),
        }
        let others = ask(&cache, 5, LONG);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (done, waiting): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|other| other.is_finished());
        assert_eq!((done.len(), waiting.len()), (1, 4), "one fills: {how}");
        for other in done {
            let Found::Lease(next) = other.await.unwrap() else { panic!("{how}") };
            assert!(next.is_awaited());
            next.put(b"new", &for_secs(10)).await.unwrap();
        }
        for other in waiting {
            assert_eq!(body(other.await.unwrap()).await, b"new", "{how}");
        }
        drop(writer);
        cache.remove(b"key").await.unwrap();
        assert_eq!(cache.inner.leases.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_stale_while_it_was_stored_or_validated_is_stale() {
    let cache = cache().await;
    let options = StoreOptions { follow: true, grace: LONG, ..for_secs(10) };
    let writer = lease(&cache).await.store(options).unwrap();
    cache.expire(b"key", Condition::Always).await.unwrap();
    writer.finalize(Condition::Always).await.unwrap();
    let Found::Stale(hit, Some(lease)) = cache.lookup_or_fill(b"key", LONG).await else {
        panic!("it is stale")
    };
    cache.expire(b"key", Condition::Always).await.unwrap();
    let fresh = UpdateOptions { ttl: Some(LONG), ..UpdateOptions::default() };
    let updated = lease.update(hit.cas(), &fresh).await;
    assert!(matches!(updated, Err(StoreError::Purged)), "{updated:?}");
    let Found::Stale(hit, Some(lease)) = cache.lookup_or_fill(b"key", LONG).await else {
        panic!("it is stale still")
    };
    assert!(matches!(lease.update(hit.cas(), &fresh).await.unwrap(), Stored::Yes(_)));
    assert!(matches!(cache.lookup_or_fill(b"key", LONG).await, Found::Hit(_)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_dropped_goes_to_one_of_those_who_wait() {
    let cache = cache().await;
    let first = lease(&cache).await;
    let mut others = ask(&cache, 3, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    for left in (0..3).rev() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = others.iter().position(|other| other.is_finished()).unwrap();
        let Found::Lease(next) = others.remove(done).await.unwrap() else { panic!() };
        assert_eq!(others.iter().filter(|other| !other.is_finished()).count(), left);
        let writer = next.store(for_secs(10)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(others.iter().all(|other| !other.is_finished()), "a writer has the lease");
        // Its client is gone.
        drop(writer);
    }
    assert_eq!(cache.inner.leases.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_gives_up_leaves_nothing() {
    let cache = cache().await;
    let held = lease(&cache).await;
    let found = cache.lookup_or_fill(b"key", Duration::from_secs(2)).await;
    assert!(matches!(found, Found::Busy), "{found:?}");
    let given_up = ask(&cache, 1, LONG).remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    given_up.abort();
    drop(given_up.await);
    drop(held);
    assert_eq!(cache.inner.leases.len(), 0);
    lease(&cache).await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_entry_is_given_to_all_and_the_lease_to_one() {
    let cache = cache().await;
    let options = StoreOptions { grace: LONG, ..for_secs(1) };
    cache.put(b"key", b"old", Condition::Always, &options).await.unwrap();
    cache.clock().advance(Duration::from_secs(2));
    let Found::Stale(hit, Some(lease)) = cache.lookup_or_fill(b"key", LONG).await else {
        panic!("it is stale")
    };
    let other = cache.lookup_or_fill(b"key", LONG).await;
    assert!(matches!(other, Found::Stale(_, None)), "{other:?}");
    let fresh = UpdateOptions { ttl: Some(LONG), ..UpdateOptions::default() };
    assert!(matches!(lease.update(hit.cas(), &fresh).await.unwrap(), Stored::Yes(_)));
    assert_eq!(body(cache.lookup_or_fill(b"key", LONG).await).await, b"old");
}

#[tokio::test(start_paused = true)]
async fn a_purge_since_the_lease_prevails() {
    let cache = cache().await;
    for all in [false, true] {
        let first = lease(&cache).await;
        match all {
            true => cache.purge_all(Purge::Hard).await.unwrap(),
            false => drop(cache.remove(b"key").await.unwrap()),
        }
        let stored = first.put(b"old", &for_secs(10)).await;
        assert!(matches!(stored, Err(StoreError::Purged)), "{stored:?}");
        let second = lease(&cache).await;
        second.put(b"new", &for_secs(10)).await.unwrap();
        cache.remove(b"key").await.unwrap();
    }
    let options = StoreOptions { grace: LONG, ..for_secs(1) };
    cache.put(b"key", b"old", Condition::Always, &options).await.unwrap();
    cache.clock().advance(Duration::from_secs(2));
    let Found::Stale(hit, Some(lease)) = cache.lookup_or_fill(b"key", LONG).await else {
        panic!("it is stale")
    };
    cache.remove(b"key").await.unwrap();
    // Somebody stores what he got before the purge, and it is stale too.
    let fresh = UpdateOptions { ttl: Some(LONG), ..UpdateOptions::default() };
    let updated = lease.update(hit.cas(), &fresh).await;
    assert!(matches!(updated, Err(StoreError::Purged)), "{updated:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_makes_nobody_wait_until_it_is_stored() {
    let cache = cache().await;
    let first = lease(&cache).await;
    let others = ask(&cache, 5, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.refuse(Duration::from_secs(10));
    let mut shared = Vec::new();
    for other in others {
        let Found::Lease(lease) = other.await.unwrap() else { panic!() };
        assert!(!lease.is_awaited());
        shared.push(lease);
    }
    assert!(!lease(&cache).await.is_awaited());
    // One of them has something to store after all.
    shared.remove(0).put(b"body", &for_secs(1)).await.unwrap();
    cache.clock().advance(Duration::from_secs(2));
    assert!(lease(&cache).await.is_awaited(), "the mark is cleared");
    lease(&cache).await.refuse(Duration::from_secs(10));
    assert!(!lease(&cache).await.is_awaited());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(lease(&cache).await.is_awaited(), "the mark is over");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_the_lease_wakes_those_who_wait_too() {
    let cache = cache().await;
    let _held = lease(&cache).await;
    let others = ask(&cache, 3, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cache.put(b"key", b"body", Condition::Always, &for_secs(10)).await.unwrap();
    for other in others {
        assert_eq!(body(other.await.unwrap()).await, b"body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_while_the_key_is_looked_up_does_not_spoil_the_lease() {
    let cache = cache().await;
    let first = lease(&cache).await;
    let other = ask(&cache, 1, Duration::MAX).remove(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    let Found::Lease(next) = other.await.unwrap() else { panic!() };
    next.put(b"body", &for_secs(10)).await.unwrap();
    cache.remove(b"key").await.unwrap();
    lease(&cache).await.refuse(Duration::MAX);
    assert!(!lease(&cache).await.is_awaited());
}

/// A store without the lease comes while the key is looked up: that read takes long, and finds what has ended.
#[tokio::test(start_paused = true)]
async fn who_looks_while_the_key_is_stored_does_not_wait_for_the_lease() {
    let clock = Clock::manual(Timestamp(1000));
    let sim = SimDevice::new(16 << 20, 512);
    let device = sim.open();
    Cache::format_device(&device, &FormatOptions::default(), &clock).await.unwrap();
    let options = CacheOptions { ram_bytes: 0, ..CacheOptions::default() };
    let cache = Cache::open_device(device, options, clock.clone()).await.unwrap();
    cache.ready().await;
    let flushed = StoreOptions { ack: Some(Ack::Flushed), ..for_secs(10) };
    cache.put(b"key", b"old", Condition::Always, &flushed).await.unwrap();
    // Out of the memory of the log.
    for n in 0..40u8 {
        let body = vec![n; 60_000];
        cache.put(&[n], &body, Condition::Always, &flushed).await.unwrap();
    }
    clock.advance(Duration::from_secs(20));
    let held = lease(&cache).await;
    sim.set_delay(Delay::Sleep(Duration::from_millis(100)));
    let other = ask(&cache, 1, LONG).remove(0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    cache.put(b"key", b"new", Condition::Always, &for_secs(100)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(other.is_finished(), "it waits for who holds the lease");
    assert_eq!(body(other.await.unwrap()).await, b"new");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_an_object_of_parts_all_get_it_when_it_is_declared() {
    let cache = cache().await;
    let first = lease(&cache).await;
    let others = ask(&cache, 20, LONG);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let validator = Validator::etag(b"\"a\"").unwrap();
    let parts = first.declare(200_000, &validator, &for_secs(10)).await.unwrap().unwrap();
    for other in others {
        let Found::Parts(hit) = other.await.unwrap() else { panic!() };
        assert_eq!(hit.missing(0..200_000).await, [0..200_000; 1]);
    }
    parts.fill(0, &[7; 200_000]).await.unwrap();
    let Found::Parts(hit) = cache.lookup_or_fill(b"key", LONG).await else { panic!() };
    assert!(hit.is_complete().await);
    cache.clock().advance(Duration::from_secs(10));
    let Found::Lease(_) = cache.lookup_or_fill(b"key", LONG).await else { panic!() };
}
