//! Lives of regions, and places in them. Owns what makes a place name one entry: the device and the life
//! that its slot was written in go with it, and the checksum seed is computed from that life.
//!
//! A place is made at a moment when it is certain in which life a slot lies, and never put together
//! later: that a region has begun another life cannot change what a place says.

use crate::format::{DeviceSeed, Layout, Seed, Sequence};
use crate::store::index::Locked;
use crate::store::index::word::{LOCATION_BITS, Location, Word};

/// Which one of the devices whose stores share a RAM tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceNumber(pub u16);

/// One life of a region, from its header to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    device: DeviceNumber,
    region: u32,
    generation: Sequence,
}

impl Life {
    /// The life of a device's region whose header has this generation.
    pub fn new(device: DeviceNumber, region: u32, generation: Sequence) -> Life {
        Life { device, region, generation }
    }

    /// The region; beyond the last one for entries in RAM only.
    pub fn region(self) -> u32 {
        self.region
    }

    /// The sequence with which it began.
    pub fn generation(self) -> Sequence {
        self.generation
    }

    /// Where the checksums begin of all that is written in it.
    pub fn seed(self, device: DeviceSeed) -> Seed {
        device.of_life(self.region, self.generation)
    }

    /// The place of the slot at byte `offset` that was written in this life.
    pub fn place(self, offset: u64, layout: &Layout) -> Place {
        Place::new(self.device, Location::new(self.region, offset, layout), self.generation)
    }

    /// The place that a word names whose region is in this life. Under its bucket lock: as long as a word
    /// points into a region, the region is in the life that the slot was written in.
    pub fn place_of(self, word: Word, _held: &Locked<'_>) -> Place {
        Place::new(self.device, word.location(), self.generation)
    }
}

/// Where an entry is: on which device, at which location, in which life of the region. Never the same for
/// two entries, also of those in RAM only: their locations come again after 2^32, and their generation
/// counts how often that was.
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

    /// The sequence with which the region's life began; of an entry in RAM only, see [`Place`].
    pub(super) fn generation(self) -> Sequence {
        self.generation
    }

    /// The region.
    pub(super) fn region(self, layout: &Layout) -> u32 {
        self.location().split(layout).0
    }

    /// The life of its region, and the slot's byte offset in it.
    pub(super) fn split(self, layout: &Layout) -> (Life, u64) {
        let (region, offset) = self.location().split(layout);
        (Life { device: self.device(), region, generation: self.generation }, offset)
    }
}
