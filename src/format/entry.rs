//! A slot: entry header, key, optional records, metadata, checksum table, body.

use super::{Damage, Fields, PURGE_RECORD_LEN, Records, Seed, Sequence, SliceKey, put};
use crate::clock::Timestamp;

/// Length of the fixed header in bytes. It lies within one sector, so that an update in place is
/// atomic.
pub const ENTRY_HEADER_LEN: usize = 48;
/// Bodies carry one checksum per this many bytes.
pub const BODY_CHUNK: usize = 64 << 10;

const MAGIC: u8 = 0xC5;
const KEY_LEN_MAX: usize = 4096;
const METADATA_LEN_MAX: u32 = 64 << 10;
/// A slice has at most 1 MiB.
const BODY_LEN_MAX: u32 = 1 << 20;
const SUPERSEDES: u8 = 0x80;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole object: key, metadata and body.
    Object,
    /// Key and metadata of an object whose body is in slices; the body is an [`ObjectHead`](super::ObjectHead).
    Head,
    /// One piece of an object's body; the key is a [`SliceKey`].
    Slice,
    /// Tombstones, encoded as metadata; no key, no body.
    Tombstones,
    /// Purge records, encoded as metadata; no key, no body.
    PurgeRecords,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Object => 1,
            Kind::Head => 2,
            Kind::Slice => 3,
            Kind::Tombstones => 4,
            Kind::PurgeRecords => 5,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Kind> {
        match code {
            1 => Some(Kind::Object),
            2 => Some(Kind::Head),
            3 => Some(Kind::Slice),
            4 => Some(Kind::Tombstones),
            5 => Some(Kind::PurgeRecords),
            _ => None,
        }
    }

    /// Kind and flag in one byte, shared by entry headers and footers.
    pub(super) fn tag(self, supersedes: bool) -> u8 {
        self.code() | if supersedes { SUPERSEDES } else { 0 }
    }

    pub(super) fn from_tag(tag: u8) -> Option<(Kind, bool)> {
        Kind::from_code(tag & !SUPERSEDES).map(|kind| (kind, tag & SUPERSEDES != 0))
    }
}

/// The fixed header of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the slot holds.
    pub kind: Kind,
    /// Older versions of the key may be on the device; this entry counts as a tombstone for them.
    pub supersedes: bool,
    /// Key bytes, 1..=4096 (0 for tombstones).
    pub key_len: u16,
    /// Bytes of the optional records: [`Records`].
    pub records_len: u16,
    /// Metadata bytes, at most 64 KiB.
    pub metadata_len: u32,
    /// Body bytes in this slot.
    pub body_len: u32,
    /// Position in the order of mutations.
    pub sequence: Sequence,
    /// When the object was stored.
    pub stored_at: Timestamp,
    /// How old it was then, in seconds.
    pub age_secs: u32,
    /// From this second on the entry is stale.
    pub fresh_until: Timestamp,
    /// From this second on the entry is never returned.
    pub keep_until: Timestamp,
    /// CRC-32 of key, optional records, metadata and checksum table.
    pub meta_checksum: u32,
    /// CRC-32 of the body when it fits one chunk, else 0 (the table has one per chunk).
    pub body_checksum: u32,
}

impl EntryHeader {
    /// The encoded form for a slot at byte `offset` of the region with `seed`.
    #[must_use]
    pub fn encode(&self, seed: Seed, offset: u64) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = [0; ENTRY_HEADER_LEN];
        bytes[4] = MAGIC;
        bytes[5] = self.kind.tag(self.supersedes);
        put(&mut bytes, 6, &self.key_len.to_le_bytes());
        put(&mut bytes, 8, &self.sequence.0.to_le_bytes());
        put(&mut bytes, 16, &self.metadata_len.to_le_bytes()[..3]);
        put(&mut bytes, 19, &self.body_len.to_le_bytes()[..3]);
        put(&mut bytes, 22, &self.records_len.to_le_bytes());
        put(&mut bytes, 24, &self.stored_at.0.to_le_bytes());
        put(&mut bytes, 28, &self.fresh_until.0.to_le_bytes());
        put(&mut bytes, 32, &self.keep_until.0.to_le_bytes());
        put(&mut bytes, 36, &self.meta_checksum.to_le_bytes());
        put(&mut bytes, 40, &self.body_checksum.to_le_bytes());
        put(&mut bytes, 44, &self.age_secs.to_le_bytes());
        let checksum = seed.checksum_at(offset, &[&bytes[4..]]);
        put(&mut bytes, 0, &checksum.to_le_bytes());
        bytes
    }

    /// Whether a header may begin at the start of `bytes`: a look at one byte.
    #[must_use]
    pub fn may_begin(bytes: &[u8]) -> bool {
        bytes.get(4) == Some(&MAGIC)
    }

    /// Reads the header of the slot at byte `offset` of the region with `seed`.
    ///
    /// # Errors
    /// The bytes are not a sound header of this place and generation.
    pub fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Result<EntryHeader, Damage> {
        let bytes = bytes.get(..ENTRY_HEADER_LEN).ok_or(Damage::Short)?;
        if !EntryHeader::may_begin(bytes) {
            return Err(Damage::Magic);
        }
        if seed.checksum_at(offset, &[&bytes[4..]]) != bytes.u32_at(0) {
            return Err(Damage::Checksum);
        }
        let (kind, supersedes) = Kind::from_tag(bytes[5]).ok_or(Damage::Field("kind"))?;
        let header = EntryHeader {
            kind,
            supersedes,
            key_len: bytes.u16_at(6),
            records_len: bytes.u16_at(22),
            metadata_len: bytes.u24_at(16),
            body_len: bytes.u24_at(19),
            sequence: Sequence(bytes.u64_at(8)),
            stored_at: Timestamp(bytes.u32_at(24)),
            age_secs: bytes.u32_at(44),
            fresh_until: Timestamp(bytes.u32_at(28)),
            keep_until: Timestamp(bytes.u32_at(32)),
            meta_checksum: bytes.u32_at(36),
            body_checksum: bytes.u32_at(40),
        };
        header.check_fields()?;
        Ok(header)
    }

    fn check_fields(&self) -> Result<(), Damage> {
        let key_len = usize::from(self.key_len);
        match self.kind {
            Kind::Tombstones if key_len != 0 || self.body_len != 0 || self.records_len != 0 => {
                return Err(Damage::Field("tombstone"));
            }
            Kind::PurgeRecords
                if key_len != 0
                    || self.body_len != 0
                    || self.records_len != 0
                    || !(self.metadata_len as usize).is_multiple_of(PURGE_RECORD_LEN) =>
            {
                return Err(Damage::Field("purge records"));
            }
            Kind::Slice if key_len != SliceKey::LEN => return Err(Damage::Field("slice key")),
            Kind::Object | Kind::Head if key_len == 0 || key_len > KEY_LEN_MAX => {
                return Err(Damage::Field("key length"));
            }
            _ => {}
        }
        if self.metadata_len > METADATA_LEN_MAX {
            return Err(Damage::Field("metadata length"));
        }
        if self.body_len > BODY_LEN_MAX {
            return Err(Damage::Field("body length"));
        }
        Ok(())
    }

    /// Byte ranges within the slot, in this order: key, records, metadata, checksum table, body.
    #[must_use]
    pub fn key_range(&self) -> std::ops::Range<usize> {
        ENTRY_HEADER_LEN..ENTRY_HEADER_LEN + usize::from(self.key_len)
    }

    /// Where the optional records are within the slot.
    #[must_use]
    pub fn records_range(&self) -> std::ops::Range<usize> {
        let start = self.key_range().end;
        start..start + usize::from(self.records_len)
    }

    /// Where the metadata is within the slot.
    #[must_use]
    pub fn metadata_range(&self) -> std::ops::Range<usize> {
        let start = self.records_range().end;
        start..start + self.metadata_len as usize
    }

    /// Where the checksum table is within the slot; empty when the body fits one chunk.
    #[must_use]
    pub fn table_range(&self) -> std::ops::Range<usize> {
        let start = self.metadata_range().end;
        start..start + checksum_table_len(self.body_len as usize)
    }

    /// Where the body is within the slot.
    #[must_use]
    pub fn body_range(&self) -> std::ops::Range<usize> {
        let start = self.table_range().end;
        start..start + self.body_len as usize
    }

    /// Length of the slot in bytes, before padding to the granule.
    #[must_use]
    pub fn slot_len(&self) -> usize {
        self.body_range().end
    }

    /// Whether bytes that [`EntryHeader::decode`] refused look like a damaged header of this
    /// `generation` of a region, and not like older bytes: their sequence is in the epoch of the
    /// generation. Earlier formats of the device used other epochs.
    #[must_use]
    pub fn is_claimed(bytes: &[u8], generation: Sequence) -> bool {
        let Some(bytes) = bytes.get(..ENTRY_HEADER_LEN) else { return false };
        let sequence = Sequence(bytes.u64_at(8));
        bytes[4] == MAGIC
            && Kind::from_tag(bytes[5]).is_some()
            && sequence > generation
            && sequence.epoch() == generation.epoch()
    }

    /// Verifies key, records, metadata and checksum table of `slot`, which must begin with this header.
    ///
    /// # Errors
    /// The slot is too short or damaged.
    pub fn check_meta(&self, slot: &[u8]) -> Result<(), Damage> {
        let covered = slot.get(ENTRY_HEADER_LEN..self.table_range().end).ok_or(Damage::Short)?;
        if crc32fast::hash(covered) != self.meta_checksum {
            return Err(Damage::Checksum);
        }
        Records::decode(&slot[self.records_range()]).map(drop)
    }

    /// The checksum of the body's chunk `index`; `table` is the slot's checksum table.
    #[must_use]
    pub fn chunk_checksum(&self, table: &[u8], index: usize) -> Option<u32> {
        if table.is_empty() {
            return (index == 0).then_some(self.body_checksum);
        }
        table.chunks_exact(4).nth(index).map(|sum| sum.u32_at(0))
    }

    /// Verifies the body of `slot`; call [`EntryHeader::check_meta`] first.
    ///
    /// # Errors
    /// The slot is too short or a chunk of the body is damaged.
    pub fn check_body(&self, slot: &[u8]) -> Result<(), Damage> {
        let body = slot.get(self.body_range()).ok_or(Damage::Short)?;
        let table = &slot[self.table_range()];
        let sound = if table.is_empty() {
            crc32fast::hash(body) == self.body_checksum
        } else {
            body.chunks(BODY_CHUNK)
                .zip(table.chunks_exact(4))
                .all(|(chunk, sum)| crc32fast::hash(chunk) == sum.u32_at(0))
        };
        if sound { Ok(()) } else { Err(Damage::Checksum) }
    }
}

/// Bytes of the checksum table of a body of `body_len` bytes.
#[must_use]
pub fn checksum_table_len(body_len: usize) -> usize {
    if body_len <= BODY_CHUNK { 0 } else { body_len.div_ceil(BODY_CHUNK) * 4 }
}

/// The checksums of a body: one number, or a table when it has several chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyCheck {
    /// Value of [`EntryHeader::body_checksum`].
    pub single: u32,
    /// Encoded table, empty for bodies of one chunk.
    pub table: Vec<u8>,
}

/// Computes the checksums of a body.
#[must_use]
pub fn body_checksums(body: &[u8]) -> BodyCheck {
    if body.len() <= BODY_CHUNK {
        return BodyCheck { single: crc32fast::hash(body), table: Vec::new() };
    }
    let table =
        body.chunks(BODY_CHUNK).flat_map(|chunk| crc32fast::hash(chunk).to_le_bytes()).collect();
    BodyCheck { single: 0, table }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ObjectHead, Uuid};
    use proptest::prelude::*;

    #[test]
    fn a_range_needs_the_slices_that_it_touches() {
        let head = ObjectHead { len: 1001, object: Sequence(1), slice_size: 100 };
        assert_eq!(head.slice_count(), 11);
        for (range, slices) in
            [(0..1, 0..1), (0..100, 0..1), (99..101, 0..2), (100..200, 1..2), (950..1001, 9..11)]
        {
            assert_eq!(head.slices_of(range.clone()), slices, "{range:?}");
        }
        assert_eq!(ObjectHead { len: 0, ..head }.slice_count(), 0);
    }

    const SEED: Seed = Seed(0x1234_5678);

    fn sample() -> EntryHeader {
        EntryHeader {
            kind: Kind::Object,
            supersedes: true,
            key_len: 5,
            records_len: 7,
            metadata_len: 4,
            body_len: 100,
            sequence: Sequence(77),
            stored_at: Timestamp(1),
            age_secs: 6,
            fresh_until: Timestamp(2),
            keep_until: Timestamp(3),
            meta_checksum: 4,
            body_checksum: 5,
        }
    }

    #[test]
    fn an_entry_header_survives_encoding() {
        let bytes = sample().encode(SEED, 4096);
        assert_eq!(EntryHeader::decode(&bytes, SEED, 4096), Ok(sample()));
    }

    #[test]
    fn version_2_bytes_stay_as_they_are() {
        let bytes = sample().encode(SEED, 4096);
        assert_eq!(
            bytes[4..],
            *b"\xC5\x81\x05\0\x4d\0\0\0\0\0\0\0\x04\0\0\x64\0\0\x07\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0\x06\0\0\0"
        );
    }

    /// The sample with some bytes replaced and a valid checksum.
    fn with(at: usize, set: &[u8]) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = sample().encode(SEED, 4096);
        put(&mut bytes, at, set);
        let checksum = SEED.checksum_at(4096, &[&bytes[4..]]);
        put(&mut bytes, 0, &checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn the_longest_parts_fit_their_fields() {
        let longest =
            EntryHeader { metadata_len: METADATA_LEN_MAX, body_len: BODY_LEN_MAX, ..sample() };
        assert_eq!(EntryHeader::decode(&longest.encode(SEED, 4096), SEED, 4096), Ok(longest));
        let at = |at, len: u32| EntryHeader::decode(&with(at, &len.to_le_bytes()[..3]), SEED, 4096);
        assert_eq!(at(16, METADATA_LEN_MAX + 1), Err(Damage::Field("metadata length")));
        assert_eq!(at(19, BODY_LEN_MAX + 1), Err(Damage::Field("body length")));
    }

    #[test]
    fn kinds_that_no_version_wrote_are_refused() {
        assert_eq!(EntryHeader::decode(&with(5, &[6]), SEED, 4096), Err(Damage::Field("kind")));
    }

    #[test]
    fn another_place_or_life_does_not_pass() {
        let uuid = Uuid([1; 16]);
        let seed = Seed::new(uuid, 3, Sequence(9));
        let bytes = sample().encode(seed, 4096);
        assert_eq!(EntryHeader::decode(&bytes, seed, 4112), Err(Damage::Checksum));
        for other in [
            Seed::new(Uuid([2; 16]), 3, Sequence(9)),
            Seed::new(uuid, 4, Sequence(9)),
            Seed::new(uuid, 3, Sequence(10)),
        ] {
            assert_eq!(EntryHeader::decode(&bytes, other, 4096), Err(Damage::Checksum));
        }
    }

    #[test]
    fn damage_in_a_second_body_chunk_is_found() {
        let body = vec![7u8; BODY_CHUNK + 10];
        let check = body_checksums(&body);
        let header = EntryHeader {
            key_len: 1,
            records_len: 0,
            metadata_len: 0,
            body_len: u32::try_from(body.len()).unwrap(),
            body_checksum: check.single,
            ..sample()
        };
        let mut slot = vec![0; ENTRY_HEADER_LEN];
        slot.push(b'k');
        slot.extend_from_slice(&check.table);
        slot.extend_from_slice(&body);
        assert_eq!(header.check_body(&slot), Ok(()));
        *slot.last_mut().unwrap() ^= 1;
        assert_eq!(header.check_body(&slot), Err(Damage::Checksum));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = EntryHeader::decode(&bytes, SEED, 0);
            let _ = ObjectHead::decode(&bytes);
        }
    }
}
