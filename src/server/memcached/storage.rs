//! Executes the storage commands on a value that is in memory.

use bytes::BytesMut;
use tokio::sync::MutexGuard;

use crate::cache::{Condition, Fill, Hit, Lifetime, StoreError, StoreOptions, Stored};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;
use crate::server::metadata::Metadata;

use super::command::{Store, Verb};
use super::service::{Service, TOO_LARGE};

/// Values up to this length are gathered in memory, longer ones are streamed; in bytes.
pub(super) const WHOLE_LEN_MAX: u64 = 1 << 20;

/// The longest value that a line of memcached can name, in bytes: with its line end 2^31 - 1.
const LEN_MAX: u64 = (1 << 31) - 3;

/// Attempts at a change before giving up because other clients change the same key.
pub(super) const ATTEMPTS_MAX: u32 = 256;

const STORED: &str = "STORED";
/// The answer to a change that stopped because its client left: nobody reads it.
pub(super) const GONE: &str = "SERVER_ERROR the client left";

pub(super) const CONTENDED: &str = "SERVER_ERROR too many clients change this key";

impl Service {
    /// Executes a storage command whose value is `body`.
    pub(super) async fn store(&self, store: Store<'_>, body: &[u8]) -> &'static str {
        let watch = Stopwatch::start();
        let reply = match store.verb {
            Verb::Append | Verb::Prepend => {
                let reply = self.extend(store, body).await;
                if reply == STORED {
                    self.shard.memcached_stored.bump();
                }
                reply
            }
            verb => {
                let options = self.store_options(store.flags, store.exptime);
                let condition = condition(verb);
                let result = self.cache.put(&store.key, body, condition, &options).await;
                self.stored(verb, result)
            }
        };
        self.shard.record(Operation::Store, watch.elapsed());
        reply
    }

    /// True for a value that [`Service::refuse_large`] must refuse. `append` and `prepend` keep
    /// theirs in memory, so they have a limit of their own.
    pub(super) fn is_too_large(&self, store: &Store<'_>) -> bool {
        let limit = if store.verb.extends() { WHOLE_LEN_MAX } else { u64::MAX };
        store.body_len > limit.min(self.options.value_len_max)
    }

    /// True for a length that is neither one of memcached's, which ends at 31 bits, nor one that may be
    /// stored here: the line is taken for malformed, and nobody waits for so many bytes.
    pub(super) fn is_malformed(&self, body_len: u64) -> bool {
        body_len > LEN_MAX.max(self.options.value_len_max)
    }

    /// Refuses a value for its length. As in memcached, only `set` also removes the old value.
    pub(super) async fn refuse_large(&self, store: Store<'_>) -> &'static str {
        self.shard.store_too_large.bump();
        if store.verb == Verb::Set
            && let Err(error) = self.cache.remove(&store.key).await
        {
            return self.failure(&error);
        }
        TOO_LARGE
    }

    /// The answer to a store of any command but `append` and `prepend`.
    pub(super) fn stored(&self, verb: Verb, result: Result<Stored, StoreError>) -> &'static str {
        let is_cas = matches!(verb, Verb::Cas(_));
        match result {
            Ok(Stored::Yes(_)) => {
                self.shard.memcached_stored.bump();
                if is_cas {
                    self.shard.cas_hits.bump();
                }
                STORED
            }
            Ok(Stored::Exists) if is_cas => {
                self.shard.cas_badval.bump();
                "EXISTS"
            }
            Ok(Stored::Missing) if is_cas => {
                self.shard.cas_misses.bump();
                "NOT_FOUND"
            }
            Ok(Stored::Exists | Stored::Missing) => "NOT_STORED",
            Err(StoreError::Purged) => purged(verb),
            Err(error) => self.failure(&error),
        }
    }

    async fn extend(&self, store: Store<'_>, piece: &[u8]) -> &'static str {
        for _ in 0..ATTEMPTS_MAX {
            let Some(turn) = self.key_locks.lock(&store.key).await else { break };
            // Before the lookup: a purge after it prevails over what comes of the old value.
            let fill = self.cache.begin_fill(&store.key);
            let Some(hit) = self.extendable(&store).await else { return "NOT_STORED" };
            if hit.len() > self.options.copied_len_max {
                self.shard.store_too_large.bump();
                return TOO_LARGE;
            }
            if hit.len().saturating_add(piece.len() as u64) > self.options.value_len_max {
                return "NOT_STORED";
            }
            match self.put_extended(store, (hit, turn, fill), piece).await {
                Ok(Stored::Yes(_)) => return STORED,
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return self.failure(&error),
            }
        }
        CONTENDED
    }

    /// The old value, if there is one. Of one that is too large to be copied nothing is read.
    async fn extendable(&self, store: &Store<'_>) -> Option<Hit> {
        let hit = self.cache.lookup_head(&store.key).await?;
        let is_read = hit.whole().is_some() || hit.len() > self.options.copied_len_max;
        if is_read { Some(hit) } else { self.cache.lookup(&store.key).await }
    }

    /// Stores the old value with `piece` at its end or its start, if it has not changed meanwhile.
    async fn put_extended(
        &self,
        store: Store<'_>,
        (mut hit, turn, fill): (Hit, MutexGuard<'_, ()>, Fill),
        piece: &[u8],
    ) -> Result<Stored, StoreError> {
        let condition = Condition::Unchanged(hit.cas());
        let options = self.kept_options(&hit);
        let total_len = hit.len() + piece.len() as u64;
        let before = store.verb == Verb::Prepend;
        if let (Some(old), true) = (hit.whole(), total_len <= WHOLE_LEN_MAX) {
            let mut body = BytesMut::with_capacity(old.len() + piece.len());
            let (first, second) = if before { (piece, old) } else { (old, piece) };
            body.extend_from_slice(first);
            body.extend_from_slice(second);
            let body = body.freeze();
            let how = (condition, turn, Some(fill));
            return self.cache.put_in_turn(&store.key, body, how, &options).await;
        }
        let options = StoreOptions { len_hint: Some(total_len), ..options };
        let mut writer = self.cache.store_since(&store.key, options, fill)?;
        if before {
            writer.write_chunk(piece).await?;
        }
        loop {
            match hit.next_chunk().await {
                Ok(Some(chunk)) => writer.write_chunk(&chunk).await?,
                Ok(None) => break,
                // The old value is gone; the next lookup says so.
                Err(_) => return Ok(Stored::Missing),
            }
        }
        if !before {
            writer.write_chunk(piece).await?;
        }
        writer.finalize(condition).await
    }

    /// Options that keep the flags and the expiry of `hit`.
    pub(super) fn kept_options(&self, hit: &Hit) -> StoreOptions {
        let stored_at = self.cache.clock().now();
        StoreOptions {
            lifetime: Some(Lifetime { stored_at, age_secs: 0, ..hit.lifetime() }),
            metadata: Metadata::kept_with_new_body(hit.metadata()),
            kept_tags: hit.tag_hashes(),
            ..StoreOptions::default()
        }
    }
}

/// The condition under which `verb` stores.
pub(super) fn condition(verb: Verb) -> Condition {
    match verb {
        Verb::Add => Condition::Absent,
        Verb::Replace | Verb::Append | Verb::Prepend => Condition::Present,
        Verb::Cas(cas) => Condition::Unchanged(cas),
        Verb::Set => Condition::Always,
    }
}

/// The answer to a store that a purge overtook: as if stored just before the purge if that always
/// succeeds, else as if just after it.
fn purged(verb: Verb) -> &'static str {
    match verb {
        Verb::Set | Verb::Add => STORED,
        Verb::Replace | Verb::Append | Verb::Prepend => "NOT_STORED",
        Verb::Cas(_) => "NOT_FOUND",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Purge};
    use std::time::Duration;

    use crate::clock::{Clock, Timestamp};
    use crate::server::memcached::Shared;
    use crate::server::{Options, Server};

    async fn service() -> Service {
        let server = Server::new(Options::default(), Cache::simulated(Clock::system()).await);
        Service::new(&server, 0, &Shared::new())
    }

    #[tokio::test]
    async fn a_second_that_begins_before_a_changed_value_is_stored_prolongs_no_life() {
        let clock = Clock::manual(Timestamp(5));
        let server = Server::new(Options::default(), Cache::simulated(clock.clone()).await);
        let service = Service::new(&server, 0, &Shared::new());
        let options = service.store_options(0, 50);
        let stored = service.cache.put(b"k", b"1", Condition::Always, &options).await;
        assert!(matches!(stored, Ok(Stored::Yes(_))));
        let hit = service.cache.lookup(b"k").await.unwrap();
        let options = service.kept_options(&hit);
        clock.advance(Duration::from_secs(1));
        service.cache.put(b"k", b"2", Condition::Present, &options).await.unwrap();
        let changed = service.cache.lookup(b"k").await.unwrap();
        assert_eq!(changed.lifetime().keep_until, hit.lifetime().keep_until);
    }

    /// The purge comes between the look at the old value and the store of the new one.
    #[tokio::test]
    async fn a_purge_prevails_over_what_comes_of_an_old_value() {
        let service = service().await;
        let cache = &service.cache;
        let options = StoreOptions { tags: vec!["tag".into()], ..service.store_options(0, 50) };
        cache.put(b"k", b"1", Condition::Always, &options).await.unwrap();
        let fill = cache.begin_fill(b"k");
        let hit = cache.lookup(b"k").await.unwrap();
        cache.purge_prefix(b"k", Purge::Soft).await.unwrap();
        let how = (Condition::Unchanged(hit.cas()), (), Some(fill));
        let kept = service.kept_options(&hit);
        cache.put_in_turn(b"k", b"2", how, &kept).await.unwrap();
        assert!(cache.lookup(b"k").await.is_none(), "it is stale");
        assert!(cache.lookup_stale(b"k").await.is_some());
        cache.purge_tag(b"tag", Purge::Hard).await.unwrap();
        assert!(cache.lookup_stale(b"k").await.is_none(), "it kept its tags");
    }

    #[tokio::test]
    async fn a_set_that_a_purge_overtook_was_stored_before_it() {
        let service = service().await;
        let answer = |verb| service.stored(verb, Err(StoreError::Purged));
        assert_eq!(answer(Verb::Set), "STORED");
        assert_eq!(answer(Verb::Add), "STORED");
        assert_eq!(answer(Verb::Replace), "NOT_STORED");
        assert_eq!(answer(Verb::Cas(1)), "NOT_FOUND");
    }

    #[tokio::test]
    async fn failures_are_answered_and_counted() {
        let service = service().await;
        let device = || StoreError::NotDurable;
        let cases = [
            (StoreError::Busy("full"), "SERVER_ERROR out of memory storing object"),
            (StoreError::Crowded { limit: 1 }, "SERVER_ERROR out of memory storing object"),
            (StoreError::TooLarge { limit: 1 }, "SERVER_ERROR object too large for cache"),
            (device(), "SERVER_ERROR device failure"),
            (StoreError::Refused, "SERVER_ERROR device failure"),
            (StoreError::ShuttingDown, "SERVER_ERROR shutting down"),
        ];
        for (error, answer) in cases {
            assert_eq!(service.stored(Verb::Set, Err(error)), answer);
        }
        let counts = service.counters.snapshot().counts;
        assert_eq!((counts.store_no_memory, counts.store_too_large), (2, 1));
        assert_eq!(counts.store_failed, 3);
    }
}
