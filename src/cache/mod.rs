//! The cache as its users see it: lookup, store, touch, remove, purge.

mod stand_in;

pub use stand_in::{Cache, Hit, Writer};

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;

/// Longest key in bytes.
pub const KEY_LEN_MAX: usize = 4096;
/// Largest caller metadata in bytes.
pub const METADATA_LEN_MAX: usize = 64 << 10;

/// How a store is to be kept.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Lifetime in which the entry is fresh; `None` takes the configured default. Capped at the configured maximum.
    /// Zero means the entry is expired at once.
    pub ttl: Option<Duration>,
    /// Further time in which only callers that ask for stale entries get it.
    pub grace: Duration,
    /// Opaque bytes kept with the entry, at most [`METADATA_LEN_MAX`].
    pub metadata: Bytes,
    /// The body's length if it is known; lets the store refuse early.
    pub len_hint: Option<u64>,
    /// Acknowledge only when the entry is on the device; `None` takes the configured mode.
    pub ack: Option<Ack>,
}

/// When a store is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// When it can be read back.
    Buffered,
    /// When the device has made it durable.
    Flushed,
}

/// What must hold of the present entry for a store to happen. Checked atomically with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Store in any case.
    Always,
    /// Store only if no live entry has the key.
    Absent,
    /// Store only if a live entry has the key.
    Present,
    /// Store only if the live entry has this [`Hit::cas`] value.
    Unchanged(u64),
}

/// How a conditional store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Stored; the new entry's CAS value.
    Yes(u64),
    /// The condition did not hold because there is no live entry.
    Missing,
    /// The condition did not hold because a live entry is there (`Absent`) or differs (`Unchanged`).
    Exists,
}

/// Which tier answered a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The RAM tier.
    Ram,
    /// The part of the log that is not on the device yet.
    Log,
    /// The device.
    Disk,
}

/// Why a store did not happen. The entry that was there before is gone unless the condition failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key is empty or longer than [`KEY_LEN_MAX`].
    #[error("the key has {0} bytes; it must have 1 to {KEY_LEN_MAX}")]
    KeyLen(usize),
    /// The metadata is longer than [`METADATA_LEN_MAX`].
    #[error("the metadata has {0} bytes; at most {METADATA_LEN_MAX} are kept")]
    MetadataLen(usize),
    /// The object is larger than half of the device.
    #[error("the object is larger than {limit} bytes, half of the device")]
    TooLarge {
        /// Largest object this cache takes, in bytes.
        limit: u64,
    },
    /// The device cannot keep up or staging memory is used up; try later.
    #[error("the store is busy: {0}")]
    Busy(&'static str),
    /// A purge that covers the key came after the store began.
    #[error("the key was purged while it was being stored")]
    Purged,
    /// The device failed.
    #[error("the device failed")]
    Device(#[source] std::io::Error),
    /// The cache is shutting down.
    #[error("the cache is shutting down")]
    ShuttingDown,
}

/// A body could not be read to its end; the caller must not treat what it has as whole.
#[derive(Debug, thiserror::Error)]
#[error("a later piece of the object is gone or damaged")]
pub struct TruncatedBody;

/// When an entry stops being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When the entry was stored.
    pub stored_at: Timestamp,
    /// From this second on only callers that ask for stale entries get it.
    pub fresh_until: Timestamp,
    /// From this second on nobody gets it.
    pub keep_until: Timestamp,
}
