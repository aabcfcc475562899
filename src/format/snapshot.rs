//! The index snapshot of a clean stop: what each of its regions holds, and the state of the device's
//! regions. Owns the bytes around the dump that the index writes itself.

use super::{Damage, Fields, GRANULE, LogKind, Seed, Sequence, put, round_up};
use crate::clock::Timestamp;

/// Bytes of a directory before its padding to blocks.
pub const SNAPSHOT_DIRECTORY_LEN: usize = 16 << 10;
/// Most pieces in one part.
pub const SNAPSHOT_PIECES_MAX: usize = (SNAPSHOT_DIRECTORY_LEN - HEADER_LEN) / PIECE_LEN;
/// Number of groups into which the index shards are divided.
pub const SNAPSHOT_GROUPS: u32 = 256;
/// Most bytes in one piece.
pub const SNAPSHOT_PIECE_LEN_MAX: u32 = 1 << 20;
/// Encoded length of one region's row in bytes.
pub const SNAPSHOT_ROW_LEN: usize = 32;

/// Version of the snapshot alone. A start ignores one of another version and reads footers.
const SNAPSHOT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"RCSNAPSH";
const HEADER_LEN: usize = 64;
const PIECE_LEN: usize = 24;

/// The table that a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotPart {
    /// The rows of all regions.
    Regions,
    /// One group of index shards: an equal number of consecutive shards for each of
    /// [`SNAPSHOT_GROUPS`], dumped one after the other.
    Shards(u32),
    /// All purge records, as in a slot.
    PurgeRecords,
}

/// Some bytes in a region of a snapshot. The pieces of one [`SnapshotPart`] follow one another in the
/// order of regions and directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The table it belongs to.
    pub of: SnapshotPart,
    /// Byte offset in the region, a multiple of the granule.
    pub offset: u64,
    /// Bytes, 1..=[`SNAPSHOT_PIECE_LEN_MAX`].
    pub len: u32,
    checksum: u32,
}

impl SnapshotPiece {
    /// Describes `bytes` at `offset` of the region with `seed`.
    ///
    /// # Panics
    /// Panics if the bytes are too many or the offset is not on the granule.
    #[must_use]
    pub fn new(of: SnapshotPart, seed: Seed, offset: u64, bytes: &[u8]) -> SnapshotPiece {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        assert!((1..=SNAPSHOT_PIECE_LEN_MAX).contains(&len), "a piece has 1 byte to 1 MiB");
        assert!(offset.is_multiple_of(GRANULE), "pieces begin on the granule");
        SnapshotPiece { of, offset, len, checksum: seed.checksum_at(offset, &[bytes]) }
    }

    /// Verifies bytes read from the piece's place in the region with `seed`.
    ///
    /// # Errors
    /// The bytes are not the ones that were written.
    pub fn check(&self, seed: Seed, bytes: &[u8]) -> Result<(), Damage> {
        let sound = bytes.len() == self.len as usize
            && seed.checksum_at(self.offset, &[bytes]) == self.checksum;
        if sound { Ok(()) } else { Err(Damage::Checksum) }
    }
}

/// What one region of a snapshot holds, in the first blocks after its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDirectory {
    /// Name of the snapshot: a sequence drawn for it, the same in all parts.
    pub name: Sequence,
    /// The superblock's epoch at the time of writing; a snapshot of another epoch is ignored.
    pub epoch: u32,
    /// Number of this part, from 0.
    pub part: u32,
    /// Number of parts.
    pub part_count: u32,
    /// The superblock's purge floor.
    pub purge_floor: Sequence,
    /// When it was written.
    pub stamp: Timestamp,
    /// Shards of the index.
    pub shard_count: u32,
    /// What the region holds, at most [`SNAPSHOT_PIECES_MAX`].
    pub pieces: Vec<SnapshotPiece>,
}

impl SnapshotDirectory {
    /// Bytes of a directory on a device with this alignment.
    #[must_use]
    pub fn space(alignment: u32) -> u64 {
        round_up(SNAPSHOT_DIRECTORY_LEN as u64, u64::from(alignment))
    }

    /// The encoded form for the region with `seed`; the rest of the space is zero.
    ///
    /// # Panics
    /// Panics if there are too many pieces.
    #[must_use]
    pub fn encode(&self, seed: Seed) -> [u8; SNAPSHOT_DIRECTORY_LEN] {
        assert!(self.pieces.len() <= SNAPSHOT_PIECES_MAX, "a part has few pieces");
        let mut bytes = [0; SNAPSHOT_DIRECTORY_LEN];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &SNAPSHOT_VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.name.0.to_le_bytes());
        put(&mut bytes, 24, &self.epoch.to_le_bytes());
        put(&mut bytes, 28, &self.part.to_le_bytes());
        put(&mut bytes, 32, &self.part_count.to_le_bytes());
        put(&mut bytes, 36, &u32::try_from(self.pieces.len()).unwrap_or(0).to_le_bytes());
        put(&mut bytes, 40, &self.purge_floor.0.to_le_bytes());
        put(&mut bytes, 48, &self.stamp.0.to_le_bytes());
        put(&mut bytes, 52, &self.shard_count.to_le_bytes());
        for (piece, at) in self.pieces.iter().zip((HEADER_LEN..).step_by(PIECE_LEN)) {
            let (kind, number) = match piece.of {
                SnapshotPart::Regions => (1u32, 0),
                SnapshotPart::Shards(group) => (2, group),
                SnapshotPart::PurgeRecords => (3, 0),
            };
            put(&mut bytes, at, &kind.to_le_bytes());
            put(&mut bytes, at + 4, &number.to_le_bytes());
            let granules = u32::try_from(piece.offset / GRANULE).unwrap_or(u32::MAX);
            put(&mut bytes, at + 8, &granules.to_le_bytes());
            put(&mut bytes, at + 12, &piece.len.to_le_bytes());
            put(&mut bytes, at + 16, &piece.checksum.to_le_bytes());
        }
        let checksum = seed.checksum_at(u64::MAX, &[&bytes]);
        put(&mut bytes, 12, &checksum.to_le_bytes());
        bytes
    }

    /// Reads the directory of the region with `seed`.
    ///
    /// # Errors
    /// The bytes are not a sound directory of this region and generation.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<SnapshotDirectory, Damage> {
        let mut bytes: [u8; SNAPSHOT_DIRECTORY_LEN] =
            bytes.get(..SNAPSHOT_DIRECTORY_LEN).ok_or(Damage::Short)?.bytes_at(0);
        if bytes.bytes_at(0) != MAGIC {
            return Err(Damage::Magic);
        }
        let checksum = bytes.u32_at(12);
        put(&mut bytes, 12, &[0; 4]);
        if seed.checksum_at(u64::MAX, &[&bytes]) != checksum {
            return Err(Damage::Checksum);
        }
        let version = bytes.u32_at(8);
        if version != SNAPSHOT_VERSION {
            return Err(Damage::Version(version));
        }
        let piece_count = bytes.u32_at(36) as usize;
        if piece_count > SNAPSHOT_PIECES_MAX {
            return Err(Damage::Field("number of pieces"));
        }
        let rest = &bytes[HEADER_LEN + piece_count * PIECE_LEN..];
        if bytes[56..HEADER_LEN].iter().chain(rest).any(|byte| *byte != 0) {
            return Err(Damage::Field("reserved bytes"));
        }
        let pieces = bytes[HEADER_LEN..].chunks_exact(PIECE_LEN).take(piece_count);
        Ok(SnapshotDirectory {
            name: Sequence(bytes.u64_at(16)),
            epoch: bytes.u32_at(24),
            part: bytes.u32_at(28),
            part_count: bytes.u32_at(32),
            purge_floor: Sequence(bytes.u64_at(40)),
            stamp: Timestamp(bytes.u32_at(48)),
            shard_count: bytes.u32_at(52),
            pieces: pieces.map(decode_piece).collect::<Result<_, _>>()?,
        })
    }
}

fn decode_piece(bytes: &[u8]) -> Result<SnapshotPiece, Damage> {
    let of = match (bytes.u32_at(0), bytes.u32_at(4)) {
        (1, 0) => SnapshotPart::Regions,
        (2, group) => SnapshotPart::Shards(group),
        (3, 0) => SnapshotPart::PurgeRecords,
        _ => return Err(Damage::Field("kind of piece")),
    };
    if bytes.u32_at(20) != 0 {
        return Err(Damage::Field("reserved bytes"));
    }
    let len = bytes.u32_at(12);
    if !(1..=SNAPSHOT_PIECE_LEN_MAX).contains(&len) {
        return Err(Damage::Field("piece length"));
    }
    let offset = u64::from(bytes.u32_at(8)) * GRANULE;
    Ok(SnapshotPiece { of, offset, len, checksum: bytes.u32_at(16) })
}

/// State of a region when the snapshot was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Its generation; 0 if it never had one.
    pub generation: Sequence,
    /// Whether it is sealed and holds entries; else it is free.
    pub sealed: bool,
    /// Whether its header says that lifetimes in the footer may be too short.
    pub touched: bool,
    /// The log that it belongs to.
    pub log: LogKind,
    /// When its last entry expires.
    pub keep_until: Timestamp,
    /// Tombstones in it, those of entries included.
    pub tombstones: u64,
    /// Sum of the length bounds of the slots that the index points to.
    pub live_bytes: u64,
}

impl SnapshotRow {
    /// Appends the encoded form.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.generation.0.to_le_bytes());
        bytes.extend_from_slice(&self.live_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.tombstones.to_le_bytes());
        bytes.extend_from_slice(&self.keep_until.0.to_le_bytes());
        let log = u8::try_from(self.log.number()).unwrap_or(u8::MAX);
        bytes.extend_from_slice(&[u8::from(self.sealed), u8::from(self.touched), log, 0]);
    }

    /// Decodes the rows of all `count` regions of a device.
    ///
    /// # Errors
    /// There are more or fewer rows, or a field is out of range.
    pub fn decode_all(bytes: &[u8], count: u32) -> Result<Vec<SnapshotRow>, Damage> {
        if bytes.len() as u64 != u64::from(count) * SNAPSHOT_ROW_LEN as u64 {
            return Err(Damage::Field("number of rows"));
        }
        let flag = |byte: u8| match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damage::Field("row")),
        };
        let row = |row: &[u8]| {
            let log = LogKind::from_number(row[30].into());
            if row[31] != 0 {
                return Err(Damage::Field("row"));
            }
            Ok(SnapshotRow {
                generation: Sequence(row.u64_at(0)),
                live_bytes: row.u64_at(8),
                tombstones: row.u64_at(16),
                keep_until: Timestamp(row.u32_at(24)),
                sealed: flag(row[28])?,
                touched: flag(row[29])?,
                log: log.ok_or(Damage::Field("row"))?,
            })
        };
        bytes.chunks_exact(SNAPSHOT_ROW_LEN).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: Seed = Seed(5);

    fn sample() -> SnapshotDirectory {
        SnapshotDirectory {
            name: Sequence(0x0102_0304_0506_0708),
            epoch: 9,
            part: 1,
            part_count: 2,
            purge_floor: Sequence(11),
            stamp: Timestamp(12),
            shard_count: 4096,
            pieces: vec![
                SnapshotPiece::new(SnapshotPart::Regions, SEED, 20_480, b"rows"),
                SnapshotPiece::new(SnapshotPart::Shards(255), SEED, 20_496, b"words"),
            ],
        }
    }

    #[test]
    fn a_directory_survives_encoding() {
        let bytes = sample().encode(SEED);
        assert_eq!(SnapshotDirectory::decode(&bytes, SEED), Ok(sample()));
        assert_eq!(SnapshotDirectory::decode(&bytes, Seed(6)), Err(Damage::Checksum));
        let piece = sample().pieces[1];
        assert_eq!(piece.check(SEED, b"words"), Ok(()));
        assert_eq!(piece.check(Seed(6), b"words"), Err(Damage::Checksum));
        assert_eq!(piece.check(SEED, b"worts"), Err(Damage::Checksum));
    }

    #[test]
    fn version_1_bytes_stay_as_they_are() {
        let bytes = sample().encode(SEED);
        assert_eq!(bytes[..12], *b"RCSNAPSH\x01\0\0\0");
        assert_eq!(
            bytes[16..64],
            *b"\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\
               \x0b\0\0\0\0\0\0\0\x0c\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes[64..80], *b"\x01\0\0\0\0\0\0\0\0\x05\0\0\x04\0\0\0");
        assert_eq!(bytes[88..104], *b"\x02\0\0\0\xff\0\0\0\x01\x05\0\0\x05\0\0\0");
        assert!(bytes[112..].iter().all(|byte| *byte == 0));
        let row = SnapshotRow {
            generation: Sequence(1),
            sealed: true,
            touched: false,
            log: LogKind::Purges,
            keep_until: Timestamp(4),
            tombstones: 3,
            live_bytes: 2,
        };
        let mut bytes = Vec::new();
        row.encode_into(&mut bytes);
        assert_eq!(
            bytes,
            *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\x01\0\x01\0"
        );
        assert_eq!(SnapshotRow::decode_all(&bytes, 1), Ok(vec![row]));
        assert!(SnapshotRow::decode_all(&bytes, 2).is_err());
    }

    #[test]
    fn every_flipped_bit_of_what_is_used_is_noticed() {
        let bytes = sample().encode(SEED);
        for bit in 0..120 * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SnapshotDirectory::decode(&damaged, SEED).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), SNAPSHOT_DIRECTORY_LEN),
            count: u32,
        ) {
            let _ = SnapshotRow::decode_all(&bytes[..96], count % 5);
            let mut bytes = bytes;
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
            let checksum = SEED.checksum_at(u64::MAX, &[&bytes]);
            put(&mut bytes, 12, &checksum.to_le_bytes());
            // The checksum is valid, the contents are garbage.
            let _ = SnapshotDirectory::decode(&bytes, SEED);
        }
    }
}
