//! Of those who miss a key at the same time one fills it, the others wait. Owns what each of them is given;
//! who is next, `leases` says.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::leases::{Held, OfLease, Waited};
use super::parts::Parts;
use super::validator::Validator;
use super::writer::Writer;
use super::{Cache, Follower, Hit, StoreOptions, UpdateOptions};
use crate::planted::{self, Bug};
use crate::store::{Condition, Fill, StoreError, Stored};

/// Longest wait: a year, so that its end can be told.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// What [`Cache::lookup_or_fill`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Found {
    /// A fresh entry.
    Hit(Hit),
    /// A fresh object that comes part by part; [`Hit::missing`] says what is missing, if anything is, and
    /// [`Cache::declare`] goes on with it. It has no lease: several may bring parts.
    Parts(Hit),
    /// A stale entry in its grace, or a stale object that comes part by part. Who gets the lease too is to refresh it; nobody else is to.
    Stale(Hit, Option<Lease>),
    /// Somebody stores the key and lets others follow: the body from its first byte on.
    Follow(Follower),
    /// Nothing: the caller is to fill the key.
    Lease(Lease),
    /// Somebody else still fills the key.
    Busy,
}

/// What [`Cache::lease`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Leased {
    /// The lease.
    Lease(Lease),
    /// Who held it stored the key, or it turned out that the key is not worth waiting for: look again.
    Changed,
    /// Somebody else still holds it.
    Busy,
}

/// The right to fill a key, and the duty: others wait. Dropped, the next of them gets it. What is stored
/// with it counts from the moment at which it was given: a purge that came since prevails.
pub struct Lease {
    cache: Cache,
    key: Vec<u8>,
    fill: Fill,
    /// `None` if nobody waits for it.
    held: Option<Held>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.escape_ascii().to_string();
        f.debug_struct("Lease").field("key", &key).field("is_awaited", &self.is_awaited()).finish()
    }
}

impl Cache {
    /// Looks a key up, and gives the right to fill it to one caller at a time where there is no fresh entry.
    /// The others get a stale entry if there is one, else they wait for at most `wait`: until the key is
    /// stored, or a store of it that they may follow begins, the lease comes to them, or it turns out that
    /// the key is not worth waiting for.
    pub async fn lookup_or_fill(&self, key: &[u8], wait: Duration) -> Found {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let leases = &self.inner.leases;
        let (mut held, mut has_looked) = (None::<Held>, false);
        loop {
            // After the lease is held: whoever held it before may have stored the key.
            let fill = held.is_some().then(|| self.inner.store.begin_fill(key));
            if let Some(hit) = self.lookup_stale_parts(key).await {
                if hit.is_fresh(self.inner.clock.now()) {
                    return if hit.is_partial() { Found::Parts(hit) } else { Found::Hit(hit) };
                }
                let held = held.take().or_else(|| leases.try_hold(key));
                return Found::Stale(hit, held.map(|held| self.lease_of(key, Some(held), fill)));
            }
            if let Some(follower) = self.follow(key) {
                return Found::Follow(follower);
            }
            let is_marked = leases.is_marked(|| self.inner.store.hash_of_key(key));
            if is_marked || held.is_some() {
                let held = held.filter(|_| !is_marked);
                // It begins now: a purge while the key was looked up is no reason to refuse what comes.
                return Found::Lease(self.lease_of(key, held, None));
            }
            // Once: somebody without the lease may have stored the key after the look.
            let looks = !std::mem::replace(&mut has_looked, true);
            let is_news = async || {
                self.inner.feeds.newest(key).is_some()
                    || looks && self.lookup_stale_head(key).await.is_some()
            };
            match leases.hold(key, deadline, is_news).await {
                Waited::Held(its) => held = Some(its),
                Waited::Changed => {}
                Waited::TooLong => return Found::Busy,
            }
        }
    }

    /// The lease of a key whatever is stored of it, for whoever means to replace or to validate that. Waits for at
    /// most `wait` while somebody else holds it. A key that is marked by [`Lease::refuse`] has leases for all.
    pub async fn lease(&self, key: &[u8], wait: Duration) -> Leased {
        let leases = &self.inner.leases;
        if leases.is_marked(|| self.inner.store.hash_of_key(key)) {
            return Leased::Lease(self.lease_of(key, None, None));
        }
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        match leases.hold(key, deadline, async || false).await {
            Waited::Held(held) => Leased::Lease(self.lease_of(key, Some(held), None)),
            Waited::Changed => Leased::Changed,
            Waited::TooLong => Leased::Busy,
        }
    }

    fn lease_of(&self, key: &[u8], held: Option<Held>, fill: Option<Fill>) -> Lease {
        let fill = fill.unwrap_or_else(|| self.inner.store.begin_fill(key));
        Lease { cache: self.clone(), key: key.to_vec(), fill, held }
    }
}

impl Lease {
    /// The key that is to be filled.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether others wait for it. Nobody does if the key is marked by [`Lease::refuse`].
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.held.is_some()
    }

    /// Begins a streamed store of the key. The writer holds the lease until it is finalized or dropped.
    ///
    /// # Errors
    /// As those of [`Cache::store`].
    pub fn store(self, options: StoreOptions) -> Result<Writer, StoreError> {
        let (cache, key, of_lease) = self.into_parts();
        cache.store_with(&key, options, of_lease)
    }

    /// Begins a streamed store of another key, for which all purges since the lease was given count. The lease stays.
    ///
    /// # Errors
    /// As those of [`Cache::store`].
    pub fn store_other(&self, key: &[u8], options: StoreOptions) -> Result<Writer, StoreError> {
        let fill = self.cache.inner.store.begin_fill_with(key, &self.fill);
        self.cache.store_with(key, options, OfLease { fill: Some(fill), held: None })
    }

    /// Stores a body that is in memory.
    ///
    /// # Errors
    /// As those of [`Cache::put`]; [`StoreError::Purged`] if the key was purged since the lease was given.
    pub async fn put(
        self,
        body: impl AsRef<[u8]>,
        options: &StoreOptions,
    ) -> Result<Stored, StoreError> {
        let (cache, key, of_lease) = self.into_parts();
        cache.put_with(&key, body.as_ref(), (Condition::Always, (), of_lease), options).await
    }

    /// Begins or goes on with an object that comes part by part: see [`Cache::declare`]. Purges since the lease
    /// was given prevail over its parts. Who waits gets the lease next.
    ///
    /// # Errors
    /// As those of [`Cache::declare`]; [`StoreError::Purged`] if a purge since, also a soft one, covers the parts that
    /// are there.
    pub async fn declare(
        self,
        len: u64,
        validator: &Validator,
        options: &StoreOptions,
    ) -> Result<Option<Parts>, StoreError> {
        let (cache, key, of_lease) = self.into_parts();
        cache.declare_with(&key, (len, validator), (Condition::Always, options), of_lease).await
    }

    /// Begins or goes on with an object under another key, for which all purges since the lease was given count. The
    /// lease stays.
    ///
    /// # Errors
    /// As those of [`Lease::declare`].
    pub async fn declare_other(
        &self,
        key: &[u8],
        (len, validator): (u64, &Validator),
        options: &StoreOptions,
    ) -> Result<Option<Parts>, StoreError> {
        let fill = self.cache.inner.store.begin_fill_with(key, &self.fill);
        let (of, how) = ((len, validator), (Condition::Always, options));
        self.cache.declare_with(key, of, how, OfLease { fill: Some(fill), held: None }).await
    }

    fn into_parts(self) -> (Cache, Vec<u8>, OfLease) {
        let Lease { cache, key, fill, held } = self;
        let fill = Some(fill).filter(|_| !planted::is(Bug::LeaseForgetsPurges));
        (cache, key, OfLease { fill, held })
    }

    /// Updates the stale entry, if it is the one with this CAS value still: what a validation brings.
    ///
    /// # Errors
    /// As those of [`Cache::update`]; [`StoreError::Purged`] if the key was purged since the lease was given.
    pub async fn update(self, cas: u64, options: &UpdateOptions) -> Result<Stored, StoreError> {
        let Lease { cache, key, fill, held } = &self;
        let updated = cache.update_with(key, Condition::Unchanged(cas), options, fill).await;
        if let (Ok(Stored::Yes(_)), Some(held)) = (&updated, held) {
            held.announce();
        }
        updated
    }

    /// Gives the lease up because what there is may not be stored: all who wait, and all who come within
    /// `time`, get a lease at once that nobody waits for. At most 64 Ki keys are marked so; a store of the key
    /// clears its mark.
    pub fn refuse(self, time: Duration) {
        let store = &self.cache.inner.store;
        self.cache.inner.leases.mark(store.hash_of_key(&self.key), time);
        if let Some(held) = &self.held {
            held.announce();
        }
    }
}

#[cfg(test)]
mod tests {
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
    async fn those_who_wait_for_an_object_of_parts_all_get_it_when_it_is_declared() {
        let cache = cache().await;
        let first = lease(&cache).await;
        let others = ask(&cache, 20, LONG);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let validator = Validator::etag(b"\"a\"").unwrap();
        let parts = first.declare(200_000, &validator, &for_secs(10)).await.unwrap().unwrap();
        for other in others {
            let Found::Parts(hit) = other.await.unwrap() else { panic!() };
            assert_eq!(hit.missing(0..200_000).await, [0..200_000]);
        }
        parts.fill(0, &[7; 200_000]).await.unwrap();
        let Found::Parts(hit) = cache.lookup_or_fill(b"key", LONG).await else { panic!() };
        assert!(hit.is_complete().await);
        cache.clock().advance(Duration::from_secs(10));
        let Found::Lease(_) = cache.lookup_or_fill(b"key", LONG).await else { panic!() };
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
}
