//! Executes `incr` and `decr`.

use bytes::Bytes;

use crate::cache::{Condition, StoreError, Stored};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;

use super::command::{Direction, Key};
use super::number::{parse_value, push_decimal};
use super::service::Service;
use super::storage::{ATTEMPTS_MAX, CONTENDED};

const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// How a change of a number ended.
pub(super) enum Changed {
    To(u64),
    Not(&'static str),
}

impl Service {
    /// Adds to or takes from the number stored under `key`, atomically.
    pub(super) async fn change(&self, key: Key<'_>, direction: Direction, delta: u64) -> Changed {
        let watch = Stopwatch::start();
        let changed = self.try_change(key, direction, delta).await;
        self.shard.record(Operation::Arithmetic, watch.elapsed());
        let (hits, misses) = match direction {
            Direction::Up => (&self.shard.incr_hits, &self.shard.incr_misses),
            Direction::Down => (&self.shard.decr_hits, &self.shard.decr_misses),
        };
        match changed {
            Changed::To(_) => hits.bump(),
            Changed::Not("NOT_FOUND") => misses.bump(),
            Changed::Not(_) => {}
        }
        changed
    }

    async fn try_change(&self, key: Key<'_>, direction: Direction, delta: u64) -> Changed {
        for _ in 0..ATTEMPTS_MAX {
            let Some(turn) = self.key_locks.lock(&key).await else { break };
            // Before the lookup: a purge after it prevails over what comes of the old value.
            let fill = self.cache.begin_fill(&key);
            let Some(hit) = self.cache.lookup(&key).await else {
                return Changed::Not("NOT_FOUND");
            };
            let Some((old, old_len)) = hit.whole().and_then(|b| Some((parse_value(b)?, b.len())))
            else {
                return Changed::Not(NON_NUMERIC);
            };
            let new = match direction {
                Direction::Up => old.wrapping_add(delta),
                Direction::Down => old.saturating_sub(delta),
            };
            let options = self.kept_options(&hit);
            let unchanged = Condition::Unchanged(hit.cas());
            let (new_value, how) = (padded(new, old_len), (unchanged, turn, Some(fill)));
            match self.cache.put_in_turn(&key, new_value, how, &options).await {
                Ok(Stored::Yes(_)) => return Changed::To(new),
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return Changed::Not(self.failure(&error)),
            }
        }
        Changed::Not(CONTENDED)
    }
}

/// Pads a number with spaces to the length of the old value, as memcached does.
fn padded(number: u64, old_len: usize) -> Bytes {
    let mut value = Vec::with_capacity(old_len.max(20));
    push_decimal(&mut value, number);
    if value.len() < old_len {
        value.resize(old_len, b' ');
    }
    Bytes::from(value)
}
