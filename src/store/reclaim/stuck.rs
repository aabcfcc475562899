//! Regions that cannot be read or freed. Owns when they are given up, and what is lost with them.

use crate::format::Sequence;
use crate::store::counters::count;
use crate::store::log::appender::Appender;
use crate::store::mutation::request::StoreError;
use crate::store::reclaim::freeing::{is_of_device, is_unreadable};
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::reclaim::victim::Victim;
use crate::store::recovery::work::Recovery;
use crate::store::region::row::Region;
use crate::store::region::state::RegionState;

impl Reclaimer {
    /// Frees an unreadable region in which everything is dead; true if there was one.
    pub(in crate::store) async fn free_dead(&self) -> bool {
        let mut dead = self.store.shared.catalog.regions.dead_unreadable();
        dead.retain(|region| !self.is_set_aside(*region));
        let Some(region) = dead.first().copied() else { return false };
        self.is_freed(self.try_to_free(Victim::whole(region), RegionState::Unreadable).await)
    }

    /// Frees the oldest region if it could not be read or freed before; true if it was freed now.
    pub(in crate::store) async fn free_stuck_and_oldest(&self) -> bool {
        let Some((region, state)) = self.stuck_and_oldest() else { return false };
        let freed = self.try_to_free(Victim::whole(region), state).await;
        if let Err(error) = &freed
            && is_of_device(error)
            && !is_unreadable(error)
        {
            self.is_freed(self.bury(region).await);
        }
        self.is_freed(freed)
    }

    /// Makes everything in the oldest region durably dead without freeing it. It can neither be emptied
    /// nor freed, and while its entries may come back no tombstone can be dropped.
    pub(in crate::store) async fn bury(&self, region: u32) -> Result<(), StoreError> {
        let regions = &self.store.shared.catalog.regions;
        let floor = regions.oldest_generation_but(region);
        match floor.filter(|_| regions.is_oldest(region) && !regions.is_dead(region)) {
            Some(floor) => {
                tracing::warn!(
                    region,
                    "the oldest region cannot be freed: what is in it is dropped"
                );
                self.raise_purge_floor_to(floor).await
            }
            None => Ok(()),
        }
    }

    /// Makes everything with a sequence below `floor` dead, durably.
    pub(in crate::store) async fn raise_purge_floor_to(
        &self,
        floor: Sequence,
    ) -> Result<(), StoreError> {
        let ticket = {
            let mut log = self.store.shared.log.lock();
            let (floor, ticket) = log.raise_purge_floor_to(floor, self.store.shared.clock.pair());
            self.store.shared.set_purge_floor(floor);
            ticket
        };
        self.store.flush_through(ticket).await
    }

    /// The oldest region, if it could not be read or freed before and may be tried again. While it
    /// stays, no other region can drop a tombstone. Its own tombstones hide nothing in other regions,
    /// so it may be freed unread.
    pub(in crate::store) fn stuck_and_oldest(&self) -> Option<(u32, RegionState)> {
        let (region, state) = self.oldest_if_stuck()?;
        let may_go =
            !self.is_set_aside(region) && self.store.shared.catalog.regions.is_oldest(region);
        may_go.then_some((region, state))
    }

    /// The oldest region and its state, if it could not be read or freed before.
    pub(in crate::store) fn oldest_if_stuck(&self) -> Option<(u32, RegionState)> {
        let region = self.store.shared.catalog.regions.oldest()?;
        let row = self.store.shared.catalog.regions.on_device(region);
        let state = row.state();
        let is_stuck = state == RegionState::Unreadable
            || (state == RegionState::Sealed && (row.failures() > 0 || row.is_unread()));
        is_stuck.then_some((region, state))
    }

    /// Whether tombstones, with their records in footers, take half of the device. Counts entries that
    /// supersede others too, but those never come near that.
    pub(in crate::store) fn is_full_of_tombstones(&self) -> bool {
        let layout = &self.store.shared.layout;
        let tombstones = self.store.shared.catalog.regions.ranked(|ranking| ranking.tombstones());
        tombstones > u64::from(layout.region_count) * layout.region_size / 4
    }

    /// Gives up an unreadable region because of which no tombstone can be dropped, when there is no
    /// room for more of them: without it other regions can be emptied again.
    pub(in crate::store) async fn give_up(
        &self,
        region: u32,
        state: RegionState,
    ) -> Result<(), StoreError> {
        if state == RegionState::Unreadable
            && Recovery::new(self.store.clone()).read_again(region).await
        {
            return Ok(());
        }
        if !self.store.shared.catalog.regions.is_oldest(region) {
            // Without a header its age is unknown, and so is what its tombstones hide.
            self.forget_earlier_starts(region).await?;
        }
        self.try_to_free(Victim::whole(region), state).await.map(drop)
    }

    /// Makes everything stored before this start durably dead: the entries of region `lost`, and the
    /// older versions that its tombstones hid.
    pub(in crate::store) async fn forget_earlier_starts(
        &self,
        lost: u32,
    ) -> Result<(), StoreError> {
        let why =
            "no room but in a region that cannot be read: what earlier starts stored is dropped";
        tracing::error!(region = lost, "{why}");
        let floor = Sequence::first_of(self.store.shared.recovery.opened_epoch.saturating_add(1));
        self.raise_purge_floor_to(floor).await?;
        count(&self.store.shared.counters.starts_forgotten);
        Ok(())
    }

    /// Whether no region is free.
    pub(in crate::store) fn is_in_need(&self) -> bool {
        self.store.shared.log.lock().free_count() == 0
    }

    /// Whether a region was freed. If not, the failure is only logged: others may be emptied.
    pub(in crate::store) fn is_freed<T>(&self, freed: Result<T, StoreError>) -> bool {
        freed.inspect_err(|error| self.tell_failure(error)).is_ok()
    }

    /// Logs that a region could not be reclaimed, though not for every region of a broken disk.
    pub(in crate::store) fn tell_failure(&self, error: &StoreError) {
        let set_aside = self.store.set_aside_regions();
        let source = error as &dyn std::error::Error;
        if matches!(error, StoreError::ShuttingDown) {
            tracing::debug!(error = source, "reclaim ends with the store");
        } else if !is_of_device(error) {
            tracing::warn!(error = source, "a region cannot be emptied now: it stays as it is");
        } else if is_unreadable(error) && set_aside > 1 {
            tracing::debug!(error = source, set_aside, "another region cannot be read");
        } else {
            tracing::error!(error = source, set_aside, "reclaim failed: the region is set aside");
        }
    }

    /// The oldest region without tombstones.
    pub(in crate::store) fn oldest_without_tombstones(&self) -> Option<u32> {
        let regions = self.store.shared.catalog.regions.iter();
        let rows = regions.filter(|(_, row)| row.tombstones() == 0 && self.may_go(row));
        rows.min_by_key(|(_, row)| row.generation()).map(|(region, _)| region)
    }

    /// The oldest region, whose tombstones no other region needs.
    fn oldest_of_all(&self) -> Option<u32> {
        let regions = &self.store.shared.catalog.regions;
        let region = regions.oldest().filter(|region| regions.is_oldest(*region))?;
        self.may_go(regions.on_device(region)).then_some(region)
    }

    /// Whether a region may be emptied of all that it holds.
    fn may_go(&self, row: &Region) -> bool {
        row.state() == RegionState::Sealed
            && !row.holds_purges()
            && row.claimed() == 0
            && !row.is_set_aside(self.store.shared.clock.now())
    }

    /// There is no room for the victim's tombstones: frees a region without any, the one because of which
    /// they are needed, or the oldest.
    pub(in crate::store) async fn make_room_otherwise(
        &self,
        why: &'static str,
    ) -> Result<(), StoreError> {
        if self.store.shared.log.lock().check_epoch(Appender::Reclaim).is_err() {
            // These tombstones need sequence numbers: wait for the next epoch.
            return Err(StoreError::Busy(why));
        }
        let free = async |region| {
            self.try_to_free(Victim::but_just_stored(region), RegionState::Sealed).await.map(drop)
        };
        if let Some(region) = self.oldest_without_tombstones() {
            return free(region).await;
        }
        if !self.is_in_need() {
            return Err(StoreError::Busy(why));
        }
        if let Some((region, state)) = self.oldest_if_stuck() {
            return self.give_up(region, state).await;
        }
        match self.oldest_of_all() {
            Some(region) => free(region).await,
            None => Err(StoreError::Busy(why)),
        }
    }
}
