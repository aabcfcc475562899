//! The write buffer: memory that stores in progress share, with the received bytes of their slices.
//! Owns each store's share, and which store loses its share when memory is short.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::store::StoreError;

/// Memory is taken in steps of this many bytes, as the bytes arrive: a slow sender holds little
/// more than it has sent.
const STEP: u32 = 64 << 10;

const USED_UP: StoreError = StoreError::Busy("memory for stores in progress is used up");
const TOO_SLOW: StoreError =
    StoreError::Busy("memory for stores in progress is used up, and this one takes long");

/// A budget of bytes. When it is used up, stores wait for each other, each with a part of a slice.
///
/// - Against deadlock: one store at a time may complete its slice with memory from a reserve.
/// - Against slow clients: waiting stores take the memory of the store that has been longest at its
///   slice, once that is a third of the longest wait, unless it waits itself. That store fails.
#[derive(Clone)]
pub(super) struct WriteBuffer {
    free: Arc<Semaphore>,
    /// One permit for the whole reserve; none while it is in use, or if there is no reserve.
    reserve: Arc<Semaphore>,
    reserve_len: usize,
    limit: usize,
    wait_max: Duration,
    holders: Arc<Holders>,
}

#[derive(Default)]
struct Holders {
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    shares: HashMap<u64, Arc<Mutex<Share>>>,
    /// When somebody last looked for a slow store.
    looked: Option<Instant>,
}

/// What one store in progress holds.
struct Share {
    /// The slice so far.
    staged: BytesMut,
    steps: Vec<OwnedSemaphorePermit>,
    /// Held until the slice that needed it is stored.
    reserve: Option<OwnedSemaphorePermit>,
    /// When its present slice got its first memory.
    since: Instant,
    /// It waits for memory, or its slice is being stored.
    is_busy: bool,
    /// Its memory was taken for other stores.
    is_lost: bool,
}

/// A store's share of the budget. Dropping it releases all.
pub(super) struct Held {
    write_buffer: WriteBuffer,
    number: u64,
    share: Arc<Mutex<Share>>,
}

impl WriteBuffer {
    /// A budget of `bytes` for slices of `slice_size`. Stores wait for at most `wait_max` at a time.
    pub fn new(bytes: u64, slice_size: usize, wait_max: Duration) -> WriteBuffer {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let reserve_len = slice_size.next_multiple_of(STEP as usize);
        // A small budget has no reserve: too little would be left to share.
        let reserve_len = if limit >= 2 * reserve_len { reserve_len } else { 0 };
        WriteBuffer {
            free: Arc::new(Semaphore::new(limit - reserve_len)),
            reserve: Arc::new(Semaphore::new(usize::from(reserve_len > 0))),
            reserve_len,
            limit,
            wait_max,
            holders: Arc::default(),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        let unused = self.reserve.available_permits() * self.reserve_len;
        (self.limit - unused - self.free.available_permits()) as u64
    }

    /// Bytes at most.
    pub fn limit(&self) -> u64 {
        self.limit as u64
    }

    /// An empty share for a store that begins.
    pub fn hold(&self) -> Held {
        let share = Share {
            staged: BytesMut::new(),
            steps: Vec::new(),
            reserve: None,
            since: Instant::now(),
            is_busy: false,
            is_lost: false,
        };
        let share = Arc::new(Mutex::new(share));
        let number = self.holders.next.fetch_add(1, Ordering::Relaxed);
        self.holders.table.lock().shares.insert(number, Arc::clone(&share));
        Held { write_buffer: self.clone(), number, share }
    }

    /// Takes the memory of the store that has been longest at its slice, if it is slow. Takes it from at
    /// most one store per look interval, however many wait.
    fn take_from_slowest(&self) {
        let now = Instant::now();
        let mut table = self.holders.table.lock();
        if table.looked.is_some_and(|looked| now < looked + self.look_interval()) {
            return;
        }
        table.looked = Some(now);
        let before = now.checked_sub(self.slow_after());
        let slow = table.shares.values().filter_map(|share| {
            let since = share.lock().slow_since(before)?;
            Some((since, share))
        });
        let Some((_, slowest)) = slow.min_by_key(|(since, _)| *since) else { return };
        let mut share = slowest.lock();
        if share.slow_since(before).is_some() {
            share.is_lost = true;
            share.staged = BytesMut::new();
            share.steps.clear();
            share.reserve = None;
        }
    }

    /// How long a store may be at one slice while others wait.
    fn slow_after(&self) -> Duration {
        self.wait_max / 3
    }

    fn look_interval(&self) -> Duration {
        self.slow_after() / 10
    }
}

impl Held {
    /// Bytes of the slice so far.
    pub fn len(&self) -> usize {
        self.share.lock().staged.len()
    }

    /// Adds bytes to the slice; waits for the memory that they need.
    ///
    /// # Errors
    /// [`StoreError::Busy`]: after a long wait, or because this store's memory was taken for others.
    pub async fn stage(&self, bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            {
                let mut share = self.share.lock();
                if share.is_lost {
                    return Err(TOO_SLOW);
                }
                let len = share.staged.len() + bytes.len();
                if share.reserve.is_some() || share.steps.len() * STEP as usize >= len {
                    share.staged.extend_from_slice(bytes);
                    return Ok(());
                }
                if let Ok(step) = Arc::clone(&self.write_buffer.free).try_acquire_many_owned(STEP) {
                    share.begin();
                    share.steps.push(step);
                    continue;
                }
            }
            self.wait().await?;
        }
    }

    /// Waits for one step or the reserve.
    async fn wait(&self) -> Result<(), StoreError> {
        let write_buffer = &self.write_buffer;
        let give_up = Instant::now() + write_buffer.wait_max;
        let _busy = Busy::begin(&self.share);
        let mut step = pin!(Arc::clone(&write_buffer.free).acquire_many_owned(STEP));
        let mut reserve = pin!(Arc::clone(&write_buffer.reserve).acquire_owned());
        loop {
            let look_again = Instant::now() + write_buffer.look_interval();
            tokio::select! {
                biased;
                step = &mut step => {
                    let mut share = self.share.lock();
                    share.begin();
                    share.steps.push(step.map_err(|_| USED_UP)?);
                    return Ok(());
                }
                reserve = &mut reserve => {
                    let mut share = self.share.lock();
                    share.begin();
                    share.reserve = Some(reserve.map_err(|_| USED_UP)?);
                    return Ok(());
                }
                () = tokio::time::sleep_until(look_again.min(give_up)) => {
                    if Instant::now() >= give_up {
                        return Err(USED_UP);
                    }
                    write_buffer.take_from_slowest();
                }
            }
        }
    }

    /// Takes the slice to be stored; others cannot take its memory until [`Held::slice_ended`].
    ///
    /// # Errors
    /// [`StoreError::Busy`]: its memory was taken for others.
    pub fn take(&self) -> Result<BytesMut, StoreError> {
        let mut share = self.share.lock();
        if share.is_lost {
            return Err(TOO_SLOW);
        }
        share.is_busy = true;
        Ok(std::mem::take(&mut share.staged))
    }

    /// Ends the slice taken: it is stored. Its memory is kept for the next slice; if it needed the
    /// reserve, all is released.
    pub fn slice_ended(&self, mut staged: BytesMut) {
        let mut share = self.share.lock();
        share.is_busy = false;
        share.since = Instant::now();
        if share.reserve.take().is_some() {
            share.steps.clear();
        } else {
            staged.clear();
            share.staged = staged;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.write_buffer.holders.table.lock().shares.remove(&self.number);
    }
}

impl Share {
    /// Since when it has been at its slice, if that was before `before`, it has memory and is not busy.
    fn slow_since(&self, before: Option<Instant>) -> Option<Instant> {
        let has_memory = !self.steps.is_empty() || self.reserve.is_some();
        let is_slow = before.is_some_and(|before| self.since <= before);
        (is_slow && has_memory && !self.is_busy).then_some(self.since)
    }

    /// Called before memory is added: a slice begins with its first memory.
    fn begin(&mut self) {
        if self.steps.is_empty() && self.reserve.is_none() {
            self.since = Instant::now();
        }
    }
}

/// Keeps a share busy while its store waits.
struct Busy<'a>(&'a Mutex<Share>);

impl Busy<'_> {
    fn begin(share: &Mutex<Share>) -> Busy<'_> {
        share.lock().is_busy = true;
        Busy(share)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut share = self.0.lock();
        share.is_busy = false;
        // The time waited does not count as time at the slice.
        share.since = Instant::now();
    }
}
