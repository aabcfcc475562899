//! Purge records of regions that are emptied. Owns which are carried on, and when records are forgotten in
//! memory: once everything is gone that they may cover.

use crate::format::{PurgeRecord, Sequence};
use crate::planted::{self, Bug};
use crate::store::counters::add;
use crate::store::log::appender::NoRoom;
use crate::store::log::slot::PURGE_RECORDS_PER_SLOT_MAX;
use crate::store::mutation::request::StoreError;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::transaction::Transaction;

impl Reclaimer {
    /// Copies the purge records that may still be needed to the log that they are in; true if there were any.
    pub(in crate::store) fn carry_purge_records(
        &self,
        region: u32,
        records: &[PurgeRecord],
    ) -> Result<bool, StoreError> {
        let shared = &*self.store.shared;
        let oldest = shared.catalog.regions.oldest_generation_but(region);
        let oldest = oldest.filter(|_| !planted::is(Bug::DropTombstones));
        let in_purges = shared.catalog.regions.on_device(region).holds_purges();
        let mut carried = 0;
        for batch in records.chunks(PURGE_RECORDS_PER_SLOT_MAX) {
            let mut transaction = Transaction::begin(&self.store);
            let log = transaction.log();
            let is_needed = |record: &&PurgeRecord| {
                let later = shared.purges.later(record);
                oldest.is_some_and(|oldest| record.sequence > oldest)
                    && !log.is_below_floor(record)
                    // A later one that is on the device says the same.
                    && later.is_none_or(|later| !log.is_record_durable(&later))
            };
            let needed: Vec<PurgeRecord> = batch.iter().filter(is_needed).copied().collect();
            if !needed.is_empty() {
                let now = shared.clock.now();
                log.carry_purge_records(&needed, in_purges, now).map_err(no_room)?;
                carried += needed.len();
            }
            transaction.finish();
        }
        add(&shared.counters.purge_records_carried, carried as u64);
        Ok(carried > 0)
    }

    /// Forgets records that cover nothing that is left.
    pub(in crate::store) async fn forget_purges(&self) {
        let shared = &*self.store.shared;
        if shared.purges.counts() == [0, 0] {
            return;
        }
        let forget_some = || {
            let _log = shared.log.lock();
            let oldest = shared.catalog.regions.oldest_generation().unwrap_or(Sequence(u64::MAX));
            shared.purges.compact(oldest, || shared.fills.oldest_seen(), shared.clock.now())
        };
        while forget_some() {
            tokio::task::yield_now().await;
        }
    }
}

/// The error for tombstones that found no room.
pub(in crate::store) fn no_room(why: NoRoom) -> StoreError {
    match why {
        NoRoom::Epoch => StoreError::Busy("no sequences until the next epoch is durable"),
        _ => StoreError::Busy("no region for tombstones"),
    }
}
