//! The purge records of one kind, hard or soft. Owns which entries they cover, how many there are at most,
//! and the floor into which the oldest go. Pure: knows no log, no lock and no time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::format::{PurgeRecord, Selector, Sequence};

/// Most records of one kind. A record takes up to some 120 bytes in map and order: both kinds at most 16 MiB.
pub const RECORDS_MAX: usize = 64 << 10;

/// A position in the order of purges, as far as is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Entries with a lower sequence are covered.
    pub sequence: Sequence,
    /// Counts the records of this run, from 2 on; 1 if it was found at the start. Two records may have one
    /// sequence, as long as no epoch has begun.
    pub number: u64,
}

/// Up to where records do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Those up to this sequence: it is the entry's.
    Sequence(Sequence),
    /// Those up to this number: that was the last when a store began.
    Number(u64),
}

impl Since {
    fn is_before(self, known: &Known) -> bool {
        match self {
            Since::Sequence(sequence) => sequence < known.sequence,
            Since::Number(number) => number < known.number,
        }
    }
}

/// What is asked about: the key of an entry, and the hashes of its tags.
#[derive(Clone, Copy)]
pub struct Subject<'a, T> {
    /// The key.
    pub key: &'a [u8],
    /// The tags.
    pub tags: T,
}

/// Hashes of the beginnings of a key, each made once for both kinds of records.
pub struct Prefixes<'a> {
    key: &'a [u8],
    start: SipHasher13,
    /// With the first bytes of the key.
    hasher: SipHasher13,
    /// How many.
    hashed: usize,
    /// By length, the shortest first.
    known: SmallVec<[(u16, u64); 32]>,
}

impl<'a> Prefixes<'a> {
    /// None yet.
    pub fn new(key: &'a [u8], hasher: SipHasher13) -> Prefixes<'a> {
        Prefixes { key, start: hasher, hasher, hashed: 0, known: SmallVec::new() }
    }

    /// The hash of the first `len` bytes, if the key has so many. Asked for longer and longer ones.
    fn hash(&mut self, len: u16) -> Option<u64> {
        if let Ok(at) = self.known.binary_search_by_key(&len, |(len, _)| *len) {
            return Some(self.known[at].1);
        }
        let end = usize::from(len);
        let Some(more) = self.key.get(self.hashed..end) else {
            // The table that was asked before has longer ones, and not this.
            return self.key.get(..end).map(|beginning| self.start.hash(beginning));
        };
        self.hasher.write(more);
        self.hashed = end;
        let hash = self.hasher.finish();
        self.known.push((len, hash));
        Some(hash)
    }
}

/// The oldest records went into the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// Entries with a lower sequence are covered, whatever they are.
    pub floor: Sequence,
    /// Records that went into it.
    pub count: usize,
}

/// The hashes are keyed with a secret: any of their bits will do.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ByHash = HashMap<u64, Known, BuildHasherDefault<AsItIs>>;

/// The records of one kind, the newest of each selector.
pub struct Table {
    records_max: usize,
    tags: ByHash,
    /// By length in bytes.
    prefixes: BTreeMap<u16, ByHash>,
    /// All of them, the oldest first.
    order: BTreeSet<(Sequence, u64, Selector)>,
    /// Everything older is covered.
    floor: Known,
    /// The highest sequence and number so far, the floor's included.
    newest: Known,
}

impl Table {
    /// An empty table of at most `records_max` records.
    pub fn new(records_max: usize, floor: Sequence) -> Table {
        let floor = Known { sequence: floor, number: 1 };
        Table {
            records_max,
            tags: ByHash::default(),
            prefixes: BTreeMap::new(),
            order: BTreeSet::new(),
            floor,
            newest: floor,
        }
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Everything with a lower sequence is covered.
    pub fn floor(&self) -> Sequence {
        self.floor.sequence
    }

    /// The records, the oldest first; `is_soft` says of which kind they are.
    pub fn records(&self, is_soft: bool) -> impl Iterator<Item = PurgeRecord> + '_ {
        self.order.iter().map(move |&(sequence, _, what)| PurgeRecord { sequence, what, is_soft })
    }

    /// The sequence of the last record of a selector.
    pub fn last_of(&self, what: Selector) -> Option<Sequence> {
        self.known(what).map(|known| known.sequence)
    }

    /// Adds a record. With one too many the oldest half goes into the floor.
    pub fn insert(&mut self, what: Selector, known: Known) -> Option<Folded> {
        self.note_newest(known);
        let before = self.known(what);
        if known.sequence <= self.floor.sequence && known.number <= self.floor.number
            || before.is_some_and(|before| before.sequence > known.sequence)
        {
            return None;
        }
        if let Some(before) = before {
            self.order.remove(&(before.sequence, before.number, what));
        }
        let number = before.map_or(known.number, |before| before.number.max(known.number));
        let known = Known { number, ..known };
        match what {
            Selector::Tag(hash) => self.tags.insert(hash, known),
            Selector::Prefix { len, hash } => {
                self.prefixes.entry(len).or_default().insert(hash, known)
            }
        };
        self.order.insert((known.sequence, known.number, what));
        (self.order.len() > self.records_max).then(|| self.fold())
    }

    /// Puts the oldest half into the floor.
    fn fold(&mut self) -> Folded {
        let half = self.order.len() - self.records_max / 2;
        let mut oldest = self.order.iter();
        let until = oldest.by_ref().take(half).last().map_or(Sequence(0), |(until, ..)| *until);
        let kept = oldest.find(|(sequence, ..)| *sequence > until).copied();
        let kept = kept.map(|first| self.order.split_off(&first)).unwrap_or_default();
        let folded = std::mem::replace(&mut self.order, kept);
        // At once: one by one they cost ten times as much, under the append lock.
        self.tags.retain(|_, known| known.sequence > until);
        self.prefixes.retain(|_, of_len| {
            of_len.retain(|_, known| known.sequence > until);
            !of_len.is_empty()
        });
        let number = folded.iter().map(|(_, number, _)| *number).max().unwrap_or_default();
        self.raise(Known { sequence: until, number });
        Folded { floor: self.floor.sequence, count: folded.len() }
    }

    /// Covers everything up to here; the records that say no more than that go.
    pub fn raise_floor(&mut self, floor: Known) {
        self.note_newest(floor);
        self.raise(floor);
        while let Some(&first) = self.order.first()
            && first.0 <= self.floor.sequence
        {
            self.drop_record(first);
            self.raise(Known { sequence: first.0, number: first.1 });
        }
    }

    /// Forgets up to `limit` records that nothing can need: all entries have higher sequences than `oldest`, and
    /// all stores in progress began after number `seen`. Gives how many.
    pub fn compact(&mut self, (oldest, seen): (Sequence, u64), limit: usize) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(&first) = self.order.first()
            && first.0 <= oldest
            && first.1 <= seen
        {
            self.drop_record(first);
            count += 1;
        }
        count
    }

    /// Whether a record, or the floor, covers an entry.
    pub fn covers(
        &self,
        since: Since,
        mut tags: impl Iterator<Item = u64>,
        prefixes: &mut Prefixes<'_>,
    ) -> bool {
        if !since.is_before(&self.newest) {
            return false;
        }
        if since.is_before(&self.floor) {
            return true;
        }
        let is_covered =
            |of: &ByHash, hash: u64| of.get(&hash).is_some_and(|known| since.is_before(known));
        if !self.tags.is_empty() && tags.any(|tag| is_covered(&self.tags, tag)) {
            return true;
        }
        for (len, records) in &self.prefixes {
            let Some(hash) = prefixes.hash(*len) else { return false };
            if is_covered(records, hash) {
                return true;
            }
        }
        false
    }

    fn known(&self, what: Selector) -> Option<Known> {
        match what {
            Selector::Tag(hash) => self.tags.get(&hash).copied(),
            Selector::Prefix { len, hash } => self.prefixes.get(&len)?.get(&hash).copied(),
        }
    }

    fn raise(&mut self, floor: Known) {
        self.floor.sequence = self.floor.sequence.max(floor.sequence);
        self.floor.number = self.floor.number.max(floor.number);
    }

    fn note_newest(&mut self, known: Known) {
        self.newest.sequence = self.newest.sequence.max(known.sequence);
        self.newest.number = self.newest.number.max(known.number);
    }

    fn drop_record(&mut self, record: (Sequence, u64, Selector)) {
        self.order.remove(&record);
        match record.2 {
            Selector::Tag(hash) => {
                self.tags.remove(&hash);
            }
            Selector::Prefix { len, hash } => {
                if let Some(of_len) = self.prefixes.get_mut(&len) {
                    of_len.remove(&hash);
                    if of_len.is_empty() {
                        self.prefixes.remove(&len);
                    }
                }
            }
        }
    }
}
