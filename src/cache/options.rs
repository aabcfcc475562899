//! How a cache behaves, and how one object is to be kept. Owns the defaults.

use std::time::Duration;

use bytes::Bytes;

use crate::store::{
    Ack, Lifetime, Options as DeviceOptions, RangeOptions, SCRUB_BYTES_PER_SEC, Store, StoreError,
    TestKnobs,
};

/// How a cache behaves. Made by default, then changed field by field:
///
/// ```
/// let mut options = rawcached::CacheOptions::default();
/// options.ram_bytes = 1 << 30;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CacheOptions {
    /// Bytes of the RAM tier; 0 turns it off.
    pub ram_bytes: u64,
    /// Lifetime of entries stored without one.
    pub ttl_default: Duration,
    /// Longest lifetime, grace included.
    pub ttl_max: Duration,
    /// Entries that expire within this time are kept in the RAM tier only, if there is one.
    pub min_to_disk: Duration,
    /// When stores are acknowledged, unless they say otherwise.
    pub ack: Ack,
    /// Longest time that an acknowledged change is in memory only.
    pub flush_interval: Duration,
    /// Bytes that are read each second at most to verify what is on the device; 0 does not.
    pub scrub_bytes_per_sec: u64,
    /// Bytes of memory that all streamed stores in progress share. It is taken as bytes arrive; when it
    /// is used up, the slowest stores fail, as many as the others need.
    pub write_buffer_bytes: u64,
    /// Longest time that a streamed store waits for a share of that memory before it is refused.
    pub write_buffer_wait: Duration,
    /// How large bodies are read.
    pub range: RangeOptions,
    /// Bytes of memory that bodies of more than 64 KiB share on their way to clients. A reader that
    /// gets no share of it goes on with one small piece at a time.
    pub range_buffer_bytes: u64,
    /// Most bytes of the index, with what is kept of the region that is being filled; an entry takes up to
    /// 12. When they are used up, whole regions are freed.
    pub index_bytes_max: u64,
    /// Most bytes that recovery takes at a start, besides the index. With fewer it reads what is known of
    /// regions several times.
    pub recovery_bytes_max: u64,
    /// Bytes accepted and not yet on the device from which on stores wait.
    pub backlog_bytes_max: u64,
    pub(crate) knobs: TestKnobs,
}

impl CacheOptions {
    /// The same options, with what only tests change.
    #[doc(hidden)]
    #[must_use]
    pub fn with_knobs(self, knobs: TestKnobs) -> CacheOptions {
        CacheOptions { knobs, ..self }
    }
}

impl Default for CacheOptions {
    fn default() -> Self {
        let device = DeviceOptions::default();
        CacheOptions {
            ram_bytes: 256 << 20,
            ttl_default: Duration::from_secs(3600),
            ttl_max: Duration::from_secs(365 * 86_400),
            min_to_disk: Duration::from_secs(5),
            ack: Ack::Buffered,
            flush_interval: Duration::from_millis(100),
            scrub_bytes_per_sec: SCRUB_BYTES_PER_SEC,
            write_buffer_bytes: 128 << 20,
            write_buffer_wait: Duration::from_secs(30),
            range: RangeOptions::default(),
            range_buffer_bytes: 64 << 20,
            index_bytes_max: device.index_bytes_max,
            recovery_bytes_max: device.recovery_bytes_max,
            backlog_bytes_max: device.backlog_bytes_max,
            knobs: TestKnobs::default(),
        }
    }
}

/// How one object is to be kept. Made by default, then changed field by field.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Lifetime in which the entry is fresh; `None` takes the configured default. Capped at the
    /// configured maximum. Zero means the entry is expired at once.
    pub ttl: Option<Duration>,
    /// Further time in which only callers that ask for stale entries get it.
    pub grace: Duration,
    /// How old the object is already: the base of its Age (RFC 9111, section 4.2.3), in whole seconds.
    pub age: Duration,
    /// Lifetime that was settled before; `ttl`, `grace` and `age` do not count then. A distance from now
    /// that is taken twice, at different moments, would move the end. Capped like `ttl`.
    pub lifetime: Option<Lifetime>,
    /// Opaque bytes kept with the entry, at most [`METADATA_LEN_MAX`](super::METADATA_LEN_MAX).
    pub metadata: Bytes,
    /// Names by which [`Cache::purge_tag`](super::Cache::purge_tag) finds the entry: at most 1000 of up to 1 KiB,
    /// 16 KiB together. Only their keyed hashes are kept.
    pub tags: Vec<Bytes>,
    /// The body's length if it is known: room for it is set aside at the start, or refused.
    pub len_hint: Option<u64>,
    /// When the store is acknowledged; `None` takes the configured mode.
    pub ack: Option<Ack>,
    /// Whether others may follow a streamed store while it is in progress: [`Cache::follow`](super::Cache::follow).
    pub follow: bool,
    /// Hashes of the tags of an entry that gets a new body, in place of `tags`.
    pub(crate) kept_tags: Vec<u64>,
}

impl StoreOptions {
    /// Keyed hashes of the tags.
    pub(super) fn tag_hashes(&self, store: &Store) -> Result<Vec<u64>, StoreError> {
        match &self.kept_tags[..] {
            [] => store.tag_hashes(&self.tags),
            kept => Ok(kept.to_vec()),
        }
    }
}
