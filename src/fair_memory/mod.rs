//! Memory that many senders share: each has a buffer that grows with what it has sent. When the
//! budget is used up, the slowest give theirs up, as many as those that wait need.
//!
//! - Memory is taken as bytes arrive, and what is counted is what is allocated.
//! - Of those that wait, the one that has the most is served first: it will be done first. Else it goes by
//!   when they came.
//! - Slow is who would take longer than a third of the longest wait for a full buffer, or has sent
//!   nothing for a fifteenth of it. The longer memory has been short, the less is borne.
//! - Nobody is slow while it waits for memory or for its buffer to be used, nor in the beginning.
//! - Against deadlock: one at a time may complete its buffer with memory from a reserve. So there is always
//!   one that completes its buffer, or is slow.
//! - What nobody uses may keep bytes that are only good to have; they go before anybody waits or is cut.

mod kept;
mod share;
mod spare;
mod table;
mod window;

use std::fmt;
use std::future::poll_fn;
#[cfg(feature = "daemon")]
use std::io;
use std::pin::Pin;
#[cfg(feature = "daemon")]
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(feature = "daemon")]
use bytes::BufMut as _;
use parking_lot::Mutex;
#[cfg(feature = "daemon")]
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use kept::Kept;
use share::Share;
use table::{Aftermath, Answer, Ask, Limits, Table};
pub(crate) use window::{Seen, Window};

/// Memory of the first bytes.
const FIRST_STEP: usize = 256;
/// Memory doubles up to here: a slow sender holds little more than it has sent.
const DOUBLED_LEN_MAX: usize = 16 << 10;
/// Beyond that it grows by as much as there is, but by this at least.
const STEP: usize = 64 << 10;

/// Why there is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// None was free for too long, or there is not so much.
    UsedUp,
    /// It was slow, and others needed the memory.
    GaveWay,
}

/// The budget. Clones share it.
#[derive(Clone)]
pub(crate) struct FairMemory {
    limits: Limits,
    table: Arc<Mutex<Table>>,
}

/// The buffer of one sender. Dropping it gives its memory back.
pub(crate) struct Held {
    memory: FairMemory,
    number: u64,
    share: Arc<Mutex<Share>>,
    /// Bytes that will come at most.
    expected: usize,
    /// Wakes it while it waits for memory.
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for FairMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairMemory").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl FairMemory {
    /// A budget of `bytes` for buffers of `len_max` bytes. Senders wait for at most `wait_max` at a time.
    pub fn new(bytes: u64, len_max: usize, wait_max: Duration) -> FairMemory {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // A small budget has no reserve: too little would be left to share.
        let reserve = if bytes / 2 >= len_max { len_max } else { 0 };
        let limits = Limits { common: bytes - reserve, reserve, len_max, wait_max };
        FairMemory { limits, table: Arc::new(Mutex::new(Table::new(limits))) }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.table.lock().used() as u64
    }

    /// Bytes at most.
    pub fn limit(&self) -> u64 {
        (self.limits.common + self.limits.reserve) as u64
    }

    /// An empty buffer for a sender from which `expected` bytes come at most.
    pub fn hold(&self, expected: usize) -> Held {
        let share = Arc::new(Mutex::new(Share::new()));
        let number = self.table.lock().add(Arc::clone(&share));
        let expected = expected.min(self.limits.len_max);
        Held { memory: self.clone(), number, share, expected, timer: None }
    }
}

impl Held {
    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        self.share.lock().buffer.len()
    }

    /// Adds bytes to the buffer; waits for the memory that they need.
    ///
    /// # Errors
    /// See [`Short`].
    pub async fn stage(&mut self, bytes: &[u8]) -> Result<(), Short> {
        let asking = Asking(self);
        poll_fn(|cx| asking.0.poll_stage(cx, bytes)).await
    }

    /// As [`Held::stage`].
    pub fn poll_stage(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<(), Short>> {
        loop {
            {
                let mut share = self.share.lock();
                if share.is_lost {
                    return Poll::Ready(Err(Short::GaveWay));
                }
                if share.spare() >= bytes.len() {
                    share.buffer.extend_from_slice(bytes);
                    share.received(Instant::now());
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(self.poll_room(cx, Need::Room(bytes.len())))?;
        }
    }

    /// Waits until this sender has to give way.
    pub fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Short> {
        let mut share = self.share.lock();
        if share.is_lost {
            return Poll::Ready(Short::GaveWay);
        }
        share.tell(cx.waker());
        Poll::Pending
    }

    /// Takes the buffer to use it; others cannot take its memory until it is put back.
    ///
    /// # Errors
    /// [`Short::GaveWay`].
    pub fn take(&self) -> Result<Vec<u8>, Short> {
        let mut share = self.share.lock();
        if share.is_lost {
            return Err(Short::GaveWay);
        }
        share.is_away = true;
        share.pause(Instant::now());
        Ok(std::mem::take(&mut share.buffer))
    }

    /// Puts the buffer back after its bytes were used. Its memory is kept for the next, unless others wait
    /// or it needed the reserve. `expected` bytes come at most.
    pub fn begin_anew(&mut self, mut buffer: Vec<u8>, expected: usize) {
        buffer.clear();
        self.expected = expected.min(self.memory.limits.len_max);
        let mut after = Aftermath::default();
        {
            let mut share = self.share.lock();
            share.buffer = buffer;
            share.is_away = false;
            share.begin_anew(Instant::now());
            let mut table = self.memory.table.lock();
            if share.has_reserve || table.is_short() || share.held > self.expected {
                table.empty(&mut share, &mut after);
            }
        }
        after.settle();
    }

    /// Reads what `source` has into the room that there is, at most `len_max` bytes; gives their number, or
    /// `None` if there is no room. A long buffer that is full grows first if there is plenty of memory.
    #[cfg(feature = "daemon")]
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        len_max: usize,
    ) -> Poll<io::Result<Result<Option<usize>, Short>>> {
        let mut share = self.share.lock();
        if share.is_lost {
            return Poll::Ready(Ok(Err(Short::GaveWay)));
        }
        self.grow_of_plenty(&mut share);
        let room = share.spare().min(len_max);
        if room == 0 {
            return Poll::Ready(Ok(Ok(None)));
        }
        let mut target = (&mut share.buffer).limit(room);
        let polled = pin!(source.read_buf(&mut target)).poll(cx)?;
        if polled.is_ready() {
            share.received(Instant::now());
        } else {
            share.tell(cx.waker());
        }
        polled.map(|len| Ok(Ok(Some(len))))
    }

    /// Grows a full buffer as if one more byte had come.
    #[cfg(feature = "daemon")]
    fn grow_of_plenty(&self, share: &mut Share) {
        let (len, held) = (share.buffer.len(), share.held);
        if len < DOUBLED_LEN_MAX || len < held || share.has_reserve {
            return;
        }
        let wanted = ample(len).min(self.expected).max(held);
        if self.memory.table.lock().take_of_plenty(wanted - held) {
            share.grow(wanted);
        }
    }

    /// Keeps `bytes` in the empty buffer if there is memory for them at once.
    #[cfg(feature = "daemon")]
    pub fn try_keep(&mut self, bytes: &[u8]) -> bool {
        let mut after = Aftermath::default();
        let kept = {
            let (now, mut share) = (Instant::now(), self.share.lock());
            let kept = !share.is_lost
                && self.memory.table.lock().ask_at_once(bytes.len(), now, &mut after);
            if kept {
                share.grow(bytes.len());
                share.buffer.extend_from_slice(bytes);
                share.received(now);
            }
            kept
        };
        after.settle();
        kept
    }

    /// Has `bytes` counted that came and that the owner keeps elsewhere, until this is dropped; waits for their
    /// memory. It is the owner's turn then.
    ///
    /// # Errors
    /// See [`Short`].
    #[cfg(feature = "daemon")]
    pub async fn charge(&mut self, bytes: usize) -> Result<(), Short> {
        let asking = Asking(self);
        poll_fn(|cx| asking.0.poll_room(cx, Need::Elsewhere(bytes))).await
    }

    /// What was taken is kept elsewhere from now on: its memory counts for the next [`Held::charge`].
    #[cfg(feature = "daemon")]
    pub fn keep_elsewhere(&self) {
        let mut share = self.share.lock();
        assert!(share.is_away, "it was taken");
        share.elsewhere = share.held;
    }

    /// After [`Held::charge`], it is the sender's turn to send more: a slow one has to give way.
    #[cfg(feature = "daemon")]
    pub fn await_sender(&self) {
        let mut share = self.share.lock();
        share.is_away = false;
        share.received(Instant::now());
    }

    /// `bytes` more have come and are used: it is the owner's turn.
    ///
    /// # Errors
    /// [`Short::GaveWay`].
    #[cfg(feature = "daemon")]
    pub fn sent(&self, bytes: usize) -> Result<(), Short> {
        let (now, mut share) = (Instant::now(), self.share.lock());
        if share.is_lost {
            return Err(Short::GaveWay);
        }
        share.elsewhere = share.elsewhere.saturating_add(bytes);
        share.is_away = true;
        share.received(now);
        share.pause(now);
        Ok(())
    }

    /// Takes the bytes out and gives their memory back. The sender goes on, as slow as it was.
    ///
    /// # Errors
    /// [`Short::GaveWay`].
    #[cfg(feature = "daemon")]
    pub fn withdraw(&mut self) -> Result<Vec<u8>, Short> {
        let mut after = Aftermath::default();
        let taken = {
            let mut share = self.share.lock();
            if share.is_lost {
                return Err(Short::GaveWay);
            }
            let taken = std::mem::take(&mut share.buffer);
            self.memory.table.lock().empty(&mut share, &mut after);
            taken
        };
        after.settle();
        Ok(taken)
    }

    /// Puts a buffer back that was taken and that more bytes are for. Much spare memory is given up.
    #[cfg(feature = "daemon")]
    pub fn put_back(&mut self, mut buffer: Vec<u8>) {
        let mut after = Aftermath::default();
        {
            let mut share = self.share.lock();
            let len = buffer.len();
            let is_wasteful = !share.has_reserve && share.held > 2 * len + STEP;
            if is_wasteful {
                buffer.shrink_to(len);
                self.memory.table.lock().shrink(&mut share, len, &mut after);
            }
            share.buffer = buffer;
            share.is_away = false;
            share.received(Instant::now());
        }
        after.settle();
    }

    /// Has the memory that it needs.
    fn poll_room(&mut self, cx: &mut Context<'_>, need: Need) -> Poll<Result<(), Short>> {
        loop {
            let mut after = Aftermath::default();
            let asked = self.ask(cx, need, &mut after);
            after.settle();
            let Poll::Pending = asked else {
                self.timer = None;
                return asked;
            };
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            ready!(timer.as_mut().poll(cx));
        }
    }

    fn ask(
        &mut self,
        cx: &Context<'_>,
        need: Need,
        after: &mut Aftermath,
    ) -> Poll<Result<(), Short>> {
        let mut share = self.share.lock();
        if share.is_lost {
            return Poll::Ready(Err(Short::GaveWay));
        }
        let held = share.held;
        let (len, needed, wanted, rank) = match need {
            Need::Room(more) => {
                let len = share.buffer.len() + more;
                let needed = least(len).min(self.expected).max(len);
                (len, needed, ample(len).min(self.expected).max(needed), held)
            }
            #[cfg(feature = "daemon")]
            Need::Elsewhere(bytes) => (bytes, bytes, bytes, held.max(bytes)),
        };
        if len <= held {
            #[cfg(feature = "daemon")]
            if matches!(need, Need::Elsewhere(_)) {
                if !share.has_reserve {
                    self.memory.table.lock().shrink(&mut share, len, after);
                }
                let held = share.held;
                need.meet(&mut share, held);
            }
            return Poll::Ready(Ok(()));
        }
        let mut table = self.memory.table.lock();
        if share.has_reserve {
            table.take_of_reserve(wanted - held);
            need.meet(&mut share, wanted);
            return Poll::Ready(Ok(()));
        }
        let now = Instant::now();
        let ask = Ask {
            number: self.number,
            ticket: share.ticket,
            held,
            rank,
            needed: needed - held,
            wanted: wanted - held,
            slowness: share.pace(now, self.memory.limits.len_max, self.memory.limits.grace()),
        };
        let taken = match table.ask(&ask, cx.waker(), now, after) {
            Answer::Bytes(bytes) => bytes,
            Answer::Reserve => {
                share.has_reserve = true;
                table.take_of_reserve(ask.wanted);
                ask.wanted
            }
            Answer::Never => return Poll::Ready(Err(Short::UsedUp)),
            Answer::Wait(ticket) => {
                share.ticket = Some(ticket);
                share.pause(now);
                let Some((give_up, look)) = table.times(ticket) else { return Poll::Pending };
                if now >= give_up {
                    table.end_wait(&mut share, after);
                    return Poll::Ready(Err(Short::UsedUp));
                }
                let until = look.map_or(give_up, |look| give_up.min(now + look));
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(until),
                    None => self.timer = Some(Box::pin(sleep_until(until))),
                }
                return Poll::Pending;
            }
        };
        share.ticket = None;
        need.meet(&mut share, held + taken);
        Poll::Ready(Ok(()))
    }

    fn end_wait(&mut self) {
        if self.timer.take().is_some() {
            let mut after = Aftermath::default();
            {
                let mut share = self.share.lock();
                self.memory.table.lock().end_wait(&mut share, &mut after);
                share.received(Instant::now());
            }
            after.settle();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut after = Aftermath::default();
        {
            let mut share = self.share.lock();
            self.memory.table.lock().remove(self.number, &mut share, &mut after);
        }
        after.settle();
    }
}

/// What memory is needed for.
#[derive(Clone, Copy)]
enum Need {
    /// So many more bytes in the buffer.
    Room(usize),
    /// So many bytes that are kept elsewhere.
    #[cfg(feature = "daemon")]
    Elsewhere(usize),
}

impl Need {
    /// There are `held` bytes of memory for it.
    fn meet(self, share: &mut Share, held: usize) {
        match self {
            Need::Room(_) => share.grow(held),
            #[cfg(feature = "daemon")]
            Need::Elsewhere(bytes) => {
                (share.held, share.elsewhere, share.is_away) = (held, bytes, true);
            }
        }
    }
}

/// One that may wait; it does not any more when this is dropped.
struct Asking<'a>(&'a mut Held);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.end_wait();
    }
}

/// Memory for `len` bytes, so that it is not asked for with each byte.
fn least(len: usize) -> usize {
    len.next_multiple_of((len / 8).next_power_of_two().clamp(FIRST_STEP, STEP))
}

/// Memory for `len` bytes and for as many more, so that few bytes are copied as it grows.
fn ample(len: usize) -> usize {
    match len {
        ..DOUBLED_LEN_MAX => len.next_power_of_two().max(FIRST_STEP),
        _ => len + len.max(STEP),
    }
}

#[cfg(test)]
mod tests;
