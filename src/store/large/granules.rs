//! What is known of the parts of objects that come part by part. Their slices are granules of at most 64 KiB, each a
//! slot of its own; a granule that came in several goes is in fragments. Nothing says which of them are there
//! but the slots themselves, so what counts as there is exactly as durable as its bytes.
//!
//! Owns what is remembered of the slots that were looked at. The index is asked each time: what it does not
//! have is gone, whatever is remembered.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use smallvec::SmallVec;
use tokio::sync::{Mutex, MutexGuard};

use crate::format::Sequence;

/// Most fragments of one granule.
pub(in crate::store) const FRAGMENTS_MAX: usize = 16;
/// Numbers of fragments: one more, for what others are joined to.
pub(in crate::store) const FRAGMENT_NUMBERS: RangeInclusive<u32> = 1..=17;
/// Rows of 64 granules of which is remembered what is there: 3 MiB of memory, about. Beyond it all is forgotten,
/// and learnt again by reading headers.
const ROWS_MAX: usize = 64 << 10;
/// Granules of which fragments are remembered: 1 to 8 MiB of memory.
const FRAGMENTED_MAX: usize = 16 << 10;
/// One lock for so many granules.
const LOCKS: usize = 64;

/// A part of a granule in a slot of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Fragment {
    /// One of [`FRAGMENT_NUMBERS`]: part of its key.
    pub number: u32,
    /// Where it is in the granule. Fragments may overlap; their bytes are the same then.
    pub within: Range<usize>,
}

/// Fragments in the order of their numbers.
pub(in crate::store) type Fragments = SmallVec<[Fragment; 2]>;

/// What is there of one granule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Granule {
    Whole,
    Fragments(Fragments),
    /// Some of it cannot be read.
    Unknown,
}

impl Granule {
    /// The bytes `within` the granule that are not there, in order.
    pub fn gaps(&self, within: Range<usize>) -> SmallVec<[Range<usize>; 2]> {
        let mut gaps = SmallVec::new();
        let none = Fragments::new();
        let fragments = match self {
            Granule::Whole => return gaps,
            Granule::Fragments(fragments) => fragments,
            Granule::Unknown => &none,
        };
        let mut parts: SmallVec<[&Range<usize>; 2]> =
            fragments.iter().map(|fragment| &fragment.within).collect();
        parts.sort_unstable_by_key(|part| part.start);
        let mut at = within.start;
        for part in parts {
            let start = part.start.min(within.end);
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(part.end);
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }
}

/// What is remembered of granules.
pub(in crate::store) struct Granules {
    /// A bit for each granule whose slot was seen: 64 in a row.
    whole: DashMap<(Sequence, u32), u64>,
    fragments: DashMap<(Sequence, u32), Fragments>,
    locks: [Mutex<()>; LOCKS],
    /// Writes that failed in this run. What was seen before the last of them is not remembered after it.
    failures: AtomicU64,
}

impl Default for Granules {
    fn default() -> Granules {
        let locks = std::array::from_fn(|_| Mutex::default());
        let (whole, fragments) = (DashMap::new(), DashMap::new());
        Granules { whole, fragments, locks, failures: AtomicU64::new(0) }
    }
}

impl Granules {
    /// Locks a granule for who changes it. Some granules share a lock: take one at a time.
    pub async fn lock(&self, (object, number): (Sequence, u32)) -> MutexGuard<'_, ()> {
        let n = (object.0 ^ u64::from(number)) % LOCKS as u64;
        self.locks[usize::try_from(n).unwrap_or(0)].lock().await
    }

    /// Whether the slot of a granule was seen.
    pub fn is_whole(&self, (object, number): (Sequence, u32)) -> bool {
        let row = self.whole.get(&(object, number / 64));
        row.is_some_and(|row| *row >> (number % 64) & 1 != 0)
    }

    /// Writes that failed so far: ask before a look at slots, or a write, that is to be noted.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// The slot of a granule was seen, or written, after so many `failures`.
    pub fn note_whole(&self, (object, number): (Sequence, u32), failures: u64) {
        if self.whole.len() >= ROWS_MAX {
            self.whole.clear();
        }
        let mut row = self.whole.entry((object, number / 64)).or_default();
        // Under the lock of the row, which `forget_all` clears after it counted.
        if self.failures() == failures {
            *row |= 1 << (number % 64);
        }
    }

    /// These are the fragments of a granule, by looks and writes after so many `failures`: who says so has it
    /// locked. After another failure none is known.
    pub fn set_fragments(&self, granule: (Sequence, u32), fragments: Fragments, failures: u64) {
        if self.fragments.len() >= FRAGMENTED_MAX {
            self.fragments.clear();
        }
        let mut known = self.fragments.entry(granule).or_default();
        *known = if self.failures() == failures { fragments } else { Fragments::new() };
    }

    /// The fragments of a granule that were seen.
    pub fn known_fragments(&self, granule: (Sequence, u32)) -> Fragments {
        self.fragments.get(&granule).map(|known| known.clone()).unwrap_or_default()
    }

    /// These fragments were seen after so many `failures`; gives all that are known. What was learnt of their
    /// numbers meanwhile is newer.
    pub fn add_fragments(
        &self,
        granule: (Sequence, u32),
        seen: Fragments,
        failures: u64,
    ) -> Fragments {
        if self.fragments.len() >= FRAGMENTED_MAX {
            self.fragments.clear();
        }
        let mut known = self.fragments.entry(granule).or_default();
        let mut all = known.clone();
        for fragment in seen {
            if all.iter().all(|other| other.number != fragment.number) {
                all.push(fragment);
            }
        }
        all.sort_unstable_by_key(|fragment| fragment.number);
        if self.failures() == failures {
            known.clone_from(&all);
        }
        all
    }

    /// A write failed: nothing that was seen before is known to be on the device.
    pub fn forget_all(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        self.whole.clear();
        self.fragments.clear();
    }

    /// What is remembered of a granule turned out to be wrong, or its object is dead.
    pub fn forget(&self, (object, number): (Sequence, u32)) {
        if let Some(mut row) = self.whole.get_mut(&(object, number / 64)) {
            *row &= !(1 << (number % 64));
        }
        self.whole.remove_if(&(object, number / 64), |_, row| *row == 0);
        self.fragments.remove(&(object, number));
    }
}

/// A run of bytes that several fragments have together, and the numbers of these.
pub(in crate::store) struct Run {
    pub within: Range<usize>,
    pub fragments: BTreeSet<u32>,
}

/// The runs of bytes that `fragments` have, in order and apart from each other.
pub(in crate::store) fn runs(fragments: &[Fragment]) -> Vec<Run> {
    let mut sorted: Vec<&Fragment> = fragments.iter().collect();
    sorted.sort_unstable_by_key(|fragment| fragment.within.start);
    let mut runs: Vec<Run> = Vec::new();
    for fragment in sorted {
        match runs.last_mut() {
            Some(run) if fragment.within.start <= run.within.end => {
                run.within.end = run.within.end.max(fragment.within.end);
                run.fragments.insert(fragment.number);
            }
            _ => runs.push(Run {
                within: fragment.within.clone(),
                fragments: BTreeSet::from([fragment.number]),
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(of: &[(u32, Range<usize>)]) -> Fragments {
        let one = |(number, within): &(u32, Range<usize>)| Fragment {
            number: *number,
            within: within.clone(),
        };
        of.iter().map(one).collect()
    }

    #[test]
    fn gaps_are_what_no_fragment_has() {
        let granule = Granule::Fragments(fragments(&[(1, 50..60), (2, 10..20), (3, 15..30)]));
        let gaps = |granule: &Granule, within: Range<usize>| -> Vec<(usize, usize)> {
            granule.gaps(within).into_iter().map(|gap| (gap.start, gap.end)).collect()
        };
        for (within, expected) in [
            (0..100, vec![(0, 10), (30, 50), (60, 100)]),
            (10..30, vec![]),
            (12..70, vec![(30, 50), (60, 70)]),
            (35..36, vec![(35, 36)]),
            (29..31, vec![(30, 31)]),
            (90..100, vec![(90, 100)]),
        ] {
            assert_eq!(gaps(&granule, within.clone()), expected, "{within:?}");
        }
        assert!(gaps(&Granule::Whole, 0..100).is_empty());
        for nothing in [Granule::Fragments(Fragments::new()), Granule::Unknown] {
            assert_eq!(gaps(&nothing, 3..5), [(3, 5)]);
        }
    }

    #[test]
    fn fragments_that_touch_or_overlap_are_one_run() {
        let all = fragments(&[(1, 50..60), (2, 10..20), (3, 15..30), (4, 60..61), (5, 90..95)]);
        let found: Vec<(Range<usize>, Vec<u32>)> = runs(&all)
            .into_iter()
            .map(|run| (run.within, run.fragments.into_iter().collect()))
            .collect();
        assert_eq!(found, [(10..30, vec![2, 3]), (50..61, vec![1, 4]), (90..95, vec![5])]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_can_be_forgotten() {
        let granules = Granules::default();
        let object = Sequence(7);
        granules.note_whole((object, 70), 0);
        assert!(granules.is_whole((object, 70)) && !granules.is_whole((object, 71)));
        granules.forget((object, 70));
        assert!(!granules.is_whole((object, 70)) && granules.whole.is_empty());
        let rows = 2 * u32::try_from(ROWS_MAX).unwrap();
        for n in 0..rows {
            granules.note_whole((object, n * 64), 0);
            granules.set_fragments((object, n), fragments(&[(1, 0..1)]), 0);
        }
        assert!(granules.whole.len() <= ROWS_MAX);
        assert!(granules.fragments.len() <= FRAGMENTED_MAX);
        assert!(granules.is_whole((object, (rows - 1) * 64)));
    }

    #[test]
    fn what_was_seen_before_a_failed_write_is_not_remembered() {
        let granules = Granules::default();
        let (of_granule, failures) = ((Sequence(7), 1), granules.failures());
        granules.note_whole(of_granule, failures);
        granules.forget_all();
        assert!(!granules.is_whole(of_granule), "it is looked at again");
        granules.note_whole(of_granule, failures);
        granules.set_fragments(of_granule, fragments(&[(1, 0..20)]), failures);
        let seen = granules.add_fragments(of_granule, fragments(&[(2, 30..40)]), failures);
        assert_eq!(seen, fragments(&[(2, 30..40)]));
        let is_remembered =
            granules.is_whole(of_granule) || !granules.known_fragments(of_granule).is_empty();
        assert!(!is_remembered, "the looks began before the failure");
    }

    #[test]
    fn what_was_learnt_by_a_change_outranks_what_was_seen_before_it() {
        let granules = Granules::default();
        let of_granule = (Sequence(7), 1);
        granules.set_fragments(of_granule, fragments(&[(1, 0..20)]), 0);
        let known = granules.add_fragments(of_granule, fragments(&[(1, 0..10), (2, 30..40)]), 0);
        assert_eq!(known, fragments(&[(1, 0..20), (2, 30..40)]));
    }
}
