//! A slot to be written: its parts and their checksums, computed before any lock is taken.

use crate::format::{
    BodyCheck, ENTRY_HEADER_LEN, EntryHeader, GRANULE, Kind, ObjectHead, PURGE_RECORD_LEN,
    PurgeRecord, Records, Seed, Sequence, SliceKey, TOMBSTONE_LEN, Tombstone, body_checksums,
    round_up,
};
use crate::store::log::chunks::COPY_LEN_MAX;
use crate::store::mutation::request::Lifetime;

/// The parts of a slot.
pub struct Slot<'a> {
    kind: Kind,
    key: &'a [u8],
    records: Vec<u8>,
    metadata: &'a [u8],
    body: &'a [u8],
    check: BodyCheck,
    meta_checksum: u32,
    lifetime: Lifetime,
}

impl<'a> Slot<'a> {
    /// Checksums the parts. Key, metadata and body must be within the limits of the format.
    pub fn new(
        kind: Kind,
        key: &'a [u8],
        (metadata, body): (&'a [u8], &'a [u8]),
        lifetime: Lifetime,
    ) -> Slot<'a> {
        let (check, records) = (body_checksums(body), Vec::new());
        let slot = Slot { kind, key, records, metadata, body, check, meta_checksum: 0, lifetime };
        Slot { meta_checksum: slot.checksum_meta(), ..slot }
    }

    /// The same slot with these optional records.
    #[must_use]
    pub fn with_records(self, records: &Records) -> Slot<'a> {
        let slot = Slot { records: records.encode(), ..self };
        Slot { meta_checksum: slot.checksum_meta(), ..slot }
    }

    /// The same slot with these tags: keyed hashes in rising order, without repetition.
    #[must_use]
    pub fn tagged(self, tags: &[u64]) -> Slot<'a> {
        if tags.is_empty() {
            return self;
        }
        self.with_records(&Records { tags: tags.to_vec(), ..Records::default() })
    }

    fn checksum_meta(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for part in [self.key, &self.records, self.metadata, &self.check.table] {
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// A slot of tombstones, encoded by [`Slot::encode_tombstones`].
    pub fn of_tombstones(encoded: &'a [u8], stored_at: crate::clock::Timestamp) -> Slot<'a> {
        let (fresh_until, keep_until) = (stored_at, stored_at);
        let lifetime = Lifetime { stored_at, age_secs: 0, fresh_until, keep_until };
        Slot::new(Kind::Tombstones, &[], (encoded, &[]), lifetime)
    }

    /// Encodes tombstones as the metadata of a slot.
    pub fn encode_tombstones(tombstones: &[Tombstone]) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(tombstones.len() * TOMBSTONE_LEN);
        for tombstone in tombstones {
            tombstone.encode_into(&mut encoded);
        }
        encoded
    }

    /// A slot of purge records, encoded by [`Slot::encode_purge_records`].
    pub fn of_purge_records(encoded: &'a [u8], stored_at: crate::clock::Timestamp) -> Slot<'a> {
        Slot { kind: Kind::PurgeRecords, ..Slot::of_tombstones(encoded, stored_at) }
    }

    /// Encodes purge records as the metadata of a slot.
    pub fn encode_purge_records(records: &[PurgeRecord]) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(records.len() * PURGE_RECORD_LEN);
        records.iter().for_each(|record| record.encode_into(&mut encoded));
        encoded
    }

    /// The same slot, stale whatever its times say.
    pub fn marked_stale(&self) -> Slot<'a> {
        let records = Records::decode(&self.records).unwrap_or_default();
        let check = self.check.clone();
        let same = Slot { records: Vec::new(), check, ..*self };
        same.with_records(&Records { is_stale: true, ..records })
    }

    /// Whether it says that it is stale.
    pub fn is_marked_stale(&self) -> bool {
        Records::is_stale_in(&self.records)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// Hashes of its tags.
    pub fn tags(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        Records::tags_in(&self.records)
    }

    /// The room that it takes in a region.
    pub fn size(&self) -> SlotSize {
        let (tombstones, purge_records) = (self.tombstone_count(), self.purge_record_count());
        SlotSize { len: self.len(), tombstones, purge_records }
    }

    /// Length in bytes, padded to the granule.
    pub fn len(&self) -> u64 {
        let len = ENTRY_HEADER_LEN
            + self.key.len()
            + self.records.len()
            + self.metadata.len()
            + self.check.table.len()
            + self.body.len();
        round_up(len as u64, GRANULE)
    }

    /// What the slot holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its slice key, if it is a slice.
    pub fn slice_key(&self) -> Option<SliceKey> {
        let key = <&[u8; SliceKey::LEN]>::try_from(self.key).ok()?;
        (self.kind == Kind::Slice).then(|| SliceKey::decode(key))
    }

    /// The object whose head it is, if it is one.
    pub fn object_head(&self) -> Option<ObjectHead> {
        if self.kind != Kind::Head {
            return None;
        }
        ObjectHead::decode(self.body).ok()
    }

    /// When it was stored and when it ends.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Number of tombstones it holds.
    pub fn tombstone_count(&self) -> usize {
        if self.kind == Kind::Tombstones { self.metadata.len() / TOMBSTONE_LEN } else { 0 }
    }

    /// Number of purge records it holds.
    pub fn purge_record_count(&self) -> usize {
        if self.kind == Kind::PurgeRecords { self.metadata.len() / PURGE_RECORD_LEN } else { 0 }
    }

    /// The metadata; tombstones and purge records are encoded here.
    pub fn metadata(&self) -> &[u8] {
        self.metadata
    }

    /// The header, once the slot's sequence is drawn.
    #[expect(clippy::expect_used, reason = "the caller checked the limits of the format")]
    pub fn header(&self, sequence: Sequence, supersedes: bool) -> EntryHeader {
        EntryHeader {
            kind: self.kind,
            supersedes,
            key_len: u16::try_from(self.key.len()).expect("key within its limit"),
            records_len: u16::try_from(self.records.len()).expect("records within their limit"),
            metadata_len: u32::try_from(self.metadata.len()).expect("metadata within its limit"),
            body_len: u32::try_from(self.body.len()).expect("body within a slice"),
            sequence,
            stored_at: self.lifetime.stored_at,
            age_secs: self.lifetime.age_secs,
            fresh_until: self.lifetime.fresh_until,
            keep_until: self.lifetime.keep_until,
            meta_checksum: self.meta_checksum,
            body_checksum: self.check.single,
        }
    }

    /// Writes the whole slot into `target`, which has exactly its length.
    pub fn write_into(&self, target: &mut [u8], header: &EntryHeader, seed: Seed, offset: u64) {
        target[..ENTRY_HEADER_LEN].copy_from_slice(&header.encode(seed, offset));
        self.write_behind_header(target);
    }

    /// Writes all but the header, for an entry in memory, which keeps the header decoded.
    pub fn write_behind_header(&self, target: &mut [u8]) {
        let mut at = ENTRY_HEADER_LEN;
        for part in [self.key, &self.records, self.metadata, &self.check.table, self.body] {
            target[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        target[at..].fill(0);
    }
}

/// Room that a slot takes in a region: enough to reserve it before its sequence is drawn.
#[derive(Clone, Copy, Debug)]
pub struct SlotSize {
    /// Bytes, padded to the granule.
    pub len: u64,
    /// Tombstones, for the footer.
    pub tombstones: usize,
    /// Purge records, for the footer.
    pub purge_records: usize,
}

impl SlotSize {
    /// Size of a slot of `count` tombstones.
    pub fn of_tombstones(count: usize) -> SlotSize {
        let len = round_up((ENTRY_HEADER_LEN + count * TOMBSTONE_LEN) as u64, GRANULE);
        SlotSize { len, tombstones: count, purge_records: 0 }
    }

    /// Size of a slot of `count` purge records.
    pub fn of_purge_records(count: usize) -> SlotSize {
        let len = round_up((ENTRY_HEADER_LEN + count * PURGE_RECORD_LEN) as u64, GRANULE);
        SlotSize { len, tombstones: 0, purge_records: count }
    }
}

/// Most tombstones in one slot: it is copied under the append lock.
pub const TOMBSTONES_PER_SLOT_MAX: usize = 500;
const _: () = assert!(TOMBSTONES_PER_SLOT_MAX * TOMBSTONE_LEN + ENTRY_HEADER_LEN < COPY_LEN_MAX);
/// Most purge records in one slot, for the same reason.
pub const PURGE_RECORDS_PER_SLOT_MAX: usize = 300;
const _: () =
    assert!(PURGE_RECORDS_PER_SLOT_MAX * PURGE_RECORD_LEN + ENTRY_HEADER_LEN < COPY_LEN_MAX);
