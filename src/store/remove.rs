//! Taking entries out: removals, purges of one key and of all, damage. Owns that what was removed is not
//! found from its first moment on, and who waits until that is durable.

use std::sync::atomic::Ordering;

use super::counters::count;
use super::log::{Appender, Log, Ticket};
use super::mutate::{Found, Patience, kill_placeholder};
use super::read::Candidate;
use super::removals::Removal;
use super::request::{Lifetime, StoreError};
use super::{PURGE_WAIT_MAX, Store};
use crate::clock::Timestamp;
use crate::format::Kill;
use crate::planted::{self, Bug};

/// How one attempt to take a key out of the index ended.
#[derive(Clone, Copy)]
enum TakenOut {
    /// Its kill record is in the log, durable with the ticket.
    Logged(Ticket),
    /// Its kill record is written as soon as that can be.
    Waiting,
    /// The words changed since they were verified.
    Changed,
}

impl Store {
    /// Removes a key: nobody finds it from here on, whatever the device does. `purge` makes it
    /// durable before it returns and fails stores in progress. True if a live entry was there;
    /// whether all slices of a large one still were is not looked at.
    ///
    /// # Errors
    /// The device failed, or did not keep up for 30 s, 5 s without room: the entry is gone now, and
    /// what keeps it from coming back after a crash is written as soon as that can be.
    pub async fn remove(&self, key: &[u8], purge: bool) -> Result<bool, StoreError> {
        let key_hash = self.key_hash(key);
        if purge {
            self.shared.fills.purge(key_hash);
        }
        // The words of a snapshot that is still being read would come after this.
        self.snapshot_settled().await?;
        let found = loop {
            let found = self.find(key, key_hash).await;
            let nothing = found.matched.is_none() && found.suspects.is_empty();
            if nothing && self.is_absent(key_hash) {
                if purge {
                    in_time(self.settle_absence()).await?;
                }
                return Ok(false);
            }
            let taken = self.take_out(key_hash, &found, purge)?;
            if matches!(taken, TakenOut::Changed) {
                continue;
            }
            self.after_displacing(&found);
            if purge && !planted::is(Bug::AcknowledgePurgeEarly) {
                in_time(self.settle_removal(key_hash, taken)).await?;
            }
            break found;
        };
        Ok(found.matched.is_some_and(|matched| matched.live))
    }

    /// Ends the life of a live entry now; gives the lifetime it had. Nobody finds it from here on,
    /// whatever the device does.
    pub(super) async fn end_life(&self, key: &[u8]) -> Result<Option<Lifetime>, StoreError> {
        let key_hash = self.key_hash(key);
        self.snapshot_settled().await?;
        loop {
            let found = self.find(key, key_hash).await;
            let Some(matched) = found.matched.as_ref().filter(|matched| matched.live) else {
                return Ok(None);
            };
            let taken = self.take_out(key_hash, &found, true)?;
            if matches!(taken, TakenOut::Changed) {
                continue;
            }
            self.after_displacing(&found);
            if matches!(taken, TakenOut::Waiting) {
                in_time(self.settle_removal(key_hash, taken)).await?;
            }
            return Ok(Some(matched.lifetime));
        }
    }

    /// Takes what was found of a key out of the index, with its kill record if that can be written
    /// now. `asked` if somebody waits for it to be durable.
    fn take_out(&self, key_hash: u64, found: &Found, asked: bool) -> Result<TakenOut, StoreError> {
        let shared = &*self.shared;
        let mut log = shared.log.lock();
        self.check_open(None)?;
        shared.changed.note(key_hash);
        let mut bucket = shared.index.lock(key_hash);
        if !self.is_unchanged(&bucket, &found.places) {
            return Ok(TakenOut::Changed);
        }
        let end = log.sequences_end();
        self.unlink(found, (key_hash, end), (&mut bucket, &mut log));
        drop(bucket);
        let ticket = self.record_removal(&mut log, key_hash, asked);
        self.release(log);
        Ok(ticket.map_or(TakenOut::Waiting, TakenOut::Logged))
    }

    /// Appends the kill record of a key that was just taken out of the index, and gives its ticket;
    /// where that cannot be now, the flusher does as soon as it can.
    fn record_removal(&self, log: &mut Log, key_hash: u64, asked: bool) -> Option<Ticket> {
        let now = self.shared.clock.now();
        if !self.shared.health.is_refusing()
            && let Ok(at) = log.reserve(&kill_placeholder(), Appender::Removal, now)
        {
            // Behind the other one, which may hand over what waits.
            let in_two_logs = asked && !planted::is(Bug::PurgeInOneRegion);
            if !in_two_logs || log.reserve_purges(1, now).is_ok() {
                let tombstone = [Kill { key_hash, sequence: log.draw() }];
                let mut ticket = self.fill_kills(log, at, &tombstone);
                if in_two_logs {
                    ticket = log.append_purges(&tombstone);
                }
                log.removal_logged(key_hash, ticket);
                return Some(ticket);
            }
        }
        log.removal_waits(key_hash, asked);
        None
    }

    /// Waits until the removal of a key is durable.
    async fn settle_removal(&self, key_hash: u64, taken: TakenOut) -> Result<(), StoreError> {
        if let TakenOut::Logged(ticket) = taken {
            return self.flush_through(ticket).await;
        }
        self.begin_mutation().await?;
        let mut patience = Patience::default();
        loop {
            let changed = self.shared.changes.notified();
            let (removal, latest) = {
                let mut log = self.shared.log.lock();
                log.record_removals(self.shared.clock.now());
                let removal = log.removal(key_hash);
                let is_tried = removal == Removal::Waiting && self.shared.health.is_refusing();
                (removal, if is_tried { log.note_modified() } else { log.appended() })
            };
            match removal {
                Removal::Logged(ticket) => return self.flush_through(ticket).await,
                // Superseded, perhaps by what is not durable yet.
                Removal::Done => return self.flush_through_if_needed(latest).await,
                Removal::Waiting if self.shared.health.is_refusing() => {
                    // Tries the device at once. With it the record is written too.
                    self.flush_through(latest).await?;
                }
                Removal::Waiting => {
                    let deadline = patience.deadline(&self.shared.counters);
                    self.shared.wake_reclaimer.notify_one();
                    self.shared.wake_flusher.notify_one();
                    self.wait_until(deadline, changed).await?;
                }
            }
        }
    }

    async fn flush_through_if_needed(&self, ticket: Ticket) -> Result<(), StoreError> {
        if ticket > self.shared.durable.load(Ordering::Acquire) {
            self.flush_through(ticket).await?;
        }
        Ok(())
    }

    /// Whether a key without a word has none for good, as seen under the append lock: nothing is
    /// half published and no older version may hide.
    fn is_absent(&self, key_hash: u64) -> bool {
        let log = self.shared.log.lock();
        !log.may_hide_older(key_hash) && self.shared.index.lock(key_hash).candidates().is_empty()
    }

    /// A key that has no word may have one again after a crash, as long as what removed it
    /// (an expired overwrite, a kill record) is not durable; and a key that expired, as long as the
    /// device knows of no time after its end: the clock may be set back before the next start. A
    /// purge waits for that.
    async fn settle_absence(&self) -> Result<(), StoreError> {
        let forgotten_until = Timestamp(self.shared.forgotten_until.load(Ordering::Acquire));
        if self.shared.log.lock().superblock().0.time.cache < forgotten_until {
            self.begin_mutation().await?;
        }
        let appended = {
            let mut log = self.shared.log.lock();
            if log.superblock().0.time.cache < forgotten_until {
                log.renew_superblock(self.shared.clock.pair())
            } else {
                log.appended()
            }
        };
        self.flush_through_if_needed(appended).await
    }

    /// Drops the word of an entry whose bytes are damaged, with a kill record in case they can
    /// be read again later. True if the word is gone by this.
    pub(super) fn drop_damaged(&self, key_hash: u64, candidate: Candidate) -> bool {
        if self.is_in_ram_only(candidate.place()) {
            self.forget(key_hash, candidate.place());
            return false;
        }
        count(&self.shared.counters.damaged);
        let mut log = self.shared.log.lock();
        if self.shared.is_stopping() {
            // The index and its snapshot must agree with the region table.
            return false;
        }
        let mut bucket = self.shared.index.lock(key_hash);
        let same = self.is_present(candidate.place());
        let removed = same.then(|| bucket.remove(candidate.location())).flatten();
        if let Some(word) = removed {
            // Under the lock: reclaim counts on it that no word means nothing alive.
            self.shared.uncount(word);
        }
        drop(bucket);
        if removed.is_some() {
            // It may be another key's, which then has no kill record of its own.
            log.note_unindexed(candidate.place().region(&self.shared.layout));
            // A lookup alone begins no epoch: the record waits for the first change.
            self.record_removal(&mut log, key_hash, false);
        }
        self.release(log);
        self.shared.resident.remove(candidate.place());
        removed.is_some()
    }

    /// Makes everything stored so far dead, at once and then durably. O(1): a floor in the superblock.
    ///
    /// # Errors
    /// The device failed, or did not keep up for 30 s: entries are gone now, and the floor is written
    /// as soon as that can be; before it is, they may come back after a crash.
    pub async fn purge_all(&self) -> Result<(), StoreError> {
        self.shared.fills.purge_all();
        let ticket = {
            let mut log = self.shared.log.lock();
            self.check_open(None)?;
            let (floor, ticket) = log.raise_purge_floor(self.shared.clock.pair());
            self.shared.set_purge_floor(floor);
            ticket
        };
        in_time(async {
            self.begin_mutation().await?;
            self.flush_through(ticket).await
        })
        .await
    }
}

/// Waits for a purge to be durable, but not for ever.
async fn in_time(settled: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    match tokio::time::timeout(PURGE_WAIT_MAX, settled).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Busy("the device does not keep up")),
    }
}
