//! How often targets were asked for: what is asked for rarely is not stored. Bounded and forgetful: of two
//! targets that share a place the later one is remembered.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Targets that are remembered.
const PLACES: u64 = 1 << 16;
/// Bits of a place that count, up to as much as they can. The others are of the hash.
const COUNT: u64 = u16::MAX as u64;

/// Counts requests by target, up to a threshold.
#[derive(Debug)]
pub(super) struct Uses {
    min: u16,
    /// Keyed by the operating system's random numbers: nobody can choose targets that share a place.
    hasher: RandomState,
    /// Empty if one request is enough.
    places: Box<[AtomicU64]>,
}

impl Uses {
    /// From the request of number `min` on a target is no longer rare.
    pub(super) fn new(min: u16) -> Uses {
        let places = if min > 1 { PLACES } else { 0 };
        let places = (0..places).map(|_| AtomicU64::default()).collect();
        Uses { min, hasher: RandomState::new(), places }
    }

    /// Counts a request for `target`, and says whether there were too few up to now.
    pub(super) fn is_rare(&self, target: &[u8]) -> bool {
        let hash = self.hasher.hash_one(target);
        let place = usize::try_from(hash % PLACES).ok().and_then(|at| self.places.get(at));
        let Some(place) = place else { return false };
        let tag = hash & !COUNT;
        let next = |held: u64| match held & !COUNT == tag {
            true => tag | ((held & COUNT) + 1).min(COUNT),
            false => tag | 1,
        };
        let before =
            place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(next(held)));
        let count = next(before.unwrap_or_default()) & COUNT;
        count < u64::from(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_rare_until_it_was_asked_for_so_often() {
        let uses = Uses::new(3);
        for target in [&b"a"[..], b"b"] {
            let found: Vec<_> = (0..5).map(|_| uses.is_rare(target)).collect();
            assert_eq!(found, [true, true, false, false, false]);
        }
        assert!(!Uses::new(1).is_rare(b"a"));
        assert!(Uses::new(1).places.is_empty());
    }

    #[test]
    fn requests_at_one_moment_are_all_counted() {
        let uses = Uses::new(4000);
        let count = || (0..1000).filter(|_| uses.is_rare(b"a")).count();
        let rare: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(count));
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(rare, 3999);
    }

    #[test]
    fn counts_have_an_end() {
        let uses = Uses::new(u16::MAX);
        let count = (0..70_000).take_while(|_| uses.is_rare(b"a")).count();
        assert_eq!(count, usize::from(u16::MAX) - 1);
        assert!((0..70_000).all(|_| !uses.is_rare(b"a")));
    }

    #[test]
    fn many_others_let_it_be_forgotten() {
        let uses = Uses::new(2);
        assert!(uses.is_rare(b"a"));
        let others = 16 * PLACES;
        let known = (0..others).filter(|n| !uses.is_rare(&n.to_le_bytes())).count();
        assert!(known < 16, "{known} are taken for others");
        assert!(uses.is_rare(b"a"));
        assert!(!uses.is_rare(b"a"));
    }
}
