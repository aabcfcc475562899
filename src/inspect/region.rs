//! One region as it is on the device: its generation, what it holds, its damage. Owns the verdict.
//! Chooses the generation as recovery does, so that both see the same entries.

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{
    Footer, RegionHeader, RegionUse, Seed, Sequence, SnapshotDirectory, Superblock, Trailer,
};
use crate::inspect::finding::with_cause;
use crate::inspect::inspection::Inspection;
use crate::inspect::sight::{Holds, RegionSurvey, Sight};
use crate::inspect::snapshot;
use crate::store::{FoundFooter, KeyHasher, RegionReader};

/// Reads header and footer of a region, and its slots if it has no sound footer; of a part of an index
/// snapshot the directory.
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
        sight.add(reader, 0, "region header: of an earlier generation than the footer".to_owned());
    }
    if known && !sealed {
        let hash_of = |kind, key: &[u8]| hasher.of(kind, key);
        let mut contents = reader.scan(region, sight.generation, hash_of);
        while let Some(piece) = contents.next().await {
            sight.footer.append(piece);
        }
        contents.end()?;
        sight.holds = Holds::Unsealed;
        sight.stamp = sight.stamp.max(contents.stamp());
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

/// Added to damage in a snapshot's directory, which a power cut can tear, unlike its pieces.
const CUT_OFF: &str = " (or a stop that a power cut cut off)";

/// Reads a snapshot's directory to learn which part the region holds, if it is of this epoch. In an
/// earlier snapshot nothing counts as damage.
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
        // The generation was drawn in the snapshot's epoch.
        Err(what) if sight.generation.epoch() == epoch => {
            sight.add(reader, start, snapshot::blame(&what));
        }
        Ok(_) | Err(_) => sight.holds = Holds::OldSnapshot,
    }
}

/// Takes the contents of a region from its footer, if that is sound and not of an older generation.
fn take_footer(sight: &mut Sight, reader: &RegionReader<'_>, found: FoundFooter) -> bool {
    let (region_size, alignment) = (reader.layout.region_size, reader.layout.alignment);
    match found {
        FoundFooter::Sound(trailer, footer) if trailer.generation >= sight.generation => {
            sight.take_generation(reader, trailer.generation);
            sight.stamp = sight.stamp.max(trailer.stamp);
            sight.footer = footer;
            sight.end = region_size - trailer.footer_len(alignment);
            sight.holds = Holds::Sealed;
            true
        }
        FoundFooter::BadRecords(trailer, damage) if trailer.generation >= sight.generation => {
            sight.take_generation(reader, trailer.generation);
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

impl Inspection {
    /// What a region is and how much it holds: by header and footer, by its slots if it has no footer,
    /// or by its directory if it is part of an index snapshot.
    ///
    /// # Errors
    /// The device failed.
    pub async fn survey(&self, region: u32) -> Result<RegionSurvey, DeviceError> {
        Ok(self.look(region).await?.survey())
    }

    pub(super) async fn look(&self, region: u32) -> Result<Sight, DeviceError> {
        look(&self.reader(), region, (&self.superblocks.best, &self.hasher)).await
    }
}
