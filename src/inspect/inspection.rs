//! A formatted device, open for inspection. Owns the handle; the other files here look at the device.

use crate::clock::{Clock, TimeDown, Timestamp};
use crate::device::Device;
use crate::format::Layout;
use crate::store::{KeyHasher, OpenError, RegionReader, Superblocks, read_superblocks};

/// A formatted device, open for inspection.
pub struct Inspection {
    pub(super) device: Device,
    pub(super) superblocks: Superblocks,
    pub(super) hasher: KeyHasher,
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

    /// The superblock copies.
    #[must_use]
    pub fn superblocks(&self) -> &Superblocks {
        &self.superblocks
    }

    /// How the device is divided.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.superblocks.best.layout
    }

    /// What the wall clock showed at a device time, unless it was set since then: seconds since the
    /// Unix epoch.
    #[must_use]
    pub fn wall_at(&self, stamp: Timestamp) -> i64 {
        self.superblocks.best.time.wall_at(stamp)
    }

    /// The epoch up to which a start would not know the age of entries. `clock` must be resumed and at
    /// the newest stamp.
    pub(super) fn unknown_age(&self, clock: &Clock, down: TimeDown) -> u32 {
        let best = &self.superblocks.best;
        match clock.is_unknown() || down == TimeDown::Lost {
            true => best.epoch,
            false => best.unknown_age,
        }
    }

    pub(super) fn reader(&self) -> RegionReader<'_> {
        let (layout, uuid) = (self.layout(), self.superblocks.best.uuid);
        RegionReader { device: &self.device, layout, uuid, lost_blocks_max: u64::MAX }
    }
}
