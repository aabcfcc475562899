//! Large objects that must be whole: those stored less than a turn of the log ago, in this life. Owns
//! when that ends.

use std::collections::HashMap;

use super::change::Change;
use super::{History, Lookup, OPEN, Tick};

/// Large objects stored or in progress in this life.
#[derive(Default)]
pub struct Turn {
    stores: HashMap<u64, Large>,
}

/// The store of a large object.
struct Large {
    began: Tick,
    end: Tick,
    len: u64,
    /// Bytes of bodies that clients had stored when it was published.
    published: Option<u64>,
}

/// How much has been stored so far, and how much the device has.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Bytes of bodies since the life began.
    pub bytes: u64,
    pub device: u64,
    /// Bytes of large objects that it has room for: half of it, less where blocks are wide.
    pub room: u64,
}

impl History {
    /// The store of a large object began at `began`.
    pub fn begin_large(&mut self, id: u64, began: Tick, len: u64) {
        self.turn.stores.insert(id, Large { began, end: OPEN, len, published: None });
    }

    /// An update of a large object is about to give its body to another version.
    pub fn begin_update(&mut self, base: u64, id: u64) {
        let (began, published) = match self.turn.stores.get(&base) {
            Some(Large { began, published: Some(published), .. }) => (*began, *published),
            _ => return,
        };
        let updated = Large { began, end: OPEN, len: 0, published: Some(published) };
        self.turn.stores.insert(id, updated);
    }

    /// The store of an object ended; with how much was stored so far, if it was.
    pub fn end_large(&mut self, id: u64, published: Option<Stored>) {
        let end = self.tick();
        if let Some(store) = self.turn.stores.get_mut(&id) {
            store.end = end;
            store.published = published.map(|stored| stored.bytes);
        }
    }

    /// A key was not found: a violation if it had a large object that must be whole.
    pub fn check_turn(&mut self, lookup: Lookup, now: u32, stored: Stored) {
        let Some(history) = self.keys.get(&lookup.key) else { return };
        let lost = history.changes.iter().find(|change| {
            let is_there = change.certain && change.end < lookup.began;
            is_there && self.must_be_whole(Lookup { now, ..lookup }, change, stored)
        });
        if let Some(id) = lost.and_then(|change| change.version) {
            let key = lookup.key;
            self.violate(format!("key {key}: version {id} is lost within a turn of the log"));
        }
    }

    /// A body was cut short: a violation if its object must be whole.
    pub fn check_cut(&mut self, id: u64, now: u32, stored: Stored) {
        let Some(key) = self.versions.get(&id).map(|version| version.key) else { return };
        let Some(change) = self.keys.get(&key).and_then(|key| key.of_version(id)) else { return };
        let lookup = Lookup { key, stale_ok: false, began: self.tick, now };
        if change.certain && self.must_be_whole(lookup, change, stored) {
            self.violate(format!("version {id} was cut short within a turn of the log"));
        }
    }

    fn must_be_whole(&self, lookup: Lookup, change: &Change, stored: Stored) -> bool {
        let own = change.version.and_then(|id| self.turn.stores.get(&id));
        let Some(Large { began, published: Some(published), .. }) = own else { return false };
        // A slot takes more than its body.
        let is_within = stored.bytes.saturating_sub(*published) < stored.device / 4 * 3;
        // Too many objects: some must be evicted, and moved ones are not in their order any more.
        let counts = |store: &&Large| {
            store.end >= *began
                || store.published.is_some_and(|at| stored.bytes < at + stored.device)
        };
        let all = self.turn.stores.values().filter(counts);
        let are_too_many = all.map(|store| store.len).sum::<u64>() > stored.room;
        is_within
            && !are_too_many
            && self.is_last(lookup.key, change)
            && self.outlives(lookup, change, lookup.now)
    }
}
