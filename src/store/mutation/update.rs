//! Changes of an entry that keep its body: a new lifetime where it is, or a new head. Owns what is written
//! again: nothing of a large object but its head.

use crate::format::{BODY_CHUNK, Kind, ObjectHead, Records, Sequence};
use crate::store::counters::{add, count};
use crate::store::entry::Entry;
use crate::store::large::upload::Upload;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::{Deadline, Found, Match, NO_ANSWER};
use crate::store::mutation::publish::{Attempt, Change};
use crate::store::mutation::request::{Condition, Lifetime, StoreError, Stored};
use crate::store::mutation::room::Patience;
use crate::store::purges::table::Since;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

/// What becomes of an entry.
pub struct Update<'a> {
    /// New metadata; `None` keeps them.
    pub metadata: Option<&'a [u8]>,
    /// Hashes of new tags, by [`Store::tag_hashes`]; `None` keeps those that there are.
    pub tags: Option<&'a [u64]>,
    /// Gives the new lifetime for the present one.
    pub lifetime: &'a (dyn Fn(Lifetime) -> Lifetime + Send + Sync),
    /// The lifetime is a new one, as after a validation. Else what is stale for another reason than its times,
    /// or of unknown age, stays stale.
    pub validates: bool,
    /// A purge of the key since it began prevails.
    pub fill: &'a Fill,
}

/// An update of one key.
struct Attempted<'a> {
    key: &'a [u8],
    key_hash: u64,
    update: &'a Update<'a>,
}

/// What attempts at one update leave for the next.
#[derive(Default)]
struct Progress {
    patience: Patience,
    split: Option<Split>,
}

/// The body of an entry as the only slice of an object whose head is not published yet.
struct Split {
    /// Of the entry: another version has another body.
    version: Sequence,
    upload: Upload,
    head: ObjectHead,
}

/// How one attempt at an update ended.
enum Outcome {
    Done(Stored, Ticket),
    /// Something else changed the entry, or moved it: look at it again.
    Again,
}

impl Store {
    /// Changes metadata or lifetime of a live entry, stale or not, if `condition` holds of it. Where only the
    /// lifetime changes, it is rewritten in place and keeps its version. Else the entry is written again if
    /// its body has at most 64 KiB, and a new head if it has more; a body of more than 64 KiB that has no head
    /// of its own yet becomes a slice, once.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Purged`] if the key was purged meanwhile. The entry is as it was,
    /// unless the device failed.
    pub async fn update(
        &self,
        key: &[u8],
        condition: Condition,
        update: &Update<'_>,
    ) -> Result<(Stored, Ticket), StoreError> {
        let key_hash = self.key_hash(key);
        let of_key = Attempted { key, key_hash, update };
        self.begin_store().await?;
        let (mut progress, mut held) = (Progress::default(), None);
        loop {
            self.check_open(Some(update.fill))?;
            let found = self.find_by(key, key_hash, &mut Deadline::after(ROOM_WAIT_MAX)).await;
            if found.is_unknown() {
                return Err(NO_ANSWER);
            }
            let Some(matched) = found.matched.as_ref().filter(|matched| matched.live) else {
                return Ok((Stored::Missing, 0));
            };
            if !self.is_held(matched, &mut held) {
                continue;
            }
            // A head of parts answers for those that are there.
            if matched.validator.is_none() && !self.is_whole(matched).await {
                return Ok((Stored::Missing, 0));
            }
            if !condition.holds(Some(matched.version)) {
                return Ok((Stored::Exists, 0));
            }
            match self.try_to_update(&of_key, (&found, matched), &mut progress).await? {
                Outcome::Done(stored, ticket) => {
                    count(&self.shared.counters.updated);
                    return Ok((stored, ticket));
                }
                Outcome::Again => {}
            }
        }
    }

    async fn try_to_update(
        &self,
        of_key: &Attempted<'_>,
        (found, matched): (&Found, &Match),
        progress: &mut Progress,
    ) -> Result<Outcome, StoreError> {
        let &Attempted { key, key_hash, update, .. } = of_key;
        if update.validates && update.fill.is_expired() {
            return Err(StoreError::Purged);
        }
        let lifetime = (update.lifetime)(matched.lifetime);
        if lifetime.keep_until <= self.shared.clock.now() {
            let ended = self.end_life(key, Some(matched.version.0)).await?;
            let is_done = |_| Outcome::Done(Stored::Yes(matched.version.0), self.last_ticket());
            return Ok(ended.map_or(Outcome::Again, is_done));
        }
        // What makes it stale besides its times goes with a new sequence only.
        let is_stale = matched.is_stale || !matched.age_known;
        let in_place = !is_stale || !update.validates;
        if update.metadata.is_none() && update.tags.is_none() && in_place {
            return self.update_in_place((key, key_hash), matched, lifetime).await;
        }
        let Some(entry) = self.load_again(key_hash, matched).await? else {
            return Ok(Outcome::Again);
        };
        let metadata = update.metadata.unwrap_or(entry.metadata());
        let records = of_update(&entry, update, is_stale);
        let is_same = metadata == entry.metadata() && records.tags == entry.records().tags;
        if is_same && in_place {
            return self.update_in_place((key, key_hash), matched, lifetime).await;
        }
        let has_slice =
            |split: &Split| self.shared.large.claims.lock().claim(split.head.object).is_some();
        let mut split = progress.split.take();
        // Without room its slice may have been evicted.
        split = split.filter(|split| split.version == matched.version && has_slice(split));
        if split.is_none() && matched.head.is_none() && entry.body_len() > BODY_CHUNK {
            // From here on updates write only a head.
            let upload = self.begin_upload(key, lifetime, None)?;
            let before = self.last_ticket();
            let (upload, head) = upload.with_slice(entry.body()).await?;
            // The head may not be on the device without it: both may be written at the same time.
            self.flush_between(before + 1, self.last_ticket()).await?;
            split = Some(Split { version: matched.version, upload, head });
        }
        let head = split.as_ref().map(|split| split.head.encode());
        let (kind, body) = match &head {
            Some(head) => (Kind::Head, &head[..]),
            None => (entry.kind(), entry.body()),
        };
        let slot = Slot::new(kind, key, (metadata, body), lifetime);
        let slot = slot.with_records(&records);
        let since = Some(Since::Number(update.fill.seen()));
        let (fill, replaced) = (Some(update.fill), Some(&entry));
        let is_conditional = false;
        let change = Change { key_hash, slot: &slot, fill, since, replaced, is_conditional };
        match self.publish(&change, found)? {
            Attempt::Published(sequence, ticket) => {
                add(&self.shared.counters.updated_bytes, slot.len());
                if let Some(split) = split {
                    split.upload.published();
                }
                self.after_displacing(found, slot.object_head());
                Ok(Outcome::Done(Stored::Yes(sequence.0), ticket))
            }
            Attempt::Changed => {
                progress.split = split;
                Ok(Outcome::Again)
            }
            Attempt::NoRoom(why) => {
                progress.split = split;
                self.wait_for_room(why, &mut progress.patience).await?;
                Ok(Outcome::Again)
            }
        }
    }

    async fn update_in_place(
        &self,
        of_key: (&[u8], u64),
        matched: &Match,
        lifetime: Lifetime,
    ) -> Result<Outcome, StoreError> {
        let is_done = self.touch_at(of_key, matched, lifetime).await?;
        let done = || Outcome::Done(Stored::Yes(matched.version.0), self.last_ticket());
        Ok(if is_done { done() } else { Outcome::Again })
    }

    /// Reads all of the entry that was found; `None` if it is not there any more.
    pub(in crate::store) async fn load_again(
        &self,
        key_hash: u64,
        matched: &Match,
    ) -> Result<Option<Entry>, StoreError> {
        let Some(candidate) = self.candidate_at(key_hash, matched.place) else { return Ok(None) };
        if matched.place.is_in_ram() {
            // Was it evicted, it is not found any more.
            return Ok(self.in_ram(candidate));
        }
        match self.peek(candidate, Extent::Answer).await {
            Loaded::Entry(entry, _) => Ok(Some(entry)),
            Loaded::Moved => Ok(None),
            Loaded::Damaged => {
                self.drop_damaged(key_hash, candidate);
                Ok(None)
            }
            Loaded::Unreadable | Loaded::Late => Err(NO_ANSWER),
        }
    }
}

/// The optional records of an entry that is updated: it is a version of its own.
fn of_update(entry: &Entry, update: &Update<'_>, is_stale: bool) -> Records {
    let is_stale = is_stale && !update.validates;
    let records = Records { version: None, is_stale, ..entry.records() };
    match update.tags {
        Some(tags) => Records { tags: tags.to_vec(), ..records },
        None => records,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::purge::Purge;
    use crate::store::mutation::request::Value;
    use crate::store::testing;

    /// The purge comes between the look at the entry and the publication of what takes its place.
    #[tokio::test(start_paused = true)]
    async fn a_purge_by_a_tag_that_an_update_takes_away_prevails() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let [old, new] = [b"old", b"new"].map(|tag| store.tag_hashes(&[tag]).unwrap());
        let lifetime = testing::lifetime();
        for (how, is_purged) in [(Purge::Hard, true), (Purge::Soft, false)] {
            let value =
                Value { metadata: b"", body: b"body", lifetime, tags: &old, ram_only: false };
            store.put(b"key", &value, Condition::Always, None).await.unwrap();
            let (key_hash, fill) = (store.key_hash(b"key"), store.begin_fill(b"key"));
            let mut deadline = Deadline::after(ROOM_WAIT_MAX);
            let found = store.find_by(b"key", key_hash, &mut deadline).await;
            let matched = found.matched.as_ref().unwrap();
            let entry = store.load_again(key_hash, matched).await.unwrap().unwrap();
            store.purge_tag(b"old", how).await.unwrap();
            let slot = Slot::new(Kind::Object, b"key", (b"", b"body"), lifetime).tagged(&new);
            let since = Some(Since::Number(fill.seen()));
            let (fill, replaced) = (Some(&fill), Some(&entry));
            let is_conditional = false;
            let change = Change { key_hash, slot: &slot, fill, since, replaced, is_conditional };
            match store.publish(&change, &found) {
                Err(StoreError::Purged) => assert!(is_purged),
                Ok(Attempt::Published(..)) if !is_purged => {
                    let fresh = store.lookup(b"key", Stale::Refuse).await;
                    assert!(fresh.is_none(), "it is published as it is");
                    let (entry, _) = store.lookup(b"key", Stale::Accept).await.unwrap();
                    assert!(entry.tags().eq(new.iter().copied()));
                }
                _ => panic!("it is published although it was purged"),
            }
        }
    }

    /// The purge comes between the look at the entry and the publication of what is stored only if it is live.
    #[tokio::test(start_paused = true)]
    async fn what_depends_on_an_entry_is_not_stored_after_a_purge_of_it() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let lifetime = testing::lifetime();
        let tag = store.tag_hashes(&[b"tag"]).unwrap();
        for how in 0..3 {
            let value =
                Value { metadata: b"", body: b"body", lifetime, tags: &tag, ram_only: false };
            store.put(b"key", &value, Condition::Always, None).await.unwrap();
            let key_hash = store.key_hash(b"key");
            let mut deadline = Deadline::after(ROOM_WAIT_MAX);
            let found = store.find_by(b"key", key_hash, &mut deadline).await;
            match how {
                0 => store.purge_all(Purge::Hard).await.unwrap(),
                1 => store.purge_tag(b"tag", Purge::Hard).await.unwrap(),
                _ => {}
            }
            let slot = Slot::new(Kind::Object, b"key", (b"", b"next"), lifetime);
            let (fill, since, replaced, is_conditional) = (None, None, None, true);
            let change = Change { key_hash, slot: &slot, fill, since, replaced, is_conditional };
            let attempt = store.publish(&change, &found).unwrap();
            let is_published = matches!(attempt, Attempt::Published(..));
            assert_eq!(is_published, how == 2, "{how}");
        }
    }

    /// The update begins while the purge waits for the append lock.
    #[tokio::test(start_paused = true)]
    async fn an_update_that_began_before_all_is_purged_brings_nothing_back() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let lifetime = testing::lifetime();
        let value = Value { metadata: b"", body: b"body", lifetime, tags: &[], ram_only: false };
        store.put(b"key", &value, Condition::Always, None).await.unwrap();
        let fill = store.begin_fill(b"key");
        // After the update found the entry, and before it publishes.
        let purge = |old: Lifetime| {
            let mut log = store.shared.log.lock();
            let (floor, _) = log.raise_purge_floor(store.shared.clock.pair());
            store.shared.set_purge_floor(floor);
            old
        };
        let update = Update {
            metadata: Some(b"new"),
            tags: None,
            lifetime: &purge,
            validates: true,
            fill: &fill,
        };
        let updated = store.update(b"key", Condition::Always, &update).await;
        assert!(matches!(updated, Err(StoreError::Purged)), "{updated:?}");
        assert!(store.lookup(b"key", Stale::Accept).await.is_none());
    }
}
