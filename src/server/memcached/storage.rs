//! Executes the storage commands on a value that is in memory.

use bytes::BytesMut;
use tokio::sync::MutexGuard;

use crate::cache::{Condition, Fill, Hit, Lifetime, StoreError, StoreOptions, Stored};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;
use crate::server::metadata::Item;

use super::answers::Outcome;
use super::command::{Key, Store, Terms, Verb};
use super::service::{Service, TOO_LARGE};

/// Values up to this length are gathered in memory, longer ones are streamed; in bytes.
pub(super) const WHOLE_LEN_MAX: u64 = 1 << 20;

/// The longest value that a line of memcached can name, in bytes: with its line end 2^31 - 1.
const LEN_MAX: u64 = (1 << 31) - 3;

/// Attempts at a change before giving up because other clients change the same key.
pub(super) const ATTEMPTS_MAX: u32 = 256;

/// The answer to a change that stopped because its client left: nobody reads it.
pub(super) const GONE: &str = "SERVER_ERROR the client left";

pub(super) const CONTENDED: &str = "SERVER_ERROR too many clients change this key";

/// How a value is to be stored.
pub(super) struct Plan {
    pub(super) condition: Condition,
    pub(super) options: StoreOptions,
    /// The version that it replaces as stale. Who won that has won it.
    won: Option<u64>,
}

impl Service {
    /// Executes a storage command whose value is `body`.
    pub(super) async fn store(&self, store: Store<'_>, body: &[u8]) -> Outcome {
        let watch = Stopwatch::start();
        let outcome = if store.verb.extends() {
            self.extend(store, body).await
        } else if store.terms.compare.is_some() {
            self.store_compared(&store, body).await
        } else {
            let (options, condition) = (self.options_of(&store), condition(store.verb));
            let result = self.cache.put(&store.key, body, condition, &options).await;
            self.stored(&store, result)
        };
        self.shard.record(Operation::Store, watch.elapsed());
        outcome
    }

    /// Stores what depends on a CAS value.
    async fn store_compared(&self, store: &Store<'_>, body: &[u8]) -> Outcome {
        for _ in 0..ATTEMPTS_MAX {
            let plan = match self.plan(store).await {
                Ok(plan) => plan,
                Err(outcome) => return self.count_compared(store, outcome),
            };
            match self.cache.put(&store.key, body, plan.condition, &plan.options).await {
                // Changed since the look at it, perhaps by a client that kept the CAS value.
                Ok(Stored::Exists) if plan.is_of_entry(store) => {}
                result => return self.stored_by(&plan, store, result),
            }
        }
        Outcome::Failed(CONTENDED)
    }

    /// How a value is to be stored, by a look at the present entry if it depends on a CAS value.
    ///
    /// # Errors
    /// It is not to be stored.
    pub(super) async fn plan(&self, store: &Store<'_>) -> Result<Plan, Outcome> {
        let (options, won) = (self.options_of(store), None);
        let Some(compare) = store.terms.compare else {
            return Ok(Plan { condition: condition(store.verb), options, won });
        };
        let Some(hit) = self.cache.lookup_stale_head(&store.key).await else {
            // It finds out why: a device that does not answer is no miss.
            return Ok(Plan { condition: Condition::Unchanged(compare), options, won });
        };
        let (item, condition) = (Item::of(hit.metadata()), Condition::Unchanged(hit.cas()));
        let present = item.cas.unwrap_or(hit.cas());
        if present == compare {
            return Ok(Plan { condition, options, won });
        }
        if !store.terms.stale_if_lower || compare > present {
            return Err(Outcome::Exists);
        }
        let item = Item { is_stale: true, marks: item.marks, ..item_of(store) };
        let stored_at = self.cache.clock().now();
        let lifetime = Some(Lifetime { stored_at, age_secs: 0, ..hit.lifetime() });
        let options = StoreOptions { metadata: item.encode(), lifetime, ..options };
        Ok(Plan { condition, options, won: Some(hit.cas()) })
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

    /// Refuses a value for its length. As in memcached, `set` and `ms` also remove the old value.
    pub(super) async fn refuse_large(&self, store: Store<'_>) -> Outcome {
        self.shard.store_too_large.bump();
        if store.drops_old()
            && let Err(error) = self.cache.remove(&store.key).await
        {
            return Outcome::Failed(self.failure(&error));
        }
        Outcome::Failed(TOO_LARGE)
    }

    /// The outcome of a store that was done as planned.
    pub(super) fn stored_by(
        &self,
        plan: &Plan,
        store: &Store<'_>,
        result: Result<Stored, StoreError>,
    ) -> Outcome {
        if let (Some(replaced), Ok(Stored::Yes(version))) = (plan.won, &result)
            && self.wins.is_won(replaced)
        {
            self.wins.win(*version);
        }
        self.stored(store, result)
    }

    /// The outcome of a store of any command but `append` and `prepend`.
    pub(super) fn stored(&self, store: &Store<'_>, result: Result<Stored, StoreError>) -> Outcome {
        let compares = store.terms.compare.is_some();
        let outcome = match result {
            Ok(Stored::Yes(version)) => {
                self.shard.memcached_stored.bump();
                stored_as(store, version, store.body_len)
            }
            Ok(Stored::Exists) if compares => Outcome::Exists,
            Ok(Stored::Missing) if compares => Outcome::NotFound,
            Ok(Stored::Exists | Stored::Missing) => Outcome::NotStored,
            Err(StoreError::Purged) => purged(store),
            Err(error) => Outcome::Failed(self.failure(&error)),
        };
        self.count_compared(store, outcome)
    }

    fn count_compared(&self, store: &Store<'_>, outcome: Outcome) -> Outcome {
        if store.terms.compare.is_some() {
            match outcome {
                Outcome::Stored { .. } => self.shard.cas_hits.bump(),
                Outcome::Exists => self.shard.cas_badval.bump(),
                Outcome::NotFound => self.shard.cas_misses.bump(),
                Outcome::NotStored | Outcome::Failed(_) => {}
            }
        }
        outcome
    }

    async fn extend(&self, store: Store<'_>, piece: &[u8]) -> Outcome {
        for _ in 0..ATTEMPTS_MAX {
            let Some(turn) = self.key_locks.lock(&store.key).await else { break };
            // Before the lookup: a purge after it prevails over what comes of the old value.
            let fill = self.cache.begin_fill(&store.key);
            let Some(hit) = self.extendable(&store).await else {
                let Some(exptime) = store.terms.vivify else { return Outcome::NotStored };
                match self.store_first(&store, piece, exptime).await {
                    Outcome::NotStored => continue,
                    outcome => return outcome,
                }
            };
            let item = Item::of(hit.metadata());
            if store.terms.compare.is_some_and(|cas| cas != item.cas.unwrap_or(hit.cas())) {
                return Outcome::Exists;
            }
            if hit.len() > self.options.copied_len_max {
                self.shard.store_too_large.bump();
                return Outcome::Failed(TOO_LARGE);
            }
            let len = hit.len().saturating_add(piece.len() as u64);
            if len > self.options.value_len_max {
                return Outcome::NotStored;
            }
            let old = hit.cas();
            match self.put_extended(store, (hit, turn, fill), piece).await {
                Ok(Stored::Yes(version)) => {
                    // It is as stale as it was, and so is won by who won it.
                    if item.is_stale && self.wins.is_won(old) {
                        self.wins.win(version);
                    }
                    self.shard.memcached_stored.bump();
                    return stored_as(&store, version, len);
                }
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return Outcome::Failed(self.failure(&error)),
            }
        }
        Outcome::Failed(CONTENDED)
    }

    /// Stores what is to be put after or before a value, where there is none.
    async fn store_first(&self, store: &Store<'_>, piece: &[u8], exptime: i64) -> Outcome {
        let terms = Terms { compare: None, ..store.terms };
        let added = Store { verb: Verb::Add, exptime, terms, ..*store };
        let (options, condition) = (self.options_of(&added), self.no_hit(store.key).await);
        let result = self.cache.put(&store.key, piece, condition, &options).await;
        self.stored(&added, result)
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
        let options = self.kept_options(&hit, store.terms.new_cas);
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

    /// The condition that no entry is found under a key: what is there for stale use by HTTP only may go.
    pub(super) async fn no_hit(&self, key: Key<'_>) -> Condition {
        let now = self.cache.clock().now();
        let hit = self.cache.lookup_stale_head(&key).await;
        let stale = hit.filter(|hit| !hit.is_fresh(now));
        stale.map_or(Condition::Absent, |hit| Condition::Unchanged(hit.cas()))
    }

    /// Options of a new value for `hit` that keep its flags and its expiry, and that it is stale; clients see
    /// `cas` of it if it is given.
    pub(super) fn kept_options(&self, hit: &Hit, cas: Option<u64>) -> StoreOptions {
        let stored_at = self.cache.clock().now();
        StoreOptions {
            lifetime: Some(Lifetime { stored_at, age_secs: 0, ..hit.lifetime() }),
            metadata: Item::of(hit.metadata()).with_new_value(cas).encode(),
            kept_tags: hit.tag_hashes(),
            ..StoreOptions::default()
        }
    }

    /// How to store what a storage command brings.
    fn options_of(&self, store: &Store<'_>) -> StoreOptions {
        self.item_options(&item_of(store), store.exptime)
    }
}

impl Plan {
    /// Whether the store depends on the entry that was looked at, and not on the CAS value that the client gave.
    fn is_of_entry(&self, store: &Store<'_>) -> bool {
        store.terms.compare.map(Condition::Unchanged) != Some(self.condition)
    }
}

fn item_of(store: &Store<'_>) -> Item {
    let (flags, cas) = (store.flags, store.terms.new_cas);
    Item { flags, cas, has_encoded_key: store.reply.encoded(), ..Item::default() }
}

fn stored_as(store: &Store<'_>, version: u64, len: u64) -> Outcome {
    Outcome::Stored { cas: store.terms.new_cas.unwrap_or(version), len }
}

/// The condition under which `verb` stores, where no CAS value is compared.
fn condition(verb: Verb) -> Condition {
    match verb {
        Verb::Add => Condition::Absent,
        Verb::Replace | Verb::Append | Verb::Prepend => Condition::Present,
        Verb::Set => Condition::Always,
    }
}

/// The outcome of a store that a purge overtook: as if stored just before the purge if that always
/// succeeds, else as if just after it.
fn purged(store: &Store<'_>) -> Outcome {
    match store.verb {
        _ if store.terms.compare.is_some() => Outcome::NotFound,
        Verb::Set | Verb::Add => stored_as(store, 0, store.body_len),
        Verb::Replace | Verb::Append | Verb::Prepend => Outcome::NotStored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Purge};
    use std::time::Duration;

    use crate::clock::{Clock, Timestamp};
    use crate::server::memcached::Shared;
    use crate::server::memcached::command::Command;
    use crate::server::memcached::parse::{Parsed, parse};
    use crate::server::{Options, Server};

    fn storing(line: &str) -> Store<'_> {
        match parse(line.as_bytes(), &mut 0) {
            Parsed::Command { command: Command::Store(store), .. } => store,
            other => panic!("{other:?}"),
        }
    }

    async fn service() -> Service {
        let server = Server::new(Options::default(), Cache::simulated(Clock::system()).await);
        Service::new(&server, 0, &Shared::new())
    }

    #[tokio::test]
    async fn a_second_that_begins_before_a_changed_value_is_stored_prolongs_no_life() {
        let clock = Clock::manual(Timestamp(5));
        let server = Server::new(Options::default(), Cache::simulated(clock.clone()).await);
        let service = Service::new(&server, 0, &Shared::new());
        let options = service.item_options(&Item::default(), 50);
        let stored = service.cache.put(b"k", b"1", Condition::Always, &options).await;
        assert!(matches!(stored, Ok(Stored::Yes(_))));
        let hit = service.cache.lookup(b"k").await.unwrap();
        let options = service.kept_options(&hit, None);
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
        let options =
            StoreOptions { tags: vec!["tag".into()], ..service.item_options(&Item::default(), 50) };
        cache.put(b"k", b"1", Condition::Always, &options).await.unwrap();
        let fill = cache.begin_fill(b"k");
        let hit = cache.lookup(b"k").await.unwrap();
        cache.purge_prefix(b"k", Purge::Soft).await.unwrap();
        let how = (Condition::Unchanged(hit.cas()), (), Some(fill));
        let kept = service.kept_options(&hit, None);
        cache.put_in_turn(b"k", b"2", how, &kept).await.unwrap();
        assert!(cache.lookup(b"k").await.is_none(), "it is stale");
        assert!(cache.lookup_stale(b"k").await.is_some());
        cache.purge_tag(b"tag", Purge::Hard).await.unwrap();
        assert!(cache.lookup_stale(b"k").await.is_none(), "it kept its tags");
    }

    #[tokio::test]
    async fn a_set_that_a_purge_overtook_was_stored_before_it() {
        let service = service().await;
        let outcome = |line| service.stored(&storing(line), Err(StoreError::Purged));
        let stored = Outcome::Stored { cas: 0, len: 1 };
        assert_eq!(outcome("set k 0 0 1\r\n"), stored);
        assert_eq!(outcome("add k 0 0 1\r\n"), stored);
        assert_eq!(outcome("replace k 0 0 1\r\n"), Outcome::NotStored);
        assert_eq!(outcome("cas k 0 0 1 1\r\n"), Outcome::NotFound);
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
            let outcome = service.stored(&storing("set k 0 0 1\r\n"), Err(error));
            assert_eq!(outcome, Outcome::Failed(answer));
        }
        let counts = service.counters.snapshot().counts;
        assert_eq!((counts.store_no_memory, counts.store_too_large), (2, 1));
        assert_eq!(counts.store_failed, 3);
    }
}
