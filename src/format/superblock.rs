//! The superblock: what the device is, how it is divided and which epoch it is in.

use super::{Damage, FORMAT_VERSION, Fields, GRANULE, Sequence, Uuid, put, round_up};
use crate::clock::Timestamp;

/// Encoded length in bytes; one sector, so that a power cut cannot tear it.
pub const SUPERBLOCK_LEN: usize = 512;
/// Bytes reserved for each of the two copies: the largest alignment.
pub const SUPERBLOCK_SPACE: u64 = 64 << 10;

const MAGIC: [u8; 8] = *b"RAWCACHE";
const REGION_COUNT_MIN: u32 = 8;
const REGION_SIZE_MIN: u64 = 256 << 10;
const REGION_SIZE_AUTO_MAX: u64 = 64 << 20;
const REGION_SIZE_MAX: u64 = 1 << 30;
const SLICE_SIZE_MAX: u64 = 1 << 20;
/// Granules that an index word can name, less those kept for entries without a place on the device.
const GRANULES_MAX: u64 = (1 << 40) - (1 << 32);

/// How a device is divided. Fixed at format.
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
}

/// Why a device cannot be divided as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The alignment is not a power of two between 512 and 65536.
    #[error("alignment {0} is not a power of two from 512 to 65536")]
    Alignment(u32),
    /// The region size is out of range or not a multiple of the alignment.
    #[error("region size {size} must be a power of two from {min} to {REGION_SIZE_MAX} bytes")]
    RegionSize {
        /// What was asked for.
        size: u64,
        /// Smallest region for this alignment.
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
    /// The device is larger than an index word can address.
    #[error("the device has {size} bytes; at most {max} can be used: limit it with a size")]
    TooLarge {
        /// Bytes of the device.
        size: u64,
        /// Bytes that can be used.
        max: u64,
    },
}

impl Layout {
    /// Divides `device_size` bytes; `region_size` of `None` picks about a 64th of the device,
    /// between 256 KiB (or 16 blocks) and 64 MiB.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn plan(
        device_size: u64,
        alignment: u32,
        region_size: Option<u64>,
    ) -> Result<Layout, LayoutError> {
        if !alignment.is_power_of_two() || !(512..=65536).contains(&alignment) {
            return Err(LayoutError::Alignment(alignment));
        }
        let region_min = REGION_SIZE_MIN.max(u64::from(alignment) * 16);
        let region_size = region_size.unwrap_or_else(|| {
            let share = (device_size / 64).max(1);
            (1 << share.ilog2()).clamp(region_min, REGION_SIZE_AUTO_MAX)
        });
        if !region_size.is_power_of_two() || !(region_min..=REGION_SIZE_MAX).contains(&region_size)
        {
            return Err(LayoutError::RegionSize { size: region_size, min: region_min });
        }
        let usable = device_size / SUPERBLOCK_SPACE * SUPERBLOCK_SPACE;
        let min = 2 * SUPERBLOCK_SPACE + u64::from(REGION_COUNT_MIN) * region_size;
        if usable < min {
            return Err(LayoutError::TooSmall { size: device_size, min });
        }
        if usable / GRANULE > GRANULES_MAX {
            return Err(LayoutError::TooLarge { size: device_size, max: GRANULES_MAX * GRANULE });
        }
        let regions = (usable - 2 * SUPERBLOCK_SPACE) / region_size;
        let slice_size = (region_size / 4).min(SLICE_SIZE_MAX);
        Ok(Layout {
            device_size: usable,
            alignment,
            region_size,
            region_count: u32::try_from(regions).unwrap_or(u32::MAX),
            slice_size: u32::try_from(slice_size).unwrap_or(u32::MAX),
        })
    }

    /// Byte offset of a region on the device.
    #[must_use]
    pub fn region_offset(&self, region: u32) -> u64 {
        SUPERBLOCK_SPACE + u64::from(region) * self.region_size
    }

    /// Byte offsets of the two superblock copies: the first and the last 64 KiB of the device.
    #[must_use]
    pub fn superblock_offsets(&self) -> [u64; 2] {
        [0, Self::second_superblock_offset(self.device_size)]
    }

    /// Where the second superblock copy of a device of `device_size` bytes is.
    #[must_use]
    pub fn second_superblock_offset(device_size: u64) -> u64 {
        (device_size / SUPERBLOCK_SPACE).saturating_sub(1) * SUPERBLOCK_SPACE
    }

    /// Largest object in bytes: half of the bytes in regions.
    #[must_use]
    pub fn object_len_max(&self) -> u64 {
        u64::from(self.region_count) * self.region_size / 2
    }
}

/// One copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of this format of the device.
    pub uuid: Uuid,
    /// How the device is divided.
    pub layout: Layout,
    /// Raised before the first mutation after each open.
    pub epoch: u32,
    /// Entries with a sequence below this were purged.
    pub purge_floor: Sequence,
    /// When the device was formatted.
    pub formatted_at: Timestamp,
    /// Newest time known when this copy was written.
    pub stamp: Timestamp,
}

impl Superblock {
    /// The encoded form; padding is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let mut bytes = [0; SUPERBLOCK_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.uuid.0);
        put(&mut bytes, 32, &self.layout.device_size.to_le_bytes());
        put(&mut bytes, 40, &self.layout.region_size.to_le_bytes());
        put(&mut bytes, 48, &self.purge_floor.0.to_le_bytes());
        put(&mut bytes, 56, &self.layout.alignment.to_le_bytes());
        put(&mut bytes, 60, &self.layout.region_count.to_le_bytes());
        put(&mut bytes, 64, &self.layout.slice_size.to_le_bytes());
        put(&mut bytes, 68, &self.epoch.to_le_bytes());
        put(&mut bytes, 72, &self.formatted_at.0.to_le_bytes());
        put(&mut bytes, 76, &self.stamp.0.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        put(&mut bytes, 12, &checksum.to_le_bytes());
        bytes
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// The bytes are not a whole, sound superblock of this version.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, Damage> {
        let bytes: [u8; SUPERBLOCK_LEN] =
            bytes.get(..SUPERBLOCK_LEN).ok_or(Damage::Short)?.bytes_at(0);
        if bytes.bytes_at(0) != MAGIC {
            return Err(Damage::Magic);
        }
        let mut unsummed = bytes;
        put(&mut unsummed, 12, &[0; 4]);
        if crc32fast::hash(&unsummed) != bytes.u32_at(12) {
            return Err(Damage::Checksum);
        }
        let version = bytes.u32_at(8);
        if version != FORMAT_VERSION {
            return Err(Damage::Version(version));
        }
        let asked = Layout {
            device_size: bytes.u64_at(32),
            alignment: bytes.u32_at(56),
            region_size: bytes.u64_at(40),
            region_count: bytes.u32_at(60),
            slice_size: bytes.u32_at(64),
        };
        let layout = Layout::plan(asked.device_size, asked.alignment, Some(asked.region_size))
            .map_err(|_| Damage::Field("layout"))?;
        if layout != asked {
            return Err(Damage::Field("layout"));
        }
        Ok(Superblock {
            uuid: Uuid(bytes.bytes_at(16)),
            layout,
            epoch: bytes.u32_at(68),
            purge_floor: Sequence(bytes.u64_at(48)),
            formatted_at: Timestamp(bytes.u32_at(72)),
            stamp: Timestamp(bytes.u32_at(76)),
        })
    }

    /// The encoded form, padded to one block of the device.
    #[must_use]
    pub fn block_len(&self) -> u64 {
        round_up(SUPERBLOCK_LEN as u64, u64::from(self.layout.alignment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            uuid: Uuid(*b"0123456789abcdef"),
            layout: Layout::plan(64 << 20, 4096, None).unwrap(),
            epoch: 7,
            purge_floor: Sequence(99),
            formatted_at: Timestamp(1_700_000_000),
            stamp: Timestamp(1_700_000_001),
        }
    }

    #[test]
    fn a_superblock_survives_encoding() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn version_1_bytes_stay_as_they_are() {
        let bytes = sample().encode();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"RAWCACHE");
        expected.extend_from_slice(&[1, 0, 0, 0]);
        expected.extend_from_slice(&bytes[12..16]);
        expected.extend_from_slice(b"0123456789abcdef");
        expected.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 16, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[99, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 16, 0, 0]);
        expected.extend_from_slice(&[63, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 4, 0]);
        expected.extend_from_slice(&[7, 0, 0, 0]);
        expected.extend_from_slice(&1_700_000_000u32.to_le_bytes());
        expected.extend_from_slice(&1_700_000_001u32.to_le_bytes());
        assert_eq!(bytes[..expected.len()], expected);
        assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..SUPERBLOCK_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn layouts_refuse_what_cannot_work() {
        assert!(matches!(Layout::plan(1 << 30, 100, None), Err(LayoutError::Alignment(100))));
        assert!(matches!(Layout::plan(1 << 20, 512, None), Err(LayoutError::TooSmall { .. })));
        assert!(matches!(Layout::plan(1 << 60, 4096, None), Err(LayoutError::TooLarge { .. })));
        assert!(matches!(
            Layout::plan(1 << 30, 65536, Some(512 << 10)),
            Err(LayoutError::RegionSize { .. })
        ));
    }

    #[test]
    fn regions_stay_between_the_superblocks() {
        for size in [4 << 20, 100 << 20, 1 << 30, (1 << 30) + 12345, 1 << 40] {
            for alignment in [512, 4096, 65536] {
                let Ok(layout) = Layout::plan(size, alignment, None) else { continue };
                let end = layout.region_offset(layout.region_count);
                assert!(end <= layout.superblock_offsets()[1]);
                assert!(layout.superblock_offsets()[1] + SUPERBLOCK_SPACE <= size);
            }
        }
    }
}
