//! Changes of clients that become visible: values, heads, slices, and what is kept in RAM only. Owns what is
//! verified and displaced with each; what was found and who waits is for its callers.

use crate::clock::Timestamp;
use crate::format::{Kill, Kind, Sequence, SliceKey};
use crate::planted::{self, Bug};
use crate::store::catalog::Bucket;
use crate::store::counters::add;
use crate::store::entries::Tier;
use crate::store::entry::{Entry, SlotBytes};
use crate::store::index::word::SizeClass;
use crate::store::log::append::Reservation;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::Found;
use crate::store::mutation::request::{Lifetime, StoreError};
use crate::store::mutation::room::Patience;
use crate::store::shared::Store;
use crate::store::transaction::{Transaction, Written};

/// How one attempt to publish ended.
pub(in crate::store) enum Attempt {
    Published(Sequence, Ticket),
    /// The words changed since they were verified.
    Changed,
    NoRoom(NoRoom),
}

/// A change to be published.
pub(in crate::store) struct Change<'a> {
    pub(in crate::store) key_hash: u64,
    pub(in crate::store) slot: &'a Slot<'a>,
    pub(in crate::store) fill: Option<Fill>,
}

/// A slot as long as one of a single tombstone, to reserve its place before its sequence is drawn.
pub(in crate::store) fn kill_placeholder() -> Slot<'static> {
    Slot::of_kills(&[0; crate::format::KILL_LEN], Timestamp(0))
}

pub(in crate::store) fn log_sequence(kills: &[Kill]) -> Sequence {
    kills.iter().map(|kill| kill.sequence).max().unwrap_or_default()
}

impl Store {
    /// Writes the slot to the log and points the index to it, unless the words changed.
    pub(in crate::store) fn publish(
        &self,
        change: &Change<'_>,
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let log = shared.log.lock();
        self.check_open(change.fill)?;
        let (slot, key_hash) = (change.slot, change.key_hash);
        let transaction = Transaction::begin(self, log, (slot, key_hash), Appender::Client);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        shared.recovery.changed.note(key_hash);
        let pointed = transaction.point(
            |bucket| self.is_unchanged(bucket, &found.places),
            |sequence, bucket, log| self.unlink(found, (key_hash, sequence), (bucket, log)),
        );
        let Some(pointed) = pointed else { return Ok(Attempt::Changed) };
        let supersedes = found.may_supersede(pointed.log(), key_hash);
        let written = pointed.append(supersedes, |log, region| {
            log.count_stored(slot.len());
            if let Some(head) = slot.object_head() {
                // Under the append lock: the head is where it was put.
                let at = (region, slot.len());
                shared.large.objects.lock().finish((head.object, head.len), at, log.stored());
            }
        });
        if found.matched.as_ref().is_some_and(|matched| matched.tier == Tier::Ram) {
            self.keep_stored(slot, &written);
        }
        Ok(Attempt::Published(written.sequence, written.ticket))
    }

    /// Keeps the value in the RAM tier only; an older version on the device is killed in the log.
    pub(in crate::store) fn publish_in_ram(
        &self,
        key: &[u8],
        change: &Change<'_>,
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let len = usize::try_from(change.slot.len()).unwrap_or(usize::MAX);
        let bytes = SlotBytes::written(len, |target| change.slot.write_behind_header(target));
        let mut log = shared.log.lock();
        self.check_open(change.fill)?;
        let kill = found.may_supersede(&log, change.key_hash);
        let reserved = if kill {
            match log.reserve(&kill_placeholder(), Appender::Client, shared.clock.now()) {
                Ok(at) => Some(at),
                Err(why) => return Ok(Attempt::NoRoom(why)),
            }
        } else {
            if let Err(why) = log.check_epoch(Appender::Client) {
                return Ok(Attempt::NoRoom(why));
            }
            None
        };
        let sequence = log.draw();
        let header = change.slot.header(sequence, false);
        let place = shared.ram_place(log.next_ram_place());
        let entry = Entry::new(header, bytes, place);
        // The copy comes first: a word without it would be an entry that is lost.
        let lost = shared.catalog.resident.insert(entry);
        shared.recovery.changed.note(change.key_hash);
        let mut bucket = shared.catalog.lock(change.key_hash);
        if !self.is_unchanged(&bucket, &found.places) {
            drop(bucket);
            drop(log);
            shared.catalog.resident.remove(place);
            self.drop_lost(&lost);
            return Ok(Attempt::Changed);
        }
        self.unlink(found, (change.key_hash, sequence), (&mut bucket, &mut log));
        if lost.iter().all(|entry| entry.place() != place) {
            bucket.insert_in_ram(place.location(), SizeClass::of(change.slot.len()));
        }
        drop(bucket);
        let mut ticket = 0;
        if let Some(at) = reserved {
            let record = Kill { key_hash: change.key_hash, sequence };
            ticket = self.fill_kills(&mut log, at, &[record]);
            log.removal_logged(record, ticket);
        }
        self.release(log);
        self.drop_lost(&lost);
        if shared.catalog.resident.get(place).is_none() {
            self.forget(self.key_hash(key), place);
        }
        Ok(Attempt::Published(sequence, ticket))
    }

    /// Copies a value just stored to the RAM tier: the version it replaces was there, so it is hot.
    pub(in crate::store) fn keep_stored(&self, slot: &Slot<'_>, written: &Written) {
        let &Written { place, sequence, supersedes, touches, .. } = written;
        let header = slot.header(sequence, supersedes);
        let len = usize::try_from(slot.len()).unwrap_or(usize::MAX);
        let bytes = SlotBytes::written(len, |target| slot.write_behind_header(target));
        self.keep_resident(Entry::new(header, bytes, place), touches);
    }

    pub(in crate::store) fn fill_kills(
        &self,
        log: &mut Log,
        at: Reservation,
        kills: &[Kill],
    ) -> Ticket {
        let encoded = Slot::encode_kills(kills);
        let slot = Slot::of_kills(&encoded, self.shared.clock.now());
        let (ticket, unfilled) = log.append(at, &slot, 0, (log_sequence(kills), false));
        assert!(unfilled.is_none(), "a slot of kill records is short");
        ticket
    }

    pub(in crate::store) fn check_open(&self, fill: Option<Fill>) -> Result<(), StoreError> {
        if self.shared.is_stopping() {
            return Err(StoreError::ShuttingDown);
        }
        let purged = fill.is_some_and(|fill| self.shared.fills.is_purged(fill));
        if purged && !planted::is(Bug::FillIgnoresPurge) {
            return Err(StoreError::Purged);
        }
        Ok(())
    }

    /// Appends one slice of an object whose head comes later. Its key is new, so nothing is verified.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Evicted`] if another slice of it is gone already.
    pub async fn append_slice(
        &self,
        key: SliceKey,
        body: &[u8],
        lifetime: Lifetime,
    ) -> Result<Ticket, StoreError> {
        self.begin_store().await?;
        add(&self.shared.counters.body_bytes, body.len() as u64);
        let encoded = key.encode();
        let slot = Slot::new(Kind::Slice, &encoded, (&[], body), lifetime);
        let key_hash = self.slice_hash(&encoded);
        let mut patience = Patience::default();
        loop {
            match self.append_new(key.object, key_hash, &slot)? {
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
                Attempt::Changed => {}
                Attempt::Published(_, ticket) => return Ok(ticket),
            }
        }
    }

    pub(in crate::store) fn append_new(
        &self,
        object: Sequence,
        key_hash: u64,
        slot: &Slot<'_>,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let log = shared.log.lock();
        self.check_open(None)?;
        if shared.large.objects.lock().claim(object).is_none() {
            return Err(StoreError::Evicted);
        }
        let transaction = Transaction::begin(self, log, (slot, key_hash), Appender::Client);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        let pointed = transaction.point(|_| true, |_, _, _| {});
        let Some(pointed) = pointed else { return Ok(Attempt::Changed) };
        let written = pointed.append(false, |log, region| {
            log.count_stored(slot.len());
            shared.large.objects.lock().add(object, region, slot.len());
        });
        Ok(Attempt::Published(written.sequence, written.ticket))
    }

    /// Takes the displaced words out of the index.
    pub(in crate::store) fn unlink(
        &self,
        found: &Found,
        (key_hash, sequence): (u64, Sequence),
        (bucket, log): (&mut Bucket<'_>, &mut Log),
    ) {
        for place in found.displaced() {
            bucket.remove(place.location());
        }
        if found.is_partial {
            self.shared.dead.unverified.note(key_hash, sequence);
        }
        for suspect in &found.suspects {
            // It may be another key's, which then has no tombstone of its own.
            let (region, _) = suspect.location().split(&self.shared.layout);
            log.note_unindexed(region);
        }
    }

    pub(in crate::store) fn after_displacing(&self, found: &Found) {
        for place in found.displaced() {
            self.shared.catalog.resident.remove(place);
        }
        if let Some(head) = found.matched.as_ref().and_then(|matched| matched.head) {
            self.discard(head.object, head.slice_count());
        }
    }
}
