//! A record of a purge of many entries: by a tag, or by the beginning of their keys. Owns its bytes, which
//! are the same in slots, footers and snapshots.

use super::{Damage, Fields, Sequence};

/// Encoded length of one purge record in bytes.
pub const PURGE_RECORD_LEN: usize = 24;
/// Longest prefix in bytes: a whole key.
pub const PREFIX_LEN_MAX: u16 = 4096;

const TAG: u8 = 1;
const PREFIX: u8 = 2;
const SOFT: u8 = 0x80;

/// What a purge selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Entries with a tag of this hash.
    Tag(u64),
    /// Entries whose keys begin with so many bytes of this hash.
    Prefix {
        /// Bytes of the prefix, 1..=[`PREFIX_LEN_MAX`].
        len: u16,
        /// The hash of the prefix.
        hash: u64,
    },
}

/// Selected entries with a lower sequence are dead, or stale if the purge was soft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurgeRecord {
    /// When it was, in the order of all changes.
    pub sequence: Sequence,
    /// What it selects.
    pub what: Selector,
    /// Whether the entries are stale, not dead.
    pub is_soft: bool,
}

impl PurgeRecord {
    /// Appends the encoded form.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        let (what, len, hash) = match self.what {
            Selector::Tag(hash) => (TAG, 0, hash),
            Selector::Prefix { len, hash } => (PREFIX, len, hash),
        };
        bytes.extend_from_slice(&[what | if self.is_soft { SOFT } else { 0 }, 0]);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.0.to_le_bytes());
    }

    /// Reads one record.
    ///
    /// # Errors
    /// The bytes are too few, or of no purge that there can be.
    pub fn decode(bytes: &[u8]) -> Result<PurgeRecord, Damage> {
        let bytes = bytes.get(..PURGE_RECORD_LEN).ok_or(Damage::Short)?;
        let (len, hash) = (bytes.u16_at(2), bytes.u64_at(8));
        let what = match (bytes[0] & !SOFT, len) {
            (TAG, 0) => Selector::Tag(hash),
            (PREFIX, 1..=PREFIX_LEN_MAX) => Selector::Prefix { len, hash },
            _ => return Err(Damage::Field("purge record")),
        };
        if bytes[1] != 0 || bytes.u32_at(4) != 0 {
            return Err(Damage::Field("purge record"));
        }
        let is_soft = bytes[0] & SOFT != 0;
        Ok(PurgeRecord { sequence: Sequence(bytes.u64_at(16)), what, is_soft })
    }

    /// Decodes as many whole records as `bytes` holds; an impossible one is an error.
    pub fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Result<PurgeRecord, Damage>> + '_ {
        bytes.chunks_exact(PURGE_RECORD_LEN).map(PurgeRecord::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(record: &PurgeRecord) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes);
        bytes
    }

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let tag = PurgeRecord {
            sequence: Sequence(0x0102_0304_0506_0708),
            what: Selector::Tag(0x1122_3344_5566_7788),
            is_soft: true,
        };
        let tail = *b"\x88\x77\x66\x55\x44\x33\x22\x11\x08\x07\x06\x05\x04\x03\x02\x01";
        assert_eq!(encoded(&tag), [&b"\x81\0\0\0\0\0\0\0"[..], &tail].concat());
        let what = Selector::Prefix { len: 300, hash: 0x1122_3344_5566_7788 };
        let prefix = PurgeRecord { what, is_soft: false, ..tag };
        assert_eq!(encoded(&prefix), [&b"\x02\0\x2c\x01\0\0\0\0"[..], &tail].concat());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = Err(Damage::Field("purge record"));
        let tag = PurgeRecord { sequence: Sequence(1), what: Selector::Tag(2), is_soft: false };
        for (at, byte) in [(0, 0), (0, 3), (0, 0x41), (1, 1), (2, 1), (4, 1), (7, 1)] {
            let mut bytes = encoded(&tag);
            bytes[at] = byte;
            assert_eq!(PurgeRecord::decode(&bytes), refused, "byte {at}");
        }
        for len in [0, PREFIX_LEN_MAX + 1] {
            let prefix = PurgeRecord { what: Selector::Prefix { len, hash: 1 }, ..tag };
            assert_eq!(PurgeRecord::decode(&encoded(&prefix)), refused, "{len} bytes");
        }
        assert_eq!(PurgeRecord::decode(&encoded(&tag)[..23]), Err(Damage::Short));
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            for (record, chunk) in
                PurgeRecord::decode_all(&bytes).zip(bytes.chunks_exact(PURGE_RECORD_LEN))
            {
                if let Ok(record) = record {
                    prop_assert_eq!(encoded(&record), chunk);
                }
            }
        }
    }
}
