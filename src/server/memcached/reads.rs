//! When entries were last read by this protocol. In memory only, for the entries read last, and never exact: two
//! reads at one moment may lose one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;

/// Places in which an entry may be remembered, 8 bytes each.
const LINE: usize = 8;
/// Of so many bits are the numbers of such lines: 256 Ki entries, 2 MiB.
const LINES_BITS: u32 = 15;

/// Versions of entries, by a part of each, and the second of their last read.
#[derive(Debug)]
pub(super) struct Reads(Box<[AtomicU64]>);

impl Default for Reads {
    fn default() -> Reads {
        Reads(std::iter::repeat_with(AtomicU64::default).take(LINE << LINES_BITS).collect())
    }
}

impl Reads {
    /// Notes that the version was read.
    pub(super) fn note(&self, version: u64, now: Timestamp) {
        let (line, tag) = self.find(version);
        // The version's own place, else that of the one that was read the longest ago.
        let mut oldest = (u64::MAX, &line[0]);
        for place in line {
            let noted = place.load(Ordering::Relaxed);
            if noted >> 32 == tag {
                return place.store(tag << 32 | u64::from(now.0), Ordering::Relaxed);
            }
            let read = noted & u64::from(u32::MAX);
            if read < oldest.0 || noted == 0 {
                oldest = (if noted == 0 { 0 } else { read }, place);
            }
        }
        oldest.1.store(tag << 32 | u64::from(now.0), Ordering::Relaxed);
    }

    /// When the version was read; `None` if it was not, or that is forgotten.
    pub(super) fn last(&self, version: u64) -> Option<Timestamp> {
        let (line, tag) = self.find(version);
        let noted = line.iter().map(|place| place.load(Ordering::Relaxed));
        let read =
            noted.filter(|noted| noted >> 32 == tag).map(|noted| noted & u64::from(u32::MAX));
        read.max().map(|secs| Timestamp(u32::try_from(secs).unwrap_or_default()))
    }

    /// The entries where the version may be, and by which 32 bits it is known there, which are never 0.
    fn find(&self, version: u64) -> (&[AtomicU64], u64) {
        // Multiplication by an odd number spreads versions, which are in sequence: Fibonacci hashing (Knuth,
        // The Art of Computer Programming, volume 3, section 6.4).
        let mixed = version.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let line = usize::try_from(mixed >> (u64::BITS - LINES_BITS)).unwrap_or_default() * LINE;
        (&self.0[line..line + LINE], (version & u64::from(u32::MAX)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_last_is_remembered() {
        let reads = Reads::default();
        let count = (LINE as u64) << LINES_BITS;
        for version in 1..=count {
            assert_eq!(reads.last(version), None);
            reads.note(version, Timestamp(5));
        }
        let known = (1..=count).filter(|version| reads.last(*version).is_some()).count();
        assert!(known as u64 > count * 3 / 4, "{known} of {count}");
        reads.note(7, Timestamp(9));
        reads.note(7, Timestamp(11));
        assert_eq!(reads.last(7), Some(Timestamp(11)));
        for version in count + 1..3 * count {
            reads.note(version, Timestamp(10));
        }
        assert_eq!(reads.last(7), Some(Timestamp(11)), "others were read longer ago");
    }
}
