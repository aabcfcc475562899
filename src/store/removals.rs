//! Removals whose kill records are not durable yet. Owns which of them still have to be appended:
//! those for which there was no room or no epoch, and those that a failed write took with it.
//! Used under the append lock; appends nothing itself.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::log::Ticket;

/// Removals that are remembered at most, waiting and on their way: 2 MiB of memory.
const REMOVALS_MAX: usize = 64 << 10;

/// What is known of the removal of a key hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing: it is durable, or was superseded.
    Done,
    /// Its kill record is in the log and durable with this ticket.
    Logged(Ticket),
    /// Its kill record is not in the log.
    Waiting,
}

/// Removals by key hash.
#[derive(Default)]
pub struct Removals {
    /// Those without a kill record in the log; true for those that somebody asked for and waits for.
    waiting: BTreeMap<u64, bool>,
    /// Those with one that is not durable yet, and the ticket of it.
    logged: HashMap<u64, Ticket>,
    /// The same in the order of tickets; what was logged again or superseded is still in it.
    order: VecDeque<(Ticket, u64)>,
}

impl Removals {
    /// A key hash has no word any more, and no kill record says so yet. `asked` if somebody waits to
    /// hear that it is durable. False if there are too many already: then it is not remembered.
    #[must_use]
    pub fn wait(&mut self, key_hash: u64, asked: bool) -> bool {
        if let Some(before) = self.waiting.get_mut(&key_hash) {
            *before |= asked;
            return true;
        }
        if self.waiting.len() >= REMOVALS_MAX {
            return false;
        }
        self.logged.remove(&key_hash);
        self.waiting.insert(key_hash, asked);
        true
    }

    /// A kill record of a key hash is in the log, durable with `ticket`.
    pub fn log(&mut self, key_hash: u64, ticket: Ticket) {
        self.waiting.remove(&key_hash);
        // Beyond the limit a failed write leaves it to the doubt about all regions.
        if self.order.len() < REMOVALS_MAX {
            self.logged.insert(key_hash, ticket);
            self.order.push_back((ticket, key_hash));
        }
    }

    /// A newer version of a key hash, which supersedes all before it, is in the log: a kill record
    /// that is written later would be newer still.
    pub fn supersede(&mut self, key_hash: u64) {
        self.waiting.remove(&key_hash);
        self.logged.remove(&key_hash);
    }

    /// All up to `ticket` is durable.
    pub fn flushed(&mut self, ticket: Ticket) {
        while let Some((at, key_hash)) = self.order.pop_front_if(|(at, _)| *at <= ticket) {
            if self.logged.get(&key_hash) == Some(&at) {
                self.logged.remove(&key_hash);
            }
        }
    }

    /// A write or flush failed: what was not durable may be lost, and waits again.
    pub fn failed(&mut self) {
        self.order.clear();
        for key_hash in std::mem::take(&mut self.logged).into_keys() {
            // What has no room is left to the doubt about all regions, as after any failed write.
            let _ = self.wait(key_hash, true);
        }
    }

    /// Up to `count` of those that wait, and whether somebody asked for them.
    pub fn next_waiting(&self, count: usize) -> impl Iterator<Item = (u64, bool)> {
        self.waiting.iter().take(count).map(|(key_hash, asked)| (*key_hash, *asked))
    }

    /// What is known of a key hash.
    pub fn of(&self, key_hash: u64) -> Removal {
        match self.logged.get(&key_hash) {
            Some(ticket) => Removal::Logged(*ticket),
            None if self.waiting.contains_key(&key_hash) => Removal::Waiting,
            None => Removal::Done,
        }
    }

    /// How many wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether somebody asked for one of those that wait.
    pub fn is_asked_for(&self) -> bool {
        self.waiting.values().any(|asked| *asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(removals: &Removals) -> Vec<u64> {
        removals.next_waiting(usize::MAX).map(|(key_hash, _)| key_hash).collect()
    }

    #[test]
    fn what_a_failed_write_took_waits_again_and_what_is_durable_does_not() {
        let mut removals = Removals::default();
        for (key_hash, ticket) in [(1, 10), (2, 11), (3, 12), (1, 13)] {
            removals.log(key_hash, ticket);
        }
        removals.flushed(11);
        assert_eq!(removals.of(1), Removal::Logged(13), "its second record is not durable");
        assert_eq!(removals.of(2), Removal::Done);
        removals.failed();
        assert_eq!(waiting(&removals), [1, 3]);
        removals.log(1, 20);
        removals.flushed(20);
        assert_eq!(waiting(&removals), [3]);
        assert_eq!(removals.of(1), Removal::Done);
    }

    #[test]
    fn what_was_superseded_is_not_written_again() {
        let mut removals = Removals::default();
        assert!(removals.wait(1, false) && removals.wait(2, true));
        removals.log(3, 1);
        for key_hash in [1, 3] {
            removals.supersede(key_hash);
        }
        removals.failed();
        assert_eq!(waiting(&removals), [2]);
        assert!(removals.is_asked_for());
    }

    #[test]
    fn there_is_a_limit() {
        let mut removals = Removals::default();
        let limit = REMOVALS_MAX as u64;
        assert!((0..limit).all(|key_hash| removals.wait(key_hash, false)));
        assert!(!removals.wait(limit, true) && removals.wait(0, false));
        assert_eq!(removals.waiting_count(), REMOVALS_MAX);
        for key_hash in 0..2 * limit {
            removals.log(key_hash % 10, key_hash);
        }
        assert!(removals.order.len() <= REMOVALS_MAX);
    }
}
