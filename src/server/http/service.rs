//! What HTTP connections share, and answers without an object. Methods are in other modules.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::body::AnswerBody;
use super::refusal::Refusal;
use crate::cache::{Cache, StoreError};
use crate::server::Server;
use crate::server::buffers::Buffers;
use crate::server::counters::Shard;
use crate::server::key_locks::KeyLocks;
use crate::server::proxy::options::ProxyOptions;

/// How long a refused client should wait before it tries again, in seconds.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

pub(in crate::server) type Answer = Response<AnswerBody>;

/// What the connections of all workers share.
#[derive(Debug, Default)]
pub(in crate::server) struct Shared {
    tags: Arc<Tags>,
}

/// Makes numbers that no other daemon or run makes, except with a chance of 1 in 2^64 each.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Keyed by the operating system's random numbers.
    keyed: RandomState,
    next: AtomicU64,
}

impl Tags {
    pub(super) fn make(&self) -> u64 {
        self.keyed.hash_one(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What the connections of one worker share.
pub(in crate::server) struct Service {
    pub(in crate::server) cache: Cache,
    pub(in crate::server) shard: Arc<Shard>,
    pub(super) tags: Arc<Tags>,
    pub(in crate::server) buffers: Buffers,
    pub(super) key_locks: Arc<KeyLocks>,
    /// The read-through listeners, for whoever purges what they store.
    pub(super) proxies: Arc<[ProxyOptions]>,
    pub(super) idle_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

impl Service {
    /// A number that no other daemon or run makes, except with a chance of 1 in 2^64.
    pub(in crate::server) fn number(&self) -> u64 {
        self.tags.make()
    }

    /// What the connections of worker `index` of `server` share.
    pub(in crate::server) fn new(server: &Server, index: usize, shared: &Shared) -> Service {
        let shard = server.counters.worker(index);
        Service {
            cache: server.cache.clone(),
            tags: shared.tags.clone(),
            buffers: Buffers::new(&server.counters, &shard),
            shard,
            key_locks: server.key_locks.clone(),
            proxies: server.options.proxies.clone().into(),
            idle_timeout: server.options.http_idle_timeout,
            stall_timeout: server.options.http_stall_timeout,
        }
    }

    /// Counts a store that the cache refused, and gives its answer.
    pub(in crate::server) fn store_failed(&self, error: &StoreError) -> Refusal {
        match error {
            StoreError::TooLarge { .. } => self.shard.store_too_large.bump(),
            StoreError::Busy(_)
            | StoreError::Crowded { .. }
            | StoreError::Evicted
            | StoreError::Incomplete => {
                self.shard.store_no_memory.bump();
            }
            _ => self.shard.store_failed.bump(),
        }
        Refusal::from(error)
    }
}

/// An answer with a line for people.
pub(in crate::server) fn plain(refusal: Refusal) -> Answer {
    let mut answer = Response::new(AnswerBody::memory(Bytes::from_static(refusal.text.as_bytes())));
    *answer.status_mut() = refusal.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if refusal.is_temporary() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECS);
    }
    answer
}
