//! Makes room: empties and frees one region a call. Owns the order of the steps; `victim` chooses the
//! region.

pub(super) mod drop_slices;
pub(super) mod freeing;
mod prolonged;
pub(super) mod purge_records;
pub(super) mod purge_regions;
pub(super) mod reclaimer;
pub(super) mod reinsert;
pub(super) mod stuck;
#[cfg(test)]
mod tests;
pub(super) mod victim;

use crate::store::log::appender::Appender;
use crate::store::mutation::request::StoreError;
use crate::store::reclaim::freeing::is_unreadable;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::region::state::RegionState;

impl Reclaimer {
    /// Keeps some regions free until the store is closed.
    pub async fn run(mut self) {
        loop {
            self.store.shared.signals.wake_reclaimer.notified().await;
            loop {
                if self.store.shared.is_stopping() {
                    return;
                }
                let reclaimed = match self.reclaim_one().await {
                    Ok(reclaimed) => reclaimed,
                    Err(error) => {
                        self.tell_failure(&error);
                        if !is_unreadable(&error) || !self.has_untried_region() {
                            tokio::time::sleep(crate::store::shared::RETRY_PAUSE).await;
                        }
                        true
                    }
                };
                if !reclaimed && !self.drop_some_slices().await {
                    break;
                }
            }
        }
    }

    /// Whether a region waits that may be emptied, as far as is known.
    fn has_untried_region(&self) -> bool {
        let now = self.store.shared.clock.now();
        self.store.shared.catalog.regions.ranked(|ranking| ranking.has_untried(now))
    }

    async fn reclaim_one(&mut self) -> Result<bool, StoreError> {
        if !self.store.shared.is_recovered()
            // Emptying would fail and evict entries that can still be read.
            || self.store.shared.durability.health.is_refusing()
            || self.store.shared.log.lock().check_epoch(Appender::Reclaim).is_err()
            || (!self.store.shared.log.lock().is_short_of_regions()
                && !self.store.shared.catalog.is_short()
                && !self.has_condemned())
        {
            return Ok(false);
        }
        if self.empty_purge_region().await {
            return Ok(true);
        }
        if self.free_dead().await || self.free_stuck_and_oldest().await {
            return Ok(true);
        }
        if self.is_full_of_tombstones()
            && let Some((region, state)) = self.oldest_if_stuck()
            && !self.is_set_aside(region)
            && self.is_freed(self.give_up(region, state).await)
        {
            return Ok(true);
        }
        let was_in_need = self.is_in_need();
        let Some(victim) = self.pick_victim().await else { return Ok(false) };
        match self.try_to_free(victim, RegionState::Sealed).await {
            // It took the last free region: try the victim with the least to move.
            Err(StoreError::Busy(_)) if self.is_in_need() && !was_in_need => {}
            Err(StoreError::Busy(why)) => self.make_room_otherwise(why).await?,
            freed => drop(freed?),
        }
        Ok(true)
    }

    /// Whether a damaged region waits to be emptied. One that cannot be emptied waits for its turn.
    fn has_condemned(&self) -> bool {
        let now = self.store.shared.clock.now();
        self.store.shared.catalog.regions.ranked(|ranking| ranking.has_condemned(now))
    }
}
