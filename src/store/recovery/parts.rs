//! Versions gathered from all regions, divided by their keys. Owns their memory: when it is used up, the
//! last parts are left for a later pass over the regions.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::store::recovery::versions::{PARTS, Version, part_of};

/// Versions in one chunk of memory of a part, once the part is that large.
const CHUNK_LEN_MAX: usize = 1024;
const CHUNK_LEN_MIN: usize = 8;
/// Versions sorted to their parts at a time.
const TILE_LEN: usize = 4096;
const VERSION_LEN: usize = size_of::<Version>();
/// At most this many versions are worked on without extra threads: they would cost more.
const FEW_MAX: u64 = 64 << 10;

/// The versions of one pass, divided by the low bits of their key hash. Memory is taken in small chunks:
/// little more than 24 bytes a version.
pub(super) struct Parts {
    parts: Box<[Mutex<Part>]>,
    /// Parts before this one were merged in earlier passes.
    first: usize,
    /// Parts from this one on are for later passes.
    end: AtomicUsize,
    bytes_max: u64,
    /// Parts that are merged at the same time: each needs its memory twice for a moment.
    threads: usize,
    /// Held while parts are given up.
    narrowing: Mutex<()>,
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
    /// For as many parts as fit into `bytes_max`, merged by `threads` threads.
    pub fn new(bytes_max: u64, threads: usize) -> Parts {
        Parts::of(0..PARTS, bytes_max, threads)
    }

    fn of(range: Range<usize>, bytes_max: u64, threads: usize) -> Parts {
        Parts {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            first: range.start,
            end: AtomicUsize::new(range.end),
            bytes_max,
            threads,
            narrowing: Mutex::default(),
            len: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
        }
    }

    /// For the next pass, once these are merged; `None` after the last one.
    pub fn next(&self) -> Option<Parts> {
        let kept = self.kept();
        let rest = PARTS - kept.end;
        // Hashes are uniform: about as many fit again.
        let fit = self.bytes_max.saturating_mul(kept.len() as u64);
        let fit = fit / self.bytes_needed(self.peak_bytes(), kept.len()).max(1);
        let fit = usize::try_from(fit).unwrap_or(rest).clamp(1, rest.max(1));
        (rest > 0).then(|| Parts::of(kept.end..kept.end + fit, self.bytes_max, self.threads))
    }

    /// The parts of this pass.
    pub fn kept(&self) -> Range<usize> {
        self.first..self.end.load(Ordering::Acquire)
    }

    /// Versions in all parts.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Most memory taken by versions so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Whether one thread does all that is done with them.
    pub fn are_few(&self) -> bool {
        self.len() <= FEW_MAX
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
        tile.versions.clear();
        self.narrow();
    }

    fn add_run(&self, number: usize, mut run: &[Version]) {
        let mut part = self.parts[number].lock();
        // Under the lock: whoever gives the part up frees it afterwards.
        if !self.kept().contains(&number) {
            return;
        }
        part.len += run.len();
        self.len.fetch_add(run.len() as u64, Ordering::Relaxed);
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

    /// Gives up the last parts, if there is not memory for all. One part is always kept.
    fn narrow(&self) {
        let is_over = |parts| {
            let bytes = self.bytes.load(Ordering::Relaxed);
            parts > 1 && self.bytes_needed(bytes, parts) > self.bytes_max
        };
        if !is_over(self.kept().len()) {
            return;
        }
        let _one = self.narrowing.lock();
        loop {
            let kept = self.kept();
            if !is_over(kept.len()) {
                return;
            }
            // An eighth at a time: much less would be given up again soon.
            let end = kept.end - kept.len().div_ceil(8);
            self.end.store(end, Ordering::Release);
            for part in end..kept.end {
                let part = std::mem::take(&mut *self.parts[part].lock());
                self.len.fetch_sub(part.len as u64, Ordering::Relaxed);
                self.account(0, part.chunks.iter().map(Vec::capacity).sum());
            }
        }
    }

    /// Bytes that merging takes when `parts` parts have `bytes` bytes.
    fn bytes_needed(&self, bytes: u64, parts: usize) -> u64 {
        let threads = if self.are_few() { 1 } else { self.threads };
        bytes + bytes / parts as u64 * threads.min(parts) as u64
    }

    /// Takes a part out as one piece and hands it to `work`.
    pub fn take<T>(&self, part: usize, work: impl FnOnce(&mut Vec<Version>) -> T) -> T {
        let mut versions = self.take_out(part);
        let capacity = versions.capacity();
        let done = work(&mut versions);
        self.account(0, capacity);
        done
    }

    /// As [`Parts::take`], and puts back what `work` leaves.
    pub fn change(&self, part: usize, work: impl FnOnce(&mut Vec<Version>)) {
        let mut versions = self.take_out(part);
        let capacity = versions.capacity();
        work(&mut versions);
        versions.shrink_to_fit();
        self.account(versions.capacity(), capacity);
        let len = versions.len();
        *self.parts[part].lock() = Part { chunks: vec![versions], len };
    }

    fn take_out(&self, part: usize) -> Vec<Version> {
        let Part { chunks, len } = std::mem::take(&mut *self.parts[part].lock());
        let mut versions = Vec::with_capacity(len);
        self.account(versions.capacity(), 0);
        for chunk in chunks {
            versions.extend_from_slice(&chunk);
            self.account(0, chunk.capacity());
        }
        versions
    }

    fn account(&self, more: usize, less: usize) {
        let more = (more * VERSION_LEN) as u64;
        let bytes = self.bytes.fetch_add(more, Ordering::Relaxed) + more;
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub((less * VERSION_LEN) as u64, Ordering::Relaxed);
    }
}
/// A few versions on their way to the parts, sorted by part: each part is locked once for many.
struct Tile {
    versions: Vec<Version>,
    sorted: Vec<Version>,
    /// Where each part's run of versions ends.
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

    /// Each part with a run, and where the run is.
    fn runs(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let runs = starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end);
        runs.enumerate().filter(|(_, run)| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Sequence, Tombstone};

    fn version(key_hash: u64) -> Version {
        Version::tombstone(&Tombstone { key_hash, sequence: Sequence(1) })
    }

    fn hashes(count: usize) -> Vec<u64> {
        let mut random = fastrand::Rng::with_seed(1);
        (0..count).map(|_| random.u64(..)).collect()
    }

    #[test]
    fn every_version_takes_24_bytes_and_little_more() {
        let parts = Parts::new(u64::MAX, 2);
        let total = 2_000_000;
        let hashes = hashes(total);
        for some in hashes.chunks(77_777) {
            parts.add(some.iter().map(|hash| version(*hash)));
        }
        let total = total as u64;
        assert_eq!(parts.len(), total);
        let mut found = Vec::new();
        for part in parts.kept() {
            parts.take(part, |versions| {
                assert!(versions.iter().all(|v| part_of(v.key_hash) == part));
                found.extend(versions.iter().map(|v| v.key_hash));
            });
        }
        let mut expected = hashes;
        found.sort_unstable();
        expected.sort_unstable();
        assert!(found == expected);
        assert!(parts.next().is_none());
        assert_eq!(parts.bytes.load(Ordering::Relaxed), 0, "all memory is given back");
        let chunk = (CHUNK_LEN_MAX * VERSION_LEN) as u64;
        assert!(parts.peak_bytes() >= total * 24);
        assert!(parts.peak_bytes() <= total * 24 + 256 * chunk + total * 24 / 128);
    }

    #[test]
    fn with_little_memory_several_passes_find_every_version_once() {
        let hashes = hashes(300_000);
        for bytes_max in [1, 100 << 10, 1 << 20, 4 << 20, 64 << 20] {
            let (mut found, mut passes, mut peak) = (Vec::new(), 0, 0);
            let mut pass = Some(Parts::new(bytes_max, 2));
            while let Some(parts) = pass {
                for some in hashes.chunks(7_777) {
                    parts.add(some.iter().map(|hash| version(*hash)));
                }
                parts.change(parts.kept().start, |versions| versions.sort_by_key(|v| v.key_hash));
                for part in parts.kept() {
                    found.extend(parts.take(part, std::mem::take).iter().map(|v| v.key_hash));
                }
                (passes, peak) = (passes + 1, parts.peak_bytes().max(peak));
                pass = parts.next();
            }
            found.sort_unstable();
            let mut expected = hashes.clone();
            expected.sort_unstable();
            assert!(found == expected, "{bytes_max} bytes");
            let total = hashes.len() as u64 * 24;
            println!("{bytes_max} bytes: {passes} passes, {peak} bytes at most");
            // A tile is there before it is found to be too much; one part is always kept.
            let tile = (TILE_LEN * VERSION_LEN) as u64;
            let most = bytes_max.max(total / PARTS as u64 * 2) + 2 * tile;
            assert!(peak <= most, "{peak} of {bytes_max} bytes");
            let needed = total / bytes_max + 1;
            let is_tiny = bytes_max < 10 * tile;
            assert!(is_tiny || passes <= needed * 2, "{passes} passes where {needed} are needed");
        }
    }
}
