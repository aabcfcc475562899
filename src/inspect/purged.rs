//! The purges by tags and prefixes that a device has, and the soft ones of everything. Owns what they say of
//! the entries there, by the rules of a store.

use crate::format::{EntryHeader, Kind, Records};
use crate::inspect::inspection::Inspection;
use crate::inspect::sight::Sight;
use crate::store::{Floors, Purges, Since, Subject, Verdict};

/// All purges of a device, gathered region by region.
pub(super) struct PurgesSeen(Purges);

impl Inspection {
    /// None yet but what the superblock says.
    pub(super) fn purges_seen(&self) -> PurgesSeen {
        let best = &self.superblocks.best;
        let floors = Floors { hard: best.record_floor, soft: best.soft_floor };
        PurgesSeen(Purges::new(floors, usize::MAX, self.hasher.prefixes()))
    }
}

impl PurgesSeen {
    /// Adds those of a region.
    pub fn gather(&self, sight: &Sight) {
        for record in &sight.footer.purge_records {
            self.0.add_found(record, true);
        }
    }

    /// What they say of an entry; `slot` has all of it but the body.
    pub fn verdict(&self, header: &EntryHeader, slot: &[u8]) -> Verdict {
        let records = slot.get(header.records_range()).unwrap_or_default();
        let by_itself = if Records::is_stale_in(records) { Verdict::Stale } else { Verdict::Live };
        if header.kind == Kind::Slice {
            return by_itself;
        }
        let key = slot.get(header.key_range()).unwrap_or_default();
        let of = Subject { key, tags: Records::tags_in(records) };
        self.0.verdict(Since::Sequence(header.sequence), of).0.max(by_itself)
    }
}
