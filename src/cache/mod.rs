//! The cache as its users see it: lookup, store, touch, remove, purge. Owns the RAM tier,
//! lifetimes and acknowledgement; what is on the device is the store's.

mod body;
mod follow;
mod hit;
mod lease;
mod leases;
mod marks;
mod options;
mod parts;
mod paths;
mod purge;
mod put;
mod ram;
mod touch;
mod update;
mod validator;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, ready};

pub use body::BodyReader;
pub use follow::{FollowError, Follower};
pub use hit::Hit;
pub use lease::{Found, Lease, Leased};
pub use options::{CacheOptions, StoreOptions};
pub use parts::{PartWriter, Parts};
pub use paths::CacheError;
pub use update::UpdateOptions;
pub use validator::Validator;
pub use writer::Writer;

pub use crate::store::{
    Ack, Condition, KEY_LEN_MAX, Lifetime, METADATA_LEN_MAX, OpenError, Purge, RangeOptions,
    RangeStats, RecoveryStats, StoreError, StoreStats, Stored, Tier, TruncatedBody,
    ZeroRangeOption,
};

#[cfg(feature = "daemon")]
pub(crate) use crate::store::Fill;

use crate::clock::Clock;
use crate::device::Device;
use crate::fair_memory::FairMemory;
use crate::planted::{self, Bug};
use crate::store::{
    DeviceNumber, FormatError, FormatOptions, NotResident, Options as DeviceOptions, Resident,
    Stale, Store, Ticket,
};
use follow::feeds::Feeds;
use leases::Leases;
use ram::RamTier;

/// What a cache is like at one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheStats {
    /// The store on the device.
    pub store: StoreStats,
    /// Bytes in the RAM tier.
    pub ram_bytes: u64,
    /// Most bytes in the RAM tier.
    pub ram_bytes_max: u64,
    /// Entries in the RAM tier.
    pub ram_entries: u64,
    /// Bytes of memory for what was received of stores in progress.
    pub write_buffer_bytes: u64,
    /// Most bytes of these.
    pub write_buffer_bytes_max: u64,
}

/// A handle on an open cache. Clones share it; it works from any thread and runtime, its
/// background work runs in the runtime that opened it.
///
/// With the last clone, and the last [`Writer`], the cache closes: what was accepted is made durable in the
/// background, and the device is free for the next opener as soon as that is done and no [`Hit`],
/// [`Follower`] or [`BodyReader`] is left. That needs the runtime: where it ends at once, as at the end of `main`, what was
/// not durable is lost as in a crash. [`Cache::shutdown`] waits, and says whether it went well.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

struct Inner {
    store: Store,
    ram: Option<Arc<RamTier>>,
    options: CacheOptions,
    clock: Clock,
    /// With the received bytes of the slices of stores in progress.
    write_buffer: FairMemory,
    /// Who fills which key.
    leases: Arc<Leases>,
    /// The stores in progress that may be followed.
    feeds: Arc<Feeds>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.store.close();
    }
}

impl Cache {
    /// Makes an empty cache of a device, whatever it holds, for [`Cache::open_device`].
    ///
    /// # Errors
    /// The options do not fit the device, or it failed.
    pub async fn format_device(
        device: &Device,
        options: &FormatOptions,
        clock: &Clock,
    ) -> Result<(), FormatError> {
        Store::format(device, options, clock).await.map(drop)
    }

    /// Opens a formatted device as a cache. Recovery goes on in the background; see [`Cache::is_ready`].
    ///
    /// # Errors
    /// The device is not formatted, damaged, not the one that was formatted, or failed.
    pub async fn open_device(
        device: Device,
        options: CacheOptions,
        clock: Clock,
    ) -> Result<Cache, OpenError> {
        let ram = (options.ram_bytes > 0).then(|| Arc::new(RamTier::new(options.ram_bytes)));
        let resident: Arc<dyn Resident> = match &ram {
            Some(ram) => Arc::clone(ram) as Arc<dyn Resident>,
            None => Arc::new(NotResident),
        };
        options.range.check()?;
        let device_options = DeviceOptions {
            flush_interval: options.flush_interval,
            scrub_bytes_per_sec: options.scrub_bytes_per_sec,
            device_number: DeviceNumber(0),
            range_buffer_bytes: options.range_buffer_bytes,
            index_bytes_max: options.index_bytes_max,
            recovery_bytes_max: options.recovery_bytes_max,
            backlog_bytes_max: options.backlog_bytes_max,
            knobs: options.knobs,
        };
        let store = Store::open(device, device_options, clock.clone(), resident).await?;
        let slice_size = store.layout().slice_size as usize;
        let write_buffer =
            FairMemory::new(options.write_buffer_bytes, slice_size, options.write_buffer_wait);
        let (leases, feeds) = (Arc::default(), Arc::default());
        let inner = Inner { store, ram, options, clock, write_buffer, leases, feeds };
        Ok(Cache { inner: Arc::new(inner) })
    }

    /// The clock by which entries expire.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// How the cache behaves.
    #[must_use]
    pub fn options(&self) -> &CacheOptions {
        &self.inner.options
    }

    /// The store on the device.
    #[doc(hidden)]
    #[must_use]
    pub fn device_store(&self) -> &Store {
        &self.inner.store
    }

    /// Looks a key up: the fresh entry, or `None`. Damage, device errors and doubts are misses;
    /// the first piece of the body is verified.
    pub fn lookup(&self, key: &[u8]) -> impl Future<Output = Option<Hit>> {
        self.lookup_entry(key, Stale::Refuse, Part::Whole)
    }

    /// As [`Cache::lookup`], but gives an entry in its grace time too.
    pub fn lookup_stale(&self, key: &[u8]) -> impl Future<Output = Option<Hit>> {
        self.lookup_entry(key, Stale::Accept, Part::Whole)
    }

    /// As [`Cache::lookup`], but neither reads nor looks for anything of a large body: for callers that want
    /// its metadata only, or a range of it with [`Hit::range`].
    pub fn lookup_head(&self, key: &[u8]) -> impl Future<Output = Option<Hit>> {
        self.lookup_entry(key, Stale::Refuse, Part::Head)
    }

    /// As [`Cache::lookup_head`], but gives an entry in its grace time too.
    pub fn lookup_stale_head(&self, key: &[u8]) -> impl Future<Output = Option<Hit>> {
        self.lookup_entry(key, Stale::Accept, Part::Head)
    }

    /// As [`Cache::lookup_stale`], but gives an object that comes part by part whatever is there of it.
    pub(crate) fn lookup_stale_parts(&self, key: &[u8]) -> impl Future<Output = Option<Hit>> {
        self.lookup_entry(key, Stale::Accept, Part::Parts)
    }

    async fn lookup_entry(&self, key: &[u8], stale: Stale, part: Part) -> Option<Hit> {
        // An object replaced between its head and its first slice is looked up once more.
        for _ in 0..2 {
            let (entry, tier) = self.inner.store.lookup(key, stale).await?;
            let Some(head) = entry.object_head() else {
                return Some(Hit::whole_body(&self.inner.store, entry, tier));
            };
            let range = self.inner.options.range;
            let mut hit = Hit::sliced(&self.inner.store, (entry, tier), head, range);
            if part == Part::Head || (part == Part::Parts && hit.is_partial()) {
                return Some(hit);
            }
            // Of an object of parts a lookup of the whole must know; else it is told by the index what is gone.
            let may_lack_parts = hit.is_partial() && !hit.is_complete().await;
            if !may_lack_parts && hit.begin_body().await.is_ok() {
                return Some(hit);
            }
        }
        None
    }

    /// Largest object in bytes: half of the device.
    #[must_use]
    pub fn object_len_max(&self) -> u64 {
        self.inner.store.layout().object_len_max()
    }

    /// Whether recovery is complete: until then only entries stored since the start are found.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.store.is_recovered()
    }

    /// Whether the device takes writes, as far as is known; if not, stores are refused.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.inner.store.takes_writes()
    }

    /// Waits until recovery is complete.
    pub async fn ready(&self) {
        self.inner.store.recovered().await;
    }

    /// What the cache is like now.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let inner = &*self.inner;
        CacheStats {
            store: inner.store.stats(),
            ram_bytes: inner.ram.as_ref().map_or(0, |ram| ram.bytes()),
            ram_bytes_max: inner.options.ram_bytes,
            ram_entries: inner.ram.as_ref().map_or(0, |ram| ram.entries()),
            write_buffer_bytes: inner.write_buffer.used(),
            write_buffer_bytes_max: inner.write_buffer.limit(),
        }
    }

    /// Takes no more changes, makes everything accepted durable and ends background work. Idempotent.
    ///
    /// # Errors
    /// The device failed: what was not durable before may be lost.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.inner.store.shutdown().await
    }

    /// The lifetime of an entry that is stored now with this `ttl`, or the configured default, and this
    /// `grace`, both capped at the configured maximum and at ten years.
    #[must_use]
    pub fn lifetime(&self, ttl: Option<Duration>, grace: Duration) -> Lifetime {
        let limits = &self.inner.options;
        let ttl = ttl.unwrap_or(limits.ttl_default).min(limits.ttl_max);
        let keep = ttl.saturating_add(grace).min(limits.ttl_max);
        let moment = self.inner.clock.moment();
        let (fresh_until, keep_until) = (moment.after(ttl), moment.after(keep));
        Lifetime { stored_at: moment.now(), age_secs: 0, fresh_until, keep_until }
    }

    fn lifetime_of(&self, options: &StoreOptions) -> Lifetime {
        match options.lifetime {
            Some(lifetime) => self.capped(lifetime),
            None => {
                let age_secs = whole_secs(options.age);
                Lifetime { age_secs, ..self.lifetime(options.ttl, options.grace) }
            }
        }
    }

    /// A lifetime that was settled before, cut to the configured maximum.
    fn capped(&self, lifetime: Lifetime) -> Lifetime {
        let latest = self.inner.clock.after(self.inner.options.ttl_max);
        let Lifetime { fresh_until, keep_until, .. } = lifetime;
        let (fresh_until, keep_until) = (fresh_until.min(latest), keep_until.min(latest));
        let capped = Lifetime { fresh_until, keep_until, ..lifetime };
        if lifetime.has_end() { capped } else { capped.without_end() }
    }

    /// Whether an entry is too short-lived for the device: unless its store is to be durable, or
    /// it is too large a part of the RAM tier to stay there.
    fn is_ram_only(&self, lifetime: &Lifetime, ack: Option<Ack>, body_len: usize) -> bool {
        let limits = &self.inner.options;
        lifetime.keep_until.since(lifetime.stored_at) <= limits.min_to_disk
            && ack.unwrap_or(limits.ack) == Ack::Buffered
            && (body_len as u64) < limits.ram_bytes / 8
    }

    /// Whether a change is acknowledged once it is durable.
    #[inline]
    fn is_flushed(&self, ack: Option<Ack>) -> bool {
        ack.unwrap_or(self.inner.options.ack) == Ack::Flushed
            && !planted::is(Bug::AcknowledgeFlushEarly)
    }

    /// Acknowledges an entry that is there already, as `ack` says.
    ///
    /// # Errors
    /// The device failed, or did since the entry was stored: it is to be stored again.
    #[cfg(feature = "daemon")]
    pub(crate) async fn settle(&self, hit: &Hit, ack: Option<Ack>) -> Result<(), StoreError> {
        match self.is_flushed(ack) {
            true => self.inner.store.settle_version(hit.cas()).await,
            false => Ok(()),
        }
    }

    /// Acknowledges what was published. A failed store removes the old entry, which the caller meant to
    /// replace; one with a condition says nothing of the entry before it is published.
    #[inline]
    fn end_store<'a>(
        &'a self,
        key: &'a [u8],
        (condition, ack): (Condition, Option<Ack>),
        published: Result<(Stored, Ticket), StoreError>,
    ) -> impl Future<Output = Result<Stored, StoreError>> + use<'a> {
        match published {
            // As a rule nobody waits.
            Ok((stored, ticket)) if ticket == 0 || !self.is_flushed(ack) => {
                Either::Left(ready(Ok(stored)))
            }
            published => Either::Right(self.settle_store(key, condition, published)),
        }
    }

    /// Waits until a published store is durable, or removes what a failed one leaves.
    async fn settle_store(
        &self,
        key: &[u8],
        condition: Condition,
        published: Result<(Stored, Ticket), StoreError>,
    ) -> Result<Stored, StoreError> {
        let replaces = condition == Condition::Always || published.is_ok();
        let settled = match published {
            Ok((stored, ticket)) => self.inner.store.flush_through(ticket).await.map(|()| stored),
            Err(error) => Err(error),
        };
        if let Err(error) = &settled
            && replaces
            && !matches!(error, StoreError::Purged)
        {
            self.drop_failed(key).await;
        }
        settled
    }

    /// Removes the entry of a store that failed.
    async fn drop_failed(&self, key: &[u8]) {
        if let Err(error) = self.inner.store.remove(key).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "the entry of a failed store could not be removed");
        }
    }
}

/// What of an object a lookup answers for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What is known of it.
    Head,
    /// That, and also that the body begins of one that was stored whole.
    Parts,
    /// Also that its body begins.
    Whole,
}

fn whole_secs(age: Duration) -> u32 {
    u32::try_from(age.as_secs()).unwrap_or(u32::MAX)
}

fn check_lengths(key: &[u8], metadata: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_LEN_MAX {
        return Err(StoreError::KeyLen(key.len()));
    }
    if metadata.len() > METADATA_LEN_MAX {
        return Err(StoreError::MetadataLen(metadata.len()));
    }
    Ok(())
}

#[cfg(test)]
#[cfg(feature = "daemon")]
impl Cache {
    /// An empty cache on a simulated device of 16 MiB, for tests of the layers above.
    pub(crate) async fn simulated(clock: Clock) -> Cache {
        Cache::simulated_on(16 << 20, clock).await
    }

    /// As [`Cache::simulated`], on a device of `size` bytes.
    pub(crate) async fn simulated_on(size: u64, clock: Clock) -> Cache {
        let device = crate::device::SimDevice::new(size, 512).open();
        let uuid = crate::format::Uuid([1; 16]);
        let options =
            crate::store::FormatOptions { uuid, ..crate::store::FormatOptions::default() };
        Store::format(&device, &options, &clock).await.unwrap();
        let cache = Cache::open_device(device, CacheOptions::default(), clock).await.unwrap();
        cache.ready().await;
        cache
    }
}
