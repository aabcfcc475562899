//! How a device is divided: superblock copies, regions, slices, granules. Pure arithmetic.

use super::{ENTRY_HEADER_LEN, SECTOR, SliceKey, checksum_table_len};

/// Bytes reserved for each superblock copy: a block of the largest alignment, and as much again for a
/// table of the members of a cache.
pub const SUPERBLOCK_SPACE: u64 = 128 << 10;
/// The largest device: 64 TiB.
pub const DEVICE_SIZE_MAX: u64 = 64 << 40;

/// Device sizes are rounded down to the largest alignment.
const SIZE_UNIT: u64 = 64 << 10;
const REGION_COUNT_MIN: u32 = 8;
/// Most regions of any device: each takes a row in memory and a header read at start.
const REGION_COUNT_MAX: u32 = 1 << 20;
/// Most regions if the region size is chosen automatically: each start reads their headers.
const REGION_COUNT_AUTO_MAX: u64 = 64 << 10;
const REGION_SIZE_MIN: u64 = 256 << 10;
/// Largest region size chosen automatically, unless the device is so large that it needs more.
const REGION_SIZE_AUTO: u64 = 64 << 20;
const REGION_SIZE_MAX: u64 = 1 << 30;
const SLICE_SIZE_MAX: u64 = 1 << 20;
/// Regions that large objects leave free: an open one, one for reclaim, two for purges.
const REGIONS_FOR_OTHERS: u32 = 4;
const GRANULES: [u32; 3] = [16, 32, 64];
/// Granules that an index entry can address, without the locations reserved for entries in RAM only.
pub const LOCATIONS_MAX: u64 = (1 << 40) - (1 << 32);

/// How a device is divided. Fixed when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes used of the device.
    pub device_size: u64,
    /// Unit of every transfer in bytes; at least what the device requires.
    pub alignment: u32,
    /// Bytes of a region.
    pub region_size: u64,
    /// Number of regions.
    pub region_count: u32,
    /// Largest body kept in one slot; longer ones are cut into slices of this many bytes.
    pub slice_size: u32,
    /// Slots begin at multiples of this many bytes: 16, 32 or 64.
    pub granule: u32,
}

/// Why a device cannot be divided as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The alignment is not a power of two between 512 and 65536.
    #[error("alignment {0} is not a power of two from 512 to 65536")]
    Alignment(u32),
    /// The region size is out of range or not a multiple of the alignment.
    #[error("region size {size} must be a power of two from {min} to {REGION_SIZE_MAX} bytes")]
    RegionSize {
        /// What was asked for.
        size: u64,
        /// Smallest region for this alignment and device.
        min: u64,
    },
    /// The device is too small for the fewest regions.
    #[error("the device has {size} bytes; at least {min} are needed")]
    TooSmall {
        /// Bytes of the device.
        size: u64,
        /// Bytes needed.
        min: u64,
    },
    /// The device is larger than an index entry can address.
    #[error(
        "the device has {0} bytes; at most 64 TiB can be used: `rawcached format --size 64TiB` uses the first 64 TiB"
    )]
    TooLarge(u64),
}

impl Layout {
    /// Divides `device_size` bytes. A `region_size` of `None` picks about a 64th of the device, from
    /// 256 KiB (or 16 blocks) to 64 MiB, or more to have at most 64 Ki regions.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn plan(
        device_size: u64,
        alignment: u32,
        region_size: Option<u64>,
    ) -> Result<Layout, LayoutError> {
        if !is_alignment(alignment) {
            return Err(LayoutError::Alignment(alignment));
        }
        if device_size > DEVICE_SIZE_MAX {
            return Err(LayoutError::TooLarge(device_size));
        }
        let usable = device_size / SIZE_UNIT * SIZE_UNIT;
        let region_min = region_size_min(usable, alignment);
        let region_size = region_size.unwrap_or_else(|| {
            let most = REGION_SIZE_AUTO.max((usable / REGION_COUNT_AUTO_MAX).next_power_of_two());
            let share = (device_size / 64).max(1);
            (1 << share.ilog2()).clamp(region_min, most.max(region_min))
        });
        if !region_size.is_power_of_two() || !(region_min..=REGION_SIZE_MAX).contains(&region_size)
        {
            return Err(LayoutError::RegionSize { size: region_size, min: region_min });
        }
        let min = 2 * SUPERBLOCK_SPACE + u64::from(REGION_COUNT_MIN) * region_size;
        if usable < min {
            return Err(LayoutError::TooSmall { size: device_size, min });
        }
        let granule = granule_for(usable);
        let regions = region_count_max(usable, region_size, granule);
        Ok(Layout {
            device_size: usable,
            alignment,
            region_size,
            region_count: u32::try_from(regions).unwrap_or(u32::MAX),
            slice_size: slice_size_for(region_size),
            granule,
        })
    }

    /// Whether a layout read from a device is possible.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let sizes = is_alignment(self.alignment)
            && self.device_size <= DEVICE_SIZE_MAX
            && self.device_size.is_multiple_of(SIZE_UNIT)
            && self.region_size.is_power_of_two()
            && (region_size_min(self.device_size, self.alignment)..=REGION_SIZE_MAX)
                .contains(&self.region_size)
            && self.slice_size == slice_size_for(self.region_size)
            && GRANULES.contains(&self.granule);
        sizes
            && self.region_count >= REGION_COUNT_MIN
            && u64::from(self.region_count)
                <= region_count_max(self.device_size, self.region_size, self.granule)
    }

    /// Byte offset of a region on the device.
    #[must_use]
    pub fn region_offset(&self, region: u32) -> u64 {
        SUPERBLOCK_SPACE + u64::from(region) * self.region_size
    }

    /// Byte offsets of the two superblock copies: the first and the last 128 KiB of the device.
    #[must_use]
    pub fn superblock_offsets(&self) -> [u64; 2] {
        [0, Self::second_superblock_offset(self.device_size)]
    }

    /// Where the second superblock copy of a device of `device_size` bytes is.
    #[must_use]
    pub fn second_superblock_offset(device_size: u64) -> u64 {
        (device_size / SIZE_UNIT * SIZE_UNIT).saturating_sub(SUPERBLOCK_SPACE)
    }

    /// Largest object in bytes, and the limit for all large objects being stored together: half of the
    /// bytes in regions. With few small regions it is what all but four hold; these four suffice for
    /// other entries, purges and reclaim, so such an object can always be stored.
    #[must_use]
    pub fn object_len_max(&self) -> u64 {
        let half = u64::from(self.region_count) * self.region_size / 2;
        // Less a block each for header and footer.
        let slices = (self.region_size - 2 * u64::from(self.alignment)) / self.slice_room();
        let regions = u64::from(self.region_count.saturating_sub(REGIONS_FOR_OTHERS));
        half.min(regions * slices * u64::from(self.slice_size))
    }

    /// Most bytes that a whole slice takes of a region: a slot's header must lie within a sector, and a
    /// flush may waste the rest of the slot's last block.
    #[must_use]
    pub fn slice_room(&self) -> u64 {
        let table_len = checksum_table_len(self.slice_size as usize);
        let around = (ENTRY_HEADER_LEN + SliceKey::LEN + table_len) as u64;
        super::round_up(u64::from(self.slice_size) + around + SECTOR, u64::from(self.alignment))
    }
}

fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && (512..=65536).contains(&alignment)
}

fn region_size_min(device_size: u64, alignment: u32) -> u64 {
    let by_count = (device_size / u64::from(REGION_COUNT_MAX)).next_power_of_two();
    REGION_SIZE_MIN.max(u64::from(alignment) * 16).max(by_count)
}

/// The smallest granule with which an index entry can address the whole device.
fn granule_for(device_size: u64) -> u32 {
    let fits = |granule: &u32| device_size / u64::from(*granule) <= LOCATIONS_MAX;
    GRANULES.into_iter().find(fits).unwrap_or(GRANULES[2])
}

/// The number of regions that fit and that index entries can address. The latter limits only the last
/// 256 GiB of the largest devices.
fn region_count_max(device_size: u64, region_size: u64, granule: u32) -> u64 {
    let room = device_size.saturating_sub(2 * SUPERBLOCK_SPACE) / region_size;
    room.min(LOCATIONS_MAX * u64::from(granule) / region_size)
}

fn slice_size_for(region_size: u64) -> u32 {
    u32::try_from((region_size / 4).min(SLICE_SIZE_MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TB: u64 = 1_000_000_000_000;

    #[test]
    fn layouts_refuse_what_cannot_work() {
        assert!(matches!(Layout::plan(1 << 30, 100, None), Err(LayoutError::Alignment(100))));
        assert!(matches!(Layout::plan(1 << 20, 512, None), Err(LayoutError::TooSmall { .. })));
        assert!(matches!(Layout::plan(1 << 60, 4096, None), Err(LayoutError::TooLarge(_))));
        for (size, asked) in [(1 << 30, 512 << 10), (64 << 40, 32 << 20)] {
            assert!(matches!(
                Layout::plan(size, 65536, Some(asked)),
                Err(LayoutError::RegionSize { .. })
            ));
        }
    }

    #[test]
    fn regions_stay_between_the_superblocks() {
        for size in [4 << 20, 100 << 20, 1 << 30, (1 << 30) + 12345, 1 << 40, 17 << 40, 64 << 40] {
            for alignment in [512, 4096, 65536] {
                let Ok(layout) = Layout::plan(size, alignment, None) else { continue };
                assert!(layout.is_possible());
                let end = layout.region_offset(layout.region_count);
                assert!(end <= layout.superblock_offsets()[1]);
                assert!(layout.superblock_offsets()[1] + SUPERBLOCK_SPACE <= size);
            }
        }
    }

    #[test]
    fn large_devices_get_larger_regions_and_granules() {
        let plan = |size| {
            let layout = Layout::plan(size, 4096, None).unwrap();
            (layout.region_size >> 20, layout.granule)
        };
        assert_eq!(plan(TB), (64, 16));
        assert_eq!(plan(4 << 40), (64, 16));
        assert_eq!(plan(16 * TB), (256, 16));
        assert_eq!(plan(18 * TB), (512, 32));
        assert_eq!(plan(40 * TB), (1024, 64));
        assert_eq!(plan(64 * TB), (1024, 64));
        assert_eq!(plan(64 << 40), (1024, 64));
        for size in [TB, 4 << 40, 16 * TB, 16 << 40, 18 * TB, 32 << 40, 40 * TB, 64 << 40] {
            let layout = Layout::plan(size, 4096, None).unwrap();
            assert!(u64::from(layout.region_count) <= REGION_COUNT_AUTO_MAX, "{size}: {layout:?}");
            let used = u64::from(layout.region_count) * layout.region_size;
            assert!(used / u64::from(layout.granule) <= LOCATIONS_MAX, "{size}: {layout:?}");
            assert!(used >= size / 250 * 249, "{size}: {used} used");
        }
    }

    #[test]
    fn what_no_device_can_be_divided_into_is_noticed() {
        let layout = Layout::plan(20 * TB, 4096, None).unwrap();
        for wrong in [
            Layout { alignment: 1000, ..layout },
            Layout { device_size: layout.device_size + 1, ..layout },
            Layout { device_size: 2 * DEVICE_SIZE_MAX, ..layout },
            Layout { region_size: layout.region_size - 1, ..layout },
            Layout { region_size: REGION_SIZE_MIN, ..layout },
            Layout { region_count: layout.region_count + 1, ..layout },
            Layout { region_count: 7, ..layout },
            Layout { slice_size: 4096, ..layout },
            Layout { granule: 8, ..layout },
            Layout { granule: 16, ..layout },
        ] {
            assert!(!wrong.is_possible(), "{wrong:?}");
        }
        assert!(Layout { region_count: 100, granule: 64, ..layout }.is_possible());
    }
}
