//! One shard of the index: a cuckoo table of cache lines, rebuilt in small steps of size. Owns where an
//! entry is; never locks, and does not look at what an entry means.
//!
//! A print names two of any number of buckets (Pagh and Rodler, "Cuckoo hashing", 2001; several
//! entries to a bucket after Dietzfelbinger and Weidling, 2005), so entries can be moved without their
//! keys. If too many prints are equal, the rest goes to an overflow list.

use crate::store::index::bucket::{Bucket, Print, WAYS};
use crate::store::index::index_entry::{IndexEntry, Location};
use crate::store::index::table::Table;
use smallvec::SmallVec;

/// Percent of ways in use above which a shard grows. With two buckets of seven ways nearly everything
/// fits up to 99, but ever more slowly.
const LOAD_PERCENT_MAX: usize = 96;
/// Percent of ways in use below which a shard shrinks.
const LOAD_PERCENT_MIN: usize = 78;
/// If an entry finds no place: at this load or above the shard grows; below, too many prints are equal.
const LOAD_PERCENT_CROWDED: usize = 85;
/// A rebuilt shard has room for a twelfth to a sixth more entries than it must. The fraction varies, so
/// that not all shards grow at the same size of the index.
const ROOM_SHARE: usize = 12;
/// Buckets visited to make room for one entry.
const STEPS_MAX: usize = 64;

/// Entries that may belong to one key.
pub type Candidates = SmallVec<[IndexEntry; 2]>;

/// Where an entry is.
#[derive(Clone, Copy)]
pub(super) enum Spot {
    Bucket(usize, usize),
    Overflow(usize),
}

/// A bucket on the way to a free place, and the entry that would move here: step and way.
#[derive(Clone, Copy)]
struct Step {
    bucket: usize,
    from: Option<(usize, usize)>,
}

/// The entries of all keys with the same low hash bits.
#[derive(Default)]
pub(super) struct Shard {
    buckets: Table,
    /// Entries in buckets.
    placed: usize,
    overflow: Vec<(Print, IndexEntry)>,
}

/// The two buckets of a print among `count`; equal only if there is just one.
fn homes(print: Print, count: usize) -> [usize; 2] {
    // Odd constants of the golden ratio and of MurmurHash3; the top bits choose the bucket.
    let mixed = print.bits().wrapping_mul(0x9E37_79B1);
    let remixed = (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B);
    let scale = |bits: u32| ((u64::from(bits) * count as u64) >> 32) as usize;
    let (first, second) = (scale(mixed), scale(remixed));
    if first != second {
        [first, second]
    } else {
        [first, if first + 1 == count { 0 } else { first + 1 }]
    }
}

/// Most entries that `count` buckets may hold.
fn load_max(count: usize) -> usize {
    count * WAYS - count * WAYS * (100 - LOAD_PERCENT_MAX) / 100
}

/// Number of buckets for this many entries and some more.
fn buckets_for(entries: usize, print: Print) -> usize {
    let least = (entries * 100).div_ceil(WAYS * LOAD_PERCENT_MAX);
    let part = least / ROOM_SHARE;
    least + part + ((part * (print.bits() as usize & 0xFF)) >> 8)
}

impl Shard {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.placed + self.overflow.len()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.buckets.heap_bytes() + self.overflow.capacity() * size_of::<(Print, IndexEntry)>()
    }

    /// All entries with their prints.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Print, IndexEntry)> + '_ {
        self.buckets.iter().flat_map(Bucket::iter).chain(self.overflow.iter().copied())
    }

    /// Entries with this print.
    pub(super) fn candidates(&self, print: Print) -> Candidates {
        let mut found = Candidates::new();
        self.each_candidate(print, |entry| found.push(entry));
        found
    }

    /// Shows each entry with this print.
    pub(super) fn each_candidate(&self, print: Print, mut show: impl FnMut(IndexEntry)) {
        let homes = homes(print, self.buckets.len());
        let [Some(first), Some(second)] = homes.map(|home| self.buckets.get(home)) else {
            return;
        };
        // Load both cache lines before looking at either.
        let marked = [first.marked(print), second.marked(print)];
        first.matching(marked[0], print).for_each(|way| show(first.entry(way)));
        if homes[0] != homes[1] {
            second.matching(marked[1], print).for_each(|way| show(second.entry(way)));
        }
        let equal = self.overflow.iter().filter(|(other, _)| *other == print);
        equal.for_each(|(_, entry)| show(*entry));
    }

    /// The place of the entry with this print and location.
    pub(super) fn find(&self, print: Print, location: Location) -> Option<Spot> {
        for home in homes(print, self.buckets.len()) {
            let bucket = self.buckets.get(home)?;
            let mut ways = bucket.matching(bucket.marked(print), print);
            if let Some(way) = ways.find(|way| bucket.entry(*way).location() == location) {
                return Some(Spot::Bucket(home, way));
            }
        }
        let sought =
            |(other, entry): &(Print, IndexEntry)| *other == print && entry.location() == location;
        self.overflow.iter().position(sought).map(Spot::Overflow)
    }

    /// The entry at a place.
    pub(super) fn entry(&self, spot: Spot) -> IndexEntry {
        match spot {
            Spot::Bucket(home, way) => self.buckets[home].entry(way),
            Spot::Overflow(n) => self.overflow[n].1,
        }
    }

    /// Replaces the entry at a place by one with the same print.
    pub(super) fn set_entry(&mut self, spot: Spot, entry: IndexEntry) {
        match spot {
            Spot::Bucket(home, way) => self.buckets[home].set_entry(way, entry),
            Spot::Overflow(n) => self.overflow[n].1 = entry,
        }
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, print: Print, entry: IndexEntry) {
        self.reserve(1, print);
        if self.place(print, entry) {
            return;
        }
        let ways = self.buckets.len() * WAYS;
        if self.placed * 100 >= ways * LOAD_PERCENT_CROWDED {
            self.rebuild(buckets_for(load_max(self.buckets.len()) + 1, print));
            if self.place(print, entry) {
                return;
            }
        }
        self.overflow.push((print, entry));
    }

    /// Makes room for `more` entries in buckets.
    pub(super) fn reserve(&mut self, more: usize, print: Print) {
        if self.placed + more > load_max(self.buckets.len()) {
            self.rebuild(buckets_for(self.placed + more, print));
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, print: Print, location: Location) -> Option<IndexEntry> {
        let entry = match self.find(print, location)? {
            Spot::Overflow(n) => self.overflow.swap_remove(n).1,
            Spot::Bucket(home, way) => {
                self.placed -= 1;
                let (_, entry) = self.buckets[home].take(way);
                self.refill(home);
                entry
            }
        };
        self.shrink(print);
        Some(entry)
    }

    /// Keeps the entries for which `keep` is true; gives the number of those removed.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(IndexEntry) -> bool) -> usize {
        let before = self.len();
        for bucket in self.buckets.iter_mut() {
            for way in (0..bucket.len()).rev() {
                if !keep(bucket.entry(way)) {
                    bucket.take(way);
                    self.placed -= 1;
                }
            }
        }
        self.overflow.retain(|(_, entry)| keep(*entry));
        let removed = before - self.len();
        if removed > 0 {
            self.place_overflow();
            self.shrink(Print::of(removed as u64));
        }
        removed
    }

    /// Puts an entry into one of its buckets, moving others if necessary.
    fn place(&mut self, print: Print, entry: IndexEntry) -> bool {
        if self.buckets.len() == 0 {
            return false;
        }
        let homes = homes(print, self.buckets.len());
        let placed = homes.iter().any(|home| self.buckets[*home].push(print, entry))
            || self.make_room(homes).is_some_and(|home| self.buckets[home].push(print, entry));
        self.placed += usize::from(placed);
        placed
    }

    /// Moves entries between buckets until one of two full ones has room; gives that one. Searches
    /// breadth first, so that few entries move.
    fn make_room(&mut self, homes: [usize; 2]) -> Option<usize> {
        let mut steps: SmallVec<[Step; STEPS_MAX]> = SmallVec::new();
        steps.extend(homes.map(|bucket| Step { bucket, from: None }));
        let mut at = 0;
        while at < steps.len() {
            let bucket = steps[at].bucket;
            for way in 0..WAYS {
                let [first, second] = self.homes_of(bucket, way);
                let target = if first == bucket { second } else { first };
                if !self.buckets[target].is_full() {
                    return Some(self.shift(&steps, (at, way), target));
                }
                // Each bucket only once, or an entry would be moved twice.
                if steps.len() < STEPS_MAX && steps.iter().all(|step| step.bucket != target) {
                    steps.push(Step { bucket: target, from: Some((at, way)) });
                }
            }
            at += 1;
        }
        None
    }

    fn homes_of(&self, bucket: usize, way: usize) -> [usize; 2] {
        homes(self.buckets[bucket].print(way), self.buckets.len())
    }

    /// Moves the entry at `last` to `target`, then each entry of its path one step on.
    fn shift(&mut self, steps: &[Step], last: (usize, usize), mut target: usize) -> usize {
        let mut from = Some(last);
        while let Some((at, way)) = from {
            let (print, entry) = self.buckets[steps[at].bucket].take(way);
            let pushed = self.buckets[target].push(print, entry);
            assert!(pushed, "the entry before made room");
            target = steps[at].bucket;
            from = steps[at].from;
        }
        target
    }

    /// Moves one entry from the overflow to this bucket, if it belongs there and there is room.
    fn refill(&mut self, home: usize) {
        let count = self.buckets.len();
        let belongs = |(print, _): &(Print, IndexEntry)| homes(*print, count).contains(&home);
        if let Some(n) = self.overflow.iter().position(belongs) {
            let (print, entry) = self.overflow.swap_remove(n);
            self.placed += usize::from(self.buckets[home].push(print, entry));
        }
    }

    fn place_overflow(&mut self) {
        if self.overflow.is_empty() {
            return;
        }
        for (print, entry) in std::mem::take(&mut self.overflow) {
            if !self.place(print, entry) {
                self.overflow.push((print, entry));
            }
        }
    }

    /// Gives memory back after entries were removed.
    fn shrink(&mut self, print: Print) {
        if self.overflow.capacity() > self.overflow.len() * 4 {
            self.overflow.shrink_to(self.overflow.len() * 2);
        }
        if self.placed * 100 < self.buckets.len() * WAYS * LOAD_PERCENT_MIN {
            let count = buckets_for(self.placed, print);
            if count < self.buckets.len() {
                self.rebuild(count);
            }
        }
    }

    /// Places every entry again in `count` buckets.
    fn rebuild(&mut self, count: usize) {
        let old = std::mem::replace(&mut self.buckets, Table::new(count));
        self.placed = 0;
        for (print, entry) in old.iter().flat_map(Bucket::iter) {
            if !self.place(print, entry) {
                self.overflow.push((print, entry));
            }
        }
        self.place_overflow();
    }
}
