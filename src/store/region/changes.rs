//! Which regions changed since they were last ranked: a bit for each, set by any thread without a lock,
//! found without a walk over all.

use std::sync::atomic::{AtomicU64, Ordering};

/// Regions that changed.
#[derive(Debug)]
pub struct Changes {
    /// A bit for each index entry of `regions` that is not zero.
    index_entries: Box<[AtomicU64]>,
    /// A bit for each region.
    regions: Box<[AtomicU64]>,
}

fn zeros(bits: usize) -> Box<[AtomicU64]> {
    (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
}

impl Changes {
    /// No change in any of `count` regions.
    pub fn new(count: u32) -> Changes {
        let regions = zeros(count as usize);
        Changes { index_entries: zeros(regions.len()), regions }
    }

    /// Flags a region as changed: the next [`Changes::take`] gives it.
    pub fn mark(&self, region: u32) {
        let index_entry = region as usize / 64;
        set(&self.regions[index_entry], region as usize);
        set(&self.index_entries[index_entry / 64], index_entry);
    }

    /// Gives each changed region once, and clears its flag.
    pub fn take(&self, mut changed: impl FnMut(u32)) {
        for (group, index_entries) in self.index_entries.iter().enumerate() {
            for index_entry in bits_of(index_entries) {
                let index_entry = group * 64 + index_entry;
                for region in bits_of(&self.regions[index_entry]) {
                    changed(u32::try_from(index_entry * 64 + region).unwrap_or(u32::MAX));
                }
            }
        }
    }
}

fn set(index_entry: &AtomicU64, number: usize) {
    // Even if the bit is set: whoever takes it must see what the caller changed.
    index_entry.fetch_or(1 << (number % 64), Ordering::SeqCst);
}

/// Takes the set bits of an index entry and clears them.
fn bits_of(index_entry: &AtomicU64) -> impl Iterator<Item = usize> + use<> {
    let mut bits = if index_entry.load(Ordering::SeqCst) == 0 {
        0
    } else {
        index_entry.swap(0, Ordering::SeqCst)
    };
    std::iter::from_fn(move || {
        let first = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_given_once() {
        let changes = Changes::new(70_000);
        let taken = || {
            let mut taken = Vec::new();
            changes.take(|region| taken.push(region));
            taken
        };
        for region in [69_999, 0, 63, 64, 4096, 64, 0] {
            changes.mark(region);
        }
        assert_eq!(taken(), [0, 63, 64, 4096, 69_999]);
        assert!(taken().is_empty());
        changes.mark(63);
        assert_eq!(taken(), [63]);
    }

    #[test]
    fn what_a_thread_marked_it_finds_whoever_else_marks() {
        let changes = Changes::new(64);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..20_000).for_each(|_| changes.mark(7)));
            }
        });
        let mut found = 0;
        changes.take(|_| found += 1);
        assert_eq!(found, 1);
    }
}
