//! Live versions that get no index entry although nothing killed them. Owns that their regions are noted.

use crate::store::recovery::versions::Version;
use crate::store::shared::Store;

impl Store {
    /// Notes the region of a live version that gets no index entry, as another key may have the same
    /// hash: a later change of its key would not find it. As a rule it is one that reclaim had just
    /// written again when the process ended: its region goes soon.
    pub(super) fn drop_undead(&self, version: &Version) {
        let shared = &*self.shared;
        if let Some(location) = version.location()
            && version.sequence >= shared.purge_floor()
        {
            let (region, _) = location.split(&shared.layout);
            shared.log.lock().note_unindexed(region);
        }
    }
}
