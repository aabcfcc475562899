//! Generations of regions, and places in them. Owns what makes a place name one entry: the device and
//! the generation that its slot was written in go with it, and the checksum seed is computed from that
//! generation.
//!
//! A place is made at a moment when it is certain in which generation a slot lies, and never put together
//! later: that a region has begun another generation cannot change what a place says.

use crate::format::{DeviceSeed, Layout, Seed, Sequence};
use crate::store::index::Locked;
use crate::store::index::index_entry::{IndexEntry, LOCATION_BITS, Location};

/// Which one of the devices whose stores share a RAM tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceNumber(pub u16);

/// One generation of a region, from its header to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    device: DeviceNumber,
    region: u32,
    sequence: Sequence,
}

impl Generation {
    /// The generation of a device's region whose header has this generation.
    pub fn new(device: DeviceNumber, region: u32, sequence: Sequence) -> Generation {
        Generation { device, region, sequence }
    }

    /// The region; beyond the last one for entries in RAM only.
    pub fn region(self) -> u32 {
        self.region
    }

    /// The sequence with which it began.
    pub fn sequence(self) -> Sequence {
        self.sequence
    }

    /// Where the checksums begin of all that is written in it.
    pub fn seed(self, device: DeviceSeed) -> Seed {
        device.of_generation(self.region, self.sequence)
    }

    /// The place of the slot at byte `offset` that was written in this generation.
    pub fn place(self, offset: u64, layout: &Layout) -> Place {
        Place::new(self.device, Location::new(self.region, offset, layout), self.sequence)
    }

    /// The place that an index entry names whose region is in this generation. Under its bucket lock:
    /// as long as an index entry points into a region, the region is in the generation that the slot
    /// was written in.
    pub fn place_of(self, index_entry: IndexEntry, _held: &Locked<'_>) -> Place {
        Place::new(self.device, index_entry.location(), self.sequence)
    }
}

/// Where an entry is: on which device, at which location, in which generation of the region. Never the
/// same for two entries, also of those in RAM only: their locations come again after 2^32, and their
/// generation counts how often that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The location, and above it the number of the device.
    at: u64,
    generation: Sequence,
}

impl Place {
    fn new(device: DeviceNumber, location: Location, generation: Sequence) -> Place {
        Place { at: u64::from(device.0) << LOCATION_BITS | location.0, generation }
    }

    /// The place of the `number`th entry of a store that is in RAM only.
    pub(super) fn in_ram(device: DeviceNumber, number: u64) -> Place {
        Place::new(device, Location::in_ram(number), Sequence(Location::rounds_in_ram(number)))
    }

    /// Whether it is of an entry in RAM only.
    pub(super) fn is_in_ram(self) -> bool {
        self.location().is_in_ram()
    }

    fn device(self) -> DeviceNumber {
        DeviceNumber(u16::try_from(self.at >> LOCATION_BITS).unwrap_or(u16::MAX))
    }

    /// Where the slot is on its device.
    #[must_use]
    pub fn location(self) -> Location {
        Location(self.at & ((1 << LOCATION_BITS) - 1))
    }

    /// The sequence with which the region's generation began; of an entry in RAM only, see [`Place`].
    pub(super) fn generation(self) -> Sequence {
        self.generation
    }

    /// The region.
    pub(super) fn region(self, layout: &Layout) -> u32 {
        self.location().split(layout).0
    }

    /// The generation of its region, and the slot's byte offset in it.
    pub(super) fn split(self, layout: &Layout) -> (Generation, u64) {
        let (region, offset) = self.location().split(layout);
        (Generation { device: self.device(), region, sequence: self.generation }, offset)
    }
}
