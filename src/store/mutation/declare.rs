//! Objects that are stored part by part: their heads. Owns that all parts of one share a validator, and that
//! a newer version is not replaced by an older one.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::format::{Kind, ObjectHead, Records};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::large::object::LargeObject;
use crate::store::large::parts::{PartialObject, SeenHead};
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
        object: Arc<PartialObject>,
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
    /// See [`StoreError`]; [`StoreError::Purged`] if the key was purged since `fill` began, [`StoreError::Gone`]
    /// if a new object would have ended already. The present entry stays.
    pub async fn declare(
        &self,
        key: &[u8],
        declaration: &Declaration<'_>,
        fill: Fill,
    ) -> Result<Declared, StoreError> {
        let key_hash = self.key_hash(key);
        self.begin_store().await?;
        let (mut patience, mut held, mut drawn) = (Patience::default(), None, None);
        loop {
            let (first, purges) = (self.last_ticket(), self.shared.purges.last_number());
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
            let now = self.shared.clock.now();
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
                    if present.head.is_some_and(|head| self.is_in_doubt(head.object)) {
                        // It may not be durable after a failed flush: it is written once more.
                        let Some(ticket) = self.write_head_again((key, key_hash), &found).await?
                        else {
                            continue;
                        };
                        tickets = (ticket, ticket);
                    }
                    let Some(held) = held else { continue };
                    let (version, seen) = (present.version.0, SeenHead::of(present, purges));
                    let of = (fill, tickets.0);
                    let object = PartialObject::new(self, key, held, of, Some(seen)).into();
                    return Ok(Declared::Parts { object, version, tickets, is_new: false });
                }
                let is_usable = present.validator.is_some() || self.is_whole(present).await;
                if is_usable && !declaration.is_newer_than(present, now) {
                    return Ok(Declared::Exists);
                }
            }
            if declaration.lifetime.keep_until <= now {
                return Err(StoreError::Gone);
            }
            // Held before it can be found: whoever replaces it leaves its slices until its parts are stored.
            let object = match drawn.take() {
                Some(object) => object,
                None => self.new_partial_object(declaration.len).await?,
            };
            match self.publish_declared((key, key_hash), declaration, (&object, &fill), &found)? {
                Attempt::Published(sequence, ticket) => {
                    self.after_displacing(&found, Some(object.head()));
                    count(&self.shared.counters.declared);
                    let object = PartialObject::new(self, key, object, (fill, ticket), None).into();
                    let (version, tickets) = (sequence.0, (ticket, ticket));
                    return Ok(Declared::Parts { object, version, tickets, is_new: true });
                }
                Attempt::Changed => {}
                Attempt::NoRoom(why) => self.wait_for_room(why, &mut patience).await?,
            }
            drawn = Some(object);
        }
    }

    async fn new_partial_object(&self, len: u64) -> Result<LargeObject, StoreError> {
        let object = self.draw_object_name().await?;
        let slice_size = Store::granule_len(&self.shared.layout);
        Ok(self.large_object(ObjectHead { len, object, slice_size }))
    }

    /// Tries to put the head of a new object in the place of what was found.
    fn publish_declared(
        &self,
        (key, key_hash): (&[u8], u64),
        declaration: &Declaration<'_>,
        (object, fill): (&LargeObject, &Fill),
        found: &Found,
    ) -> Result<Attempt, StoreError> {
        let &Declaration { metadata, tags, lifetime, validator, .. } = declaration;
        let (body, validator) = (object.head().encode(), Some(validator.to_vec()));
        let records = Records { tags: tags.to_vec(), validator, ..Records::default() };
        let slot = Slot::new(Kind::Head, key, (metadata, &body), lifetime).with_records(&records);
        let (since, replaced, is_conditional) = (Some(Since::Number(fill.seen())), None, true);
        let fill = Some(fill);
        let change = Change { key_hash, slot: &slot, fill, since, replaced, is_conditional };
        self.publish(&change, found)
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
        // Its new sequence is of an epoch whose age is known.
        let slot = if matched.age_known { slot } else { slot.marked_stale() };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::device::{Delay, SimDevice};
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::purge::Purge;
    use crate::store::testing;

    const LEN: u64 = 100_000;

    /// The purge comes at any moment while the head is read and written again.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_written_again_brings_nothing_back() {
        let mut overlaps = 0;
        for tenths in 0..100 {
            let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
            let store = testing::create(&sim, &clock).await;
            let object = testing::declare(&store, b"key", LEN).await.unwrap();
            let (first, last) = object.fill(0, &[7; 65_536], true).await.unwrap();
            store.flush_between(first, last).await.unwrap();
            drop(object);
            testing::push_out_of_memory(&store).await;
            store.doubt(&store.shared.log.lock());
            sim.set_delay(Delay::Sleep(Duration::from_millis(100)));
            let again = tokio::spawn({
                let store = store.clone();
                async move { testing::declare(&store, b"key", LEN).await.map(drop) }
            });
            tokio::time::sleep(Duration::from_millis(10 * tenths + 5)).await;
            if again.is_finished() {
                break;
            }
            overlaps += 1;
            store.purge_all(Purge::Hard).await.unwrap();
            again.await.unwrap().ok();
            sim.set_delay(Delay::None);
            if let Some((entry, _)) = store.lookup(b"key", Stale::Accept).await {
                let object = store.large_object(entry.object_head().unwrap());
                // Begun anew at most.
                assert_eq!(object.missing(0..LEN).await, vec![0..LEN; 1], "after {tenths} tenths");
            }
        }
        assert!(overlaps > 2, "the purge came in between");
    }
}
