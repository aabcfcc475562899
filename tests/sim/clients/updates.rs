//! Updates: a version that a client saw gets a new lifetime in place, or another version with its body.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Ack, Condition, Lifetime, StoreError, StoreOptions, Stored, UpdateOptions};
use rawcached::clock::Timestamp;

use super::lookups::life_of;
use super::{Client, for_turns};
use crate::history::{Life, StoreEnd, Version};
use crate::world::key_bytes;

/// Length of an object that is prolonged: some region has nothing but slices of it.
const LEN_IN_REGIONS: Range<usize> = 2..4;
/// Seconds that it has until it is.
const BRIEF_TTL_SECS: Range<u64> = 3..10;

/// What there is of a key.
struct Base {
    key: u32,
    id: u64,
    cas: u64,
    len: u64,
    lifetime: Lifetime,
}

impl Client {
    /// Updates the version of a key that is there.
    pub(super) async fn update(&mut self, key: u32) {
        let Some((id, hit)) = self.lookup_head(key).await else { return };
        let (cas, len, lifetime) = (hit.cas(), hit.len(), hit.lifetime());
        let base = Base { key, id, cas, len, lifetime };
        drop(hit);
        let ttl = if self.one_in(4) { self.rng.u64(1..30) } else { self.rng.u64(50..100_000) };
        let until = self.clock.now().plus(Duration::from_secs(ttl));
        // A soft purge has an update write the entry again, which is no touch then.
        let may_touch = self.world.scenario.purges.weight == 0;
        match self.rng.u32(0..3) {
            0 if may_touch => self.update_in_place(&base, until).await,
            _ => self.update_head(&base, until).await,
        }
    }

    /// Stores a large object that ends in seconds, and updates it before it does.
    pub(super) async fn store_and_prolong(&mut self, key: u32) {
        let (version, options) = self.new_version(key);
        let region = usize::try_from(self.world.scenario.region_size).unwrap();
        let len = self.rng.usize(LEN_IN_REGIONS.start * region..LEN_IN_REGIONS.end * region);
        let ttl = self.rng.u64(BRIEF_TTL_SECS);
        let options = options!(StoreOptions {
            ttl: Some(Duration::from_secs(ttl)),
            grace: Duration::ZERO,
            ..options
        });
        let until = version.life.stored_at + u32::try_from(ttl).unwrap();
        let life = Life { fresh_until: until, keep_until: until, ..version.life };
        let large = Version { len, life, ram_only: false, ..version };
        self.put_version(large, options, Condition::Always).await;
        self.update(key).await;
    }

    /// As a touch would, but only of the version that was seen.
    async fn update_in_place(&mut self, base: &Base, until: Timestamp) {
        let &Base { key, cas, lifetime, .. } = base;
        let (touch, began) = {
            let mut history = self.history();
            history.note(format_args!("update {key} of {cas:#x} until {until:?}"));
            let touch = history.begin_touch(key, until.0);
            (touch, history.tick())
        };
        let lifetime = Lifetime { fresh_until: until, keep_until: until, ..lifetime };
        let options =
            options!(UpdateOptions { lifetime: Some(lifetime), ..UpdateOptions::default() });
        let (turns, name) = (self.patience(), key_bytes(key));
        let updated = self.cache.update(&name, Condition::Unchanged(cas), &options);
        let updated = for_turns(turns, updated).await;
        let mut history = self.history();
        history.note(format_args!("updated {key}: {updated:?}"));
        match updated {
            None => {}
            Some(Ok(Stored::Yes(_))) => {
                history.end_touch(touch, Some(true));
                history.check_existed(key, began, "updated");
            }
            Some(Ok(Stored::Missing | Stored::Exists) | Err(StoreError::Purged)) => {
                history.end_touch(touch, Some(false));
            }
            Some(Err(error)) => {
                self.expect_error(&mut history, &error);
                history.end_touch(touch, None);
            }
        }
    }

    /// Gives the body to a version of its own.
    async fn update_head(&mut self, base: &Base, until: Timestamp) {
        let &Base { key, cas, len, .. } = base;
        let id = self.world.next_id.fetch_add(1, Ordering::Relaxed);
        let stored_at = self.clock.now();
        let lifetime = Lifetime { stored_at, age_secs: 0, fresh_until: until, keep_until: until };
        let flushed_one_in = self.world.scenario.flushed_one_in;
        let ack = if self.one_in(flushed_one_in) { Some(Ack::Flushed) } else { None };
        let flushed = ack.unwrap_or(self.world.scenario.ack) == Ack::Flushed;
        let (change, version) = {
            let mut history = self.history();
            let body = history.body(base.id);
            let len = usize::try_from(len).unwrap();
            let life = life_of(lifetime);
            let (replaced, is_partial) = (base.id, history.is_partial(base.id));
            let ram_only = false;
            let version = Version { id, key, len, life, body, replaced, ram_only, is_partial };
            history.note(format_args!("update {} to {version:?} flushed {flushed}", base.id));
            let began = history.tick();
            history.begin_update(base.id, id);
            (history.begin_store(version, Some(began)), version)
        };
        self.world.note_change(&self.cache, 1);
        let options = options!(UpdateOptions {
            metadata: Some(Bytes::copy_from_slice(&id.to_le_bytes())),
            tags: Some(self.world.tags_of(key, id)),
            lifetime: Some(lifetime),
            ack,
            ..UpdateOptions::default()
        });
        let (turns, name) = (self.patience(), key_bytes(key));
        let updated = self.cache.update(&name, Condition::Unchanged(cas), &options);
        let updated = for_turns(turns, updated).await;
        let mut history = self.history();
        history.note(format_args!("updated {} to {}: {updated:?}", base.id, version.id));
        let how = match updated {
            // It may have ended before it was written, and was removed.
            Some(Ok(Stored::Yes(sequence))) if sequence == cas => {
                StoreEnd::Failed { removed: false }
            }
            Some(Ok(Stored::Yes(sequence))) => StoreEnd::Stored { sequence, flushed },
            Some(Ok(Stored::Missing | Stored::Exists) | Err(StoreError::Purged)) => StoreEnd::Void,
            Some(Err(error)) => {
                self.expect_error(&mut history, &error);
                StoreEnd::Cancelled
            }
            None => StoreEnd::Cancelled,
        };
        history.end_store(change, how);
    }
}
