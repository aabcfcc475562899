//! The bytes of a simulated device: those that reads see, the durable ones, and the unflushed versions
//! between them. Owns bytes and durability; knows no requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::random::SplitMix;

/// Bytes that survive or are lost together in a power cut.
pub(super) const SECTOR_LEN: usize = 512;

/// Bytes allocated at once: of a large device only a few places are written.
const PAGE_LEN: usize = 4 << 10;

/// Bytes by page; an absent page is zero.
#[derive(Clone, Default)]
struct Image(HashMap<u64, Box<[u8]>>);

/// One unflushed version of a sector: where its bytes stand in the write that made it.
#[derive(Clone)]
struct Version {
    sequence: u64,
    write: Arc<[u8]>,
    start: usize,
}

/// The storage of a simulated device.
#[derive(Clone, Default)]
pub(super) struct Storage {
    live: Image,
    durable: Image,
    /// Versions since the durable one, oldest first, by sector number.
    volatile: BTreeMap<u64, Vec<Version>>,
    /// Sequence of the newest write.
    sequence: u64,
    /// Writes up to here were before a failed flush: no flush makes them durable.
    doomed: u64,
    /// Sectors that cannot be read until they are written again.
    spoilt: BTreeSet<u64>,
}

impl Image {
    /// Calls `each` with the page number, the place in the page and the place in the range.
    fn pieces(offset: u64, len: usize, mut each: impl FnMut(u64, Range<usize>, Range<usize>)) {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let start = usize::try_from(at % PAGE_LEN as u64).expect("within a page");
            let step = (PAGE_LEN - start).min(len - done);
            each(at / PAGE_LEN as u64, start..start + step, done..done + step);
            done += step;
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        Image::pieces(offset, bytes.len(), |page, within, from| {
            let page = self.0.entry(page).or_insert_with(|| vec![0; PAGE_LEN].into());
            page[within].copy_from_slice(&bytes[from]);
        });
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        Image::pieces(offset, bytes.len(), |page, within, to| match self.0.get(&page) {
            Some(page) => bytes[to].copy_from_slice(&page[within]),
            None => bytes[to].fill(0),
        });
    }
}

impl Version {
    fn bytes(&self) -> &[u8] {
        &self.write[self.start..self.start + SECTOR_LEN]
    }
}

impl Storage {
    /// The newest write's sequence; a flush submitted now covers writes up to it.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn volatile_sectors(&self) -> usize {
        self.volatile.len()
    }

    /// Numbers of the sectors with unflushed versions.
    pub(super) fn volatile_numbers(&self) -> Vec<u64> {
        self.volatile.keys().copied().collect()
    }

    pub(super) fn contents(&self, range: Range<u64>) -> Vec<u8> {
        let len = usize::try_from(range.end - range.start).expect("a range in memory");
        let mut bytes = vec![0; len];
        self.live.read(range.start, &mut bytes);
        bytes
    }

    /// Writes `bytes`, visible at once and volatile. If they end within a sector (a transfer that failed),
    /// its rest is unchanged.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.sequence += 1;
        let whole = self.contents(offset..(offset + bytes.len() as u64).next_multiple_of(512));
        let write: Arc<[u8]> = whole.into();
        for (sector, start) in (offset / 512..).zip((0..write.len()).step_by(SECTOR_LEN)) {
            let version = Version { sequence: self.sequence, write: Arc::clone(&write), start };
            self.volatile.entry(sector).or_default().push(version);
            self.spoilt.remove(&sector);
        }
    }

    /// Makes a sector unreadable until it is written again.
    pub(super) fn spoil(&mut self, sector: u64) {
        self.spoilt.insert(sector);
    }

    /// Whether a sector of the range cannot be read.
    pub(super) fn is_spoilt(&self, range: &Range<u64>) -> bool {
        self.spoilt.range(range.start / 512..range.end.div_ceil(512)).next().is_some()
    }

    pub(super) fn is_durable(&self, range: &Range<u64>) -> bool {
        let sectors = range.start / 512..range.end.div_ceil(512);
        !self.is_spoilt(range) && self.volatile.range(sectors).next().is_none()
    }

    pub(super) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.live.write(offset, bytes);
        self.durable.write(offset, bytes);
        for sector in offset / 512..(offset + bytes.len() as u64).div_ceil(512) {
            if self.volatile.remove(&sector).is_some() {
                let whole = self.contents(sector * 512..(sector + 1) * 512);
                self.durable.write(sector * 512, &whole);
            }
        }
    }

    /// Makes writes up to `sequence` durable, except the `incomplete` ones.
    pub(super) fn flush(&mut self, sequence: u64, incomplete: &[u64]) {
        let flushable = self.doomed + 1..=sequence;
        let durable = &mut self.durable;
        self.volatile.retain(|sector, versions| {
            let newest = versions.iter().rposition(|version| {
                flushable.contains(&version.sequence) && !incomplete.contains(&version.sequence)
            });
            if let Some(newest) = newest {
                durable.write(sector * 512, versions[newest].bytes());
                versions.drain(..=newest);
            }
            !versions.is_empty()
        });
    }

    /// A flush that should have covered writes up to `sequence` failed.
    pub(super) fn fail_flush(&mut self, sequence: u64) {
        self.doomed = self.doomed.max(sequence);
    }

    /// Keeps or loses each unflushed sector write, as `random` says.
    pub(super) fn power_cut(&mut self, random: &mut SplitMix) {
        let kept_in_eight = random.up_to(8);
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            let mut kept = None;
            for version in &versions {
                if random.up_to(7) < kept_in_eight {
                    kept = Some(version);
                }
            }
            if let Some(version) = kept {
                self.durable.write(sector * 512, version.bytes());
            }
            let mut bytes = [0; SECTOR_LEN];
            self.durable.read(sector * 512, &mut bytes);
            self.live.write(sector * 512, &bytes);
        }
    }
}
