//! What is counted of one listener, and its limit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::count::Count;

/// The counts of one listener.
#[derive(Debug)]
pub(super) struct ListenerCounts {
    pub(super) name: String,
    pub(super) connections_max: u64,
    pub(super) connections: AtomicU64,
    pub(super) refused_full: Count,
    pub(super) refused_peer: Count,
}

/// The state of one listener at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSnapshot {
    /// Its address.
    pub name: String,
    /// Connections that it may have.
    pub connections_max: u64,
    /// Connections that it has.
    pub connections: u64,
    /// Connections refused because it had all that it may have.
    pub refused_full: u64,
    /// Connections refused because of who connected.
    pub refused_peer: u64,
}

impl ListenerCounts {
    pub(super) fn new(name: String, connections_max: u64) -> ListenerCounts {
        ListenerCounts {
            name,
            connections_max,
            connections: AtomicU64::new(0),
            refused_full: Count::default(),
            refused_peer: Count::default(),
        }
    }

    pub(super) fn snapshot(&self) -> ListenerSnapshot {
        ListenerSnapshot {
            name: self.name.clone(),
            connections_max: self.connections_max,
            connections: self.connections.load(Ordering::Relaxed),
            refused_full: self.refused_full.get(),
            refused_peer: self.refused_peer.get(),
        }
    }
}
