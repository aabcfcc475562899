//! An in-memory stand-in with the interface of the real cache, until that lands.
#![allow(missing_docs, clippy::unwrap_used, reason = "replaced by the real cache")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::*;
use crate::clock::Clock;

/// A handle on an open cache. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    clock: Clock,
    map: Mutex<(u64, HashMap<Vec<u8>, Kept>)>,
}

#[derive(Clone)]
struct Kept {
    body: Bytes,
    metadata: Bytes,
    cas: u64,
    lifetime: Lifetime,
}

/// A live entry.
pub struct Hit {
    kept: Kept,
    done: bool,
}

impl Hit {
    /// Body length in bytes.
    pub fn len(&self) -> u64 {
        self.kept.body.len() as u64
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The metadata given at the store.
    pub fn metadata(&self) -> &Bytes {
        &self.kept.metadata
    }
    /// Unique to this version of the entry.
    pub fn cas(&self) -> u64 {
        self.kept.cas
    }
    pub fn lifetime(&self) -> Lifetime {
        self.kept.lifetime
    }
    pub fn tier(&self) -> Tier {
        Tier::Ram
    }
    /// The whole body if it is in memory already (bodies up to one slice, about 1 MiB).
    pub fn whole(&self) -> Option<&Bytes> {
        Some(&self.kept.body)
    }
    /// The next piece of the body (at most one slice), `None` at its end.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if std::mem::replace(&mut self.done, true) {
            Ok(None)
        } else {
            Ok(Some(self.kept.body.clone()))
        }
    }
}

impl Cache {
    pub fn stand_in(clock: Clock) -> Cache {
        Cache(Arc::new(Inner { clock, map: Mutex::default() }))
    }
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
    fn live(&self, map: &HashMap<Vec<u8>, Kept>, key: &[u8]) -> Option<Kept> {
        map.get(key).filter(|k| k.lifetime.keep_until > self.0.clock.now()).cloned()
    }
    pub async fn lookup(&self, key: &[u8]) -> Option<Hit> {
        let guard = self.0.map.lock();
        self.live(&guard.1, key).map(|kept| Hit { kept, done: false })
    }
    /// Stores a body that is in memory.
    pub async fn put(
        &self,
        key: &[u8],
        body: Bytes,
        condition: Condition,
        options: &StoreOptions,
    ) -> Result<Stored, StoreError> {
        let mut guard = self.0.map.lock();
        let live = self.live(&guard.1, key);
        match (condition, &live) {
            (Condition::Absent, Some(_)) => return Ok(Stored::Exists),
            (Condition::Present | Condition::Unchanged(_), None) => return Ok(Stored::Missing),
            (Condition::Unchanged(cas), Some(kept)) if kept.cas != cas => {
                return Ok(Stored::Exists);
            }
            _ => {}
        }
        guard.0 += 1;
        let cas = guard.0;
        let now = self.0.clock.now();
        let until = now.plus(options.ttl.unwrap_or(Duration::from_secs(3600)));
        let lifetime = Lifetime { stored_at: now, fresh_until: until, keep_until: until };
        guard
            .1
            .insert(key.to_vec(), Kept { body, metadata: options.metadata.clone(), cas, lifetime });
        Ok(Stored::Yes(cas))
    }
    /// Begins a streamed store. Dropping the writer leaves the old entry intact.
    pub fn store(&self, key: &[u8], options: StoreOptions) -> Result<Writer, StoreError> {
        Ok(Writer { cache: self.clone(), key: key.to_vec(), options, body: BytesMut::new() })
    }
    /// Changes the lifetime of a live entry; gives the new one.
    pub async fn touch(&self, key: &[u8], ttl: Duration) -> Result<Option<Lifetime>, StoreError> {
        let mut guard = self.0.map.lock();
        if self.live(&guard.1, key).is_none() {
            return Ok(None);
        }
        let until = self.0.clock.now().plus(ttl);
        let kept = guard.1.get_mut(key).unwrap();
        kept.lifetime.fresh_until = until;
        kept.lifetime.keep_until = until;
        Ok(Some(kept.lifetime))
    }
    /// Purges a key; on the device before it returns. True if a live entry was there.
    pub async fn remove(&self, key: &[u8]) -> Result<bool, StoreError> {
        let mut guard = self.0.map.lock();
        let live = self.live(&guard.1, key).is_some();
        guard.1.remove(key);
        Ok(live)
    }
    /// Purges everything stored so far; on the device before it returns.
    pub async fn purge_all(&self) -> Result<(), StoreError> {
        self.0.map.lock().1.clear();
        Ok(())
    }
    /// True once recovery is complete and the device serves.
    pub fn is_ready(&self) -> bool {
        true
    }
    /// Stops background work, writes and flushes everything accepted. Idempotent.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store in progress.
pub struct Writer {
    cache: Cache,
    key: Vec<u8>,
    options: StoreOptions,
    body: BytesMut,
}

impl Writer {
    /// Appends bytes of any length to the body.
    pub async fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.body.extend_from_slice(chunk);
        Ok(())
    }
    /// Publishes the object if `condition` holds, atomically replacing the old one.
    pub async fn finalize(self, condition: Condition) -> Result<Stored, StoreError> {
        self.cache.put(&self.key, self.body.freeze(), condition, &self.options).await
    }
}
