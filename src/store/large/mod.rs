//! Objects of many slices. Owns what a store knows of them: their claims on regions, which are being
//! read, and the dead ones whose slices wait to be dropped. How they are stored and read, the files
//! here say.

pub(super) mod claims;
pub(super) mod coverage;
mod discards;
pub(super) mod granules;
pub(super) mod heads;
pub(super) mod object;
pub(super) mod parts;
pub(super) mod ranges;
pub(super) mod slice_place;
pub(super) mod slices;
pub(super) mod upload;

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::format::{Layout, Sequence};
use crate::store::large::claims::Claims;
use crate::store::large::granules::Granules;
use crate::store::region::table::RegionTable;

/// Deaths of large objects whose slices wait to be dropped; beyond it they stay until their region is
/// reclaimed.
const DISCARDS_MAX: usize = 1024;
/// Most slices of one of them: an object of parts may have many more than were ever stored, and each costs up to 18
/// probes of the index. 1 TiB of parts.
const DISCARDED_SLICES_MAX: u32 = 16 << 20;

/// What a store knows of large objects.
pub(super) struct Large {
    /// A leaf lock.
    pub claims: Mutex<Claims>,
    /// Number of readers of each: its slices are not discarded meanwhile.
    readers: DashMap<Sequence, usize>,
    discards: Mutex<VecDeque<Discard>>,
    pub granules: Granules,
}

/// Slices of an object that nobody can reach any more.
pub(super) struct Discard {
    pub object: Sequence,
    /// The first one that is not dropped yet.
    pub next: u32,
    pub slice_count: u32,
    /// There may be fragments of them.
    pub may_be_partial: bool,
}

impl Large {
    /// Nothing is known of any.
    pub fn new(layout: &Layout, regions: Arc<RegionTable>) -> Large {
        Large {
            claims: Mutex::new(Claims::new(layout, regions)),
            readers: DashMap::new(),
            discards: Mutex::default(),
            granules: Granules::default(),
        }
    }

    /// Somebody begins to read an object.
    pub fn begin_reading(&self, object: Sequence) {
        *self.readers.entry(object).or_insert(0) += 1;
    }

    /// Somebody reads an object no more; true if there are slices to be dropped, which may be its own.
    pub fn end_reading(&self, object: Sequence) -> bool {
        self.readers.remove_if_mut(&object, |_, count| {
            *count -= 1;
            *count == 0
        });
        !self.discards.lock().is_empty()
    }

    /// Queues the slices of a dead object to be dropped.
    pub fn discard(&self, object: Sequence, slice_count: u32, may_be_partial: bool) {
        self.claims.lock().end_claim(object);
        let mut discards = self.discards.lock();
        if discards.len() < DISCARDS_MAX && slice_count <= DISCARDED_SLICES_MAX {
            discards.push_back(Discard { object, next: 0, slice_count, may_be_partial });
        }
    }

    /// The next dead object that nobody reads.
    pub fn next_discard(&self) -> Option<Discard> {
        let mut discards = self.discards.lock();
        let idle = |discard: &Discard| !self.is_held(discard.object);
        discards.iter().position(idle).and_then(|n| discards.remove(n))
    }

    /// Puts back one of which slices are left: others come first.
    pub fn put_back(&self, discard: Discard) {
        self.discards.lock().push_back(discard);
    }

    /// Whether somebody reads an object, or changes its head.
    pub fn is_held(&self, object: Sequence) -> bool {
        self.readers.contains_key(&object)
    }
}
