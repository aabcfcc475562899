//! The budget, who holds and who waits for memory, and who gives way when it is short. Values only:
//! takes no time from a clock and wakes nobody itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::share::{Share, Slowness, Ticket};
use super::spare::{Slot, Spare};

/// At most this part of the free memory is given away only to spare the next asking.
const SPARE_PART: usize = 8;

/// What never changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes for all, but for the reserve.
    pub common: usize,
    /// Bytes with which one at a time may complete its buffer.
    pub reserve: usize,
    /// Most bytes of one buffer.
    pub len_max: usize,
    /// Longest wait for memory.
    pub wait_max: Duration,
}

impl Limits {
    /// Who takes longer than this for a buffer gives way at once; after so long a shortage anybody does.
    pub fn patience(&self) -> Duration {
        self.wait_max / 3
    }

    /// Time that a sender has before it can be called slow.
    pub fn grace(&self) -> Duration {
        self.patience() / 50
    }

    /// How often the one that waits longest looks for slow ones.
    pub fn look_interval(&self) -> Duration {
        self.patience() / 100
    }
}

/// What one that needs memory asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub number: u64,
    /// Its place among those that wait, if it does.
    pub ticket: Option<Ticket>,
    /// Bytes that it has.
    pub held: usize,
    /// Of those that wait, the one with the most of this is served first.
    pub rank: usize,
    /// Bytes that it must have besides.
    pub needed: usize,
    /// Bytes that spare it the next asking.
    pub wanted: usize,
    /// It takes nothing from others who are less slow.
    pub slowness: Slowness,
}

/// What one that asked got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// So many bytes.
    Bytes(usize),
    /// All that it needs for one buffer.
    Reserve,
    /// This place among those that wait.
    Wait(Ticket),
    /// There will never be so much.
    Never,
}

/// What is done once the table is not locked any more: memory to free, tasks to wake.
#[derive(Default)]
pub(super) struct Aftermath {
    pub buffers: Vec<Vec<u8>>,
    pub spare: Vec<Bytes>,
    pub wakers: Vec<Waker>,
}

impl Aftermath {
    pub fn settle(self) {
        drop(self.buffers);
        drop(self.spare);
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

struct Waiting {
    number: u64,
    needed: usize,
    since: Instant,
    waker: Waker,
}

/// Budget, holders and waiting ones.
pub(super) struct Table {
    limits: Limits,
    free: usize,
    /// Bytes that the holder of the reserve has of it; `None` while nobody has it.
    reserve: Option<usize>,
    shares: HashMap<u64, Arc<Mutex<Share>>>,
    /// Kept as long as nobody needs its memory.
    spare: Spare,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Since when somebody has been waiting.
    short_since: Option<Instant>,
    /// What all that wait need.
    needed: usize,
    numbers: u64,
    /// The slow ones of the last look, the slowest last.
    slow: Vec<(Slowness, u64)>,
    looked: Option<Instant>,
}

impl Table {
    pub fn new(limits: Limits) -> Table {
        Table {
            limits,
            free: limits.common,
            reserve: None,
            shares: HashMap::new(),
            spare: Spare::default(),
            waiting: BTreeMap::new(),
            short_since: None,
            needed: 0,
            numbers: 0,
            slow: Vec::new(),
            looked: None,
        }
    }

    /// Bytes held.
    pub fn used(&self) -> usize {
        self.limits.common - self.free + self.reserve.unwrap_or(0)
    }

    pub fn add(&mut self, share: Arc<Mutex<Share>>) -> u64 {
        self.numbers += 1;
        self.shares.insert(self.numbers, share);
        self.numbers
    }

    /// Its share is given up, with what it holds.
    pub fn remove(&mut self, number: u64, share: &mut Share, after: &mut Aftermath) {
        self.shares.remove(&number);
        let left = share.ticket.take().and_then(|ticket| self.leave(ticket));
        let given = self.take_all(share, after);
        if left.is_some() || given {
            self.wake_first(after);
        }
    }

    /// Whether anybody waits.
    pub fn is_short(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Asks for memory. Those that have the most get theirs first, because they will be done first; else
    /// those that came first.
    pub fn ask(&mut self, ask: &Ask, waker: &Waker, now: Instant, after: &mut Aftermath) -> Answer {
        if ask.held + ask.needed > self.limits.common && self.limits.reserve == 0 {
            return Answer::Never;
        }
        let ticket = self.enter(ask, waker, now);
        self.let_spare_go(self.needed, after);
        if self.needed > self.free {
            self.make_room(Some(ask), now, after);
        }
        let is_first = self.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket);
        let answer = if is_first && ask.needed <= self.free {
            let spare = ask.wanted - ask.needed;
            let is_plenty =
                spare <= (self.free - ask.needed) / SPARE_PART && self.waiting.len() == 1;
            let bytes = if is_plenty { ask.wanted } else { ask.needed };
            self.free -= bytes;
            Answer::Bytes(bytes)
        } else if is_first && self.reserve.is_none() && self.limits.reserve > 0 {
            self.reserve = Some(0);
            Answer::Reserve
        } else {
            return Answer::Wait(ticket);
        };
        self.leave(ticket);
        self.wake_first(after);
        answer
    }

    /// As [`Table::ask`], but for at once or not at all.
    #[cfg(feature = "daemon")]
    pub fn ask_at_once(&mut self, needed: usize, now: Instant, after: &mut Aftermath) -> bool {
        self.let_spare_go(self.needed + needed, after);
        if needed > self.free.saturating_sub(self.needed) {
            self.needed += needed;
            self.make_room(None, now, after);
            self.needed -= needed;
        }
        let fits = needed <= self.free.saturating_sub(self.needed);
        if fits {
            self.free -= needed;
        }
        fits
    }

    /// Takes `bytes` that nobody will miss; false if there are none.
    #[cfg(feature = "daemon")]
    pub fn take_of_plenty(&mut self, bytes: usize) -> bool {
        let is_plenty = bytes <= self.free / SPARE_PART && !self.is_short();
        if is_plenty {
            self.free -= bytes;
        }
        is_plenty
    }

    /// The holder of the reserve takes `bytes` of it.
    pub fn take_of_reserve(&mut self, bytes: usize) {
        let taken = self.reserve.get_or_insert(0);
        *taken += bytes;
        assert!(*taken <= self.limits.reserve, "the reserve is for one buffer");
    }

    /// When the one of `ticket` has waited too long, and when it looks for slow ones: if it is the first.
    pub fn times(&self, ticket: Ticket) -> Option<(Instant, Option<Duration>)> {
        let (first, _) = self.waiting.first_key_value()?;
        let give_up = self.waiting.get(&ticket)?.since + self.limits.wait_max;
        Some((give_up, (*first == ticket).then(|| self.limits.look_interval())))
    }

    /// It does not wait any longer.
    pub fn end_wait(&mut self, share: &mut Share, after: &mut Aftermath) {
        if let Some(ticket) = share.ticket.take() {
            self.leave(ticket);
            self.wake_first(after);
        }
    }

    /// Takes all that `share` holds, and wakes the first that waits.
    pub fn empty(&mut self, share: &mut Share, after: &mut Aftermath) {
        if self.take_all(share, after) {
            self.wake_first(after);
        }
    }

    /// Counts what is in `slot`, unless somebody waits, or it is more than half of what nobody else uses. What was
    /// kept before goes as it must, the oldest first.
    pub fn keep(&mut self, slot: Arc<Slot>, len: usize, after: &mut Aftermath) -> Option<u64> {
        let unused = self.free + self.spare.bytes();
        if self.is_short() || len > unused / 2 {
            return None;
        }
        while self.spare.bytes() + len > unused / 2
            && let Some((len, bytes)) = self.spare.remove_oldest()
        {
            self.free += len;
            after.spare.extend(bytes);
        }
        self.free -= len;
        self.numbers += 1;
        self.spare.add(self.numbers, slot, len);
        Some(self.numbers)
    }

    /// What was kept is wanted no more.
    pub fn give_up(&mut self, number: u64, after: &mut Aftermath) {
        if let Some((len, bytes)) = self.spare.remove(number) {
            self.free += len;
            after.spare.extend(bytes);
            self.wake_first(after);
        }
    }

    /// Lets of what is kept as much go as is missing to `wanted` free bytes.
    fn let_spare_go(&mut self, wanted: usize, after: &mut Aftermath) {
        while wanted > self.free
            && let Some((len, bytes)) = self.spare.remove_oldest()
        {
            self.free += len;
            after.spare.extend(bytes);
        }
    }

    /// `share` gives back all but `held` bytes.
    #[cfg(feature = "daemon")]
    pub fn shrink(&mut self, share: &mut Share, held: usize, after: &mut Aftermath) {
        assert!(!share.has_reserve, "who has the reserve gives back all");
        self.free += share.held - held;
        share.held = held;
        self.wake_first(after);
    }

    /// Whether that was anything.
    fn take_all(&mut self, share: &mut Share, after: &mut Aftermath) -> bool {
        after.buffers.push(std::mem::take(&mut share.buffer));
        let has_reserve = std::mem::take(&mut share.has_reserve);
        let of_reserve = if has_reserve { self.reserve.take().unwrap_or(0) } else { 0 };
        let held = std::mem::take(&mut share.held);
        self.free += held - of_reserve;
        assert!(self.free <= self.limits.common, "no more is given back than was taken");
        has_reserve || held > 0
    }

    fn enter(&mut self, ask: &Ask, waker: &Waker, now: Instant) -> Ticket {
        let short_since = self.short_since;
        let since = match ask.ticket.and_then(|ticket| self.leave(ticket)) {
            Some(before) => before.since,
            None => now,
        };
        self.short_since = short_since;
        let ticket = ask.ticket.unwrap_or_else(|| {
            self.numbers += 1;
            (Reverse(ask.rank), self.numbers)
        });
        self.short_since.get_or_insert(now);
        let waiting =
            Waiting { number: ask.number, needed: ask.needed, since, waker: waker.clone() };
        self.needed += waiting.needed;
        self.waiting.insert(ticket, waiting);
        ticket
    }

    fn leave(&mut self, ticket: Ticket) -> Option<Waiting> {
        let left = self.waiting.remove(&ticket);
        if self.waiting.is_empty() {
            self.short_since = None;
        }
        self.needed -= left.as_ref().map_or(0, |waiting| waiting.needed);
        left
    }

    fn wake_first(&self, after: &mut Aftermath) {
        after.wakers.extend(self.waiting.values().next().map(|first| first.waker.clone()));
    }

    /// Takes memory from the slowest, as many as those that wait need; none that is less slow than who asks.
    fn make_room(&mut self, ask: Option<&Ask>, now: Instant, after: &mut Aftermath) {
        let short_for = self.short_since.map_or(Duration::ZERO, |since| now - since);
        let bearable = self.limits.patience().saturating_sub(short_for);
        self.look(ask, now, bearable);
        let bearable = bearable.max(ask.map_or(Slowness::ZERO, |ask| ask.slowness));
        let before = self.free;
        while self.needed > self.free {
            let Some((slowness, number)) = self.slow.last().copied() else { break };
            // Nobody gives way for what only it waits for itself.
            let mut others = self.waiting.values().filter(|waiting| waiting.number != number);
            if slowness <= bearable || (!self.waiting.is_empty() && others.next().is_none()) {
                break;
            }
            self.slow.pop();
            self.cut(number, now, bearable, after);
        }
        if self.free > before {
            self.wake_first(after);
        }
    }

    /// Lists those that are slower than is bearable, unless that was just done.
    fn look(&mut self, ask: Option<&Ask>, now: Instant, bearable: Duration) {
        let interval = self.limits.look_interval();
        if self.looked.is_some_and(|looked| now < looked + interval) {
            return;
        }
        self.looked = Some(now);
        let Limits { len_max, .. } = self.limits;
        let grace = self.limits.grace();
        // One that cannot be locked gets bytes at this moment, or is the one that asks.
        let slow = self.shares.iter().filter_map(|(number, share)| {
            let slowness = share.try_lock()?.slowness(now, len_max, grace)?;
            Some((slowness, *number))
        });
        let asking = ask.map(|ask| (ask.slowness, ask.number));
        self.slow.clear();
        self.slow.extend(slow.chain(asking).filter(|(slowness, _)| *slowness > bearable));
        // Of equally slow ones the one that came first goes first.
        self.slow.sort_unstable_by_key(|(slowness, number)| (*slowness, Reverse(*number)));
    }

    /// Takes the memory of one that is still slow. One that has nothing in it goes on.
    fn cut(&mut self, number: u64, now: Instant, bearable: Duration, after: &mut Aftermath) {
        let Some(share) = self.shares.get(&number).cloned() else { return };
        let Some(mut share) = share.try_lock() else { return };
        let slowness = share.slowness(now, self.limits.len_max, self.limits.grace());
        if slowness.is_none_or(|slowness| slowness <= bearable) {
            return;
        }
        share.is_lost = share.arrived() > 0;
        if share.is_lost {
            after.wakers.extend(share.told.take());
            if let Some(waiting) = share.ticket.take().and_then(|ticket| self.leave(ticket)) {
                after.wakers.push(waiting.waker);
            }
        }
        self.take_all(&mut share, after);
    }
}
