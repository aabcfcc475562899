//! Which regions changed since they were last ranked: a bit for each, set by any thread without a lock,
//! found without a walk over all.

use std::sync::atomic::{AtomicU64, Ordering};

/// Regions that changed.
#[derive(Debug)]
pub struct Changes {
    /// A bit for each word of `regions` that is not zero.
    words: Box<[AtomicU64]>,
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
        Changes { words: zeros(regions.len()), regions }
    }

    /// Flags a region as changed: the next [`Changes::take`] gives it.
    pub fn mark(&self, region: u32) {
        let word = region as usize / 64;
        set(&self.regions[word], region as usize);
        set(&self.words[word / 64], word);
    }

    /// Gives each changed region once, and clears its flag.
    pub fn take(&self, mut changed: impl FnMut(u32)) {
        for (group, words) in self.words.iter().enumerate() {
            for word in bits_of(words) {
                let word = group * 64 + word;
                for region in bits_of(&self.regions[word]) {
                    changed(u32::try_from(word * 64 + region).unwrap_or(u32::MAX));
                }
            }
        }
    }
}

fn set(word: &AtomicU64, number: usize) {
    // Even if the bit is set: whoever takes it must see what the caller changed.
    word.fetch_or(1 << (number % 64), Ordering::SeqCst);
}

/// Takes the set bits of a word and clears them.
fn bits_of(word: &AtomicU64) -> impl Iterator<Item = usize> + use<> {
    let mut bits =
        if word.load(Ordering::SeqCst) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) };
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
