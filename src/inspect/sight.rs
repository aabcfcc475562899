//! What a look at one region found. Values only.

use crate::clock::Timestamp;
use crate::format::{Footer, LogKind, RegionHeader, Seed, Sequence, SnapshotDirectory};
use crate::inspect::finding::Finding;
use crate::store::RegionReader;

/// What a region holds, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Entries, named by a sound footer.
    Sealed,
    /// Entries, found slot by slot.
    Unsealed,
    Free,
    Blank,
    Leftover,
    /// Part of the index snapshot of this epoch.
    Snapshot,
    OldSnapshot,
}

/// What was seen of a region.
#[derive(Clone)]
pub(super) struct Sight {
    pub region: u32,
    pub generation: Sequence,
    pub seed: Seed,
    pub touched: bool,
    pub stamp: Timestamp,
    /// Empty unless `holds` is `Sealed` or `Unsealed`.
    pub footer: Footer,
    /// Where the footer begins in the region; the region's size if it has none.
    pub end: u64,
    pub holds: Holds,
    /// The header, if it is sound.
    pub header: Option<RegionHeader>,
    /// Its part of an index snapshot, if that is sound.
    pub directory: Option<SnapshotDirectory>,
    pub damage: Vec<Finding>,
}

impl Sight {
    /// Whether there may be entries.
    pub fn is_used(&self) -> bool {
        matches!(self.holds, Holds::Sealed | Holds::Unsealed)
    }

    fn is_of_purges(&self) -> bool {
        self.is_used() && self.header.is_some_and(|header| header.log == LogKind::Purges)
    }

    pub fn survey(self) -> RegionSurvey {
        let condition = match self.holds {
            _ if !self.damage.is_empty() => Condition::Damaged,
            _ if self.is_of_purges() => Condition::Purges,
            Holds::Sealed => Condition::Sealed,
            Holds::Unsealed => Condition::Unsealed,
            Holds::Free => Condition::Free,
            Holds::Blank => Condition::Blank,
            Holds::Leftover => Condition::Leftover,
            Holds::Snapshot => Condition::Snapshot,
            Holds::OldSnapshot => Condition::OldSnapshot,
        };
        RegionSurvey {
            region: self.region,
            condition,
            generation: self.generation,
            entries: self.footer.records.len() as u64,
            tombstones: self.footer.tombstones.len() as u64,
            entry_bytes: self.footer.records.iter().map(|record| record.slot_len).sum(),
            stamp: self.stamp,
            touched: self.touched,
            damage: self.damage,
        }
    }
}

impl Sight {
    /// Takes a region's generation from a trailer. Only a header of that generation could say that no
    /// entry was touched: without it the footer may understate lifetimes.
    pub(super) fn take_generation(&mut self, reader: &RegionReader<'_>, generation: Sequence) {
        self.touched |= generation > self.generation;
        self.generation = generation;
        self.seed = Seed::new(reader.uuid, self.region, generation);
    }

    /// Notes damage at byte `offset` of the region.
    pub fn add(&mut self, reader: &RegionReader<'_>, offset: u64, what: String) {
        let offset = reader.layout.region_offset(self.region) + offset;
        self.damage.push(Finding { region: Some(self.region), offset, what });
    }
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Complete, with a footer.
    Sealed,
    /// In use and without a footer: it was open when the store ended.
    Unsealed,
    /// In use by the log of purges: second copies of tombstones, and no entries.
    Purges,
    /// Freed: everything in it is dead.
    Free,
    /// Never used.
    Blank,
    /// Never used since the format; holds bytes from before.
    Leftover,
    /// Part of the index snapshot that the next start reads.
    Snapshot,
    /// Part of an index snapshot that a later change ended: as good as free.
    OldSnapshot,
    /// Its header, its footer or its part of an index snapshot is damaged.
    Damaged,
}

/// What a region is and how much it holds.
#[derive(Clone, Debug)]
pub struct RegionSurvey {
    /// Which region.
    pub region: u32,
    /// What it is.
    pub condition: Condition,
    /// Its present generation; 0 if it has none.
    pub generation: Sequence,
    /// Entries in it, dead and expired ones and slices included.
    pub entries: u64,
    /// Tombstones in it, other than those of entries.
    pub tombstones: u64,
    /// Bytes of its entries.
    pub entry_bytes: u64,
    /// Newest time found in it.
    pub stamp: Timestamp,
    /// A touch extended the lifetime of an entry after the region was sealed, or may have.
    pub touched: bool,
    /// What is wrong with its header, footer or snapshot directory.
    pub damage: Vec<Finding>,
}
