//! An entry in memory, decoded and verified: lookups return it and the RAM tier keeps it.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::format::{
    BODY_CHUNK, EntryHeader, GRANULE, Kind, ObjectHead, Records, Sequence, SliceKey, round_up,
};
use crate::store::log::slot::Slot;
use crate::store::mutation::request::Lifetime;
use crate::store::place::Place;

/// Slots up to this length are stored next to their reference count.
const BESIDE_COUNT_LEN_MAX: usize = 4096;

/// The shared bytes of a slot. A small one is a single allocation: [`Bytes`] has its count in another,
/// which costs a lookup in the RAM tier one more cache miss.
#[derive(Clone, Debug)]
pub(super) enum SlotBytes {
    Small(Arc<[u8]>),
    Large(Bytes),
}

impl SlotBytes {
    fn share(&self, range: Range<usize>) -> Bytes {
        match self {
            SlotBytes::Small(bytes) => Bytes::copy_from_slice(&bytes[range]),
            SlotBytes::Large(bytes) => bytes.slice(range),
        }
    }
}

impl SlotBytes {
    /// Copies a slot without its header, which an entry keeps decoded, to its final place.
    pub(super) fn of(slot: &Slot<'_>) -> SlotBytes {
        let len = usize::try_from(slot.len()).unwrap_or(usize::MAX);
        if len > BESIDE_COUNT_LEN_MAX {
            let mut bytes = vec![0; len];
            slot.write_behind_header(&mut bytes);
            return SlotBytes::Large(Bytes::from(bytes));
        }
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        slot.write_behind_header(Arc::make_mut(&mut bytes));
        SlotBytes::Small(bytes)
    }
}

impl From<&[u8]> for SlotBytes {
    fn from(bytes: &[u8]) -> SlotBytes {
        match bytes.len() {
            0..=BESIDE_COUNT_LEN_MAX => SlotBytes::Small(Arc::from(bytes)),
            _ => SlotBytes::Large(Bytes::copy_from_slice(bytes)),
        }
    }
}

impl From<Vec<u8>> for SlotBytes {
    fn from(bytes: Vec<u8>) -> SlotBytes {
        match bytes.len() {
            0..=BESIDE_COUNT_LEN_MAX => SlotBytes::Small(Arc::from(bytes)),
            _ => SlotBytes::Large(Bytes::from(bytes)),
        }
    }
}

impl Deref for SlotBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            SlotBytes::Small(bytes) => bytes,
            SlotBytes::Large(bytes) => bytes,
        }
    }
}

/// A whole slot in memory. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct Entry {
    header: EntryHeader,
    slot: SlotBytes,
    place: Place,
    /// Bytes of the buffer that the slot keeps allocated.
    footprint: usize,
    /// Number of the last purge of which a copy in RAM knows that it does not cover it.
    checked: Option<Arc<AtomicU64>>,
}

impl Entry {
    /// An entry whose `slot` was verified against `header`.
    pub(super) fn new(header: EntryHeader, slot: SlotBytes, place: Place) -> Entry {
        let footprint = slot.len();
        Entry { header, slot, place, footprint, checked: None }
    }

    /// The same entry; its bytes keep a buffer of `footprint` bytes allocated.
    pub(super) fn with_footprint(self, footprint: usize) -> Entry {
        Entry { footprint, ..self }
    }

    /// The same entry with another lifetime.
    pub(super) fn with_lifetime(&self, lifetime: Lifetime) -> Entry {
        let mut entry = self.clone();
        entry.header.stored_at = lifetime.stored_at;
        entry.header.age_secs = lifetime.age_secs;
        entry.header.fresh_until = lifetime.fresh_until;
        entry.header.keep_until = lifetime.keep_until;
        entry
    }

    /// The same entry, stale from `now` on if it was not before.
    pub(super) fn stale_from(&self, now: Timestamp) -> Entry {
        let mut entry = self.clone();
        entry.header.fresh_until = entry.header.fresh_until.min(now);
        entry
    }

    /// The same entry; its clones share which purge was the last that was asked of it.
    pub(super) fn with_memory(&self, checked: u64) -> Entry {
        Entry { checked: Some(Arc::new(AtomicU64::new(checked))), ..self.clone() }
    }

    /// Number of the last purge of which it is known that it does not cover the entry.
    pub(super) fn checked(&self) -> u64 {
        self.checked.as_ref().map_or(0, |checked| checked.load(Ordering::Relaxed))
    }

    /// Notes that no purge up to `number` covers it; false if it cannot remember.
    pub(super) fn note_checked(&self, number: u64) -> bool {
        if let Some(checked) = &self.checked {
            checked.fetch_max(number, Ordering::Relaxed);
        }
        self.checked.is_some()
    }

    /// Keyed hashes of its tags; none if they were not read.
    pub(crate) fn tags(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        Records::tags_in(self.record_bytes())
    }

    /// Whether it is stale whatever its times say: a soft purge covered it when it was written again.
    pub(super) fn is_marked_stale(&self) -> bool {
        Records::is_stale_in(self.record_bytes())
    }

    /// Where the entry is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// What the slot holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// Position in the order of mutations.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.header.sequence
    }

    /// Version of the object: the CAS value. It stays when the entry is written again.
    #[must_use]
    pub fn version(&self) -> Sequence {
        Records::version_in(self.record_bytes()).unwrap_or(self.header.sequence)
    }

    /// Bytes of its slot, padded to the granule.
    pub(super) fn slot_len(&self) -> u64 {
        round_up(self.header.slot_len() as u64, GRANULE)
    }

    /// Whether it has optional records.
    pub(super) fn has_records(&self) -> bool {
        !self.header.records_range().is_empty()
    }

    /// Bytes of its slot before the body.
    pub(super) fn meta_len(&self) -> usize {
        self.header.table_range().end
    }

    /// The optional records that it keeps when it is written again.
    pub(super) fn kept_records(&self) -> Records {
        let version = (self.kind() != Kind::Slice).then(|| self.version());
        Records { version, ..self.records() }
    }

    /// The optional records; none if they were not read.
    pub(super) fn records(&self) -> Records {
        Records::decode(self.record_bytes()).unwrap_or_default()
    }

    /// What all parts of an object share that is stored part by part, if this is the head of one.
    #[must_use]
    pub fn validator(&self) -> Option<Vec<u8>> {
        self.is_partial().then(|| self.records().validator)?
    }

    /// Whether this is the head of an object that is stored part by part.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.header.kind == Kind::Head && Records::is_partial_in(self.record_bytes())
    }

    fn record_bytes(&self) -> &[u8] {
        self.slot.get(self.header.records_range()).unwrap_or_default()
    }

    /// When it was stored and when it ends.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            stored_at: self.header.stored_at,
            age_secs: self.header.age_secs,
            fresh_until: self.header.fresh_until,
            keep_until: self.header.keep_until,
        }
    }

    /// The key; empty if it was not read whole.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.slot.get(self.header.key_range()).unwrap_or_default()
    }

    /// The caller's metadata.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.slot[self.header.metadata_range()]
    }

    /// The body, or this slot's piece of it.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.slot[self.header.body_range()]
    }

    /// As [`Entry::body`], to keep: shared if long, copied if short.
    #[must_use]
    pub fn shared_body(&self) -> Bytes {
        self.slot.share(self.header.body_range())
    }

    /// Length in bytes of the body, or of this slot's piece of it.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.header.body_len as usize
    }

    /// A copy without the body, but with its checksums. Do not ask it for the body.
    pub(super) fn without_body(&self) -> Entry {
        let slot = SlotBytes::from(&self.slot[..self.header.table_range().end]);
        Entry::new(self.header, slot, self.place)
    }

    /// Whether the body is here too.
    pub(super) fn has_body(&self) -> bool {
        self.slot.len() >= self.header.body_range().end
    }

    /// Byte range in the slot of the bytes `within` of the body.
    pub(super) fn range_in_slot(&self, within: &Range<usize>) -> Range<u64> {
        let start = self.header.body_range().start;
        (start + within.start) as u64..(start + within.end) as u64
    }

    /// Whether `bytes` match the body from the start of chunk `first` on.
    pub(super) fn are_chunks(&self, bytes: &[u8], first: usize) -> bool {
        let table = &self.slot[self.header.table_range()];
        let mut chunks = bytes.chunks(BODY_CHUNK).zip(first..);
        chunks.all(|(chunk, index)| {
            self.header.chunk_checksum(table, index) == Some(crc32fast::hash(chunk))
        })
    }

    /// Describes the real body, if this entry is the head of a large object.
    #[must_use]
    pub fn object_head(&self) -> Option<ObjectHead> {
        if self.header.kind != Kind::Head {
            return None;
        }
        ObjectHead::decode(self.body()).ok()
    }

    /// The large object to which it belongs as a slice or the head, if any.
    pub(super) fn large_object(&self) -> Option<Sequence> {
        if let Some(head) = self.object_head() {
            return Some(head.object);
        }
        let key = <&[u8; SliceKey::LEN]>::try_from(self.key()).ok()?;
        (self.kind() == Kind::Slice).then(|| SliceKey::decode(key).object)
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.footprint + size_of::<Entry>()
    }
}
