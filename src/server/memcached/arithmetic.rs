//! Executes `incr`, `decr` and `ma`.

use bytes::Bytes;

use crate::cache::{Condition, Lifetime, StoreError, Stored};
use crate::clock::Stopwatch;
use crate::server::counters::Operation;
use crate::server::metadata::Item;

use super::answers::{Told, push_flags, push_line};
use super::command::{Arithmetic, Direction, Reply};
use super::number::{parse_value, push_decimal};
use super::service::Service;
use super::storage::{ATTEMPTS_MAX, CONTENDED};

const NON_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// How a change of a number ended.
pub(super) enum Changed {
    To {
        /// The new number.
        number: u64,
        /// The CAS value that clients see of it.
        cas: u64,
        /// The life that it had: none if it was made.
        old: Option<Lifetime>,
        /// The life that it has.
        new: Lifetime,
    },
    /// The entry has another CAS value.
    Exists,
    NotFound,
    Not(&'static str),
}

impl Service {
    /// Adds to or takes from the number stored under a key, atomically.
    pub(super) async fn change(&self, change: Arithmetic<'_>) -> Changed {
        let watch = Stopwatch::start();
        let changed = self.try_change(&change).await;
        self.shard.record(Operation::Arithmetic, watch.elapsed());
        let (hits, misses) = match change.direction {
            Direction::Up => (&self.shard.incr_hits, &self.shard.incr_misses),
            Direction::Down => (&self.shard.decr_hits, &self.shard.decr_misses),
        };
        match changed {
            Changed::To { .. } => hits.bump(),
            Changed::NotFound => misses.bump(),
            Changed::Exists | Changed::Not(_) => {}
        }
        changed
    }

    async fn try_change(&self, change: &Arithmetic<'_>) -> Changed {
        let (key, terms) = (change.key, change.terms);
        for _ in 0..ATTEMPTS_MAX {
            let Some(turn) = self.key_locks.lock(&key).await else { break };
            // Before the lookup: a purge after it prevails over what comes of the old value.
            let fill = self.cache.begin_fill(&key);
            let Some(hit) = self.cache.lookup(&key).await else {
                let Some((exptime, initial)) = change.vivify else { return Changed::NotFound };
                match self.store_initial(change, initial, exptime).await {
                    Some(made) => return made,
                    None => continue,
                }
            };
            let item = Item::of(hit.metadata());
            // As in memcached, before its CAS value is looked at.
            if hit.len() == 0 {
                return Changed::Not(NON_NUMERIC);
            }
            if terms.compare.is_some_and(|cas| cas != item.cas.unwrap_or(hit.cas())) {
                return Changed::Exists;
            }
            let Some((old, old_len)) = hit.whole().and_then(|b| Some((parse_value(b)?, b.len())))
            else {
                return Changed::Not(NON_NUMERIC);
            };
            let number = match change.direction {
                Direction::Up => old.wrapping_add(change.delta),
                Direction::Down => old.saturating_sub(change.delta),
            };
            let mut options = self.kept_options(&hit, terms.new_cas);
            let old = hit.lifetime();
            let new = change.touch.map_or(old, |exptime| self.life(exptime));
            if change.touch.is_some() {
                options.lifetime = Some(new);
            }
            let unchanged = Condition::Unchanged(hit.cas());
            let (value, how) = (padded(number, old_len), (unchanged, turn, Some(fill)));
            let is_in_place = value.len() == old_len;
            match self.cache.put_in_turn(&key, value, how, &options).await {
                Ok(Stored::Yes(version)) => {
                    if is_in_place {
                        self.keep_state(hit.cas(), version);
                    }
                    let cas = terms.new_cas.unwrap_or(version);
                    return Changed::To { number, cas, old: Some(old), new };
                }
                Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => {}
                Err(error) => return Changed::Not(self.failure(&error)),
            }
        }
        Changed::Not(CONTENDED)
    }

    /// Stores the first number under a key; `None` if somebody else did meanwhile.
    async fn store_initial(
        &self,
        change: &Arithmetic<'_>,
        number: u64,
        exptime: i64,
    ) -> Option<Changed> {
        let cas = change.terms.new_cas;
        let item = Item { cas, has_encoded_key: change.reply.encoded(), ..Item::default() };
        let exptime = change.touch.unwrap_or(exptime);
        let new = self.life(exptime);
        let options = self.item_options(&item, exptime);
        let condition = self.no_hit(change.key).await;
        match self.cache.put(&change.key, padded(number, 0), condition, &options).await {
            Ok(Stored::Yes(version)) => {
                let cas = cas.unwrap_or(version);
                Some(Changed::To { number, cas, old: None, new })
            }
            Ok(Stored::Exists | Stored::Missing) | Err(StoreError::Purged) => None,
            Err(error) => Some(Changed::Not(self.failure(&error))),
        }
    }
}

impl Changed {
    /// Appends the answer to `change`, if it gets one; `ttl_secs` says how much of a life is left.
    pub(super) fn push(
        &self,
        output: &mut Vec<u8>,
        change: &Arithmetic<'_>,
        ttl_secs: impl Fn(Lifetime) -> Option<u64>,
    ) {
        let reply = match change.reply {
            Reply::Words { noreply: true } => return,
            Reply::Words { noreply: false } => return self.push_words(output),
            Reply::Meta(reply) => reply,
        };
        let mut digits = Vec::new();
        let (mut left, mut left_now, mut shown_cas) = (None, None, 0);
        match *self {
            Changed::To { .. } if reply.quiet => return,
            Changed::To { number, cas, old, new } => {
                push_decimal(&mut digits, number);
                (left, left_now, shown_cas) = (old.and_then(&ttl_secs), ttl_secs(new), cas);
                if reply.flags.iter().any(|(letter, _)| letter == b'v') {
                    output.extend_from_slice(b"VA ");
                    push_decimal(output, digits.len() as u64);
                } else {
                    output.extend_from_slice(b"HD");
                    digits.clear();
                }
            }
            Changed::Exists => output.extend_from_slice(b"EX"),
            Changed::NotFound => output.extend_from_slice(b"NF"),
            Changed::Not(error) => return push_line(output, error),
        }
        let is_changed = matches!(self, Changed::To { .. });
        let is_made = matches!(self, Changed::To { old: None, .. });
        push_flags(output, &reply, (change.key, reply.encoded), |letter| match letter {
            b'c' if is_changed => Some(Told::Number(shown_cas)),
            b't' if is_changed => Some(left.map_or(Told::Endless, Told::Number)),
            b'T' | b'N' => {
                if letter == b'T' || is_made {
                    left = left_now;
                }
                None
            }
            _ => None,
        });
        output.extend_from_slice(b"\r\n");
        if !digits.is_empty() {
            output.extend_from_slice(&digits);
            output.extend_from_slice(b"\r\n");
        }
    }

    fn push_words(&self, output: &mut Vec<u8>) {
        match self {
            Changed::To { number, .. } => {
                push_decimal(output, *number);
                output.extend_from_slice(b"\r\n");
            }
            Changed::Exists => push_line(output, "EXISTS"),
            Changed::NotFound => push_line(output, "NOT_FOUND"),
            Changed::Not(error) => push_line(output, error),
        }
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
