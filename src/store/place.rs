//! Lives of regions, and places in them. Owns what makes a place name one entry: the life that its
//! slot was written in goes with it, and the checksum seed is computed from that life.
//!
//! A place is made at a moment when it is certain in which life a slot lies, and never put together
//! later: that a region has begun another life cannot change what a place says.

use crate::format::{DeviceSeed, Layout, Seed, Sequence};
use crate::store::index::Locked;
use crate::store::index::word::{Location, Word};

/// One life of a region, from its header to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    region: u32,
    generation: Sequence,
}

impl Life {
    /// The life of `region` whose header has this generation.
    pub fn new(region: u32, generation: Sequence) -> Life {
        Life { region, generation }
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
        let location = Location::new(self.region, offset, layout);
        Place { location, generation: self.generation }
    }

    /// The place that a word names whose region is in this life. Under its bucket lock: as long as a word
    /// points into a region, the region is in the life that the slot was written in.
    pub fn place_of(self, word: Word, _held: &Locked<'_>) -> Place {
        Place { location: word.location(), generation: self.generation }
    }
}

/// Where an entry is, in which life of the region: on the device never the same for two entries.
///
/// Entries in RAM only have places beyond the device, which are given again after 2^32 or more of them: who
/// comes back to one compares the sequence too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    location: Location,
    generation: Sequence,
}

impl Place {
    /// The place of an entry in RAM only.
    pub(super) fn in_ram(location: Location) -> Place {
        Place { location, generation: Sequence(0) }
    }

    /// The slot's place on the device.
    #[must_use]
    pub fn location(self) -> Location {
        self.location
    }

    /// The sequence with which the region's life began.
    pub(super) fn generation(self) -> Sequence {
        self.generation
    }

    /// The region.
    pub(super) fn region(self, layout: &Layout) -> u32 {
        self.location.split(layout).0
    }

    /// The life of its region, and the slot's byte offset in it.
    pub(super) fn split(self, layout: &Layout) -> (Life, u64) {
        let (region, offset) = self.location.split(layout);
        (Life { region, generation: self.generation }, offset)
    }
}
