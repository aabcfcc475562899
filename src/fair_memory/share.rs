//! What one sender holds: its bytes, the memory for them, and how slowly they come.

use std::cmp::Reverse;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// How slow a sender is: how long its buffer would take to fill at its pace.
pub(super) type Slowness = Duration;

/// A place among those that wait: what one holds, then its turn.
pub(super) type Ticket = (Reverse<usize>, u64);

/// A sender that has not sent a byte for some time counts as one whose buffer takes this many times
/// longer: what was sent in a burst is forgiven less and less.
const IDLE_WEIGHT: u32 = 5;

/// What one sender holds.
pub(super) struct Share {
    /// The bytes.
    pub buffer: Vec<u8>,
    /// Bytes that came and are not in the buffer: the owner keeps them elsewhere, or has used them.
    pub elsewhere: usize,
    /// Bytes of memory: the capacity of the buffer, also while that is away, or what is kept elsewhere.
    pub held: usize,
    /// What it holds beyond its part of the budget is of the reserve.
    pub has_reserve: bool,
    /// The buffer is with its owner, who is at work on it.
    pub is_away: bool,
    /// Its memory was taken for others.
    pub is_lost: bool,
    /// Its place among those that wait for memory.
    pub ticket: Option<Ticket>,
    /// Is told when it is lost.
    pub told: Option<Waker>,
    /// Time that the sender has had. What it waits for us does not count.
    had: Duration,
    /// What it had had when its last byte came.
    had_at_last: Duration,
    /// Since when it is the sender's turn.
    since: Option<Instant>,
}

impl Share {
    /// Of a sender that has not sent anything.
    pub fn new() -> Share {
        Share {
            buffer: Vec::new(),
            elsewhere: 0,
            held: 0,
            has_reserve: false,
            is_away: false,
            is_lost: false,
            ticket: None,
            told: None,
            had: Duration::ZERO,
            had_at_last: Duration::ZERO,
            since: None,
        }
    }

    /// Bytes that have come.
    pub fn arrived(&self) -> usize {
        self.buffer.len() + self.elsewhere
    }

    /// Bytes for which there is room.
    pub fn spare(&self) -> usize {
        self.held.saturating_sub(self.buffer.len())
    }

    /// Bytes have come; it is the sender's turn to send more.
    pub fn received(&mut self, now: Instant) {
        self.had = self.had(now);
        self.had_at_last = self.had;
        self.since = Some(now);
    }

    /// It is not the sender's turn.
    pub fn pause(&mut self, now: Instant) {
        self.had = self.had(now);
        self.since = None;
    }

    /// The buffer is empty again: the sender begins anew.
    pub fn begin_anew(&mut self, now: Instant) {
        self.had = Duration::ZERO;
        self.received(now);
    }

    /// Has `waker` told when it is lost.
    pub fn tell(&mut self, waker: &Waker) {
        if !self.told.as_ref().is_some_and(|told| told.will_wake(waker)) {
            self.told = Some(waker.clone());
        }
    }

    /// Makes the buffer `held` bytes large.
    pub fn grow(&mut self, held: usize) {
        let additional = held - self.buffer.len();
        self.buffer.reserve_exact(additional);
        self.held = held;
    }

    /// How slow the sender is for a buffer of `len` bytes, once it has had `grace`, if its memory can be
    /// taken. Memory without a byte in it is the first to go.
    pub fn slowness(&self, now: Instant, len: usize, grace: Duration) -> Option<Slowness> {
        let is_waiting = self.ticket.is_some();
        if self.is_away || self.is_lost || (self.held == 0 && !is_waiting) {
            return None;
        }
        if self.arrived() == 0 {
            return (!is_waiting).then_some(Slowness::MAX);
        }
        Some(self.pace(now, len, grace)).filter(|slowness| !slowness.is_zero())
    }

    /// How slow the sender has been for a buffer of `len` bytes; zero before it has had `grace`.
    pub fn pace(&self, now: Instant, len: usize, grace: Duration) -> Slowness {
        let had = self.had(now);
        if had < grace || self.arrived() == 0 {
            return Slowness::ZERO;
        }
        let whole = had.as_micros() * len as u128 / self.arrived() as u128;
        let at_pace = Duration::from_micros(u64::try_from(whole).unwrap_or(u64::MAX));
        at_pace.max((had - self.had_at_last).saturating_mul(IDLE_WEIGHT))
    }

    fn had(&self, now: Instant) -> Duration {
        self.had + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}
