//! Which clients were told to refresh an entry: one for each version of it. In memory only: after a restart another
//! one may be told.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

/// Locks; versions rise one by one, so neighbours have different ones.
const SHARDS: usize = 64;
/// Versions remembered by each, 64 Ki together: then the oldest is forgotten, and may be won once more.
const WINS_MAX: usize = 1024;

/// The versions that are won. Keyed by [`Hit::cas`](crate::cache::Hit::cas), which no two entries share.
#[derive(Debug)]
pub(super) struct Wins(Box<[Mutex<Won>]>);

#[derive(Debug, Default)]
struct Won {
    versions: HashSet<u64>,
    /// In the order in which they were won.
    order: VecDeque<u64>,
}

impl Default for Wins {
    fn default() -> Wins {
        Wins(std::iter::repeat_with(Mutex::default).take(SHARDS).collect())
    }
}

impl Wins {
    /// Whether somebody won the version.
    pub(super) fn is_won(&self, version: u64) -> bool {
        self.of(version).lock().versions.contains(&version)
    }

    /// True for the first who asks for the version.
    pub(super) fn win(&self, version: u64) -> bool {
        let mut won = self.of(version).lock();
        if !won.versions.insert(version) {
            return false;
        }
        won.order.push_back(version);
        if won.order.len() > WINS_MAX
            && let Some(oldest) = won.order.pop_front()
        {
            won.versions.remove(&oldest);
        }
        true
    }

    fn of(&self, version: u64) -> &Mutex<Won> {
        let number = version % self.0.len() as u64;
        // Below the number of locks.
        &self.0[usize::try_from(number).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_won_once() {
        let wins = Wins::default();
        assert!(!wins.is_won(7));
        assert!(wins.win(7) && !wins.win(7));
        assert!(wins.is_won(7) && !wins.is_won(7 + SHARDS as u64));
    }

    #[test]
    fn the_oldest_wins_are_forgotten() {
        let wins = Wins::default();
        let version = |n: usize| (n * SHARDS) as u64;
        for n in 0..=WINS_MAX {
            assert!(wins.win(version(n)));
        }
        assert!(!wins.is_won(version(0)) && wins.is_won(version(1)));
        let won = wins.of(0).lock();
        assert_eq!((won.versions.len(), won.order.len()), (WINS_MAX, WINS_MAX));
    }
}
