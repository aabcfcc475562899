//! Looking into a formatted device on which no store runs. Owns what can be learnt without one:
//! never writes, never repairs, and holds the bytes of one region at a time.

mod check;
mod explain;
mod finding;
mod listing;
mod region;
mod sight;
mod snapshot;

pub use check::{CheckEvent, CheckSummary, Incomplete};
pub use explain::{Explained, ExplainedKey, ExplainedRegion, Fate, Filling, Share};
pub use finding::Finding;
pub use listing::{Listed, ListedState, ListingSummary};
pub use sight::{Condition, RegionSurvey};
pub use snapshot::{SnapshotPartSurvey, SnapshotState};

use crate::clock::{Clock, TimeDown, Timestamp};
use crate::device::{Device, DeviceError};
use crate::format::{EntryHeader, Layout, Seed};
use crate::store::KeyHasher;
use crate::store::{OpenError, Superblocks, read_superblocks};
use crate::store::{RegionReader, SlotWalk};
use sight::Sight;

/// A formatted device, open for looking.
pub struct Inspection {
    device: Device,
    superblocks: Superblocks,
    hasher: KeyHasher,
}

impl Inspection {
    /// Reads the superblocks of a device.
    ///
    /// # Errors
    /// The device is not formatted, both superblock copies are damaged, or it is not the device
    /// that was formatted; see [`OpenError`].
    pub async fn open(device: Device) -> Result<Inspection, OpenError> {
        let superblocks = read_superblocks(&device).await?;
        let hasher = KeyHasher::new(superblocks.best.secret);
        Ok(Inspection { device, superblocks, hasher })
    }

    /// What the superblock copies say.
    #[must_use]
    pub fn superblocks(&self) -> &Superblocks {
        &self.superblocks
    }

    /// How the device is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.superblocks.best.layout
    }

    /// What the wall clock showed at a time of the device, if it was not set since: seconds since the
    /// Unix epoch.
    #[must_use]
    pub fn wall_at(&self, stamp: Timestamp) -> i64 {
        self.superblocks.best.time.wall_at(stamp)
    }

    /// The epoch up to which a start would not know how old entries are; `clock` was resumed, and moved
    /// to the newest stamp since.
    fn unknown_age(&self, clock: &Clock, down: TimeDown) -> u32 {
        let best = &self.superblocks.best;
        match clock.is_unknown() || down == TimeDown::Lost {
            true => best.epoch,
            false => best.unknown_age,
        }
    }

    /// What a region is and how much it holds: from its header and footer, from its slots where it
    /// has no footer, or from its directory where it is part of an index snapshot.
    ///
    /// # Errors
    /// The device failed.
    pub async fn survey(&self, region: u32) -> Result<RegionSurvey, DeviceError> {
        Ok(self.look(region).await?.survey())
    }

    async fn look(&self, region: u32) -> Result<Sight, DeviceError> {
        region::look(&self.reader(), region, (&self.superblocks.best, &self.hasher)).await
    }

    fn reader(&self) -> RegionReader<'_> {
        let (layout, uuid) = (self.layout(), self.superblocks.best.uuid);
        RegionReader { device: &self.device, layout, uuid, lost_blocks_max: u64::MAX }
    }
}

/// Every slot in the bytes of one life of a region that is sound but for its body, from byte
/// `start` on. For fuzzing: what walks the slots is not public.
#[doc(hidden)]
#[must_use]
pub fn sound_slots(bytes: &[u8], start: u64, seed: Seed) -> Vec<(u64, EntryHeader)> {
    let slots = SlotWalk::new(bytes, start, seed);
    slots.filter_map(|(offset, found)| Some((offset, found.ok()?))).collect()
}
