//! Makes changes by clients visible: values, heads, and entries in RAM only. Owns what is verified and
//! displaced with each; callers find the present entry and wait.

use crate::format::{ObjectHead, Sequence, Tombstone};
use crate::planted::{self, Bug};
use crate::store::catalog::Bucket;
use crate::store::entries::Tier;
use crate::store::entry::{Entry, SlotBytes};
use crate::store::index::index_entry::SizeClass;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::Found;
use crate::store::mutation::request::StoreError;
use crate::store::purges::Verdict;
use crate::store::purges::table::{Since, Subject};
use crate::store::shared::Store;
use crate::store::transaction::{Transaction, Written};

/// How one attempt to publish ended.
pub(in crate::store) enum Attempt {
    Published(Sequence, Ticket),
    /// The key's index entries changed since they were verified.
    Changed,
    NoRoom(NoRoom),
}

/// A change to be published.
pub(in crate::store) struct Change<'a> {
    pub(in crate::store) key_hash: u64,
    pub(in crate::store) slot: &'a Slot<'a>,
    pub(in crate::store) fill: Option<&'a Fill>,
    /// Later purges by tags and prefixes cover it too.
    pub(in crate::store) since: Option<Since>,
    /// The entry whose body it keeps: what purges that one by its tags purges both.
    pub(in crate::store) replaced: Option<&'a Entry>,
    /// It happens only if the present entry is live.
    pub(in crate::store) is_conditional: bool,
}

impl Store {
    /// Appends the slot to the log and points the index to it, unless the key's index entries changed. It is
    /// marked as stale if a soft purge covers it.
    pub(in crate::store) fn publish(
        &self,
        change: &Change<'_>,
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let (slot, key_hash) = (change.slot, change.key_hash);
        let transaction = Transaction::begin(self);
        self.check_open(change.fill)?;
        self.check_recovery()?;
        if change.is_conditional && self.is_purged_since_found(found, slot.key()) {
            return Ok(Attempt::Changed);
        }
        let marked = self.marked_by_purges(change)?;
        let slot = marked.as_ref().unwrap_or(slot);
        let reserved = match transaction.reserve((slot, key_hash), Appender::Client) {
            Ok(reserved) => reserved,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        shared.recovery.changed.note(key_hash);
        let pointed = reserved.point(
            |bucket| self.is_unchanged(bucket, &found.places),
            |sequence, bucket, log| self.unlink(found, (key_hash, sequence), (bucket, log)),
        );
        let Some(pointed) = pointed else { return Ok(Attempt::Changed) };
        let supersedes = found.may_supersede(pointed.log(), key_hash);
        let written = pointed.append(supersedes, |log, region| {
            log.count_stored(slot.len());
            if let Some(head) = slot.object_head() {
                // Under the append lock, so that the head is still where it was appended.
                let (at, mut claims) = ((region, slot.len()), shared.large.claims.lock());
                match found.matched.as_ref().filter(|matched| matched.names(head.object)) {
                    Some(old) => {
                        let from = (old.place.region(&shared.layout), old.slot_len);
                        claims.replace_head(head.object, from, at);
                    }
                    None => claims.finish((head.object, head.len), at, log.stored()),
                }
            }
        });
        if found.matched.as_ref().is_some_and(|matched| matched.tier == Tier::Ram) {
            self.keep_stored(slot, &written);
        }
        Ok(Attempt::Published(written.sequence, written.ticket))
    }

    /// Keeps the value in the RAM tier only; an older version on the device gets a tombstone.
    pub(in crate::store) fn publish_in_ram(
        &self,
        change: &Change<'_>,
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let shared = &*self.shared;
        let (slot, key_hash) = (change.slot, change.key_hash);
        let mut bytes = SlotBytes::of(slot);
        let mut transaction = Transaction::begin(self);
        self.check_open(change.fill)?;
        self.check_recovery()?;
        if change.is_conditional && self.is_purged_since_found(found, slot.key()) {
            return Ok(Attempt::Changed);
        }
        let marked = self.marked_by_purges(change)?;
        if let Some(slot) = &marked {
            bytes = SlotBytes::of(slot);
        }
        let slot = marked.as_ref().unwrap_or(slot);
        let reserved = transaction.check_index().and_then(|()| {
            match found.may_supersede(transaction.log(), key_hash) {
                true => transaction.reserve_tombstone(Appender::Client).map(Some),
                false => transaction.log().check_epoch(Appender::Client).map(|()| None),
            }
        });
        let tombstone_at = match reserved {
            Ok(tombstone_at) => tombstone_at,
            Err(why) => return Ok(Attempt::NoRoom(why)),
        };
        shared.recovery.changed.note(key_hash);
        let changed = transaction.change(
            key_hash,
            |bucket| self.is_unchanged(bucket, &found.places),
            |bucket, log| {
                let sequence = log.draw();
                self.unlink(found, (key_hash, sequence), (bucket, log));
                shared.purges.note_in_ram(sequence, slot.lifetime().keep_until);
                let header = slot.header(sequence, false);
                let entry_at = |place| Entry::new(header, bytes, place);
                (sequence, bucket.insert_in_ram(SizeClass::of(slot.len()), entry_at))
            },
        );
        let Some((sequence, lost)) = changed else { return Ok(Attempt::Changed) };
        let ticket = match tombstone_at {
            Some(at) => transaction.append_tombstone(at, Tombstone { key_hash, sequence }),
            None => 0,
        };
        transaction.finish();
        self.drop_lost(&lost);
        Ok(Attempt::Published(sequence, ticket))
    }

    /// Copies a value just stored to the RAM tier: the version it replaces was there, so it is hot.
    pub(in crate::store) fn keep_stored(&self, slot: &Slot<'_>, written: &Written) {
        let &Written { place, sequence, supersedes, touches, .. } = written;
        let header = slot.header(sequence, supersedes);
        self.keep_resident(Entry::new(header, SlotBytes::of(slot), place), touches);
    }

    pub(in crate::store) fn check_open(&self, fill: Option<&Fill>) -> Result<(), StoreError> {
        if self.shared.is_stopping() {
            return Err(StoreError::ShuttingDown);
        }
        let purged = fill.is_some_and(Fill::is_purged);
        if purged && !planted::is(Bug::FillIgnoresPurge) {
            return Err(StoreError::Purged);
        }
        Ok(())
    }

    /// Whether a purge since `fill` began, hard or soft, covers what is being stored.
    pub(crate) fn is_purged_since(&self, fill: &Fill, key: &[u8], tags: &[u64]) -> bool {
        let of = Subject { key, tags: tags.iter().copied() };
        let verdict = self.shared.purges.verdict(Since::Number(fill.seen()), of).0;
        fill.is_purged() || fill.is_expired() || verdict != Verdict::Live
    }

    /// The slot of a change marked as stale, if a soft purge covers it and it does not say so yet. Ask under
    /// the append lock: purges are made under it.
    ///
    /// # Errors
    /// A hard purge covers it.
    fn marked_by_purges<'a>(&self, change: &Change<'a>) -> Result<Option<Slot<'a>>, StoreError> {
        if planted::is(Bug::FillIgnoresPurge) {
            return Ok(None);
        }
        let floor = self.shared.purge_floor();
        if change.replaced.is_some_and(|replaced| replaced.sequence() < floor) {
            return Err(StoreError::Purged);
        }
        let Some(since) = change.since else { return Ok(None) };
        let slot = change.slot;
        let of = Subject { key: slot.key(), tags: slot.tags() };
        let mut verdict = self.shared.purges.verdict(since, of).0;
        if let Some(replaced) = change.replaced {
            let of = Subject { key: slot.key(), tags: replaced.tags() };
            verdict = verdict.max(self.shared.purges.verdict(since, of).0);
        }
        if change.fill.is_some_and(Fill::is_expired) {
            verdict = verdict.max(Verdict::Stale);
        }
        match verdict {
            Verdict::Dead => Err(StoreError::Purged),
            Verdict::Stale if !slot.is_marked_stale() => Ok(Some(slot.marked_stale())),
            Verdict::Stale | Verdict::Live => Ok(None),
        }
    }

    /// While recovery goes on, it must remember each key that is changed.
    #[inline]
    fn check_recovery(&self) -> Result<(), StoreError> {
        if self.shared.recovery.changed.is_full() {
            return Err(StoreError::Busy("more keys were stored than recovery can remember"));
        }
        Ok(())
    }

    /// Removes the index entries of displaced versions.
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
            // It may be another key's entry, which then has no tombstone of its own.
            let (region, _) = suspect.location().split(&self.shared.layout);
            log.note_unindexed(region);
        }
    }

    /// Drops what displaced versions leave: copies in RAM, and the slices that `head`, which came in their
    /// place, does not name.
    pub(in crate::store) fn after_displacing(&self, found: &Found, head: Option<ObjectHead>) {
        for place in found.displaced() {
            self.shared.catalog.resident.remove(place);
        }
        let named = head.map(|head| head.object).filter(|_| !planted::is(Bug::UpdateDropsSlices));
        if let Some(old) = found.matched.as_ref().and_then(|matched| matched.head)
            && Some(old.object) != named
        {
            self.discard(old);
        }
    }
}
