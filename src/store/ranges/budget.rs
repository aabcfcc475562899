//! The memory that all range reads share. Owns the count; a buffer gives its share back itself.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes from which buffers are charged.
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

    /// A share of `len` bytes, if so much is free now.
    pub fn take(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(u32::try_from(len).ok()?).ok()
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        (self.limit - self.free.available_permits()) as u64
    }

    /// Bytes at most.
    pub fn limit(&self) -> u64 {
        self.limit as u64
    }
}
