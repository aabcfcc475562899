//! The 64-bit index entry (`IndexEntry`) and its parts. Pure values.

use crate::format::{LOCATIONS_MAX, Layout};

pub(in crate::store) const LOCATION_BITS: u32 = 40;
const LOCATION_MAX: u64 = (1 << LOCATION_BITS) - 1;
/// Number of locations for entries in RAM only.
const IN_RAM: u64 = 1 << 32;
const _: () = assert!(LOCATIONS_MAX + IN_RAM <= LOCATION_MAX + 1, "no device has them");
const CLASS_BITS: u32 = 6;
const HIT_BIT: u64 = 1 << 46;
const SPARE_BIT: u64 = 1 << 47;
const HASH_SHIFT: u32 = 48;

/// A slot's place on the device, in granules from the start of region 0.
///
/// The highest 2^32 locations name entries that are in the RAM tier only; no device is so large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location(pub u64);

impl Location {
    /// The location of byte `offset` of `region`.
    #[must_use]
    pub fn new(region: u32, offset: u64, layout: &Layout) -> Location {
        Location((u64::from(region) * layout.region_size + offset) / u64::from(layout.granule))
    }

    /// The location of the `number`th entry in RAM only. Repeats after 2^32.
    #[must_use]
    pub fn in_ram(number: u64) -> Location {
        Location(LOCATION_MAX - number % IN_RAM)
    }

    /// How often all these locations were used before the `number`th.
    #[must_use]
    pub fn rounds_in_ram(number: u64) -> u64 {
        number / IN_RAM
    }

    /// Whether it names an entry in RAM only.
    #[must_use]
    pub fn is_in_ram(self) -> bool {
        self.0 > LOCATION_MAX - IN_RAM
    }

    /// The highest number up to `newest` that has this location; see [`Location::in_ram`].
    #[must_use]
    pub fn number_in_ram(self, newest: u64) -> u64 {
        let round_began = newest - newest % IN_RAM;
        let number = round_began + (LOCATION_MAX - self.0);
        if number <= newest { number } else { number.saturating_sub(IN_RAM) }
    }

    /// Region and byte offset in it.
    #[must_use]
    pub fn split(self, layout: &Layout) -> (u32, u64) {
        let (bytes, size) = (self.0 * u64::from(layout.granule), layout.region_size);
        (u32::try_from(bytes / size).unwrap_or(u32::MAX), bytes % size)
    }
}

/// An upper bound of a slot's length in six bits. Six steps to the octave above 1 KiB, so that a read
/// of this length fetches at most about an eighth too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass(u8);

const CLASS_BASE: u64 = crate::store::log::placement::SMALL_SLOT_MAX;
const STEPS: u64 = 6;
/// Largest slot in bytes that a size class can name: 1 KiB * 2^(63/6), a little over 1.4 MiB.
pub const SLOT_LEN_MAX: u64 = class_len(63);

const fn class_len(class: u8) -> u64 {
    let octave = CLASS_BASE << (class as u64 / STEPS);
    let step = class as u64 % STEPS;
    octave + octave.div_ceil(STEPS) * step
}

impl SizeClass {
    /// The smallest class that holds `slot_len` bytes.
    ///
    /// # Panics
    /// Panics above `SLOT_LEN_MAX`, a little over 1.4 MiB: the store cuts larger bodies into slices.
    #[must_use]
    pub fn of(slot_len: u64) -> SizeClass {
        assert!(slot_len <= SLOT_LEN_MAX, "slots are at most {SLOT_LEN_MAX} bytes");
        let mut class = 0;
        if slot_len > CLASS_BASE {
            let octave = (slot_len - 1).ilog2() - CLASS_BASE.ilog2();
            class = u8::try_from(octave).unwrap_or(0) * 6;
        }
        while class_len(class) < slot_len {
            class += 1;
        }
        SizeClass(class)
    }

    /// Bytes to read; at least the slot's length.
    #[must_use]
    pub fn len_max(self) -> u64 {
        class_len(self.0)
    }
}

/// One index entry: location, size class, hit flag, and 16 bits of the key's hash. Zero is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry(pub u64);

impl IndexEntry {
    /// Packs an entry that has not been hit.
    #[must_use]
    pub fn new(location: Location, class: SizeClass, hash_bits: u16) -> IndexEntry {
        debug_assert!(location.0 > 0 && location.0 >> LOCATION_BITS == 0);
        IndexEntry(
            location.0 | u64::from(class.0) << LOCATION_BITS | u64::from(hash_bits) << HASH_SHIFT,
        )
    }

    /// Where the slot is.
    #[must_use]
    pub fn location(self) -> Location {
        Location(self.0 & ((1 << LOCATION_BITS) - 1))
    }

    /// Bound of the slot's length.
    #[must_use]
    pub fn class(self) -> SizeClass {
        SizeClass(((self.0 >> LOCATION_BITS) & ((1 << CLASS_BITS) - 1)) as u8)
    }

    /// The stored bits of the key's hash.
    #[must_use]
    pub fn hash_bits(self) -> u16 {
        (self.0 >> HASH_SHIFT) as u16
    }

    /// Whether the entry was hit since it was written.
    #[must_use]
    pub fn is_hit(self) -> bool {
        self.0 & HIT_BIT != 0
    }

    /// The same entry with the hit flag set.
    #[must_use]
    pub fn hit(self) -> IndexEntry {
        IndexEntry(self.0 | HIT_BIT)
    }

    /// The same entry with the hit flag cleared.
    #[must_use]
    pub fn not_hit(self) -> IndexEntry {
        IndexEntry(self.0 & !HIT_BIT)
    }

    /// Whether these bits can be an entry; false for damaged ones.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.location().0 != 0 && self.0 & SPARE_BIT == 0
    }

    /// Whether there is no entry here.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_give_back_what_was_packed(location in 1u64..1 << 40, len in 1..SLOT_LEN_MAX, bits: u16) {
            let class = SizeClass::of(len);
            let entry = IndexEntry::new(Location(location), class, bits).hit();
            prop_assert_eq!(entry.location(), Location(location));
            prop_assert_eq!(entry.class(), class);
            prop_assert_eq!(entry.hash_bits(), bits);
            prop_assert!(entry.is_hit() && !entry.is_empty());
        }

        #[test]
        fn a_size_class_is_the_tightest_bound(len in 1..=SLOT_LEN_MAX) {
            let class = SizeClass::of(len);
            prop_assert!(class.len_max() >= len);
            prop_assert!(class.0 == 0 || class_len(class.0 - 1) < len);
        }
    }

    #[test]
    fn every_place_has_a_location_of_its_own_on_devices_of_any_size() {
        for size in [8 << 20, 1 << 40, 16 << 40, 20 << 40, 40 << 40, 64 << 40] {
            let layout = Layout::plan(size, 4096, None).unwrap();
            let last = layout.region_count - 1;
            for region in [0, 1, last / 2, last] {
                for offset in [4096, 4096 + u64::from(layout.granule), layout.region_size - 4096] {
                    let location = Location::new(region, offset, &layout);
                    assert!(location.0 >> LOCATION_BITS == 0, "{size}");
                    assert_eq!(location.split(&layout), (region, offset), "{size}");
                }
            }
            assert!(!Location::new(last, layout.region_size - 64, &layout).is_in_ram());
            for number in [0, 1, u64::from(u32::MAX), u64::MAX] {
                let location = Location::in_ram(number);
                assert!(location.0 >> LOCATION_BITS == 0 && location.is_in_ram());
                assert!(location.split(&layout).0 > last, "{size}: {number}");
            }
        }
    }

    #[test]
    fn what_is_in_ram_only_has_its_number_back_from_its_location() {
        let newest = 5 * IN_RAM + 17;
        for number in [newest, newest - 1, newest - 17, newest - 18, newest - IN_RAM + 1] {
            assert_eq!(Location::in_ram(number).number_in_ram(newest), number);
        }
        let location = Location::in_ram(newest - IN_RAM);
        assert_eq!(location.number_in_ram(newest), newest, "it was given again");
        assert_eq!(location.number_in_ram(newest - 1), newest - IN_RAM, "before it was not");
    }

    #[test]
    fn slots_of_a_slice_with_the_largest_key_and_metadata_fit() {
        const { assert!(SLOT_LEN_MAX > (1 << 20) + 4096 + (64 << 10) + 48 + 68) };
    }
}
