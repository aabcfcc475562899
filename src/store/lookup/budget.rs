//! The memory shared by bodies on their way to clients. Owns the count; each buffer gives its share
//! back when it is dropped.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::BODY_CHUNK;

/// Bytes of a body that a reader may hold without a share, so that every reader makes progress.
pub(in crate::store) const UNSHARED_LEN_MAX: usize = BODY_CHUNK;

/// A part of the budget, given back with its last clone.
#[derive(Clone, Debug)]
pub struct BodyShare {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl BodyShare {
    /// The same bytes, holding the share until they are dropped.
    #[must_use]
    pub fn cover(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Covered { bytes, _share: self.clone() })
    }
}

struct Covered {
    bytes: Bytes,
    _share: BodyShare,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A number of bytes for buffers.
pub(in crate::store) struct Budget {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Budget {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Budget { free: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Takes a share of `len` bytes, if they are free now.
    pub fn take(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(u32::try_from(len).ok()?).ok()
    }

    /// Whether `len` bytes are free now.
    pub fn has(&self, len: usize) -> bool {
        self.free.available_permits() >= len
    }

    /// As [`Budget::take`], for buffers that are cut into several.
    pub fn share(&self, len: usize) -> Option<BodyShare> {
        self.take(len).map(|permit| BodyShare { _permit: Arc::new(permit) })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        (self.limit - self.free.available_permits()) as u64
    }

    /// Limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit as u64
    }
}
