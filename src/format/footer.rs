//! The footer of a sealed region: what recovery and reclaim need to know of every entry, so that they
//! need not read bodies.

use super::entry::Kind;
use super::{
    Damage, FORMAT_VERSION, Fields, GRANULE, LogKind, PURGE_RECORD_LEN, PurgeRecord, Seed,
    Sequence, put, round_up,
};
use crate::clock::Timestamp;
use crate::planted::{self, Bug};

/// Encoded length of one entry's record in bytes.
pub const FOOTER_RECORD_LEN: usize = 24;
/// Encoded length of one tombstone in bytes.
pub const TOMBSTONE_LEN: usize = 16;
/// Encoded length of the trailer, the last bytes of a sealed region.
pub const TRAILER_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"RCFOOTER";
const SLOT_GRANULES_MAX: u64 = (1 << 24) - 1;

/// One entry of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterRecord {
    /// 64-bit hash of the key.
    pub key_hash: u64,
    /// Position in the order of mutations.
    pub sequence: Sequence,
    /// Byte offset of the slot in the region, a multiple of the granule.
    pub offset: u64,
    /// Length of the slot in bytes, padded to the granule.
    pub slot_len: u64,
    /// What the slot holds.
    pub kind: Kind,
    /// Counts as a tombstone for older versions of its key.
    pub supersedes: bool,
    /// From this second on the entry is never returned.
    pub keep_until: Timestamp,
}

/// A tombstone: all versions of a key with a lower sequence are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// 64-bit hash of the key.
    pub key_hash: u64,
    /// Versions with a lower sequence are dead.
    pub sequence: Sequence,
}

impl Tombstone {
    /// Appends the encoded form.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.key_hash.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.0.to_le_bytes());
    }

    /// Decodes as many whole tombstones as `bytes` holds.
    pub fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Tombstone> + '_ {
        bytes.chunks_exact(TOMBSTONE_LEN).map(|record| Tombstone {
            key_hash: record.u64_at(0),
            sequence: Sequence(record.u64_at(8)),
        })
    }
}

/// The end of a footer, at the very end of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The generation of the region that the footer describes.
    pub generation: Sequence,
    /// Number of entry records.
    pub record_count: u32,
    /// Number of tombstones.
    pub tombstone_count: u32,
    /// Number of purge records.
    pub purge_record_count: u32,
    /// When the footer was written.
    pub stamp: Timestamp,
    /// The log that the generation belongs to. The header says it too, but may be damaged.
    pub log: LogKind,
    payload_checksum: u32,
}

impl Trailer {
    /// Reads the trailer from the last bytes of `region`.
    ///
    /// `seed_of` gives the seed of a generation of this region.
    ///
    /// # Errors
    /// The bytes do not end in a sound trailer of this region.
    pub fn decode(bytes: &[u8], seed_of: impl Fn(Sequence) -> Seed) -> Result<Trailer, Damage> {
        let start = bytes.len().checked_sub(TRAILER_LEN).ok_or(Damage::Short)?;
        let bytes = &bytes[start..];
        if bytes.bytes_at(0) != MAGIC {
            return Err(Damage::Magic);
        }
        let generation = Sequence(bytes.u64_at(16));
        let mut unsummed: [u8; TRAILER_LEN] = bytes.bytes_at(0);
        put(&mut unsummed, 12, &[0; 4]);
        if seed_of(generation).checksum_at(u64::MAX, &[&unsummed]) != bytes.u32_at(12) {
            return Err(Damage::Checksum);
        }
        let version = bytes.u32_at(8);
        if version != FORMAT_VERSION {
            return Err(Damage::Version(version));
        }
        if bytes[48..].iter().any(|byte| *byte != 0) {
            return Err(Damage::Field("reserved bytes"));
        }
        let log = LogKind::from_number(bytes.u32_at(44)).ok_or(Damage::Field("log number"))?;
        Ok(Trailer {
            generation,
            record_count: bytes.u32_at(24),
            tombstone_count: bytes.u32_at(28),
            purge_record_count: bytes.u32_at(40),
            stamp: Timestamp(bytes.u32_at(32)),
            log,
            payload_checksum: bytes.u32_at(36),
        })
    }

    /// Whether bytes that [`Trailer::decode`] refused look like a damaged trailer of this `generation`,
    /// and not like older bytes: freeing a region erases its trailer, and earlier formats of the device
    /// used other epochs.
    #[must_use]
    pub fn is_claimed(bytes: &[u8; TRAILER_LEN], generation: Sequence) -> bool {
        let written = Sequence(bytes.u64_at(16));
        let named = bytes.bytes_at(0) == MAGIC && written.epoch() == generation.epoch();
        named || written == generation
    }

    /// Bytes of the whole footer, padded to `alignment`.
    #[must_use]
    pub fn footer_len(&self, alignment: u32) -> u64 {
        self.counts().len(alignment)
    }

    /// Bytes of memory that the footer takes once it is decoded.
    #[must_use]
    pub fn footer_memory(&self) -> u64 {
        self.counts().memory()
    }

    fn counts(&self) -> FooterCounts {
        FooterCounts {
            records: self.record_count as usize,
            tombstones: self.tombstone_count as usize,
            purge_records: self.purge_record_count as usize,
        }
    }

    /// Bytes of the encoded records, which the encoded tombstones follow.
    #[must_use]
    pub fn records_len(&self) -> u64 {
        u64::from(self.record_count) * FOOTER_RECORD_LEN as u64
    }

    /// Bytes of the encoded tombstones, which the encoded purge records follow.
    #[must_use]
    pub fn tombstones_len(&self) -> u64 {
        u64::from(self.tombstone_count) * TOMBSTONE_LEN as u64
    }

    /// Bytes of the encoded records, tombstones and purge records.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        let purge_records = u64::from(self.purge_record_count) * PURGE_RECORD_LEN as u64;
        self.records_len() + self.tombstones_len() + purge_records
    }

    /// Whether a payload with this checksum is the one that the trailer belongs to.
    ///
    /// # Errors
    /// They are not.
    pub fn check_payload(&self, checksum: u32) -> Result<(), Damage> {
        let sound = checksum == self.payload_checksum || planted::is(Bug::ForgetFooterChecksum);
        if sound { Ok(()) } else { Err(Damage::Checksum) }
    }
}

/// How much a footer has of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FooterCounts {
    /// Records of entries.
    pub records: usize,
    /// Tombstones, without those of entries.
    pub tombstones: usize,
    /// Purge records.
    pub purge_records: usize,
}

impl FooterCounts {
    /// Bytes of a footer of so many, padded to `alignment`.
    #[must_use]
    pub fn len(self, alignment: u32) -> u64 {
        let FooterCounts { records, tombstones, purge_records } = self;
        let payload = records * FOOTER_RECORD_LEN
            + tombstones * TOMBSTONE_LEN
            + purge_records * PURGE_RECORD_LEN;
        round_up((payload + TRAILER_LEN) as u64, u64::from(alignment))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub const fn memory(self) -> u64 {
        let FooterCounts { records, tombstones, purge_records } = self;
        let bytes = records * size_of::<FooterRecord>()
            + tombstones * size_of::<Tombstone>()
            + purge_records * size_of::<PurgeRecord>();
        bytes as u64
    }
}

/// Contents of a sealed region's footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// One record per entry, in order of offset.
    pub records: Vec<FooterRecord>,
    /// Tombstones written in the region.
    pub tombstones: Vec<Tombstone>,
    /// Purge records written in the region.
    pub purge_records: Vec<PurgeRecord>,
}

impl Footer {
    /// How much it has of each.
    #[must_use]
    pub fn counts(&self) -> FooterCounts {
        FooterCounts {
            records: self.records.len(),
            tombstones: self.tombstones.len(),
            purge_records: self.purge_records.len(),
        }
    }

    /// Bytes that it takes on the device, padded to `alignment`.
    #[must_use]
    pub fn len(&self, alignment: u32) -> u64 {
        self.counts().len(alignment)
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.counts().memory()
    }

    /// Appends what another piece of the same footer has.
    pub fn append(&mut self, piece: &Footer) {
        self.records.extend_from_slice(&piece.records);
        self.tombstones.extend_from_slice(&piece.tombstones);
        self.purge_records.extend_from_slice(&piece.purge_records);
    }

    /// Encodes into `block`, which must have exactly [`Footer::len`] zeroed bytes, for a
    /// `generation` of a region in `log`.
    ///
    /// # Panics
    /// Panics if the block has another length, or a record does not fit its fields.
    pub fn encode_into(
        &self,
        block: &mut [u8],
        (generation, log): (Sequence, LogKind),
        seed: Seed,
        stamp: Timestamp,
    ) {
        let mut at = 0;
        for record in &self.records {
            encode_record(record, generation, &mut block[at..at + FOOTER_RECORD_LEN]);
            at += FOOTER_RECORD_LEN;
        }
        let FooterCounts { tombstones, purge_records, .. } = self.counts();
        let rest = tombstones * TOMBSTONE_LEN + purge_records * PURGE_RECORD_LEN;
        let mut rest = Vec::with_capacity(rest);
        self.tombstones.iter().for_each(|tombstone| tombstone.encode_into(&mut rest));
        self.purge_records.iter().for_each(|record| record.encode_into(&mut rest));
        put(block, at, &rest);
        at += rest.len();
        assert!(at + TRAILER_LEN <= block.len(), "the footer block is as long as the footer");
        let payload_checksum = crc32fast::hash(&block[..at]);
        let end = block.len();
        let trailer = &mut block[end - TRAILER_LEN..];
        put(trailer, 0, &MAGIC);
        put(trailer, 8, &FORMAT_VERSION.to_le_bytes());
        put(trailer, 16, &generation.0.to_le_bytes());
        put(trailer, 24, &count(self.records.len()).to_le_bytes());
        put(trailer, 28, &count(self.tombstones.len()).to_le_bytes());
        put(trailer, 32, &stamp.0.to_le_bytes());
        put(trailer, 36, &payload_checksum.to_le_bytes());
        put(trailer, 40, &count(self.purge_records.len()).to_le_bytes());
        put(trailer, 44, &log.number().to_le_bytes());
        let checksum = seed.checksum_at(u64::MAX, &[trailer]);
        put(trailer, 12, &checksum.to_le_bytes());
    }

    /// Decodes the footer that `trailer` belongs to; `block` is the whole footer.
    ///
    /// # Errors
    /// The payload does not match the trailer.
    pub fn decode(block: &[u8], trailer: &Trailer) -> Result<Footer, Damage> {
        EncodedFooter::verify(block, trailer)?.to_footer()
    }

    /// The latest `keep_until` of the entries.
    #[must_use]
    pub fn keep_until_max(&self) -> Timestamp {
        self.records.iter().map(|record| record.keep_until).max().unwrap_or_default()
    }

    /// All tombstones: explicit ones and entries that supersede older versions.
    pub fn all_tombstones(&self) -> impl Iterator<Item = Tombstone> + '_ {
        let superseding = self
            .records
            .iter()
            .filter(|record| record.supersedes)
            .map(|record| Tombstone { key_hash: record.key_hash, sequence: record.sequence });
        self.tombstones.iter().copied().chain(superseding)
    }
}

/// A footer whose checksum is verified, decoded record by record in place.
#[derive(Clone, Copy, Debug)]
pub struct EncodedFooter<'a> {
    records: &'a [u8],
    tombstones: &'a [u8],
    purge_records: &'a [u8],
    generation: Sequence,
}

impl<'a> EncodedFooter<'a> {
    /// Verifies the footer that `trailer` belongs to; `block` is the whole footer.
    ///
    /// # Errors
    /// The payload does not match the trailer.
    pub fn verify(block: &'a [u8], trailer: &Trailer) -> Result<EncodedFooter<'a>, Damage> {
        let len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let payload = block.get(..len(trailer.payload_len())).ok_or(Damage::Short)?;
        trailer.check_payload(crc32fast::hash(payload))?;
        let (records, rest) = payload.split_at(len(trailer.records_len()));
        let (tombstones, purge_records) = rest.split_at(len(trailer.tombstones_len()));
        Ok(EncodedFooter { records, tombstones, purge_records, generation: trailer.generation })
    }

    /// A piece of the footer that `trailer` belongs to, verified by the caller: whole records, whole
    /// tombstones or whole purge records.
    #[must_use]
    pub fn of_piece(
        [records, tombstones, purge_records]: [&'a [u8]; 3],
        trailer: &Trailer,
    ) -> EncodedFooter<'a> {
        EncodedFooter { records, tombstones, purge_records, generation: trailer.generation }
    }

    /// Decodes it.
    ///
    /// # Errors
    /// A record is impossible.
    pub fn to_footer(self) -> Result<Footer, Damage> {
        let records = self.records().collect::<Result<_, _>>()?;
        let purge_records = self.purge_records().collect::<Result<_, _>>()?;
        Ok(Footer { records, tombstones: self.tombstones().collect(), purge_records })
    }

    /// The entries' records, in order of offset; an impossible one is an error.
    pub fn records(&self) -> impl Iterator<Item = Result<FooterRecord, Damage>> + use<'a> {
        let generation = self.generation;
        let records = self.records.chunks_exact(FOOTER_RECORD_LEN);
        records.map(move |bytes| decode_record(bytes, generation))
    }

    /// The explicit tombstones, without those of entries.
    pub fn tombstones(&self) -> impl Iterator<Item = Tombstone> + use<'a> {
        Tombstone::decode_all(self.tombstones)
    }

    /// The purge records; an impossible one is an error.
    pub fn purge_records(&self) -> impl Iterator<Item = Result<PurgeRecord, Damage>> + use<'a> {
        PurgeRecord::decode_all(self.purge_records)
    }
}

#[expect(clippy::expect_used, reason = "a region has fewer than 2^32 records by its size")]
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("fewer than 2^32 records in a region")
}

#[expect(clippy::expect_used, reason = "the log seals a region before a field could overflow")]
fn encode_record(record: &FooterRecord, generation: Sequence, bytes: &mut [u8]) {
    let delta =
        u32::try_from(record.sequence.0 - generation.0).expect("sequence near its region's");
    let offset = u32::try_from(record.offset / GRANULE).expect("region below 64 GiB");
    let granules = record.slot_len.div_ceil(GRANULE);
    assert!(granules <= SLOT_GRANULES_MAX, "slot below 256 MiB");
    let tagged = granules | u64::from(record.kind.tag(record.supersedes)) << 24;
    put(bytes, 0, &record.key_hash.to_le_bytes());
    put(bytes, 8, &delta.to_le_bytes());
    put(bytes, 12, &offset.to_le_bytes());
    put(bytes, 16, &u32::try_from(tagged).expect("24 + 8 bits").to_le_bytes());
    put(bytes, 20, &record.keep_until.0.to_le_bytes());
}

fn decode_record(bytes: &[u8], generation: Sequence) -> Result<FooterRecord, Damage> {
    let (kind, supersedes) = Kind::from_tag(bytes[19]).ok_or(Damage::Field("kind"))?;
    Ok(FooterRecord {
        key_hash: bytes.u64_at(0),
        sequence: Sequence(generation.0.saturating_add(u64::from(bytes.u32_at(8)))),
        offset: u64::from(bytes.u32_at(12)) * GRANULE,
        slot_len: u64::from(bytes.u24_at(16)) * GRANULE,
        kind,
        supersedes,
        keep_until: Timestamp(bytes.u32_at(20)),
    })
}

#[cfg(test)]
#[path = "footer_tests.rs"]
mod tests;
