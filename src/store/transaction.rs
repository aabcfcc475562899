//! How a slot becomes an entry: its place is reserved, the index is verified and points to it, and its bytes
//! go to the log, all under the append lock. Owns that order; what is verified and displaced, its callers
//! say.

use parking_lot::MutexGuard;

use crate::format::Sequence;
use crate::store::catalog::Bucket;
use crate::store::index::word::SizeClass;
use crate::store::log::append::Reservation;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::core::Log;
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::place::Place;
use crate::store::shared::Store;

/// A slot whose place is reserved. Dropped, nothing has happened.
pub(super) struct Transaction<'a> {
    store: &'a Store,
    log: MutexGuard<'a, Log>,
    slot: &'a Slot<'a>,
    key_hash: u64,
    at: Reservation,
}

/// A slot that the index points to. It must be appended: nobody may see the index without it.
#[must_use]
pub(super) struct Pointed<'a> {
    transaction: Transaction<'a>,
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

impl<'a> Transaction<'a> {
    /// Reserves the place of a slot of a key, under the append lock.
    ///
    /// # Errors
    /// There is no room for `appender` right now; the append lock is released.
    #[inline]
    pub fn begin(
        store: &'a Store,
        mut log: MutexGuard<'a, Log>,
        (slot, key_hash): (&'a Slot<'a>, u64),
        appender: Appender,
    ) -> Result<Transaction<'a>, NoRoom> {
        let at = log.reserve(slot, appender, store.shared.clock.now())?;
        Ok(Transaction { store, log, slot, key_hash, at })
    }

    /// Points the index to the slot, in one step with what `displace` takes out of it; `None` if
    /// `verify` says that the index is not what it was. The sequence is drawn between the two: under
    /// both locks, so that the order of sequences is the order of visibility.
    #[inline]
    pub fn point(
        mut self,
        verify: impl FnOnce(&Bucket<'_>) -> bool,
        displace: impl FnOnce(Sequence, &mut Bucket<'_>, &mut Log),
    ) -> Option<Pointed<'a>> {
        let catalog = &self.store.shared.catalog;
        let mut bucket = catalog.lock(self.key_hash);
        if !verify(&bucket) {
            return None;
        }
        let sequence = self.log.draw();
        displace(sequence, &mut bucket, &mut self.log);
        let row = catalog.regions.on_device(self.at.region);
        let touches = row.touches();
        bucket.insert(row, self.at.place.location(), SizeClass::of(self.slot.len()));
        drop(bucket);
        Some(Pointed { transaction: self, sequence, touches })
    }
}

impl Pointed<'_> {
    /// The log, locked.
    #[inline]
    pub fn log(&self) -> &Log {
        &self.transaction.log
    }

    /// Appends the slot, does `also`, which is given the slot's region, and releases the append lock.
    #[inline]
    pub fn append(self, supersedes: bool, also: impl FnOnce(&mut Log, u32)) -> Written {
        let Pointed { transaction, sequence, touches } = self;
        let Transaction { store, mut log, slot, key_hash, at } = transaction;
        let (ticket, unfilled) = log.append(at, slot, key_hash, (sequence, supersedes));
        also(&mut log, at.region);
        store.fill_and_release(log, slot, unfilled);
        Written { place: at.place, sequence, supersedes, ticket, touches }
    }
}
