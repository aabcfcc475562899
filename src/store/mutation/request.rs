//! Requests to a store and their results: limits, conditions, lifetimes, errors.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{Sequence, TAGS_MAX};

/// Longest key in bytes.
pub const KEY_LEN_MAX: usize = 4096;
/// Largest caller metadata in bytes.
pub const METADATA_LEN_MAX: usize = 64 << 10;
/// Longest tag in bytes.
pub const TAG_LEN_MAX: usize = 1 << 10;
/// Most bytes of all tags of an entry.
pub const TAGS_LEN_MAX: usize = 16 << 10;

/// When a store is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When it can be read back.
    #[default]
    Buffered,
    /// When the device has made it durable.
    Flushed,
}

/// Condition on the present entry for a store to happen. Checked atomically with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Store in any case.
    Always,
    /// Store only if no live entry has the key.
    Absent,
    /// Store only if a live entry has the key.
    Present,
    /// Store only if the live entry has this CAS value.
    Unchanged(u64),
}

impl Condition {
    /// Whether it holds where the live entry, if there is one, has this version.
    pub(in crate::store) fn holds(self, present: Option<Sequence>) -> bool {
        match self {
            Condition::Always => true,
            Condition::Absent => present.is_none(),
            Condition::Present => present.is_some(),
            Condition::Unchanged(cas) => present == Some(Sequence(cas)),
        }
    }
}

/// Result of a conditional store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Stored; the new entry's CAS value.
    Yes(u64),
    /// The condition did not hold because there is no live entry.
    Missing,
    /// The condition did not hold because of a live entry (`Absent`), or because it differs
    /// (`Unchanged`).
    Exists,
}

/// When an entry was stored and when it stops being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When the entry was stored.
    pub stored_at: Timestamp,
    /// How old it was then, in seconds: the base of Age (RFC 9111, section 4.2.3).
    pub age_secs: u32,
    /// From this second on only callers that ask for stale entries get it. Later than `keep_until` only where
    /// the client gave no end.
    pub fresh_until: Timestamp,
    /// From this second on nobody gets it.
    pub keep_until: Timestamp,
}

impl Lifetime {
    /// The same lifetime, of an entry to which its client gave no end: it has the one that the configuration
    /// gives, but is told from those that were asked to end. It ends while it is fresh.
    #[must_use]
    pub fn without_end(self) -> Lifetime {
        Lifetime { fresh_until: self.keep_until.plus(Duration::from_secs(1)), ..self }
    }

    /// False of one made by [`Lifetime::without_end`].
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.fresh_until <= self.keep_until
    }
}

/// A whole value to be stored. Borrowed: it is copied only once, into the log.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// Opaque bytes kept with the entry, at most [`METADATA_LEN_MAX`].
    pub metadata: &'a [u8],
    /// The body, at most one slice.
    pub body: &'a [u8],
    /// When it was stored and when it ends.
    pub lifetime: Lifetime,
    /// What [`Store::tag_hashes`](crate::store::Store::tag_hashes) gives for its tags.
    pub tags: &'a [u64],
    /// Keep it in the RAM tier only: it expires too soon to be worth a write.
    pub ram_only: bool,
}

/// Why a store did not happen, or may not be durable. The older entry of the key is gone or going, unless the
/// store had a condition and was not published: then it is as it was. Of parts [`crate::Cache::declare`] tells.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The key is empty or longer than [`KEY_LEN_MAX`].
    #[error("the key has {0} bytes; it must have 1 to {KEY_LEN_MAX}")]
    KeyLen(usize),
    /// The metadata is longer than [`METADATA_LEN_MAX`].
    #[error("the metadata has {0} bytes; at most {METADATA_LEN_MAX} are kept")]
    MetadataLen(usize),
    /// A tag is empty or longer than [`TAG_LEN_MAX`].
    #[error("a tag has {0} bytes; it must have 1 to {TAG_LEN_MAX}")]
    TagLen(usize),
    /// There are too many tags, or they are too long together.
    #[error(
        "{count} tags of {bytes} bytes; at most {TAGS_MAX} of together {TAGS_LEN_MAX} bytes are kept"
    )]
    Tags {
        /// How many there are.
        count: usize,
        /// Bytes of all of them.
        bytes: usize,
    },
    /// The object is larger than the cache accepts.
    #[error("the object is larger than {limit} bytes")]
    TooLarge {
        /// Largest object in bytes: half of the device.
        limit: u64,
    },
    /// The device cannot keep up, or memory for stores in progress is used up; try later.
    #[error("the store is busy: {0}")]
    Busy(&'static str),
    /// Stores in progress reserve all the room they may; try later.
    #[error("stores under way take all of the {limit} bytes that they may take together")]
    Crowded {
        /// Bytes that stores in progress may reserve together: half of the device.
        limit: u64,
    },
    /// The key was purged after the store began.
    #[error("the key was purged while it was being stored")]
    Purged,
    /// A piece of the object was evicted before the object was whole.
    #[error("a piece of the object was evicted before it was whole")]
    Evicted,
    /// The object of which a part was to be stored is not there any more: it was replaced, was evicted, or has
    /// ended.
    #[error("the object is not there any more")]
    Gone,
    /// The bytes of a part go beyond the end of the object.
    #[error("the object has {len} bytes, and the part goes beyond its end")]
    Range {
        /// Length of the object.
        len: u64,
    },
    /// Parts of 64 KiB of the body are there in too many pieces that do not touch each other.
    #[error("64 KiB of the object are in 16 pieces that do not touch each other")]
    Fragmented,
    /// A part of the body was refused earlier, or a call was dropped before it took it.
    #[error("a part of the body was refused: the object is not whole")]
    Incomplete,
    /// Nothing was tried: the device fails, or is much slower than it was; try later.
    #[error("stores are refused: the device fails, or is much slower than it was")]
    Refused,
    /// The device failed; the change may be lost.
    #[error("the device failed")]
    Device(#[source] Arc<DeviceError>),
    /// A write that this change depends on failed earlier.
    #[error("the device failed to make the change durable")]
    NotDurable,
    /// The store is shutting down.
    #[error("the cache is shutting down")]
    ShuttingDown,
}

impl From<DeviceError> for StoreError {
    fn from(error: DeviceError) -> Self {
        StoreError::Device(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_store_that_fails_does_not_say_what_its_cause_says() {
        let source = io::Error::from_raw_os_error(libc::EIO);
        let cause = DeviceError { operation: "write", offset: 4096, len: 512, source };
        let error = StoreError::from(cause);
        assert_eq!(error.to_string(), "the device failed");
        let cause = error.source().unwrap();
        assert_eq!(cause.to_string(), "write of 512 bytes at offset 4096 failed");
        assert!(cause.source().is_some());
    }
}
