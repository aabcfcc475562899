//! Versions of keys as recovery gathers them, 24 bytes each. Owns which version of a key wins and
//! the memory they are kept in until that is settled; knows no device.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::format::Sequence;
use crate::store::index::word::{Location, SizeClass};

/// Versions in one piece of memory of a part, once the part is that large.
const CHUNK_LEN_MAX: usize = 1024;
const CHUNK_LEN_MIN: usize = 8;
/// Versions sorted to their parts at a time.
const TILE_LEN: usize = 4096;
const VERSION_LEN: usize = size_of::<Version>();
/// Parts that versions are gathered in, each settled on its own. All keys of an index shard are in
/// one part: both go by the low bits of the hash, and the index has at least as many shards.
pub(super) const PARTS: usize = 256;
/// Sorting by the hash rotated by this many bits brings the keys of one index shard together.
const SHARD_BITS: u32 = 12;

/// The part of a key.
pub(super) fn part_of(key_hash: u64) -> usize {
    usize::try_from(key_hash % PARTS as u64).unwrap_or(0)
}

/// One version of a key, or a tombstone (`target` of `None`).
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub key_hash: u64,
    pub sequence: Sequence,
    pub target: Option<Target>,
}

/// Location and slot length in granules in eight bytes, so that a version takes 24.
#[derive(Clone, Copy)]
pub(crate) struct Target(std::num::NonZeroU64);

const _: () = assert!(size_of::<Version>() == 24);
const TARGET_LOCATION_BITS: u32 = 40;

impl Target {
    pub fn new(location: Location, slot_len: u64) -> Option<Target> {
        let granules = slot_len.div_ceil(crate::format::GRANULE);
        std::num::NonZeroU64::new(location.0 | granules << TARGET_LOCATION_BITS).map(Target)
    }

    pub fn location(self) -> Location {
        Location(self.0.get() & ((1 << TARGET_LOCATION_BITS) - 1))
    }

    pub fn class(self) -> SizeClass {
        SizeClass::of((self.0.get() >> TARGET_LOCATION_BITS) * crate::format::GRANULE)
    }
}

/// Leaves the newest version of each key, a tombstone included. Of a version and a tombstone
/// with the same sequence the version stays: it is the one that the record was made from.
pub(crate) fn settle(versions: &mut Vec<Version>) {
    versions.sort_unstable_by(|a, b| {
        let equal = || a.target.is_none().cmp(&b.target.is_none());
        a.rank().cmp(&b.rank()).then_with(equal)
    });
    versions.dedup_by_key(|version| version.key_hash);
}

impl Version {
    /// Sorts by key, then newest first. One number, as comparing it takes no branch.
    fn rank(&self) -> u128 {
        u128::from(self.key_hash.rotate_right(SHARD_BITS)) << 64 | u128::from(!self.sequence.0)
    }
}

/// Versions gathered from all regions, by the low bits of their key's hash. Memory comes and goes in
/// small chunks, so that it is 24 bytes a version and little more.
pub(super) struct Parts {
    parts: Box<[Mutex<Part>]>,
    len: AtomicU64,
    bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

#[derive(Default)]
struct Part {
    chunks: Vec<Vec<Version>>,
    len: usize,
}

impl Parts {
    pub fn new() -> Parts {
        Parts {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            len: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
        }
    }

    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Versions in all parts.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Most bytes of memory that versions took so far.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Adds versions of any keys.
    pub fn add(&self, versions: impl Iterator<Item = Version>) {
        let mut tile = Tile::new(self.parts.len());
        for version in versions {
            tile.versions.push(version);
            if tile.versions.len() == TILE_LEN {
                self.add_tile(&mut tile);
            }
        }
        self.add_tile(&mut tile);
    }

    fn add_tile(&self, tile: &mut Tile) {
        tile.sort();
        for (part, range) in tile.runs() {
            self.add_run(part, &tile.sorted[range]);
        }
        self.len.fetch_add(tile.versions.len() as u64, Ordering::Relaxed);
        tile.versions.clear();
    }

    fn add_run(&self, part: usize, mut run: &[Version]) {
        let mut part = self.parts[part].lock();
        part.len += run.len();
        while !run.is_empty() {
            let room = part.chunks.last().map_or(0, |chunk| chunk.capacity() - chunk.len());
            if room == 0 {
                let len = part.len.clamp(CHUNK_LEN_MIN, CHUNK_LEN_MAX);
                self.account(len, 0);
                part.chunks.push(Vec::with_capacity(len));
                continue;
            }
            let (now, later) = run.split_at(room.min(run.len()));
            if let Some(chunk) = part.chunks.last_mut() {
                chunk.extend_from_slice(now);
            }
            run = later;
        }
    }

    /// Takes a part out, in one piece, and hands it to `work`.
    pub fn take<T>(&self, part: usize, work: impl FnOnce(&mut Vec<Version>) -> T) -> T {
        let Part { chunks, len } = std::mem::take(&mut *self.parts[part].lock());
        let mut versions = Vec::with_capacity(len);
        self.account(len, 0);
        for chunk in chunks {
            versions.extend_from_slice(&chunk);
            self.account(0, chunk.capacity());
        }
        let done = work(&mut versions);
        drop(versions);
        self.account(0, len);
        done
    }

    fn account(&self, more: usize, less: usize) {
        let more = (more * VERSION_LEN) as u64;
        let bytes = self.bytes.fetch_add(more, Ordering::Relaxed) + more;
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub((less * VERSION_LEN) as u64, Ordering::Relaxed);
    }
}

/// A few versions on their way to the parts: sorted by part first, so that a part is locked and
/// reached once for many.
struct Tile {
    versions: Vec<Version>,
    sorted: Vec<Version>,
    /// Where each part's run ends.
    ends: Vec<usize>,
}

impl Tile {
    fn new(parts: usize) -> Tile {
        Tile { versions: Vec::new(), sorted: Vec::new(), ends: vec![0; parts] }
    }

    /// Counting sort by part.
    fn sort(&mut self) {
        self.ends.fill(0);
        for version in &self.versions {
            self.ends[part_of(version.key_hash)] += 1;
        }
        let mut start = 0;
        for end in &mut self.ends {
            start += std::mem::replace(end, start);
        }
        self.sorted.clone_from(&self.versions);
        for version in &self.versions {
            let at = &mut self.ends[part_of(version.key_hash)];
            self.sorted[*at] = *version;
            *at += 1;
        }
    }

    /// The parts that have a run, and where it is.
    fn runs(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let runs = starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end);
        runs.enumerate().filter(|(_, run)| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(key_hash: u64, sequence: u64, location: u64) -> Version {
        let target = (location > 0).then(|| Target::new(Location(location), 64)).flatten();
        Version { key_hash, sequence: Sequence(sequence), target }
    }

    #[test]
    fn the_newest_version_wins_and_a_kill_record_only_against_older_ones() {
        let mut versions = vec![
            version(1, 5, 50),
            version(1, 7, 70),
            version(2, 9, 0),
            version(2, 8, 80),
            version(3, 4, 0),
            version(3, 4, 40),
        ];
        settle(&mut versions);
        let left: Vec<u64> =
            versions.iter().map(|v| v.target.map_or(0, |target| target.location().0)).collect();
        assert_eq!(left, [70, 0, 40]);
    }

    #[test]
    fn parts_keep_every_version_in_24_bytes_and_little_more() {
        let parts = Parts::new();
        let mut random = fastrand::Rng::with_seed(1);
        let total = 2_000_000;
        let hashes: Vec<u64> = (0..total).map(|_| random.u64(..)).collect();
        for some in hashes.chunks(77_777) {
            parts.add(some.iter().map(|hash| version(*hash, 1, 9)));
        }
        assert_eq!(parts.len(), total);
        let mut found = Vec::new();
        for part in 0..parts.count() {
            parts.take(part, |versions| {
                assert!(versions.iter().all(|v| part_of(v.key_hash) == part));
                found.extend(versions.iter().map(|v| v.key_hash));
            });
        }
        let mut expected = hashes;
        found.sort_unstable();
        expected.sort_unstable();
        assert!(found == expected);
        assert_eq!(parts.bytes.load(Ordering::Relaxed), 0, "all memory is given back");
        let chunk = (CHUNK_LEN_MAX * VERSION_LEN) as u64;
        assert!(parts.peak_bytes() >= total * 24);
        assert!(parts.peak_bytes() <= total * 24 + 256 * chunk + total * 24 / 128);
    }
}
