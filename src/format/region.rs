//! The region header: one block at the start of each region that tells which generation of the region
//! the bytes after it belong to.

use super::{Damage, FORMAT_VERSION, Fields, Sequence, Uuid, put};
use crate::clock::Timestamp;

/// Encoded length in bytes; one sector, so that a power cut cannot tear it.
pub const REGION_HEADER_LEN: usize = 512;

const MAGIC: [u8; 8] = *b"RCREGION";

/// What a region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionUse {
    /// Entries of the generation in the header.
    Log,
    /// Nothing: everything written before this header is dead.
    Free,
    /// A part of an index snapshot, and no entries: as good as free in a later epoch.
    Snapshot,
}

/// The log that the entries of a region belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// Entries, and the tombstones written with them.
    #[default]
    Data,
    /// Second copies of the tombstones of purges, and no entries.
    Purges,
}

impl LogKind {
    /// Its number on the device.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            LogKind::Data => 0,
            LogKind::Purges => 1,
        }
    }

    /// The log with this number, if this program knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<LogKind> {
        [LogKind::Data, LogKind::Purges].into_iter().find(|log| log.number() == number)
    }
}

/// A region header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHeader {
    /// The present generation of the region: the sequence drawn when it began. All entries have higher
    /// ones.
    pub generation: Sequence,
    /// Whether the region holds entries.
    pub region_use: RegionUse,
    /// When the header was written.
    pub stamp: Timestamp,
    /// A touch extended the lifetime of an entry after the region was sealed: the footer may understate
    /// it.
    pub touched: bool,
    /// The log that the region belongs to.
    pub log: LogKind,
}

/// Byte offset of the UUID in clear, by which a damaged header of this device is recognised.
const UUID_AT: usize = 48;
/// Bytes of the UUID that must match for a damaged header to count as one of this device.
const UUID_MATCH_MIN: usize = 12;

impl RegionHeader {
    /// The encoded form for `region` of the device `uuid`.
    #[must_use]
    pub fn encode(&self, uuid: Uuid, region: u32) -> [u8; REGION_HEADER_LEN] {
        let mut bytes = [0; REGION_HEADER_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.generation.0.to_le_bytes());
        put(&mut bytes, 24, &region.to_le_bytes());
        let region_use: u32 = match self.region_use {
            RegionUse::Log => 1,
            RegionUse::Free => 2,
            RegionUse::Snapshot => 3,
        };
        put(&mut bytes, 28, &region_use.to_le_bytes());
        put(&mut bytes, 32, &self.stamp.0.to_le_bytes());
        put(&mut bytes, 36, &u32::from(self.touched).to_le_bytes());
        put(&mut bytes, 40, &self.log.number().to_le_bytes());
        put(&mut bytes, UUID_AT, &uuid.0);
        let checksum = checksum(uuid, &bytes);
        put(&mut bytes, 12, &checksum.to_le_bytes());
        bytes
    }

    /// Reads the header of `region` of the device `uuid`.
    ///
    /// # Errors
    /// The bytes are not a sound header of this region of this device.
    pub fn decode(bytes: &[u8], uuid: Uuid, region: u32) -> Result<RegionHeader, Damage> {
        let bytes: [u8; REGION_HEADER_LEN] =
            bytes.get(..REGION_HEADER_LEN).ok_or(Damage::Short)?.bytes_at(0);
        if bytes.bytes_at(0) != MAGIC {
            return Err(Damage::Magic);
        }
        let mut unsummed = bytes;
        put(&mut unsummed, 12, &[0; 4]);
        if checksum(uuid, &unsummed) != bytes.u32_at(12) {
            return Err(Damage::Checksum);
        }
        let version = bytes.u32_at(8);
        if version != FORMAT_VERSION {
            return Err(Damage::Version(version));
        }
        if bytes.u32_at(24) != region {
            return Err(Damage::Field("region number"));
        }
        let region_use = match bytes.u32_at(28) {
            1 => RegionUse::Log,
            2 => RegionUse::Free,
            3 => RegionUse::Snapshot,
            _ => return Err(Damage::Field("region use")),
        };
        let touched = match bytes.u32_at(36) {
            0 => false,
            1 => true,
            _ => return Err(Damage::Field("touched flag")),
        };
        let log = LogKind::from_number(bytes.u32_at(40)).ok_or(Damage::Field("log number"))?;
        let reserved = bytes[44..UUID_AT].iter().chain(&bytes[UUID_AT + 16..]);
        if bytes.bytes_at(UUID_AT) != uuid.0 || reserved.into_iter().any(|byte| *byte != 0) {
            return Err(Damage::Field("reserved bytes"));
        }
        Ok(RegionHeader {
            generation: Sequence(bytes.u64_at(16)),
            region_use,
            stamp: Timestamp(bytes.u32_at(32)),
            touched,
            log,
        })
    }

    /// Whether bytes that [`RegionHeader::decode`] refused look like a damaged header of the device
    /// `uuid`, and not like bytes from before the format.
    #[must_use]
    pub fn is_claimed(bytes: &[u8], uuid: Uuid) -> bool {
        let Some(bytes) = bytes.get(UUID_AT..UUID_AT + 16) else { return false };
        let same = bytes.iter().zip(&uuid.0).filter(|(byte, of_uuid)| byte == of_uuid).count();
        same >= UUID_MATCH_MIN
    }
}

fn checksum(uuid: Uuid, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&uuid.0);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid([3; 16]);

    fn sample() -> RegionHeader {
        RegionHeader {
            generation: Sequence(0x0102_0304_0506_0708),
            region_use: RegionUse::Log,
            stamp: Timestamp(5),
            touched: true,
            log: LogKind::Purges,
        }
    }

    #[test]
    fn a_region_header_survives_encoding() {
        let bytes = sample().encode(UUID, 9);
        assert_eq!(RegionHeader::decode(&bytes, UUID, 9), Ok(sample()));
    }

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let bytes = sample().encode(UUID, 9);
        assert_eq!(bytes[..12], *b"RCREGION\x02\0\0\0");
        assert_eq!(
            bytes[16..48],
            *b"\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\x01\0\0\0\x05\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes[48..64], [3; 16]);
        assert!(bytes[64..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn another_device_or_region_does_not_pass() {
        let bytes = sample().encode(UUID, 9);
        assert_eq!(RegionHeader::decode(&bytes, Uuid([4; 16]), 9), Err(Damage::Checksum));
        assert_eq!(RegionHeader::decode(&bytes, UUID, 8), Err(Damage::Field("region number")));
        assert_eq!(RegionHeader::decode(&[0; 512], UUID, 8), Err(Damage::Magic));
    }

    /// A header with one byte replaced and a valid checksum.
    fn with(at: usize, byte: u8) -> [u8; REGION_HEADER_LEN] {
        let mut bytes = sample().encode(UUID, 9);
        bytes[at] = byte;
        put(&mut bytes, 12, &[0; 4]);
        let sum = checksum(UUID, &bytes);
        put(&mut bytes, 12, &sum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_no_version_wrote_is_refused() {
        assert_eq!(RegionHeader::decode(&with(37, 0), UUID, 9), Ok(sample()));
        for (at, byte) in (37..512).map(|at| (at, 2)).chain([(28, 4), (40, 2)]) {
            let decoded = RegionHeader::decode(&with(at, byte), UUID, 9);
            assert!(matches!(decoded, Err(Damage::Field(_))), "byte {at}: {decoded:?}");
        }
    }

    #[test]
    fn a_damaged_header_is_known_by_the_uuid_in_it() {
        let mut bytes = sample().encode(UUID, 9);
        bytes[50..54].fill(0xff);
        assert!(RegionHeader::is_claimed(&bytes, UUID));
        bytes[54] = 0xff;
        assert!(!RegionHeader::is_claimed(&bytes, UUID));
        assert!(!RegionHeader::is_claimed(&sample().encode(Uuid([4; 16]), 9), UUID));
    }
}
