//! The index: key hash to slot location, about 8 bytes a word, no keys. Owns the
//! words and grows by itself; never does I/O and never compares keys.
//!
//! Shards of linear hashing (Litwin, "Linear hashing: a new tool for file and table
//! addressing", 1980): one bucket is split per growth step, so there is no long
//! pause. A bucket is one cache line: seven words, a tag byte for each, and a mark
//! that the last word names an overflow bucket. Words keep 24 bits of the hash
//! above the first addressing bits; splits consume them, the rest is fingerprint.

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::word::{Location, SizeClass, Word};
use crate::format::Damage;

const SHARD_BITS: u32 = 8;
const BASE_LEVEL: u32 = 4;
/// Lowest hash bit that words keep; the bits below are always implied by the bucket.
const WINDOW_SHIFT: u32 = SHARD_BITS + BASE_LEVEL;
/// Growth stops here: 256 shards of 2^20 buckets.
const LEVEL_MAX: u32 = 20;
const WAYS: usize = 7;
const SEGMENT_BUCKETS: usize = 64;
/// The pool of overflow buckets grows by this many and one part in [`OVERFLOW_STEP_SHARE`].
const OVERFLOW_STEP_MIN: usize = 8;
const OVERFLOW_STEP_SHARE: usize = 8;
/// A bucket is split when the mean load passes this many words per hundred ways.
const LOAD_PERCENT_MAX: usize = 80;

/// Lengths in a dump: the number of words, a word, the hash bits beside a word.
const COUNT_LEN: usize = 4;
const WORD_LEN: usize = 8;
const REST_LEN: usize = 2;
const REST_BITS: u32 = BASE_LEVEL + 8;

/// Words that may belong to one key.
pub type Candidates = SmallVec<[Word; 2]>;

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    words: [u64; WAYS],
    tags: [u8; WAYS],
    /// 1 when `words[WAYS - 1]` is the number of an overflow bucket.
    chained: u8,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    fn ways(&self) -> usize {
        WAYS - usize::from(self.chained)
    }

    fn next(&self) -> Option<usize> {
        (self.chained == 1).then(|| usize::try_from(self.words[WAYS - 1]).unwrap_or(usize::MAX))
    }
}

/// The 24 bits of a hash that a word and its tag keep.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    bits: u16,
    tag: u8,
}

impl Print {
    fn of(key_hash: u64) -> Print {
        let window = key_hash >> WINDOW_SHIFT;
        Print { bits: (window & 0xFFFF) as u16, tag: ((window >> 16) & 0xFF) as u8 }
    }

    /// Bits of the hash from [`WINDOW_SHIFT`] up.
    fn window(self) -> u64 {
        u64::from(self.bits) | u64::from(self.tag) << 16
    }
}

struct Shard {
    segments: Vec<Box<[Bucket; SEGMENT_BUCKETS]>>,
    bucket_count: usize,
    level: u32,
    overflow: Vec<Bucket>,
    overflow_free: Vec<u32>,
    len: usize,
}

/// Where a bucket is: among the addressed ones or in the overflow pool.
#[derive(Clone, Copy)]
enum Home {
    Primary(usize),
    Overflow(usize),
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard {
            segments: Vec::new(),
            bucket_count: 0,
            level: BASE_LEVEL,
            overflow: Vec::new(),
            overflow_free: Vec::new(),
            len: 0,
        };
        for _ in 0..1 << BASE_LEVEL {
            shard.push_bucket();
        }
        shard
    }

    fn push_bucket(&mut self) {
        if self.bucket_count == self.segments.len() * SEGMENT_BUCKETS {
            self.segments.push(Box::new([Bucket::default(); SEGMENT_BUCKETS]));
        }
        self.bucket_count += 1;
    }

    fn bucket(&self, home: Home) -> &Bucket {
        match home {
            Home::Primary(n) => &self.segments[n / SEGMENT_BUCKETS][n % SEGMENT_BUCKETS],
            Home::Overflow(n) => &self.overflow[n],
        }
    }

    fn bucket_mut(&mut self, home: Home) -> &mut Bucket {
        match home {
            Home::Primary(n) => &mut self.segments[n / SEGMENT_BUCKETS][n % SEGMENT_BUCKETS],
            Home::Overflow(n) => &mut self.overflow[n],
        }
    }

    /// The bucket of a hash: by `level + 1` bits where that bucket exists, else by `level` bits.
    fn address(&self, key_hash: u64) -> usize {
        let address = usize::try_from(key_hash >> SHARD_BITS & 0xFFFF_FFFF).unwrap_or(0);
        let wide = address & ((2 << self.level) - 1);
        if wide < self.bucket_count { wide } else { address & ((1 << self.level) - 1) }
    }

    fn homes(&self, key_hash: u64) -> impl Iterator<Item = Home> + '_ {
        let first = Home::Primary(self.address(key_hash));
        std::iter::successors(Some(first), |home| self.bucket(*home).next().map(Home::Overflow))
    }

    fn find(&self, key_hash: u64, location: Location) -> Option<(Home, usize)> {
        self.homes(key_hash).find_map(|home| {
            let bucket = self.bucket(home);
            (0..bucket.ways())
                .find(|way| {
                    bucket.words[*way] != 0 && Word(bucket.words[*way]).location() == location
                })
                .map(|way| (home, way))
        })
    }

    fn candidates(&self, key_hash: u64) -> Candidates {
        let print = Print::of(key_hash);
        let mut found = Candidates::new();
        for home in self.homes(key_hash) {
            let bucket = self.bucket(home);
            for way in 0..bucket.ways() {
                let word = Word(bucket.words[way]);
                if bucket.tags[way] == print.tag
                    && !word.is_empty()
                    && word.hash_bits() == print.bits
                {
                    found.push(word);
                }
            }
        }
        found
    }

    fn insert(&mut self, address: usize, print: Print, word: Word) {
        let mut home = Home::Primary(address);
        loop {
            let bucket = self.bucket_mut(home);
            if let Some(way) = (0..bucket.ways()).find(|way| bucket.words[*way] == 0) {
                bucket.words[way] = word.0;
                bucket.tags[way] = print.tag;
                return;
            }
            home = match bucket.next() {
                Some(next) => Home::Overflow(next),
                None => self.chain(home),
            };
        }
    }

    /// Gives the full bucket at `home` an overflow bucket, which takes over its last word.
    fn chain(&mut self, home: Home) -> Home {
        let fresh = match self.overflow_free.pop() {
            Some(n) => n as usize,
            None => {
                let len = self.overflow.len();
                if len == self.overflow.capacity() {
                    // Doubling would leave up to half of the pool unused.
                    self.overflow.reserve_exact(OVERFLOW_STEP_MIN + len / OVERFLOW_STEP_SHARE);
                }
                self.overflow.push(Bucket::default());
                len
            }
        };
        let bucket = self.bucket_mut(home);
        let (moved, tag) = (bucket.words[WAYS - 1], bucket.tags[WAYS - 1]);
        bucket.words[WAYS - 1] = fresh as u64;
        bucket.tags[WAYS - 1] = 0;
        bucket.chained = 1;
        self.overflow[fresh] = Bucket::default();
        self.overflow[fresh].words[0] = moved;
        self.overflow[fresh].tags[0] = tag;
        Home::Overflow(fresh)
    }

    fn remove(&mut self, key_hash: u64, location: Location) -> Option<Word> {
        let (home, way) = self.find(key_hash, location)?;
        let bucket = self.bucket_mut(home);
        let word = Word(std::mem::take(&mut bucket.words[way]));
        bucket.tags[way] = 0;
        self.len -= 1;
        let address = self.address(key_hash);
        while self.trim(address) {}
        Some(word)
    }

    /// Gives back an empty last overflow bucket of the chain that begins at `address`; false if there is none.
    fn trim(&mut self, address: usize) -> bool {
        let mut home = Home::Primary(address);
        while let Some(next) = self.bucket(home).next() {
            let after = &self.overflow[next];
            if after.chained == 0 && after.words.iter().all(|word| *word == 0) {
                let bucket = self.bucket_mut(home);
                bucket.words[WAYS - 1] = 0;
                bucket.chained = 0;
                self.overflow_free.push(u32::try_from(next).unwrap_or(u32::MAX));
                return true;
            }
            home = Home::Overflow(next);
        }
        false
    }

    fn grow_if_loaded(&mut self) {
        if self.len * 100 <= self.bucket_count * WAYS * LOAD_PERCENT_MAX || self.level >= LEVEL_MAX
        {
            return;
        }
        let source = self.bucket_count - (1 << self.level);
        let target = self.bucket_count;
        let moved = self.drain_chain(source);
        self.push_bucket();
        for (print, word) in moved {
            let bit = print.window() >> (self.level - BASE_LEVEL) & 1;
            self.insert(if bit == 1 { target } else { source }, print, word);
        }
        if self.bucket_count == 2 << self.level {
            self.level += 1;
        }
    }

    fn drain_chain(&mut self, address: usize) -> SmallVec<[(Print, Word); 32]> {
        let mut drained = SmallVec::new();
        let mut home = Home::Primary(address);
        loop {
            let bucket = std::mem::take(self.bucket_mut(home));
            if let Home::Overflow(n) = home {
                self.overflow_free.push(u32::try_from(n).unwrap_or(u32::MAX));
            }
            for way in 0..bucket.ways() {
                let word = Word(bucket.words[way]);
                if !word.is_empty() {
                    drained.push((Print { bits: word.hash_bits(), tag: bucket.tags[way] }, word));
                }
            }
            match bucket.next() {
                Some(next) => home = Home::Overflow(next),
                None => return drained,
            }
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(Word) -> bool) -> usize {
        let mut removed = 0;
        for address in 0..self.bucket_count {
            let drained = self.drain_chain(address);
            for (print, word) in drained {
                if keep(word) {
                    self.insert(address, print, word);
                } else {
                    removed += 1;
                }
            }
        }
        self.len -= removed;
        removed
    }

    fn add(&mut self, key_hash: u64, location: Location, class: SizeClass) {
        let print = Print::of(key_hash);
        let address = self.address(key_hash);
        self.insert(address, print, Word::new(location, class, print.bits));
        self.len += 1;
        self.grow_if_loaded();
    }

    /// All words, each with the hash bits that it does not hold: those of [`BASE_LEVEL`], then the tag.
    fn dump(&self) -> Vec<(Word, u16)> {
        let mut words = Vec::with_capacity(self.len);
        for address in 0..self.bucket_count {
            let low = u16::try_from(address & 0xF).unwrap_or(0);
            let mut home = Some(Home::Primary(address));
            while let Some(bucket) = home.map(|home| self.bucket(home)) {
                let used = (0..bucket.ways()).filter(|way| bucket.words[*way] != 0);
                words.extend(used.map(|way| {
                    (Word(bucket.words[way]), low | u16::from(bucket.tags[way]) << BASE_LEVEL)
                }));
                home = bucket.next().map(Home::Overflow);
            }
        }
        words
    }

    fn add_word(&mut self, shard: usize, word: Word, rest: u16) {
        let (low, tag) = (u64::from(rest) & 0xF, u64::from(rest) >> BASE_LEVEL);
        let window = u64::from(word.hash_bits()) | tag << 16;
        let key_hash = shard as u64 | low << SHARD_BITS | window << WINDOW_SHIFT;
        let address = self.address(key_hash);
        self.insert(address, Print::of(key_hash), word);
        self.len += 1;
        self.grow_if_loaded();
    }

    fn bytes(&self) -> usize {
        self.segments.len() * (SEGMENT_BUCKETS * size_of::<Bucket>() + size_of::<usize>())
            + self.overflow.capacity() * size_of::<Bucket>()
            + self.overflow_free.capacity() * 4
    }
}

/// A word to be inserted in bulk.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Hash of the entry's key.
    pub key_hash: u64,
    /// Place of its slot.
    pub location: Location,
    /// Bound of the slot's length.
    pub class: SizeClass,
}

/// The index of one device.
pub struct Index {
    shards: Box<[Mutex<Shard>]>,
}

/// One shard, locked: what is decided under this lock is atomic for every key in it.
pub struct Locked<'a> {
    shard: parking_lot::MutexGuard<'a, Shard>,
    key_hash: u64,
}

impl Index {
    /// An empty index of about 260 KiB.
    #[must_use]
    pub fn new() -> Index {
        Index { shards: (0..1 << SHARD_BITS).map(|_| Mutex::new(Shard::new())).collect() }
    }

    /// Locks the bucket lock of a key. Held for a few cache lines' work, never across I/O.
    #[must_use]
    pub fn lock(&self, key_hash: u64) -> Locked<'_> {
        Locked { shard: self.shards[Index::shard_of(key_hash)].lock(), key_hash }
    }

    /// Removes every word for which `drop` is true, shard by shard; gives their number.
    pub fn sweep_shard(&self, shard: usize, mut drop: impl FnMut(Word) -> bool) -> usize {
        self.shards[shard].lock().retain(|word| !drop(word))
    }

    /// The shard that holds the words of a key.
    #[must_use]
    pub fn shard_of(key_hash: u64) -> usize {
        usize::try_from(key_hash & ((1 << SHARD_BITS) - 1)).unwrap_or(0)
    }

    /// Adds many words of one shard under one lock.
    ///
    /// # Panics
    /// Panics if a key belongs to another shard.
    pub fn insert_many(&self, shard: usize, words: &[Fresh]) {
        let mut locked = self.shards[shard].lock();
        for fresh in words {
            assert_eq!(Index::shard_of(fresh.key_hash), shard, "a word of another shard");
            locked.add(fresh.key_hash, fresh.location, fresh.class);
        }
    }

    /// Appends the words of one shard to `out`: their number (u32), the words (u64 each), then
    /// for each the hash bits that it does not hold (u16), all little-endian. No checksum.
    ///
    /// # Panics
    /// Panics at 2^32 words in a shard.
    pub fn dump_shard(&self, shard: usize, out: &mut Vec<u8>) {
        let words = self.shards[shard].lock().dump();
        let count = u32::try_from(words.len()).expect("a shard has less than 2^32 words");
        out.reserve(COUNT_LEN + words.len() * (WORD_LEN + REST_LEN));
        out.extend_from_slice(&count.to_le_bytes());
        out.extend(words.iter().flat_map(|(word, _)| word.0.to_le_bytes()));
        out.extend(words.iter().flat_map(|(_, rest)| rest.to_le_bytes()));
    }

    /// Adds the words that [`Index::dump_shard`] wrote for this shard; gives their number.
    ///
    /// # Errors
    /// Fails, and adds nothing, if the bytes cannot be a dump. Locations are checked against no
    /// device, nor hash bits against any key: the caller's checksum must hold.
    pub fn load_shard(&self, shard: usize, bytes: &[u8]) -> Result<usize, Damage> {
        let (head, rest) = bytes.split_first_chunk::<COUNT_LEN>().ok_or(Damage::Short)?;
        let count = u32::from_le_bytes(*head) as usize;
        if rest.len() != count * (WORD_LEN + REST_LEN) {
            return Err(Damage::Field("number of index words"));
        }
        let (words, rests) = rest.split_at(count * WORD_LEN);
        let (words, _) = words.as_chunks::<WORD_LEN>();
        let (rests, _) = rests.as_chunks::<REST_LEN>();
        let words = words.iter().map(|word| Word(u64::from_le_bytes(*word)));
        let rests = rests.iter().map(|rest| u16::from_le_bytes(*rest));
        let is_sound =
            |(word, rest): (Word, u16)| word.location().0 != 0 && u32::from(rest) >> REST_BITS == 0;
        if !words.clone().zip(rests.clone()).all(is_sound) {
            return Err(Damage::Field("index word"));
        }
        let mut locked = self.shards[shard].lock();
        for (word, rest) in words.zip(rests) {
            locked.add_word(shard, word, rest);
        }
        Ok(count)
    }

    /// Number of shards, for [`Index::sweep_shard`].
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Number of words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len).sum()
    }

    /// Whether there is no word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory the index has allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes()).sum()
    }
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Locked<'_> {
    /// Words whose fingerprint matches the key, hit or not.
    #[must_use]
    pub fn candidates(&self) -> Candidates {
        self.shard.candidates(self.key_hash)
    }

    /// Whether the key has a word with exactly this location.
    #[must_use]
    pub fn contains(&self, location: Location) -> bool {
        self.shard.find(self.key_hash, location).is_some()
    }

    /// The word with exactly this location.
    #[must_use]
    pub fn get(&self, location: Location) -> Option<Word> {
        let (home, way) = self.shard.find(self.key_hash, location)?;
        Some(Word(self.shard.bucket(home).words[way]))
    }

    /// Adds a word for the key.
    pub fn insert(&mut self, location: Location, class: SizeClass) {
        self.shard.add(self.key_hash, location, class);
    }

    /// Removes the word with exactly this location.
    pub fn remove(&mut self, location: Location) -> Option<Word> {
        self.shard.remove(self.key_hash, location)
    }

    /// Marks the word with this location as hit.
    pub fn mark_hit(&mut self, location: Location) {
        if let Some((home, way)) = self.shard.find(self.key_hash, location) {
            let word = &mut self.shard.bucket_mut(home).words[way];
            *word = Word(*word).hit().0;
        }
    }
}

#[cfg(test)]
mod tests {
    //! The index against a plain map, with hashes that collide on purpose.
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn mix(n: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes())
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Remove(usize),
        Hit(usize),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0u64..3000).prop_map(Op::Insert),
            2 => any::<usize>().prop_map(Op::Remove),
            1 => any::<usize>().prop_map(Op::Hit),
        ];
        proptest::collection::vec(op, 1..4000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn behaves_like_a_set_of_hash_and_location(ops in ops(), spread in 0u32..40) {
            let index = Index::new();
            let mut model: Vec<(u64, u64)> = Vec::new();
            let mut next = 0;
            for op in ops {
                match op {
                    Op::Insert(key) => {
                        next += 1;
                        // Fewer distinct high bits make fingerprints collide.
                        let hash = mix(key) & (u64::MAX >> spread);
                        index.lock(hash).insert(Location(next), SizeClass::of(100));
                        model.push((hash, next));
                    }
                    Op::Remove(n) if !model.is_empty() => {
                        let (hash, location) = model.swap_remove(n % model.len());
                        prop_assert!(index.lock(hash).remove(Location(location)).is_some());
                        prop_assert!(index.lock(hash).remove(Location(location)).is_none());
                    }
                    Op::Hit(n) if !model.is_empty() => {
                        let (hash, location) = model[n % model.len()];
                        index.lock(hash).mark_hit(Location(location));
                        prop_assert!(index.lock(hash).get(Location(location)).unwrap().is_hit());
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(index.len(), model.len());
            for (hash, location) in &model {
                let found: BTreeSet<u64> =
                    index.lock(*hash).candidates().iter().map(|word| word.location().0).collect();
                prop_assert!(found.contains(location));
            }
            let victims: BTreeSet<u64> = model.iter().map(|(_, l)| *l).filter(|l| l % 3 == 0).collect();
            let swept: usize = (0..index.shard_count())
                .map(|shard| index.sweep_shard(shard, |word| victims.contains(&word.location().0)))
                .sum();
            prop_assert_eq!(swept, victims.len());
            prop_assert_eq!(index.len(), model.len() - victims.len());
        }
    }

    #[test]
    fn every_size_stays_under_twenty_bytes_a_word_with_few_false_positives() {
        let index = Index::new();
        let mut worst: f64 = 0.0;
        let total = 2_000_000u64;
        for n in 0..total {
            index.lock(mix(n)).insert(Location(n + 1), SizeClass::of(500));
            if n >= 1_000_000 && n % 20_000 == 0 {
                worst = worst.max(index.bytes() as f64 / (n + 1) as f64);
            }
        }
        assert!(worst <= 20.0, "{worst} bytes a word");
        let false_positives: usize =
            (total..total + 200_000).map(|n| index.lock(mix(n)).candidates().len()).sum();
        assert!(
            false_positives <= 1000,
            "{false_positives} of 200000 misses would read the device"
        );
        println!("worst {worst:.2} bytes a word, {false_positives} false positives in 200000");
    }

    #[test]
    fn dumped_shards_load_into_an_empty_index() {
        let index = Index::new();
        for n in 0..50_000u64 {
            index.lock(mix(n % 40_000)).insert(Location(n + 1), SizeClass::of(n));
        }
        index.lock(mix(7)).mark_hit(Location(8));
        let copy = Index::new();
        let mut bytes = Vec::new();
        for shard in 0..index.shard_count() {
            bytes.clear();
            index.dump_shard(shard, &mut bytes);
            assert_eq!(copy.load_shard(shard, &bytes).unwrap() * 10 + 4, bytes.len());
        }
        assert_eq!(copy.len(), 50_000);
        for n in 0..50_000u64 {
            let hash = mix(n % 40_000);
            let word = index.lock(hash).get(Location(n + 1)).unwrap();
            assert_eq!(copy.lock(hash).get(Location(n + 1)), Some(word));
            assert!(copy.lock(hash).candidates().contains(&word));
        }
        assert!(copy.lock(mix(7)).get(Location(8)).unwrap().is_hit());
    }

    proptest! {
        #[test]
        fn damaged_dumps_are_refused(bytes: Vec<u8>, cut in 1usize..40, at in 0usize..4) {
            let index = Index::new();
            let _ = index.load_shard(0, &bytes);
            let fresh: Vec<Fresh> = (1..4u64)
                .map(|n| Fresh { key_hash: n << 8, location: Location(n), class: SizeClass::of(n) })
                .collect();
            index.insert_many(0, &fresh);
            let mut dump = Vec::new();
            index.dump_shard(0, &mut dump);
            let empty = Index::new();
            let kept = dump.len().saturating_sub(cut);
            prop_assert!(empty.load_shard(0, &dump[..kept]).is_err());
            dump[at] ^= 0x40;
            prop_assert!(empty.load_shard(0, &dump).is_err());
            prop_assert_eq!(empty.len(), 0);
        }
    }

    #[test]
    fn removing_everything_gives_back_every_overflow_bucket() {
        let index = Index::new();
        for n in 0..100_000u64 {
            index.lock(mix(n)).insert(Location(n + 1), SizeClass::of(500));
        }
        for n in 0..100_000u64 {
            index.lock(mix(n)).remove(Location(n + 1)).unwrap();
        }
        assert_eq!(index.len(), 0);
        for shard in &index.shards {
            let shard = shard.lock();
            assert_eq!(shard.overflow.len(), shard.overflow_free.len());
        }
    }
}
