//! What is in the log and not durable yet: each by its key, and in the order in which it becomes durable. Values
//! only.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::store::log::write::Ticket;

/// What is durable with a ticket, until it is.
pub struct ByTicket<K, V> {
    known: HashMap<K, (Ticket, V)>,
    order: BTreeSet<(Ticket, K)>,
}

impl<K, V> Default for ByTicket<K, V> {
    fn default() -> ByTicket<K, V> {
        ByTicket { known: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash, V> ByTicket<K, V> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// What there is of a key, and with which ticket it is durable.
    pub fn get(&self, key: &K) -> Option<&(Ticket, V)> {
        self.known.get(key)
    }

    /// Notes something of a key, in place of what there was.
    pub fn insert(&mut self, key: K, (ticket, value): (Ticket, V)) {
        self.remove(&key);
        self.known.insert(key, (ticket, value));
        self.order.insert((ticket, key));
    }

    /// Takes out what there is of a key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (ticket, value) = self.known.remove(key)?;
        self.order.remove(&(ticket, *key));
        Some(value)
    }

    /// Everything up to `ticket` is durable.
    pub fn flushed(&mut self, ticket: Ticket) {
        while let Some((_, key)) = self.order.first().copied().filter(|(at, _)| *at <= ticket) {
            self.remove(&key);
        }
    }

    /// Takes out what does not pass.
    pub fn retain(&mut self, mut passes: impl FnMut(&K) -> bool) {
        self.known.retain(|key, _| passes(key));
        self.order.retain(|(_, key)| self.known.contains_key(key));
    }

    /// Takes all out: a failed write may have lost it.
    pub fn take_all(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        let all = std::mem::take(self);
        all.known.into_iter().map(|(key, (_, value))| (key, value))
    }
}
