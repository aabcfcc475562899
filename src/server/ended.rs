//! Connections that ended before their clients had read everything. The kernel keeps what is unread
//! until they read it or close, so it goes on counting. Owns their sockets until then.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::counters::Ticket;
use super::send_budget::{SendBudget, Shares};
use crate::device::unread_by_peer;

/// Time between two looks at all of them, at least: many clients can ask for one.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

struct Socket {
    socket: OwnedFd,
    shares: Shares,
    _ticket: Option<Ticket>,
}

/// Sockets of ended connections with unread bytes. Each keeps its place among those of its listener.
pub(super) struct Ended {
    budget: Arc<SendBudget>,
    sockets: Mutex<(Vec<Socket>, Instant)>,
    count: AtomicUsize,
}

impl Ended {
    pub(super) fn new(budget: Arc<SendBudget>) -> Ended {
        let sockets = Mutex::new((Vec::new(), Instant::now()));
        Ended { budget, sockets, count: AtomicUsize::new(0) }
    }

    /// Keeps a socket that was shut down, with what it has of the pools.
    pub(super) fn keep(&self, socket: OwnedFd, shares: Shares, ticket: Option<Ticket>) {
        let mut sockets = self.sockets.lock();
        sockets.0.push(Socket { socket, shares, _ticket: ticket });
        self.count.store(sockets.0.len(), Ordering::Relaxed);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Closes those whose bytes were read, or whose clients are gone.
    pub(super) fn close_read(&self) {
        let mut sockets = self.sockets.lock();
        if sockets.0.is_empty() || sockets.1.elapsed() < LOOK_INTERVAL {
            return;
        }
        sockets.1 = Instant::now();
        sockets.0.retain_mut(|ended| {
            let unread = unread_by_peer(&ended.socket).unwrap_or(0);
            // Nothing more is written to it: what was read does not come again.
            self.budget.give_back(&mut ended.shares, self.budget.share_of_unread(unread));
            unread > 0
        });
        self.count.store(sockets.0.len(), Ordering::Relaxed);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        for ended in &mut self.sockets.get_mut().0 {
            self.budget.give_back(&mut ended.shares, 0);
        }
    }
}
