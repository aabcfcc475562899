//! An entry in memory, decoded and verified: what lookups give and the RAM tier keeps.

use bytes::Bytes;

use super::request::Lifetime;
use super::word::Location;
use crate::format::{EntryHeader, Kind, ObjectHead, Sequence};

/// Where an entry is, in which life of the region: never the same for two entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The slot's place on the device.
    pub location: Location,
    /// The region's life.
    pub generation: Sequence,
}

/// A whole slot in memory. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct Entry {
    header: EntryHeader,
    slot: Bytes,
    place: Place,
    /// Bytes that the slot keeps allocated.
    footprint: usize,
}

impl Entry {
    /// An entry whose `slot` was checked against `header`.
    pub(super) fn new(header: EntryHeader, slot: Bytes, place: Place) -> Entry {
        let footprint = slot.len();
        Entry { header, slot, place, footprint }
    }

    /// The same entry, whose bytes keep a buffer of `footprint` bytes allocated.
    pub(super) fn with_footprint(self, footprint: usize) -> Entry {
        Entry { footprint, ..self }
    }

    /// The same entry with another lifetime.
    pub(super) fn with_lifetime(&self, lifetime: Lifetime) -> Entry {
        let mut entry = self.clone();
        entry.header.fresh_until = lifetime.fresh_until;
        entry.header.keep_until = lifetime.keep_until;
        entry
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

    /// Position in the order of mutations; the CAS value.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.header.sequence
    }

    /// When it was stored and when it ends.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            stored_at: self.header.stored_at,
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
    pub fn metadata(&self) -> Bytes {
        self.slot.slice(self.header.metadata_range())
    }

    /// The body, or the piece of it in this slot.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.slot.slice(self.header.body_range())
    }

    /// Where the real body is, when this entry is only the head of an object.
    #[must_use]
    pub fn object_head(&self) -> Option<ObjectHead> {
        if self.header.kind != Kind::Head {
            return None;
        }
        ObjectHead::decode(&self.slot[self.header.body_range()]).ok()
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.footprint + size_of::<Entry>()
    }
}
