//! One region as it is on the device: which life it is in, what it holds, what is wrong with it.
//! Owns the verdict; follows recovery in which life counts, so that both see the same entries.

use super::finding::{Finding, with_cause};
use super::snapshot;
use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{
    Footer, LogKind, RegionHeader, RegionUse, Seed, Sequence, SnapshotDirectory, Superblock,
    Trailer,
};
use crate::store::contents::{FoundFooter, RegionReader};
use crate::store::key_hash::KeyHasher;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Complete, with a footer.
    Sealed,
    /// In use and without a footer: it was the open one when the store ended.
    Unsealed,
    /// In use by the log of purges: second copies of kill records, and no entries.
    Purges,
    /// Freed; what is in it is dead.
    Free,
    /// Never used.
    Blank,
    /// Never used since the device was formatted; holds bytes of before.
    Leftover,
    /// Part of the index snapshot that the next start reads.
    Snapshot,
    /// Part of an index snapshot that a later change ended; as good as free.
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
    /// Its present life; 0 if it has none.
    pub generation: Sequence,
    /// Entries in it, dead and expired ones and slices included.
    pub entries: u64,
    /// Kill records in it, other than those of entries.
    pub kills: u64,
    /// Bytes of its entries.
    pub entry_bytes: u64,
    /// Newest time found in it.
    pub stamp: Timestamp,
    /// A touch extended the life of an entry after the region was sealed, or may have.
    pub touched: bool,
    /// What is wrong with header, footer and directory of a snapshot.
    pub damage: Vec<Finding>,
}

/// What was seen of a region.
#[derive(Clone)]
pub(super) struct Sight {
    pub region: u32,
    pub generation: Sequence,
    pub seed: Seed,
    pub touched: bool,
    pub stamp: Timestamp,
    /// Empty unless `holds`.
    pub footer: Footer,
    /// Where the footer begins in the region; the region's size if it has none.
    pub end: u64,
    pub holds: Holds,
    /// What the header says, if it is sound.
    pub header: Option<RegionHeader>,
    /// Which part of an index snapshot it is, if that is sound.
    pub directory: Option<SnapshotDirectory>,
    pub damage: Vec<Finding>,
}

/// Whether there are entries, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// A sound footer names them.
    Sealed,
    /// They were found slot by slot.
    Unsealed,
    Free,
    Blank,
    Leftover,
    /// Part of the index snapshot of this epoch.
    Snapshot,
    OldSnapshot,
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
            kills: self.footer.kills.len() as u64,
            entry_bytes: self.footer.records.iter().map(|record| record.slot_len).sum(),
            stamp: self.stamp,
            touched: self.touched,
            damage: self.damage,
        }
    }
}

/// Reads header and footer of a region, and its slots if it has no sound footer; of a part of an
/// index snapshot the directory.
pub(super) async fn look(
    reader: &RegionReader<'_>,
    region: u32,
    (superblock, hasher): (&Superblock, &KeyHasher),
) -> Result<Sight, DeviceError> {
    let block = reader.read(region, 0..u64::from(reader.layout.alignment)).await?;
    let header = RegionHeader::decode(&block, reader.uuid, region);
    let mut sight = begin(reader, region, header.as_ref().ok());
    if sight.holds == Holds::Snapshot {
        take_directory(&mut sight, reader, superblock.epoch).await;
        return Ok(sight);
    }
    if sight.holds == Holds::Free {
        return Ok(sight);
    }
    let footer = reader.read_footer(region).await?;
    let blank = block.iter().all(|byte| *byte == 0);
    let sealed = take_footer(&mut sight, reader, footer);
    let known = sight.generation > Sequence(0);
    if let Err(damage) = header {
        let claimed = RegionHeader::is_claimed(&block, reader.uuid);
        if known || claimed {
            sight.add(reader, 0, format!("region header: {damage}"));
        } else if !blank {
            sight.holds = Holds::Leftover;
        }
    } else if sight.header.is_some_and(|header| header.generation < sight.generation) {
        sight.add(reader, 0, "region header: of an earlier life than the footer".to_owned());
    }
    if known && !sealed {
        let hash_of = |kind, key: &[u8]| hasher.of(kind, key);
        let contents = reader.scan(region, sight.generation, hash_of).await?;
        sight.holds = Holds::Unsealed;
        sight.stamp = sight.stamp.max(contents.stamp);
        sight.footer = contents.footer;
    }
    Ok(sight)
}

/// What the header alone says.
fn begin(reader: &RegionReader<'_>, region: u32, header: Option<&RegionHeader>) -> Sight {
    let generation = header.map_or(Sequence(0), |header| header.generation);
    Sight {
        region,
        generation,
        seed: Seed::new(reader.uuid, region, generation),
        touched: header.is_some_and(|header| header.touched),
        stamp: header.map_or(Timestamp(0), |header| header.stamp),
        footer: Footer::default(),
        end: reader.layout.region_size,
        holds: match header.map(|header| header.region_use) {
            Some(RegionUse::Free) => Holds::Free,
            Some(RegionUse::Snapshot) => Holds::Snapshot,
            Some(RegionUse::Log) | None => Holds::Blank,
        },
        header: header.copied(),
        directory: None,
        damage: Vec::new(),
    }
}

/// Said of damage in a snapshot's directory: unlike its pieces it may be torn.
const CUT_OFF: &str = " (or a stop that a power cut cut off)";

/// Takes the word of a snapshot's directory for which part of it the region is, if it is of this
/// epoch. In what an earlier one left there is nothing to be damaged.
async fn take_directory(sight: &mut Sight, reader: &RegionReader<'_>, epoch: u32) {
    let alignment = reader.layout.alignment;
    let start = u64::from(alignment);
    let range = start..start + SnapshotDirectory::space(alignment);
    let found = match reader.read(sight.region, range).await {
        Ok(bytes) => SnapshotDirectory::decode(&bytes, sight.seed)
            .map_err(|damage| format!("directory: {damage}{CUT_OFF}")),
        Err(error) => Err(format!("directory: {}", with_cause(&error))),
    };
    match found {
        Ok(directory) if directory.epoch == epoch => sight.directory = Some(directory),
        // Its generation was drawn in the epoch that it is of.
        Err(what) if sight.generation.epoch() == epoch => {
            sight.add(reader, start, snapshot::blame(&what));
        }
        Ok(_) | Err(_) => sight.holds = Holds::OldSnapshot,
    }
}

/// Takes the footer's word for what the region holds, if it is sound and not of an older life.
fn take_footer(sight: &mut Sight, reader: &RegionReader<'_>, found: FoundFooter) -> bool {
    let (region_size, alignment) = (reader.layout.region_size, reader.layout.alignment);
    match found {
        FoundFooter::Sound(trailer, footer) if trailer.generation >= sight.generation => {
            sight.take_life(reader, trailer.generation);
            sight.stamp = sight.stamp.max(trailer.stamp);
            sight.footer = footer;
            sight.end = region_size - trailer.footer_len(alignment);
            sight.holds = Holds::Sealed;
            true
        }
        FoundFooter::BadRecords(trailer, damage) if trailer.generation >= sight.generation => {
            sight.take_life(reader, trailer.generation);
            let offset = region_size.saturating_sub(trailer.footer_len(alignment));
            sight.add(reader, offset, format!("footer records: {damage}"));
            false
        }
        FoundFooter::None(damage, bytes) => {
            let known = sight.generation > Sequence(0);
            if known && Trailer::is_claimed(&bytes, sight.generation) {
                let offset = region_size - bytes.len() as u64;
                sight.add(reader, offset, format!("footer trailer: {damage}"));
            }
            false
        }
        FoundFooter::Sound(..) | FoundFooter::BadRecords(..) => false,
    }
}

impl Sight {
    /// Takes a trailer's word for the life that the region is in. That nothing was touched in it was
    /// for a header of that life to say: without one the footer may understate lifetimes.
    fn take_life(&mut self, reader: &RegionReader<'_>, generation: Sequence) {
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
