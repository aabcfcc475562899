//! The head of the member table: tells where the superblock copies are if they are not at the ends of
//! the device. Owns its bytes; the records after it need a feature that this program does not know.

use super::{Damage, FORMAT_VERSION, Fields, SUPERBLOCK_LEN, Uuid, put};

/// Byte offset within the space of a superblock copy.
pub const LOCATOR_OFFSET: u64 = 64 << 10;
/// Encoded length in bytes; one sector.
pub const LOCATOR_LEN: usize = SUPERBLOCK_LEN;

const MAGIC: [u8; 8] = *b"RCMEMBER";

/// Written once, at format. On a device that has grown, or is used in part, the second superblock copy
/// is not at the end; if the first is damaged, only this tells where the second is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Identity of the store.
    pub uuid: Uuid,
    /// Bytes used of the device.
    pub device_size: u64,
}

impl Locator {
    /// The encoded form; padding is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; LOCATOR_LEN] {
        let mut bytes = [0; LOCATOR_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.uuid.0);
        put(&mut bytes, 32, &self.device_size.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        put(&mut bytes, 12, &checksum.to_le_bytes());
        bytes
    }

    /// Decodes one copy. Ignores what follows the two fields.
    ///
    /// # Errors
    /// The bytes are not a whole, sound locator of this version.
    pub fn decode(bytes: &[u8]) -> Result<Locator, Damage> {
        let bytes: [u8; LOCATOR_LEN] = bytes.get(..LOCATOR_LEN).ok_or(Damage::Short)?.bytes_at(0);
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
        Ok(Locator { uuid: Uuid(bytes.bytes_at(16)), device_size: bytes.u64_at(32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Locator = Locator { uuid: Uuid(*b"0123456789abcdef"), device_size: 5 << 30 };

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let bytes = SAMPLE.encode();
        assert_eq!(Locator::decode(&bytes), Ok(SAMPLE));
        assert_eq!(bytes[..12], *b"RCMEMBER\x02\0\0\0");
        assert_eq!(bytes[16..40], *b"0123456789abcdef\0\0\0\x40\x01\0\0\0");
        assert!(bytes[40..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..LOCATOR_LEN * 8 {
            let mut damaged = SAMPLE.encode();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Locator::decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
