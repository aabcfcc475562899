//! Live versions that get no index entry although nothing killed them. Owns that their regions are noted, and
//! that one that was being emptied when the process ended is emptied on.

use crate::store::recovery::versions::Version;
use crate::store::recovery::work::Recovery;
use crate::store::shared::Store;

impl Store {
    /// Notes the region of a live version that gets no index entry, as another key may have the same
    /// hash: a later change of its key would not find it. As a rule it is one that reclaim had just
    /// written again when the process ended.
    pub(super) fn drop_undead(&self, version: &Version) {
        let shared = &*self.shared;
        if let Some(location) = version.location()
            && version.sequence >= shared.purge_floor()
        {
            let (region, _) = location.split(&shared.layout);
            shared.log.lock().note_unindexed(region);
            shared.recovery.undead.lock().insert(region);
        }
    }
}

impl Recovery {
    /// Has the region emptied on that was being emptied when the process ended, so that removals of keys that are
    /// not there leave no tombstones any more. Reclaim empties one at a time: where there are several regions
    /// with such versions, nobody knows which it was, and all stay as they are. A single one may have them for
    /// another reason: then it is moved for nothing, at the cost of its bytes. Call it before recovery is complete.
    pub(super) fn empty_on(&self) {
        let shared = &*self.store.shared;
        let undead = std::mem::take(&mut *shared.recovery.undead.lock());
        if let [region] = undead.into_iter().collect::<Vec<_>>()[..] {
            let row = shared.catalog.regions.on_device(region);
            // Entries of unknown age are not moved.
            if self.store.knows_age(row.generation()) {
                row.empty_on();
            }
        }
    }
}
