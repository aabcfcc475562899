//! Purges of many entries: by a tag, by the beginning of their keys, of all. Owns that each holds from its
//! first moment on, and who waits until it is durable. What it covers, `purges` says.

use std::pin::pin;

use crate::format::{PREFIX_LEN_MAX, PurgeRecord, Selector, TAGS_MAX};
use crate::store::counters::{add, count};
use crate::store::log::removals::Removal;
use crate::store::log::write::Ticket;
use crate::store::mutation::request::{StoreError, TAG_LEN_MAX, TAGS_LEN_MAX};
use crate::store::purges::Floors;
use crate::store::purges::table::Folded;
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
            let folded = self.shared.purges.add(&record);
            let may_append = !self.shared.durability.health.is_refusing();
            let is_owed = log.record_purge(record, may_append, self.shared.clock.now());
            if !is_owed {
                self.shared.purges.raise_floor(is_soft, record.sequence);
            }
            let floor = (!is_owed || folded.is_some())
                .then(|| self.write_floors(is_soft, folded, &mut transaction));
            transaction.finish();
            (record, floor.filter(|_| !is_owed))
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

    /// Has the floors of purge records written, into which some went; gives the ticket with which they are
    /// durable.
    fn write_floors(
        &self,
        is_soft: bool,
        folded: Option<Folded>,
        transaction: &mut Transaction<'_>,
    ) -> Ticket {
        let floors = self.shared.purges.floors();
        let ticket = transaction.log().raise_floors(floors, self.shared.clock.pair());
        let records = folded.map_or(1, |folded| folded.count);
        count(&self.shared.counters.purge_folds);
        add(&self.shared.counters.purge_records_folded, records as u64);
        let effect = if is_soft { "stale" } else { "gone" };
        tracing::warn!(
            records,
            effect,
            "too many purges by tag or prefix: what is older than the oldest half of them is {effect} too"
        );
        ticket
    }

    /// Appends a record if nobody did and that can be; tells where it is.
    fn advance_purge(&self, record: &PurgeRecord) -> Removal {
        let mut transaction = Transaction::begin(self);
        let log = transaction.log();
        if !self.shared.durability.health.is_refusing() {
            log.record_purges(self.shared.clock.now());
        }
        let state = match log.is_below_floor(record) {
            true => Removal::Done,
            false => log.purge_record(record),
        };
        transaction.finish();
        state
    }
}

fn check_tag(len: usize) -> Result<(), StoreError> {
    if (1..=TAG_LEN_MAX).contains(&len) { Ok(()) } else { Err(StoreError::TagLen(len)) }
}
