//! A change of what there is, under the append lock. Owns the order of its steps: what it needs of the
//! log is reserved, the index is verified and changed, the slot is appended, the lock is released. What
//! is verified and displaced, its callers say.

use parking_lot::MutexGuard;

use crate::format::{Sequence, Tombstone};
use crate::store::catalog::Bucket;
use crate::store::index::index_entry::SizeClass;
use crate::store::log::append::{Reservation, Unfilled};
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::removals::OwedTombstone;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::place::Place;
use crate::store::shared::Store;

/// The append lock, for one change. Dropped, it is released, and nothing that was reserved is used.
pub(super) struct Transaction<'a> {
    store: &'a Store,
    log: MutexGuard<'a, Log>,
}

/// A change that has room in the log for its slot.
pub(super) struct Reserved<'a> {
    transaction: Transaction<'a>,
    slot: &'a Slot<'a>,
    key_hash: u64,
    at: Reservation,
}

/// A change whose slot the index points to. It must be appended: nobody may see the index without it.
#[must_use]
pub(super) struct Pointed<'a> {
    reserved: Reserved<'a>,
    sequence: Sequence,
    touches: u32,
}

/// A slot in the log.
pub(super) struct Written {
    pub place: Place,
    pub sequence: Sequence,
    /// Older versions of its key may be on the device.
    pub supersedes: bool,
    /// It is durable with this one.
    pub ticket: Ticket,
    /// Touches in its region, counted before anybody could find it.
    pub touches: u32,
}

/// What became of the tombstone of a key that was taken out of the index.
#[derive(Clone, Copy)]
pub(super) enum TakenOut {
    /// It is in the log, durable with the ticket.
    Logged(Ticket),
    /// It is not in the log. It is written as soon as that can be if it is remembered, else who wants it
    /// durable has to append it.
    Unrecorded { owed: OwedTombstone, is_remembered: bool },
}

impl<'a> Transaction<'a> {
    /// Takes the append lock.
    #[inline]
    pub fn begin(store: &'a Store) -> Transaction<'a> {
        Transaction { store, log: store.shared.log.lock() }
    }

    /// The log.
    #[inline]
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Reserves the place of a slot of a key.
    ///
    /// # Errors
    /// There is no room for `appender` right now; the append lock is released.
    #[inline]
    pub fn reserve(
        mut self,
        (slot, key_hash): (&'a Slot<'a>, u64),
        appender: Appender,
    ) -> Result<Reserved<'a>, NoRoom> {
        if appender == Appender::Client {
            self.check_index()?;
        }
        let at = self.log.reserve(slot.size(), appender, self.store.shared.clock.now())?;
        Ok(Reserved { transaction: self, slot, key_hash, at })
    }

    /// Whether the index takes one more entry of a client.
    ///
    /// # Errors
    /// It is at its part of memory.
    #[inline]
    pub fn check_index(&self) -> Result<(), NoRoom> {
        if self.store.shared.catalog.is_full() { Err(NoRoom::Index) } else { Ok(()) }
    }

    /// Changes the index entries of a key in one step, and gives what `change` gave; `None` if `verify`
    /// says that they are not what they were. Sequences are drawn in `change`: under both locks, so that
    /// the order of sequences is the order of visibility.
    #[inline]
    pub fn change<T>(
        &mut self,
        key_hash: u64,
        verify: impl FnOnce(&Bucket<'_>) -> bool,
        change: impl FnOnce(&mut Bucket<'_>, &mut Log) -> T,
    ) -> Option<T> {
        let mut bucket = self.store.shared.catalog.lock(key_hash);
        verify(&bucket).then(|| change(&mut bucket, &mut self.log))
    }

    /// Makes room for one tombstone, which [`Transaction::append_tombstone`] uses.
    ///
    /// # Errors
    /// There is no room for `appender` right now.
    pub fn reserve_tombstone(&mut self, appender: Appender) -> Result<Reservation, NoRoom> {
        self.log.reserve_tombstones(1, appender, self.store.shared.clock.now())
    }

    /// Appends a tombstone that nobody waits for; gives the ticket with which it is durable.
    pub fn append_tombstone(&mut self, at: Reservation, tombstone: Tombstone) -> Ticket {
        let ticket = self.log.fill_tombstones(at, &[tombstone], self.store.shared.clock.now());
        self.log.removal_logged(tombstone, ticket);
        ticket
    }

    /// Appends the tombstone of a key that was just taken out of the index; where that cannot be now,
    /// the flusher does as soon as it can. A device that refuses writes is tried by the flusher only:
    /// each failed attempt costs regions.
    pub fn record(mut self, owed: OwedTombstone) -> TakenOut {
        let now = self.store.shared.clock.now();
        let may_append = !self.store.shared.durability.health.is_refusing();
        let appended = may_append.then(|| self.log.append_tombstone(owed, now));
        let taken_out = match appended {
            Some(Ok(ticket)) => TakenOut::Logged(ticket),
            Some(Err(_)) | None => {
                let is_remembered = self.log.removal_waits(owed);
                TakenOut::Unrecorded { owed, is_remembered }
            }
        };
        self.finish();
        taken_out
    }

    /// Releases the append lock.
    #[inline]
    pub fn finish(self) {
        self.store.release(self.log);
    }

    /// Releases the append lock, having copied to the log what is too long to be copied under it.
    #[inline]
    fn fill_and_finish(mut self, slot: &Slot<'_>, unfilled: Option<Unfilled>) {
        if let Some(mut unfilled) = unfilled {
            MutexGuard::unlocked(&mut self.log, || unfilled.fill(slot));
            self.log.end_fill(unfilled);
        }
        self.finish();
    }
}

impl<'a> Reserved<'a> {
    /// Points the index to the slot, in one step with what `displace` takes out of it; `None` if
    /// `verify` says that the index is not what it was.
    #[inline]
    pub fn point(
        mut self,
        verify: impl FnOnce(&Bucket<'_>) -> bool,
        displace: impl FnOnce(Sequence, &mut Bucket<'_>, &mut Log),
    ) -> Option<Pointed<'a>> {
        let row = self.transaction.store.shared.catalog.regions.on_device(self.at.region);
        let (location, class) = (self.at.place.location(), SizeClass::of(self.at.slot_len));
        let changed = self.transaction.change(self.key_hash, verify, |bucket, log| {
            let sequence = log.draw();
            displace(sequence, bucket, log);
            let touches = row.touches();
            bucket.insert(row, location, class);
            (sequence, touches)
        });
        let (sequence, touches) = changed?;
        Some(Pointed { reserved: self, sequence, touches })
    }

    /// As [`Reserved::point`], of a key that nobody else stores.
    pub fn point_new(self) -> Pointed<'a> {
        let Some(pointed) = self.point(|_| true, |_, _, _| {}) else {
            unreachable!("nothing was verified");
        };
        pointed
    }
}

impl Pointed<'_> {
    /// The log.
    #[inline]
    pub fn log(&self) -> &Log {
        &self.reserved.transaction.log
    }

    /// Appends the slot, does `also`, which is given the slot's region, and releases the append lock.
    #[inline]
    pub fn append(self, supersedes: bool, also: impl FnOnce(&mut Log, u32)) -> Written {
        let Pointed { reserved, sequence, touches } = self;
        let Reserved { mut transaction, slot, key_hash, at } = reserved;
        let log = &mut transaction.log;
        let (ticket, unfilled) = log.append(at, slot, key_hash, (sequence, supersedes));
        also(log, at.region);
        transaction.fill_and_finish(slot, unfilled);
        Written { place: at.place, sequence, supersedes, ticket, touches }
    }
}
