//! The superblock: what the device is, how it is divided and which epoch it is in.

use std::ops::Range;

use super::{
    Damage, FORMAT_VERSION, Features, Fields, Layout, Secret, Sequence, Uuid, put, round_up,
};
use crate::clock::{TimePair, Timestamp};

/// Encoded length in bytes; one sector, so that a power cut cannot tear it.
pub const SUPERBLOCK_LEN: usize = 512;

const MAGIC: [u8; 8] = *b"RAWCACHE";

/// Bytes that must be zero unless a feature announces them, and the bits of the incompatible and of the
/// compatible features that do. A device with any other feature is refused before these are checked.
const RESERVED: [(Range<usize>, u64, u64); 7] = [
    (56..72, 0, 0),
    (152..176, 0, 0),
    (176..184, PURGE_RECORDS, 0),
    (184..188, 0, WEIGHT),
    (192..200, PURGE_RECORDS, 0),
    (200..256, 0, 0),
    (256..512, 0, BAD_REGIONS),
];
const PURGE_RECORDS: u64 = 1 << 3;
const BAD_REGIONS: u64 = 1 << 0;
const WEIGHT: u64 = 1 << 1;

/// One copy of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identity of this formatting of the device.
    pub uuid: Uuid,
    /// The key of the key hashes.
    pub secret: Secret,
    /// How the device is divided.
    pub layout: Layout,
    /// Features in use that not every version of this program knows.
    pub features: Features,
    /// Raised before the first mutation after each open.
    pub epoch: u32,
    /// Entries with a sequence below this were purged.
    pub purge_floor: Sequence,
    /// Entries with a sequence below this are stale.
    pub soft_floor: Sequence,
    /// Entries with a sequence below this are dead: hard purge records were folded into it. Unlike at the
    /// purge floor no region ended there.
    pub record_floor: Sequence,
    /// When the device was formatted, by the wall clock: seconds since the Unix epoch.
    pub formatted_at: i64,
    /// Cache time and wall clock when this copy was written.
    pub time: TimePair,
    /// The age of entries of this epoch and earlier ones is unknown; 0 if there are none.
    pub unknown_age: u32,
}

impl Superblock {
    /// The encoded form; padding is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let mut bytes = [0; SUPERBLOCK_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        // Drops the compatible features: a program that ignores one does not keep it valid.
        put(&mut bytes, 16, &self.features.incompatible.to_le_bytes());
        put(&mut bytes, 24, &self.features.read_only_compatible.to_le_bytes());
        put(&mut bytes, 40, &self.uuid.0);
        put(&mut bytes, 72, &self.secret.0);
        put(&mut bytes, 88, &self.layout.device_size.to_le_bytes());
        put(&mut bytes, 96, &self.layout.region_size.to_le_bytes());
        put(&mut bytes, 104, &self.purge_floor.0.to_le_bytes());
        put(&mut bytes, 112, &self.layout.alignment.to_le_bytes());
        put(&mut bytes, 116, &self.layout.region_count.to_le_bytes());
        put(&mut bytes, 120, &self.layout.slice_size.to_le_bytes());
        put(&mut bytes, 124, &self.layout.granule.to_le_bytes());
        put(&mut bytes, 128, &self.epoch.to_le_bytes());
        put(&mut bytes, 132, &self.time.cache.0.to_le_bytes());
        put(&mut bytes, 136, &self.time.wall.to_le_bytes());
        put(&mut bytes, 144, &self.formatted_at.to_le_bytes());
        put(&mut bytes, 176, &self.soft_floor.0.to_le_bytes());
        put(&mut bytes, 192, &self.record_floor.0.to_le_bytes());
        put(&mut bytes, 188, &self.unknown_age.to_le_bytes());
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
        let features = Features {
            incompatible: bytes.u64_at(16),
            read_only_compatible: bytes.u64_at(24),
            compatible: bytes.u64_at(32),
        };
        if let Some(unknown) = features.refused() {
            return Err(Damage::Feature(unknown));
        }
        if has_reserved(&bytes, features) {
            return Err(Damage::Field("reserved bytes"));
        }
        let layout = Layout {
            device_size: bytes.u64_at(88),
            region_size: bytes.u64_at(96),
            alignment: bytes.u32_at(112),
            region_count: bytes.u32_at(116),
            slice_size: bytes.u32_at(120),
            granule: bytes.u32_at(124),
        };
        if !layout.is_possible() {
            return Err(Damage::Field("layout"));
        }
        // Without the feature the bytes may be those of another one, which this version can ignore.
        let floor = |at| match features.incompatible & PURGE_RECORDS {
            0 => Sequence(0),
            _ => Sequence(bytes.u64_at(at)),
        };
        Ok(Superblock {
            uuid: Uuid(bytes.bytes_at(40)),
            secret: Secret(bytes.bytes_at(72)),
            layout,
            features,
            epoch: bytes.u32_at(128),
            purge_floor: Sequence(bytes.u64_at(104)),
            soft_floor: floor(176),
            record_floor: floor(192),
            formatted_at: i64::from_le_bytes(bytes.bytes_at(144)),
            time: TimePair {
                cache: Timestamp(bytes.u32_at(132)),
                wall: i64::from_le_bytes(bytes.bytes_at(136)),
            },
            unknown_age: bytes.u32_at(188),
        })
    }

    /// The encoded form, padded to one block of the device.
    #[must_use]
    pub fn block_len(&self) -> u64 {
        round_up(SUPERBLOCK_LEN as u64, u64::from(self.layout.alignment))
    }
}

/// Whether bytes are set that no feature announces. False if an unnamed feature is in use: nobody knows
/// which bytes it announces.
fn has_reserved(bytes: &[u8], features: Features) -> bool {
    let used = |range: &Range<usize>| bytes[range.clone()].iter().any(|byte| *byte != 0);
    !features.has_nameless()
        && RESERVED.iter().any(|(range, incompatible, compatible)| {
            let announced = features.incompatible & incompatible | features.compatible & compatible;
            announced == 0 && used(range)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            uuid: Uuid(*b"0123456789abcdef"),
            secret: Secret(*b"ABCDEFGHIJKLMNOP"),
            layout: Layout::plan(64 << 20, 4096, None).unwrap(),
            features: Features::default(),
            epoch: 7,
            purge_floor: Sequence(99),
            soft_floor: Sequence(0),
            record_floor: Sequence(0),
            formatted_at: 1_700_000_000,
            time: TimePair { cache: Timestamp(77), wall: 1_700_000_077 },
            unknown_age: 5,
        }
    }

    /// The sample with some bytes replaced and a valid checksum.
    fn with(set: &[(usize, u8)]) -> [u8; SUPERBLOCK_LEN] {
        let mut bytes = sample().encode();
        for (at, byte) in set {
            bytes[*at] = *byte;
        }
        put(&mut bytes, 12, &[0; 4]);
        let checksum = crc32fast::hash(&bytes);
        put(&mut bytes, 12, &checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_superblock_survives_encoding() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    /// A compatible feature of a later version may use the bytes that the floors have with purge records.
    #[test]
    fn floors_are_read_only_where_they_are_announced() {
        let later = [(39, 0x40), (176, 1), (192, 1)];
        let found = Superblock::decode(&with(&later)).unwrap();
        assert_eq!((found.soft_floor, found.record_floor), (Sequence(0), Sequence(0)));
        let found = Superblock::decode(&with(&[(16, 1 << 3), (176, 1), (192, 2)])).unwrap();
        assert_eq!((found.soft_floor, found.record_floor), (Sequence(1), Sequence(2)));
    }

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let bytes = sample().encode();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"RAWCACHE");
        expected.extend_from_slice(&[2, 0, 0, 0]);
        expected.extend_from_slice(&bytes[12..16]);
        expected.extend_from_slice(&[0; 24]);
        expected.extend_from_slice(b"0123456789abcdef");
        expected.extend_from_slice(&[0; 16]);
        expected.extend_from_slice(b"ABCDEFGHIJKLMNOP");
        expected.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 16, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[99, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 16, 0, 0]);
        expected.extend_from_slice(&[63, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 4, 0]);
        expected.extend_from_slice(&[16, 0, 0, 0]);
        expected.extend_from_slice(&[7, 0, 0, 0]);
        expected.extend_from_slice(&77u32.to_le_bytes());
        expected.extend_from_slice(&1_700_000_077i64.to_le_bytes());
        expected.extend_from_slice(&1_700_000_000i64.to_le_bytes());
        expected.extend_from_slice(&[0; 36]);
        expected.extend_from_slice(&5u32.to_le_bytes());
        assert_eq!(bytes[..expected.len()], expected);
        assert!(bytes[expected.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn floors_of_purge_records_have_their_places() {
        let features = Features::default().with_known();
        let soft_floor = Sequence(7);
        let floors = Superblock { features, soft_floor, record_floor: Sequence(8), ..sample() };
        let bytes = floors.encode();
        assert_eq!(bytes[176..184], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[192..200], [8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Superblock::decode(&bytes), Ok(floors));
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
    fn a_feature_that_is_not_known_is_refused_by_its_name() {
        let refusal = |set: &[(usize, u8)]| Superblock::decode(&with(set)).unwrap_err().to_string();
        assert_eq!(refusal(&[(16, 1)]), "unknown feature: members");
        assert_eq!(refusal(&[(16, 0b11), (18, 1)]), "unknown feature: members, two_logs, bit 16");
        assert_eq!(refusal(&[(23, 0x80)]), "unknown feature: bit 63");
        // A known feature's bytes count as announced.
        assert_eq!(refusal(&[(16, 1), (56, 9)]), "unknown feature: members");
    }

    #[test]
    fn a_feature_that_forbids_writing_can_be_read() {
        let superblock = Superblock::decode(&with(&[(24, 3)])).unwrap();
        assert_eq!(superblock.features.unwritable().unwrap().to_string(), "journal, bit 1");
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }

    #[test]
    fn a_feature_that_may_be_ignored_is_and_is_not_kept() {
        let listed = with(&[(32, 1), (256, 1), (260, 5)]);
        let superblock = Superblock::decode(&listed).unwrap();
        assert_eq!(superblock.features.compatible, 1);
        assert_eq!(superblock.encode(), sample().encode());
        assert!(Superblock::decode(&with(&[(39, 0x80), (200, 1)])).is_ok());
    }

    #[test]
    fn bytes_that_no_feature_announces_are_refused() {
        let reserved = Err(Damage::Field("reserved bytes"));
        for at in (56..72).chain(152..188).chain(192..512) {
            assert_eq!(Superblock::decode(&with(&[(at, 1)])), reserved, "byte {at}");
        }
        assert_eq!(Superblock::decode(&with(&[(32, 1), (255, 1)])), reserved);
        assert_eq!(Superblock::decode(&with(&[(32, 2), (260, 1)])), reserved);
        assert!(Superblock::decode(&with(&[(32, 2), (185, 1)])).is_ok());
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused() {
        for at in [88, 97, 113, 118, 121, 124] {
            assert_eq!(Superblock::decode(&with(&[(at, 7)])), Err(Damage::Field("layout")), "{at}");
        }
    }
}
