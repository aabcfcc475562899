//! Taking entries out: removals, and purges of one key. Owns that what was removed is not found
//! from its first moment on, and who waits until that is durable.

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::planted::{self, Bug};
use crate::store::catalog::Bucket;
use crate::store::index::unverified::LOOKS_MAX;
use crate::store::log::core::Log;
use crate::store::log::removals::{OwedTombstone, Removal};
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::find::{Deadline, Found};
use crate::store::mutation::request::{Lifetime, StoreError};
use crate::store::mutation::room::Patience;
use crate::store::place::Place;
use crate::store::shared::{PURGE_WAIT_MAX, REMOVAL_LOOK_MAX, Store};
use crate::store::transaction::{TakenOut, Transaction};

/// A key has no index entry, as seen at one moment.
struct Absence {
    /// What removed it is durable with this ticket.
    appended: Ticket,
    /// The latest end of what was forgotten till then.
    forgotten_until: Timestamp,
    /// The superblock, as it is with that ticket, tells of a time that is not before that end.
    is_dated: bool,
}

/// Removals that are completed later, at most; what more there are stays dead in the index.
const UNSEEN_MAX: usize = 4096;

/// A removal that has not seen yet what it is of. Dropped, because it took too long or nobody waits any
/// more, it is made without that.
struct Unseen<'a> {
    store: &'a Store,
    key: &'a [u8],
    key_hash: u64,
    for_purge: bool,
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        self.store.remove_unseen(self.key, self.key_hash, self.for_purge);
    }
}

impl Store {
    /// Removes a key: nobody finds it from here on, whatever the device does. True if a live entry was
    /// there; whether all slices of a large one still were is not looked at.
    ///
    /// # Errors
    /// As those of [`Store::purge`].
    pub fn remove(&self, key: &[u8]) -> impl Future<Output = Result<bool, StoreError>> {
        self.remove_as(key, false)
    }

    /// As [`Store::remove`]; is durable before it returns, and fails stores in progress of the key.
    ///
    /// # Errors
    /// The device failed, or did not keep up for 30 s, 5 s without room: the entry is gone, after
    /// 1 s even where the device does not answer, and
    /// what keeps it from coming back after a crash is written as soon as that can be.
    pub async fn purge(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.shared.fills.purge(self.key_hash(key));
        self.remove_as(key, true).await
    }

    /// As [`Store::purge`], but `own` goes on: a store of the same key that is to take the place of all that was there.
    /// False if another purge covers that too, and nothing is removed then.
    ///
    /// # Errors
    /// As those of [`Store::purge`].
    pub async fn purge_others(&self, key: &[u8], own: &mut Fill) -> Result<bool, StoreError> {
        if !self.shared.fills.purge_others(own) {
            return Ok(false);
        }
        self.remove_as(key, true).await.map(|_| true)
    }

    async fn remove_as(&self, key: &[u8], purge: bool) -> Result<bool, StoreError> {
        let key_hash = self.key_hash(key);
        let unseen = Unseen { store: self, key, key_hash, for_purge: purge };
        self.snapshot_known(purge).await?;
        let mut deadline = Deadline::after(REMOVAL_LOOK_MAX);
        let (found, taken) = loop {
            let found = self.find_by(key, key_hash, &mut deadline).await;
            let nothing = found.matched.is_none() && found.suspects.is_empty();
            if nothing && let Some(absence) = self.absence_of(key_hash) {
                std::mem::forget(unseen);
                if purge && !self.is_settled(&absence) {
                    self.in_time(pin!(self.settle_absence(absence))).await?;
                }
                return Ok(false);
            }
            if let Some(taken) = self.take_out(key_hash, &found, purge)? {
                break (found, taken);
            }
        };
        std::mem::forget(unseen);
        self.after_displacing(&found, None);
        if purge && !planted::is(Bug::AcknowledgePurgeEarly) {
            self.in_time(pin!(self.settle_removal(taken))).await?;
        }
        Ok(found.matched.is_some_and(|matched| matched.live))
    }

    /// Ends the life of a live entry now, of the version with this CAS value if one is given; gives the
    /// lifetime it had. Nobody finds it from here on, whatever the device does.
    pub(in crate::store) async fn end_life(
        &self,
        key: &[u8],
        cas: Option<u64>,
    ) -> Result<Option<Lifetime>, StoreError> {
        let key_hash = self.key_hash(key);
        // Of one version only what was read is known to be it.
        let is_any = cas.is_none();
        let unseen = is_any.then(|| Unseen { store: self, key, key_hash, for_purge: true });
        self.snapshot_known(true).await?;
        let mut deadline = Deadline::after(REMOVAL_LOOK_MAX);
        let (found, taken) = loop {
            let found = self.find_by(key, key_hash, &mut deadline).await;
            let is_asked_for = |version: u64| cas.is_none_or(|cas| cas == version);
            let is_live = found
                .matched
                .as_ref()
                .is_some_and(|matched| matched.live && is_asked_for(matched.version.0));
            if !is_live && (found.suspects.is_empty() || !is_any) {
                std::mem::forget(unseen);
                return Ok(None);
            }
            if let Some(taken) = self.take_out(key_hash, &found, true)? {
                break (found, taken);
            }
        };
        std::mem::forget(unseen);
        self.after_displacing(&found, None);
        if matches!(taken, TakenOut::Unrecorded { .. }) {
            self.in_time(pin!(self.settle_removal(taken))).await?;
        }
        let live = found.matched.filter(|matched| matched.live);
        Ok(live.map(|live| live.lifetime))
    }

    /// Waits until the snapshot of the index is read: its index entries would come after a removal. Who wants
    /// no more than that the entry is gone does not wait.
    async fn snapshot_known(&self, purge: bool) -> Result<(), StoreError> {
        if self.shared.recovery.snapshot_settled.load(Ordering::Acquire) {
            return Ok(());
        }
        if !purge {
            return Err(StoreError::Busy("the regions of the device are not known yet"));
        }
        self.in_time(pin!(self.snapshot_settled())).await
    }

    /// Makes a key dead of which it is not known yet whether it has an entry. Where too many such are kept
    /// already, what may be its entry goes unread, and with it what only looks like it.
    fn remove_unseen(&self, key: &[u8], key_hash: u64, for_purge: bool) {
        let shared = &*self.shared;
        let mut transaction = Transaction::begin(self);
        if self.check_open(None).is_err() {
            return;
        }
        let oldest = || shared.catalog.regions.oldest_generation_but(u32::MAX);
        let has_room = shared.dead.unverified.has_room(oldest);
        let is_settled = shared.recovery.snapshot_settled.load(Ordering::Acquire);
        if !has_room && !is_settled && !for_purge {
            // Clients give these up as fast as they ask.
            return;
        }
        // What a snapshot may still bring cannot be taken out. Purges are kept without limit for so long:
        // each waits for 30 s before it is given up.
        let is_kept = has_room || !is_settled;
        shared.recovery.changed.note(key_hash);
        let mut taken_out: SmallVec<[Place; 2]> = SmallVec::new();
        let removed = |bucket: &mut Bucket<'_>, log: &mut Log| {
            let tombstone = log.draw_tombstone(key_hash);
            if is_kept {
                shared.dead.unverified.note(key_hash, tombstone.sequence);
            } else {
                bucket.each_candidate(|index_entry| {
                    taken_out.push(self.place_of(bucket, index_entry))
                });
                self.take_out_unread(&taken_out, (bucket, log));
            }
            tombstone
        };
        let Some(tombstone) = transaction.change(key_hash, |_| true, removed) else { return };
        transaction.record(OwedTombstone { tombstone, for_purge });
        shared.signals.wake_flusher.notify_one();
        for place in taken_out {
            shared.catalog.resident.remove(place);
        }
        if is_kept {
            let mut unseen = shared.dead.removed_unseen.lock();
            if unseen.len() < UNSEEN_MAX {
                unseen.push((key.into(), tombstone.sequence));
            }
        }
    }

    /// Takes index entries out that may be of other keys, which then have no tombstone of their own.
    fn take_out_unread(&self, places: &[Place], (bucket, log): (&mut Bucket<'_>, &mut Log)) {
        for place in places {
            bucket.remove(place.location());
            if !place.is_in_ram() {
                log.note_unindexed(place.region(&self.shared.layout));
            }
        }
    }

    /// Takes out what removals killed that did not see it: as long as one is dead but in the index a stop
    /// writes no snapshot.
    pub(in crate::store) async fn take_out_unseen(&self) {
        if !self.shared.recovery.snapshot_settled.load(Ordering::Acquire) {
            return;
        }
        let mut unseen = std::mem::take(&mut *self.shared.dead.removed_unseen.lock());
        while let Some((key, sequence)) = unseen.pop() {
            if self.shared.is_stopping() {
                return;
            }
            let key_hash = self.key_hash(&key);
            let mut deadline = Deadline::after(REMOVAL_LOOK_MAX);
            loop {
                let found = self.find_by(&key, key_hash, &mut deadline).await;
                if !found.suspects.is_empty() {
                    // The device does not answer: later, and this one last.
                    unseen.insert(0, (key, sequence));
                    self.shared.dead.removed_unseen.lock().splice(0..0, unseen);
                    return;
                }
                if found.places.len() > LOOKS_MAX {
                    break;
                }
                let mut transaction = Transaction::begin(self);
                let taken_out = transaction.change(
                    key_hash,
                    |bucket| self.is_unchanged(bucket, &found.places),
                    |bucket, _| {
                        for place in &found.dead {
                            bucket.remove(place.location());
                        }
                        self.shared.dead.unverified.forget(key_hash, sequence);
                    },
                );
                transaction.finish();
                if taken_out.is_some() {
                    for place in &found.dead {
                        self.shared.catalog.resident.remove(*place);
                    }
                    break;
                }
            }
        }
    }

    /// Takes what was found of a key out of the index, with its tombstone if that can be written
    /// now; `None` if the index entries changed since they were verified. `for_purge` if somebody waits for
    /// it to be durable.
    fn take_out(
        &self,
        key_hash: u64,
        found: &Found,
        for_purge: bool,
    ) -> Result<Option<TakenOut>, StoreError> {
        let mut transaction = Transaction::begin(self);
        self.check_open(None)?;
        self.shared.recovery.changed.note(key_hash);
        let tombstone = transaction.change(
            key_hash,
            |bucket| self.is_unchanged(bucket, &found.places),
            |bucket, log| {
                let tombstone = log.draw_tombstone(key_hash);
                self.unlink(found, (key_hash, tombstone.sequence), (bucket, log));
                tombstone
            },
        );
        Ok(tombstone.map(|tombstone| transaction.record(OwedTombstone { tombstone, for_purge })))
    }

    /// Waits until the removal of a key is durable.
    async fn settle_removal(&self, taken: TakenOut) -> Result<(), StoreError> {
        let (owed, is_remembered) = match taken {
            TakenOut::Logged(ticket) => return self.flush_through(ticket).await,
            TakenOut::Unrecorded { owed, is_remembered } => (owed, is_remembered),
        };
        self.until_durable(|| self.advance_removal(owed, is_remembered)).await
    }

    /// Waits until what `advance` tries to append, and tells of, is durable.
    pub(in crate::store) async fn until_durable(
        &self,
        advance: impl Fn() -> Removal,
    ) -> Result<(), StoreError> {
        self.begin_mutation().await?;
        let mut patience = Patience::default();
        loop {
            let changed = self.shared.signals.changes.notified();
            match advance() {
                Removal::Logged(ticket) => return self.flush_through(ticket).await,
                Removal::Done => return Ok(()),
                Removal::Waiting if self.shared.durability.health.is_refusing() => {
                    // Tries the device at once. With it what waits is written.
                    let trial = self.shared.log.lock().note_modified();
                    self.flush_through(trial).await?;
                }
                Removal::Waiting => {
                    let deadline = patience.deadline(&self.shared.counters);
                    self.shared.signals.wake_reclaimer.notify_one();
                    self.shared.signals.wake_flusher.notify_one();
                    self.wait_until(deadline, changed).await?;
                }
            }
        }
    }

    /// Appends a tombstone if nobody did and that can be; tells where it is.
    fn advance_removal(&self, owed: OwedTombstone, is_remembered: bool) -> Removal {
        let mut transaction = Transaction::begin(self);
        let log = transaction.log();
        let now = self.shared.clock.now();
        let may_append = !self.shared.durability.health.is_refusing();
        let key_hash = owed.tombstone.key_hash;
        if may_append && is_remembered {
            log.record_removal(key_hash, now);
        }
        let removal = match is_remembered {
            true => log.removal(key_hash),
            // Nobody else knows of it: only this attempt counts.
            false if may_append => {
                log.append_tombstone(owed, now).map_or(Removal::Waiting, Removal::Logged)
            }
            false => Removal::Waiting,
        };
        transaction.finish();
        removal
    }

    /// Whether a key without an index entry has none for good, as seen under the append lock: nothing is
    /// half published and no older version may hide.
    fn absence_of(&self, key_hash: u64) -> Option<Absence> {
        let mut log = self.shared.log.lock();
        let is_absent = !log.may_hide_older(key_hash)
            && self.shared.catalog.lock(key_hash).candidates().is_empty();
        if is_absent && log.appended() <= self.shared.durability.failed.load(Ordering::Acquire) {
            // Everything that failed was written again since: a flush of now covers it.
            log.note_modified();
        }
        // Whoever forgot an entry of the key noted its end before.
        let forgotten_until = Timestamp(self.shared.ages.forgotten_until.load(Ordering::Acquire));
        let is_dated = log.superblock().0.time.cache >= forgotten_until;
        is_absent.then(|| Absence { appended: log.appended(), forgotten_until, is_dated })
    }

    fn is_settled(&self, absence: &Absence) -> bool {
        absence.is_dated && self.is_durable(absence.appended)
    }

    /// A key that has no index entry may have one again after a crash, as long as what removed it
    /// (an expired overwrite, a tombstone) is not durable; and a key that expired, as long as the
    /// device knows of no time after its end: the clock may be set back before the next start. A
    /// purge waits for that.
    async fn settle_absence(&self, absence: Absence) -> Result<(), StoreError> {
        let Absence { appended, forgotten_until, is_dated } = absence;
        // Not with a later ticket alone: what failed since would be forgotten.
        self.flush_through_if_needed(appended).await?;
        if is_dated {
            return Ok(());
        }
        self.begin_mutation().await?;
        let renewed = {
            let mut log = self.shared.log.lock();
            if log.superblock().0.time.cache < forgotten_until {
                log.renew_superblock(self.shared.clock.pair())
            } else {
                log.appended()
            }
        };
        self.flush_through_if_needed(renewed).await
    }

    /// Waits for a purge to be durable, but not for ever.
    pub(in crate::store) async fn in_time(
        &self,
        settled: Pin<&mut impl Future<Output = Result<(), StoreError>>>,
    ) -> Result<(), StoreError> {
        let ends = Instant::now() + PURGE_WAIT_MAX;
        let settled = self.shared.deadlines.in_time(settled, ends).await;
        settled.unwrap_or(Err(StoreError::Busy("the device does not keep up")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::device::{Delay, SimDevice};
    use crate::format::Sequence;
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::request::{Condition, Value};
    use crate::store::testing::{create, open};

    async fn get(store: &Store, key: &[u8]) -> bool {
        store.recovered().await;
        store.lookup(key, Stale::Accept).await.is_some()
    }

    /// With no room for one more change that goes unverified: none of them is older than all entries.
    fn fill_up(store: &Store) {
        let unverified = &store.shared.dead.unverified;
        for n in 0.. {
            if !unverified.has_room(|| Some(Sequence(0))) {
                return;
            }
            unverified.note(n, Sequence(u64::MAX - n));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_purge_that_nobody_waits_for_holds_however_many_there_were() {
        for at_the_start in [false, true] {
            let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
            let mut store = create(&sim, &clock).await;
            let end = Timestamp(100_000);
            let lifetime = Lifetime {
                stored_at: Timestamp(1000),
                age_secs: 0,
                fresh_until: end,
                keep_until: end,
            };
            let value =
                Value { metadata: b"", body: &[1; 5000], lifetime, tags: &[], ram_only: false };
            for key in [&b"first"[..], b"second", b"kept"] {
                let stored = store.put(key, &value, Condition::Always, None).await.unwrap();
                store.flush_through(stored.1).await.unwrap();
            }
            if at_the_start {
                // The snapshot of this stop brings what is purged before it is read.
                store.shutdown().await.unwrap();
                sim.set_delay(Delay::Sleep(Duration::from_secs(20)));
                store = open(&sim, &clock).await;
            } else {
                assert!(get(&store, b"first").await);
                sim.set_delay(Delay::Sleep(Duration::from_secs(20)));
            }
            let given_up = Duration::from_micros(1);
            tokio::time::timeout(given_up, store.purge(b"first")).await.unwrap_err();
            fill_up(&store);
            tokio::time::timeout(given_up, store.purge(b"second")).await.unwrap_err();
            if at_the_start {
                // Who does not wait may ask as often as he likes: that is not kept without limit.
                store.remove(b"kept").await.unwrap_err();
            }
            sim.set_delay(Delay::None);
            store.recovered().await;
            let loaded = store.stats().counters.snapshots_loaded;
            assert_eq!(loaded, u64::from(at_the_start));
            for is_later in [false, true] {
                let case = format!("at the start: {at_the_start}, later: {is_later}");
                assert!(!get(&store, b"first").await, "{case}");
                assert!(!get(&store, b"second").await, "{case}");
                assert!(get(&store, b"kept").await, "{case}");
                tokio::time::sleep(Duration::from_secs(100)).await;
                store.check_accounting();
                sim.kill();
                store = open(&sim, &clock).await;
            }
        }
    }
}
