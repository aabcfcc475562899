//! Objects that are stored part by part: their heads. Owns that all parts of one share a validator, and that
//! a newer version is not replaced by an older one.

use crate::clock::Timestamp;
use crate::format::{Kind, ObjectHead, Records};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::large::parts::PartialObject;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::{Deadline, Found, Match, NO_ANSWER};
use crate::store::mutation::publish::{Attempt, Change};
use crate::store::mutation::request::{Condition, Lifetime, StoreError};
use crate::store::mutation::room::Patience;
use crate::store::purges::table::Since;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

/// An object of which parts are to be stored.
pub struct Declaration<'a> {
    /// Length of its whole body in bytes.
    pub len: u64,
    /// Tells it from all other versions of its key: 1 to [`VALIDATOR_LEN_MAX`](crate::format::VALIDATOR_LEN_MAX)
    /// bytes.
    pub validator: &'a [u8],
    /// Opaque bytes kept with the head.
    pub metadata: &'a [u8],
    /// Hashes of its tags, by [`Store::tag_hashes`].
    pub tags: &'a [u64],
    /// When it was stored, how old it was then and when it ends.
    pub lifetime: Lifetime,
    /// What must hold of the present entry, whole or not.
    pub condition: Condition,
}

/// What became of a declaration.
pub enum Declared {
    /// There is no other version; parts of it may be there.
    Parts {
        object: PartialObject,
        /// CAS value of the head.
        version: u64,
        /// The head is durable if what came between these is.
        tickets: (Ticket, Ticket),
        /// The head is new: there is no part yet.
        is_new: bool,
    },
    /// There is a version that is not older, or another length was declared for this one, or the condition does not
    /// hold.
    Exists,
}

impl Store {
    /// Finds the object with this validator and length, or begins it in place of whatever older there is.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Purged`] if the key was purged since `fill` began.
    pub async fn declare(
        &self,
        key: &[u8],
        declaration: &Declaration<'_>,
        fill: Fill,
    ) -> Result<Declared, StoreError> {
        let key_hash = self.key_hash(key);
        let &Declaration { len, metadata, tags, lifetime, .. } = declaration;
        self.begin_store().await?;
        let object = self.draw_object_name().await?;
        let slice_size = Store::granule_len(&self.shared.layout);
        let head = ObjectHead { len, object, slice_size };
        // Held before it can be found: whoever replaces it leaves its slices until its parts are stored.
        let held_new = self.large_object(head);
        let (body, validator) = (head.encode(), Some(declaration.validator.to_vec()));
        let records = Records { tags: tags.to_vec(), validator, ..Records::default() };
        let slot = Slot::new(Kind::Head, key, (metadata, &body), lifetime).with_records(&records);
        let since = Some(Since::Number(fill.seen()));
        let (mut patience, mut held) = (Patience::default(), None);
        let change = Change {
            key_hash,
            slot: &slot,
            fill: Some(&fill),
            since,
            replaced: None,
            is_conditional: true,
        };
        let (sequence, tickets) = loop {
            let first = self.last_ticket();
            let found = self.find_by(key, key_hash, &mut Deadline::after(ROOM_WAIT_MAX)).await;
            if found.is_unknown() {
                return Err(NO_ANSWER);
            }
            let present = found.matched.as_ref().filter(|present| present.live);
            if present.is_none() && !self.is_recovered() {
                // What an earlier start stored of it is not to be lost.
                self.wait_for_recovery().await?;
                continue;
            }
            if !declaration.condition.holds(present.map(|present| present.version)) {
                return Ok(Declared::Exists);
            }
            if let Some(present) = present {
                if declaration.is_of(present) {
                    self.check_open(Some(&fill))?;
                    // What was asked for before a purge of what there is may not be a part of that.
                    if self.is_purged_since(&fill, key, &present.tags) {
                        return Err(StoreError::Purged);
                    }
                    if !self.is_held(present, &mut held) {
                        continue;
                    }
                    let mut tickets = (first, first);
                    if self.shared.large.granules.is_distrusted() {
                        // It may not be durable after a failed flush: it is written once more.
                        let Some(ticket) = self.write_head_again((key, key_hash), &found).await?
                        else {
                            continue;
                        };
                        tickets = (ticket, ticket);
                    }
                    let Some(held) = held else { continue };
                    let version = present.version.0;
                    let object = PartialObject::new(self, key, held, (fill, tickets.0));
                    return Ok(Declared::Parts { object, version, tickets, is_new: false });
                }
                let is_usable = present.validator.is_some() || self.is_whole(present).await;
                if is_usable && !declaration.is_newer_than(present, self.shared.clock.now()) {
                    return Ok(Declared::Exists);
                }
            }
            match self.publish(&change, &found)? {
                Attempt::Published(sequence, ticket) => {
                    self.after_displacing(&found, Some(head));
                    break (sequence, (ticket, ticket));
                }
                Attempt::Changed => {}
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
            }
        };
        count(&self.shared.counters.declared);
        let object = PartialObject::new(self, key, held_new, (fill, tickets.0));
        Ok(Declared::Parts { object, version: sequence.0, tickets, is_new: true })
    }

    /// Writes the head that was found to the log once more, as it is; gives the ticket with which it is durable, or
    /// `None` if it has changed: look at it again.
    async fn write_head_again(
        &self,
        (key, key_hash): (&[u8], u64),
        found: &Found,
    ) -> Result<Option<Ticket>, StoreError> {
        let Some(matched) = &found.matched else { return Ok(None) };
        let Some(entry) = self.load_again(key_hash, matched).await? else { return Ok(None) };
        let parts = (entry.metadata(), entry.body());
        let slot = Slot::new(entry.kind(), key, parts, entry.lifetime());
        let slot = slot.with_records(&entry.kept_records());
        // With its new sequence no record of a purge will cover it.
        let since = Some(Since::Sequence(entry.sequence()));
        let (fill, replaced, is_conditional) = (None, Some(&entry), false);
        let change = Change { key_hash, slot: &slot, fill, since, replaced, is_conditional };
        match self.publish(&change, found)? {
            Attempt::Published(_, ticket) => {
                self.after_displacing(found, slot.object_head());
                Ok(Some(ticket))
            }
            Attempt::Changed => Ok(None),
            Attempt::NoRoom(why) => {
                self.wait_for_room(why, &mut Patience::default()).await?;
                Ok(None)
            }
        }
    }

    /// # Errors
    /// Recovery takes longer than a store waits.
    async fn wait_for_recovery(&self) -> Result<(), StoreError> {
        let recovered = tokio::time::timeout(ROOM_WAIT_MAX, self.recovered()).await;
        match recovered {
            Ok(()) => self.check_open(None),
            Err(_) => Err(StoreError::Busy("recovery is not complete")),
        }
    }
}

impl Declaration<'_> {
    /// Whether an entry is the head of this object.
    fn is_of(&self, present: &Match) -> bool {
        let Some(validator) = present.validator.as_deref() else { return false };
        let is_same = validator == self.validator || planted::is(Bug::JoinValidators);
        is_same && present.head.is_some_and(|head| head.len == self.len)
    }

    /// Whether it may replace another version: that is whole and stale, or this one is younger, or of the same
    /// second and comes later. One with the same validator and another length is no other version.
    fn is_newer_than(&self, present: &Match, now: Timestamp) -> bool {
        if present.validator.as_deref() == Some(self.validator) {
            return false;
        }
        let is_stale = present.is_stale || present.lifetime.fresh_until <= now;
        if is_stale && present.validator.is_none() {
            return true;
        }
        born(&self.lifetime) >= born(&present.lifetime)
    }
}

/// The second in which a version was made or last validated by its origin, as far as is known: when it was
/// stored, less how old it was then.
fn born(lifetime: &Lifetime) -> i64 {
    let Timestamp(stored_at) = lifetime.stored_at;
    i64::from(stored_at) - i64::from(lifetime.age_secs)
}
