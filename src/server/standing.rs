//! Clients that do not read: who they are, since when they stand still, and which of them are cut when
//! memory runs short. Never touches a socket: it asks the task that serves it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::counters::Counters;
use super::ended::Ended;
use super::send_budget::message_len;

/// Time between two looks at clients that do not read.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A client is cut for the memory of its answer when it was seen to read nothing for this long, and for
/// as long as a client of the slowest rate needs for one message: no less can be seen.
const STANDS_STILL: Duration = Duration::from_secs(1);
/// In bytes a second.
const SLOWEST_RATE: u64 = 4 << 10;
/// A client is cut for its long send buffer when it reads nothing for at least this long: others can do
/// with short ones.
const STANDS_STILL_LONG: Duration = Duration::from_secs(10);

/// What a connection is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    /// To say how much its client has not read, and to give back a long buffer that it does not need.
    Look,
    /// To end.
    Cut,
}

/// What is known of one connection whose send buffer was full or is long.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ask: AtomicU8,
    /// It needed its long buffer since the last look at it.
    is_used: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its task, while it waits for its socket.
    waker: Option<Waker>,
    /// Since when a write waits.
    blocked_since: Option<Instant>,
    /// Bytes of memory that wait with it.
    unsent: u64,
    /// Of which pools its buffer has something.
    held: [bool; 2],
    /// How long a client must stand still before it may be cut.
    patience: Duration,
    /// What the client had not read at the last look, and since when that has not changed.
    unread: Option<(u64, Instant)>,
}

impl Watch {
    pub(super) fn asked(&self) -> Ask {
        match self.ask.load(Ordering::Acquire) {
            0 => Ask::Nothing,
            1 => Ask::Look,
            _ => Ask::Cut,
        }
    }

    /// A write of `unsent` bytes waits; gives how many waited before.
    pub(super) fn block(&self, waker: &Waker, now: Instant, unsent: u64) -> u64 {
        let mut state = self.state.lock();
        state.keep_waker(waker);
        if state.blocked_since.is_none() {
            (state.blocked_since, state.unread) = (Some(now), None);
        }
        std::mem::replace(&mut state.unsent, unsent)
    }

    /// The write has been taken, or is given up; gives how many bytes waited.
    pub(super) fn unblock(&self) -> u64 {
        let mut state = self.state.lock();
        (state.blocked_since, state.unread) = (None, None);
        std::mem::take(&mut state.unsent)
    }

    /// The task waits for the client.
    pub(super) fn rest(&self, waker: &Waker) {
        self.state.lock().keep_waker(waker);
    }

    /// Its send buffer is `len` bytes long now.
    pub(super) fn set_buffer(&self, len: u64, held: [bool; 2]) {
        let mut state = self.state.lock();
        state.held = held;
        state.patience =
            STANDS_STILL + Duration::from_millis(message_len(len) * 1000 / SLOWEST_RATE);
        drop(state);
        self.use_long_buffer();
    }

    pub(super) fn use_long_buffer(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// The answer to [`Ask::Look`].
    pub(super) fn answer(&self, unread: u64, now: Instant) {
        let mut state = self.state.lock();
        if state.unread.is_none_or(|(before, _)| before != unread) {
            state.unread = Some((unread, now));
        }
        // Not over a later ask to end.
        let (look, nothing) = (Ask::Look as u8, Ask::Nothing as u8);
        let _ = self.ask.compare_exchange(look, nothing, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn ask(&self, ask: Ask) {
        self.ask.store(ask as u8, Ordering::Release);
        let waker = self.state.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn keep_waker(&mut self, waker: &Waker) {
        match &self.waker {
            Some(kept) if kept.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }

    /// Since when the client has taken no byte, as far as looks tell.
    fn stands_since(&self) -> Option<Instant> {
        self.unread.filter(|(unread, _)| *unread > 0).map(|(_, since)| since)
    }
}

/// A connection that could be cut.
struct Candidate {
    since: Instant,
    patience: Duration,
    watch: Arc<Watch>,
    unsent: u64,
    is_blocked: bool,
    held: [bool; 2],
}

/// All connections that are watched.
pub(super) struct Standing {
    pub(super) counters: Arc<Counters>,
    pub(super) ended: Arc<Ended>,
    watches: Mutex<Watches>,
    is_looking: AtomicBool,
    work: Notify,
}

#[derive(Default)]
struct Watches {
    next: u64,
    all: HashMap<u64, Arc<Watch>>,
}

impl Standing {
    pub(super) fn new(counters: Arc<Counters>) -> Standing {
        let ended = Arc::new(Ended::new(counters.send_budget().clone()));
        let (watches, is_looking, work) = Default::default();
        Standing { counters, ended, watches, is_looking, work }
    }

    /// Watches a connection until [`Standing::forget`].
    pub(super) fn watch(&self) -> (u64, Arc<Watch>) {
        let mut watches = self.watches.lock();
        watches.next += 1;
        let (number, watch) = (watches.next, Arc::<Watch>::default());
        watch.set_buffer(self.counters.send_budget().first_len(), [false; 2]);
        watches.all.insert(number, watch.clone());
        (number, watch)
    }

    pub(super) fn forget(&self, number: u64) {
        self.watches.lock().all.remove(&number);
    }

    /// There is something to look at from now on.
    pub(super) fn begin_to_look(&self) {
        if !self.is_looking.load(Ordering::Relaxed) && !self.is_looking.swap(true, Ordering::AcqRel)
        {
            self.work.notify_one();
        }
    }

    /// Looks at those that do not read, for as long as there are any. Never returns.
    pub(super) async fn run(&self) {
        loop {
            self.work.notified().await;
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                if self.look(Instant::now()) {
                    continue;
                }
                self.is_looking.store(false, Ordering::Release);
                // What came in between was not told.
                if !self.look(Instant::now()) {
                    break;
                }
                self.is_looking.store(true, Ordering::Release);
            }
        }
    }

    /// One look at all; whether another one is needed.
    fn look(&self, now: Instant) -> bool {
        self.ended.close_read();
        let short = self.counters.send_budget().were_short();
        let is_short = short.contains(&true);
        let watches: Vec<_> = self.watches.lock().all.values().cloned().collect();
        let (mut candidates, mut is_needed, mut unsent) = (Vec::new(), is_short, 0);
        for watch in watches {
            if watch.asked() == Ask::Cut {
                // It may have been asked before it could be woken.
                watch.ask(Ask::Cut);
                is_needed = true;
                continue;
            }
            let state = watch.state.lock();
            let blocked_since = state.blocked_since;
            is_needed |= blocked_since.is_some();
            unsent += state.unsent;
            // Who has not answered yet has a busy thread, and is not judged.
            if watch.asked() == Ask::Nothing
                && let Some(since) = state.stands_since()
            {
                let (unsent, is_blocked) = (state.unsent, blocked_since.is_some());
                let State { held, patience, .. } = *state;
                let watch = watch.clone();
                candidates.push(Candidate { since, patience, watch, unsent, is_blocked, held });
            }
            let is_idle = is_short
                && state.held.contains(&true)
                && blocked_since.is_none()
                && !watch.is_used.swap(false, Ordering::Relaxed);
            let is_blocked = blocked_since.is_some_and(|at| now - at >= LOOK_INTERVAL / 2);
            drop(state);
            if is_idle || is_blocked {
                watch.ask(Ask::Look);
            }
        }
        self.cut(candidates, unsent, short, now);
        is_needed || self.ended.count() > 0
    }

    /// Ends connections of clients that stand still, the longest first, until there is memory.
    fn cut(&self, mut candidates: Vec<Candidate>, mut unsent: u64, short: [bool; 2], now: Instant) {
        let (counts, budget) = (self.counters.acceptor(), self.counters.send_budget());
        candidates.sort_by_key(|candidate| candidate.since);
        let mut short = short;
        for Candidate { since, patience, watch, unsent: waiting, is_blocked, held } in candidates {
            let (stood, much) = (now - since, unsent > budget.unsent_max());
            if stood < patience {
                continue;
            }
            let short_and_held = short.iter().zip(held).position(|(short, held)| *short && held);
            if much && is_blocked {
                counts.connections_cut_unsent.bump();
            } else if let Some(pool) = short_and_held.filter(|_| stood >= STANDS_STILL_LONG) {
                // One at a time: its memory may be free in time for the next look.
                short[pool] = false;
                counts.connections_cut_buffer.bump();
            } else {
                continue;
            }
            unsent -= waiting;
            tracing::debug!(stood_still = ?stood, unsent = waiting, "a client that does not read is cut");
            watch.ask(Ask::Cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair_memory::FairMemory;
    use crate::server::send_budget::{Reason, SendBudget, Shares};

    const MIB: u64 = 1 << 20;

    fn standing(unsent_max: u64) -> Standing {
        let input = (FairMemory::new(1000, 100, Duration::ZERO), 10);
        let budget = SendBudget::new(8 * MIB, unsent_max, 100);
        Standing::new(Arc::new(Counters::new(1, budget, input)))
    }

    /// A blocked client that reads nothing from `since` on.
    fn blocked(standing: &Standing, unsent: u64, since: Instant) -> Arc<Watch> {
        let (_, watch) = standing.watch();
        watch.state.lock().patience = STANDS_STILL;
        watch.block(Waker::noop(), since, unsent);
        watch.answer(100, since);
        watch
    }

    #[test]
    fn who_stands_still_longest_is_cut_first_and_only_as_many_as_needed() {
        let (start, standing) = (Instant::now(), standing(2500));
        let at = |ms| start + Duration::from_millis(ms);
        let watches: Vec<_> = (0..4).map(|n| blocked(&standing, 1000, at(n))).collect();
        let asked = || watches.iter().map(|watch| watch.asked()).collect::<Vec<_>>();
        assert!(standing.look(at(999)));
        assert_eq!(asked(), [Ask::Look; 4]);
        // None has answered yet.
        assert!(standing.look(at(2000)));
        assert_eq!(asked(), [Ask::Look; 4]);
        for watch in &watches {
            watch.answer(100, at(2001));
        }
        standing.look(at(2002));
        assert_eq!(asked(), [Ask::Cut, Ask::Cut, Ask::Look, Ask::Look]);
        let counts = standing.counters.snapshot().counts;
        assert_eq!((counts.connections_cut_unsent, counts.connections_cut_buffer), (2, 0));
        watches[0].answer(100, at(2003));
        assert_eq!(watches[0].asked(), Ask::Cut, "it is not taken back");
        for watch in &watches[2..] {
            watch.answer(100, at(9000));
        }
        standing.look(at(9001));
        assert_eq!(standing.counters.snapshot().counts.connections_cut_unsent, 2, "it is enough");
    }

    #[test]
    fn who_takes_bytes_is_not_cut() {
        let (start, standing) = (Instant::now(), standing(0));
        let at = |ms| start + Duration::from_millis(ms);
        let watch = blocked(&standing, 1000, at(0));
        for n in 1..20 {
            standing.look(at(n * 900));
            watch.answer(100 + n % 2, at(n * 900));
        }
        assert_eq!(watch.asked(), Ask::Nothing);
        watch.unblock();
        watch.block(Waker::noop(), at(18_050), 1000);
        standing.look(at(18_060));
        assert_eq!(watch.asked(), Ask::Nothing, "a new write has its own time");
    }

    #[test]
    fn long_buffers_go_back_from_those_that_rest() {
        let (start, standing) = (Instant::now(), standing(MIB));
        let at = |ms| start + Duration::from_millis(ms);
        let budget = standing.counters.send_budget().clone();
        let mut shares = Shares::default();
        let mut grows = || budget.grow(budget.first_len(), Reason::Reads, &mut shares).is_some();
        while grows() {}
        let (_, watch) = standing.watch();
        watch.set_buffer(1 << 20, [true, false]);
        standing.look(at(0));
        assert_eq!(watch.asked(), Ask::Nothing, "it was used since");
        assert!(!standing.look(at(1)));
        assert_eq!(watch.asked(), Ask::Nothing, "nobody needs it");
        assert!(!grows());
        standing.look(at(2));
        assert_eq!(watch.asked(), Ask::Look);
        // It cannot be given back: the client has not read what is in it.
        watch.answer(100_000, at(2));
        for ms in [100, 9999, 21_000] {
            assert!(!grows());
            standing.look(at(ms));
            assert_eq!(watch.asked(), Ask::Look);
            watch.answer(100_000, at(ms));
        }
        assert!(!grows());
        standing.look(at(22_003));
        assert_eq!(watch.asked(), Ask::Cut);
        assert_eq!(standing.counters.snapshot().counts.connections_cut_buffer, 1);
    }
}
