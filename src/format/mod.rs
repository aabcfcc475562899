//! Converts bytes on the device to types and back. Owns every on-disk structure (`docs/disk-format.md`
//! has the byte map). Does no I/O, never panics on input and never allocates by an unchecked length.

mod entry;
mod features;
mod footer;
mod large;
mod layout;
mod locator;
mod purge_record;
mod records;
mod region;
mod secret;
mod snapshot;
mod superblock;

pub use entry::{
    BODY_CHUNK, BodyCheck, ENTRY_HEADER_LEN, EntryHeader, Kind, body_checksums, checksum_table_len,
};
pub use features::{FeatureNames, Features};
pub use footer::{
    EncodedFooter, FOOTER_RECORD_LEN, Footer, FooterCounts, FooterRecord, TOMBSTONE_LEN,
    TRAILER_LEN, Tombstone, Trailer,
};
pub use large::{ObjectHead, SliceKey};
pub use layout::{DEVICE_SIZE_MAX, LOCATIONS_MAX, Layout, LayoutError, SUPERBLOCK_SPACE};
pub use locator::{LOCATOR_LEN, LOCATOR_OFFSET, Locator};
pub use purge_record::{PREFIX_LEN_MAX, PURGE_RECORD_LEN, PurgeRecord, Selector};
pub use records::{FRAGMENT_RECORDS_LEN, Records, SLICE_RECORDS_LEN, TAGS_MAX, VALIDATOR_LEN_MAX};
pub use region::{LogKind, REGION_HEADER_LEN, RegionHeader, RegionUse};
pub use secret::Secret;
pub use snapshot::{
    SNAPSHOT_DIRECTORY_LEN, SNAPSHOT_GROUPS, SNAPSHOT_PIECE_LEN_MAX, SNAPSHOT_PIECES_MAX,
    SNAPSHOT_ROW_LEN, SnapshotDirectory, SnapshotPart, SnapshotPiece, SnapshotRow,
};
pub use superblock::{SUPERBLOCK_LEN, Superblock};

/// Version of every on-disk structure but the index snapshot, which has its own.
pub const FORMAT_VERSION: u32 = 2;
/// Unit of offsets and lengths in footers, in bytes; slots begin at multiples of it.
pub const GRANULE: u64 = 16;
/// Bytes that a power cut leaves written whole or not at all.
pub const SECTOR: u64 = 512;

/// Identifies one formatting of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A text that is no UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID: write it as `rawcached inspect` shows it")]
pub struct ParseUuidError(String);

/// As it is displayed; upper case too.
impl std::str::FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Uuid, ParseUuidError> {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        let number = u128::from_str_radix(&digits, 16).map(|number| Uuid(number.to_be_bytes()));
        let found = number.ok().filter(|uuid| uuid.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| ParseUuidError(text.to_owned()))
    }
}

/// Position in the order of all mutations of a device. Never repeats, not even after a crash: the epoch
/// in the high bits is raised on the device first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Bits below the epoch: over four thousand million mutations, an hour at a million a second. The
    /// next epoch begins before they are used up.
    pub const COUNTER_BITS: u32 = 32;

    /// The last epoch that sequences can name.
    pub const EPOCH_MAX: u32 = u32::MAX;

    /// The first epoch of a device formatted as `uuid`: drawn with the UUID, so that leftover bytes of
    /// an earlier format have other sequences.
    #[must_use]
    pub fn first_epoch(uuid: Uuid) -> u32 {
        u32::from_le_bytes([uuid.0[0], uuid.0[1], uuid.0[2], 0])
    }

    /// The first sequence of `epoch`.
    #[must_use]
    pub fn first_of(epoch: u32) -> Sequence {
        Sequence(u64::from(epoch) << Self::COUNTER_BITS)
    }

    /// The epoch this sequence belongs to.
    #[must_use]
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> Self::COUNTER_BITS).unwrap_or(u32::MAX)
    }

    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// The part of a seed that all regions of a device share, computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSeed(u32);

impl DeviceSeed {
    /// The shared part for the device `uuid`.
    #[must_use]
    pub fn new(uuid: Uuid) -> DeviceSeed {
        DeviceSeed(crc32fast::hash(&uuid.0))
    }

    /// The seed of this `generation` of `region`.
    #[must_use]
    pub fn of_generation(self, region: u32, generation: Sequence) -> Seed {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&region.to_le_bytes());
        bytes[4..].copy_from_slice(&generation.0.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&bytes);
        Seed(hasher.finalize())
    }
}

/// Start value of a checksum that ties bytes to one generation of one region of one device: bytes from
/// anywhere else do not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u32);

impl Seed {
    /// The seed of this `generation` of `region` on the device `uuid`.
    #[must_use]
    pub fn new(uuid: Uuid, region: u32, generation: Sequence) -> Seed {
        DeviceSeed::new(uuid).of_generation(region, generation)
    }

    fn checksum_at(self, offset: u64, parts: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&offset.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Why bytes are not the structure they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Fewer bytes than the structure needs.
    #[error("too short")]
    Short,
    /// The magic number is wrong: blank, foreign or overwritten.
    #[error("no magic number")]
    Magic,
    /// The structure was written by another version of this program.
    #[error("format version {0}; this program reads {FORMAT_VERSION}")]
    Version(u32),
    /// The device uses a feature that this program does not know.
    #[error("unknown feature: {0}")]
    Feature(FeatureNames),
    /// The checksum matches neither the bytes nor their place.
    #[error("checksum mismatch")]
    Checksum,
    /// A field is out of range.
    #[error("impossible {0}")]
    Field(&'static str),
}

/// Rounds `value` up to a multiple of `unit`.
#[must_use]
pub const fn round_up(value: u64, unit: u64) -> u64 {
    value.div_ceil(unit) * unit
}

/// Little-endian reads at fixed offsets of a slice whose length was checked.
trait Fields {
    fn u24_at(&self, at: usize) -> u32;
    fn u16_at(&self, at: usize) -> u16;
    fn u32_at(&self, at: usize) -> u32;
    fn u64_at(&self, at: usize) -> u64;
    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N];
}

impl Fields for [u8] {
    fn u24_at(&self, at: usize) -> u32 {
        let [low, mid, high] = self.bytes_at(at);
        u32::from_le_bytes([low, mid, high, 0])
    }
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes_at(at))
    }
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes_at(at))
    }
    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes_at(at))
    }
    fn bytes_at<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self[at..at + N]);
        bytes
    }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
