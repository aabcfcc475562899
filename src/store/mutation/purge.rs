//! Purges of many entries: by a tag, by the beginning of their keys, of all. Owns that each holds from its
//! first moment on, and who waits until it is durable. What it covers, `purges` says.

use std::pin::pin;

use crate::format::{PREFIX_LEN_MAX, PurgeRecord, Selector, TAGS_MAX};
use crate::store::counters::{add, count};
use crate::store::log::owed_records::is_below;
use crate::store::log::removals::Removal;
use crate::store::log::write::Ticket;
use crate::store::mutation::request::{StoreError, TAG_LEN_MAX, TAGS_LEN_MAX};
use crate::store::purges::Floors;
use crate::store::shared::Store;
use crate::store::transaction::Transaction;

/// What becomes of the entries that a purge selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// They are gone.
    Hard,
    /// They are stale: only who asks for stale entries gets them, until they are updated or stored anew.
    Soft,
}

impl Store {
    /// The keyed hashes of tags, as they are kept with an entry.
    ///
    /// # Errors
    /// A tag is empty or longer than [`TAG_LEN_MAX`], there are more than [`TAGS_MAX`], or they have more than
    /// [`TAGS_LEN_MAX`] bytes.
    pub fn tag_hashes<T: AsRef<[u8]>>(&self, tags: &[T]) -> Result<Vec<u64>, StoreError> {
        let mut lengths = tags.iter().map(|tag| tag.as_ref().len());
        let bytes = lengths.clone().sum();
        if tags.len() > TAGS_MAX || bytes > TAGS_LEN_MAX {
            return Err(StoreError::Tags { count: tags.len(), bytes });
        }
        lengths.try_for_each(check_tag)?;
        let mut hashes: Vec<u64> =
            tags.iter().map(|tag| self.shared.hasher.tag(tag.as_ref())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Ok(hashes)
    }

    /// Makes the stores in progress of a key fail, as a purge of it does.
    pub fn fail_fills(&self, key: &[u8]) {
        self.shared.fills.purge(self.key_hash(key));
    }

    /// Purges the entries that were stored with a tag, at once and then durably. O(1).
    ///
    /// # Errors
    /// As those of [`Store::purge_all`]; the tag is empty or longer than [`TAG_LEN_MAX`].
    pub async fn purge_tag(&self, tag: &[u8], how: Purge) -> Result<(), StoreError> {
        check_tag(tag.len())?;
        let what = Selector::Tag(self.shared.hasher.tag(tag));
        self.purge_selected(what, how).await
    }

    /// Purges the entries whose keys begin with `prefix`, at once and then durably. O(1).
    ///
    /// # Errors
    /// As those of [`Store::purge_all`]; the prefix is empty or longer than a key.
    pub async fn purge_prefix(&self, prefix: &[u8], how: Purge) -> Result<(), StoreError> {
        let len = u16::try_from(prefix.len()).ok().filter(|len| (1..=PREFIX_LEN_MAX).contains(len));
        let len = len.ok_or(StoreError::KeyLen(prefix.len()))?;
        let hash = self.shared.hasher.prefixes().hash(prefix);
        self.purge_selected(Selector::Prefix { len, hash }, how).await
    }

    /// Purges everything stored so far, at once and then durably. O(1): a floor in the superblock.
    ///
    /// # Errors
    /// The device failed, or did not keep up for 30 s: what was purged is so now, and what says it is written
    /// as soon as that can be; before it is, a crash may undo the purge.
    pub async fn purge_all(&self, how: Purge) -> Result<(), StoreError> {
        let ticket = match how {
            Purge::Hard => {
                let mut log = self.shared.log.lock();
                self.check_open(None)?;
                let (floor, ticket) = log.raise_purge_floor(self.shared.clock.pair());
                self.shared.set_purge_floor(floor);
                // After the floor: a store that begins later has seen it.
                self.shared.fills.purge_all();
                ticket
            }
            Purge::Soft => {
                let mut log = self.shared.log.lock();
                self.check_open(None)?;
                let soft = log.sequences_end();
                self.shared.purges.raise_floor(true, soft);
                let floors = Floors { soft, ..Floors::default() };
                log.raise_floors(floors, self.shared.clock.pair())
            }
        };
        // Whether or not somebody waits: it is written.
        self.shared.signals.wake_flusher.notify_one();
        let settled = pin!(async {
            self.begin_mutation().await?;
            self.flush_through(ticket).await
        });
        self.in_time(settled).await
    }

    async fn purge_selected(&self, what: Selector, how: Purge) -> Result<(), StoreError> {
        let (record, floor) = {
            let mut transaction = Transaction::begin(self);
            self.check_open(None)?;
            let log = transaction.log();
            let is_soft = how == Purge::Soft;
            let record = PurgeRecord { sequence: log.draw_removal(), what, is_soft };
            // From here on it holds. Under the append lock: nothing is published or moved meanwhile.
            if let Some(folded) = self.shared.purges.add(&record) {
                self.write_floors(folded.count, &mut transaction);
                tracing::warn!(
                    records = folded.count,
                    is_soft,
                    "too many purges by tag or prefix: what is older than the oldest half of them is purged too"
                );
            }
            let may_append = !self.shared.durability.health.is_refusing();
            let now = self.shared.clock.now();
            let is_owed = transaction.log().record_purge(record, may_append, now);
            let floor = (!is_owed).then(|| {
                self.shared.purges.raise_floor(is_soft, record.sequence);
                tracing::warn!(
                    is_soft,
                    "too many purges by tag or prefix wait for the device: all that is older is purged too"
                );
                self.write_floors(1, &mut transaction)
            });
            transaction.finish();
            (record, floor)
        };
        count(&self.shared.counters.purge_records);
        self.shared.signals.wake_flusher.notify_one();
        match floor {
            Some(ticket) => {
                let settled = pin!(async {
                    self.begin_mutation().await?;
                    self.flush_through(ticket).await
                });
                self.in_time(settled).await
            }
            None => self.in_time(pin!(self.until_durable(|| self.advance_purge(&record)))).await,
        }
    }

    /// Has the floors of purge records written, into which so many went; gives the ticket with which they are
    /// durable.
    fn write_floors(&self, records: usize, transaction: &mut Transaction<'_>) -> Ticket {
        count(&self.shared.counters.purge_folds);
        add(&self.shared.counters.purge_records_folded, records as u64);
        let floors = self.shared.purges.floors();
        transaction.log().raise_floors(floors, self.shared.clock.pair())
    }

    /// Appends a record if nobody did and that can be; tells where it is.
    fn advance_purge(&self, record: &PurgeRecord) -> Removal {
        let mut transaction = Transaction::begin(self);
        let log = transaction.log();
        if !self.shared.durability.health.is_refusing() {
            log.record_purges(self.shared.clock.now());
        }
        let state = match log.purge_record(record) {
            // A floor says it, which comes with the next superblock.
            Removal::Waiting if is_below(record, log.floors()) => {
                Removal::Logged(log.note_modified())
            }
            state => state,
        };
        transaction.finish();
        state
    }
}

fn check_tag(len: usize) -> Result<(), StoreError> {
    if (1..=TAG_LEN_MAX).contains(&len) { Ok(()) } else { Err(StoreError::TagLen(len)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::{Delay, SimDevice};
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::request::{Condition, Value};
    use crate::store::purges::table::RECORDS_MAX;
    use crate::store::testing;

    /// The callers are gone, and the device takes long: nothing of it is durable.
    #[tokio::test(start_paused = true)]
    async fn of_too_many_purges_that_wait_the_oldest_half_becomes_a_floor() {
        let (sim, clock) = (SimDevice::new(64 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let lifetime = testing::lifetime();
        let value = Value { metadata: b"", body: b"body", lifetime, tags: &[], ram_only: false };
        let stored = store.put(b"old", &value, Condition::Always, None).await.unwrap();
        store.flush_through(stored.1).await.unwrap();
        sim.set_delay(Delay::Sleep(Duration::from_secs(100)));
        let purge = |n: usize, how| {
            let tag = n.to_le_bytes();
            assert!(store.purge_tag(&tag, how).now_or_never().is_none(), "it waits");
        };
        // The table of soft ones stays full, so what is owed is beyond the limit as well.
        (0..RECORDS_MAX).for_each(|n| purge(n, Purge::Soft));
        for n in 0..2 * RECORDS_MAX {
            if n == 2 * RECORDS_MAX - 500 {
                let stored = store.put(b"new", &value, Condition::Always, None).now_or_never();
                stored.expect("a store does not wait").unwrap();
            }
            purge(n, Purge::Hard);
        }
        assert!(store.lookup(b"old", Stale::Accept).await.is_none(), "the floor is above it");
        assert!(store.lookup(b"new", Stale::Accept).await.is_some());
        assert!(store.shared.purges.counts()[0] > RECORDS_MAX / 4);
        sim.set_delay(Delay::None);
        tokio::time::sleep(Duration::from_secs(1000)).await;
        store.purge_tag(b"last", Purge::Hard).await.unwrap();
        assert_eq!(store.shared.log.lock().removals_waiting(), 0);
        drop(store);
        sim.power_cut(1);
        let store = testing::open(&sim, &clock).await;
        store.recovered().await;
        assert!(store.lookup(b"old", Stale::Accept).await.is_none());
        assert!(store.lookup(b"new", Stale::Accept).await.is_some());
    }
}
