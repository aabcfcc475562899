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
        let (leases, feeds) = (&self.inner.leases, &self.inner.feeds);
        let (mut held, mut has_looked) = (None::<Held>, false);
        loop {
            // After the lease is held: whoever held it before may have stored the key.
            let fill = held.is_some().then(|| self.inner.store.begin_fill(key));
            if let Some(hit) = self.lookup_stale_parts(key).await {
                if hit.is_fresh(self.inner.clock.now()) {
                    return if hit.is_partial() { Found::Parts(hit) } else { Found::Hit(hit) };
                }
                feeds.free_purged(key);
                let held = held.take().or_else(|| leases.try_hold(key));
                return Found::Stale(hit, held.map(|held| self.lease_of(key, Some(held), fill)));
            }
            if let Some(follower) = self.follow(key) {
                return Found::Follow(follower);
            }
            feeds.free_purged(key);
            let is_marked = leases.is_marked(|| self.inner.store.hash_of_key(key));
            if is_marked || held.is_some() {
                let held = held.filter(|_| !is_marked);
                // It begins now: a purge while the key was looked up is no reason to refuse what comes.
                return Found::Lease(self.lease_of(key, held, None));
            }
            // Once: somebody without the lease may have stored the key after the look.
            let looks = !std::mem::replace(&mut has_looked, true);
            let is_news = async || {
                feeds.newest(key).is_some() || looks && self.lookup_stale_head(key).await.is_some()
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
        self.inner.feeds.free_purged(key);
        match leases.hold(key, deadline, async || false).await {
            Waited::Held(held) => Leased::Lease(self.lease_of(key, Some(held), None)),
            Waited::Changed => Leased::Changed,
            Waited::TooLong => Leased::Busy,
        }
    }

    /// A lease that nobody waits for, whoever holds the one of the key: for who stores what it has already. Purges
    /// from now on prevail over that.
    #[must_use]
    pub fn lease_alone(&self, key: &[u8]) -> Lease {
        self.lease_of(key, None, None)
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

    /// Purges the key, on the device before this returns, but not what is stored with this lease: what takes the place
    /// of all that was there or was on its way. False if another purge since the lease was given covers it too; nothing
    /// is purged then.
    ///
    /// # Errors
    /// As those of [`Cache::remove`].
    pub async fn purge_others(&mut self) -> Result<bool, StoreError> {
        self.cache.inner.store.purge_others(&self.key, &mut self.fill).await
    }

    /// As [`Lease::refuse`], but keeps the lease: nobody waits for it any more, and purges since it was given prevail
    /// over what is stored with it nevertheless.
    pub fn give_way(&mut self, time: Duration) {
        let store = &self.cache.inner.store;
        self.cache.inner.leases.mark(store.hash_of_key(&self.key), time);
        if let Some(held) = self.held.take() {
            held.announce();
        }
    }

    /// Gives the lease up because what there is may not be stored: all who wait, and all who come within
    /// `time`, get a lease at once that nobody waits for. At most 64 Ki keys are marked so; a store of the key
    /// clears its mark.
    pub fn refuse(mut self, time: Duration) {
        self.give_way(time);
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
