//! The memory that all stores in progress share. Owns who has how much of it, and who gives it up when
//! it is short; never sees a byte of a body.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// A budget of bytes. When it is used up stores wait for each other, each with a part of a slice.
///
/// - So that they do not wait in a circle, one at a time may take what completes its slice from a
///   reserve.
/// - So that they do not wait for a client that sends little, those that wait take the memory of
///   the store that has been longest at its slice, once that is a third of the longest wait and it
///   does not wait itself: it fails.
#[derive(Clone)]
pub(super) struct Staging {
    free: Arc<Semaphore>,
    /// Whole or not there.
    reserve: Arc<Semaphore>,
    reserve_len: usize,
    limit: usize,
    wait_max: Duration,
    holders: Arc<Holders>,
}

#[derive(Default)]
struct Holders {
    next: AtomicU64,
    shares: Mutex<HashMap<u64, Arc<Mutex<Share>>>>,
}

/// What one store in progress has.
struct Share {
    steps: Vec<OwnedSemaphorePermit>,
    /// Held until the slice is complete, in which it was needed.
    reserve: Option<OwnedSemaphorePermit>,
    /// When its present slice got its first step.
    since: Instant,
    waits: bool,
    /// Its memory went to others.
    is_lost: bool,
}

/// A store's part of the budget. Dropping it gives all back.
pub(super) struct Held {
    staging: Staging,
    number: u64,
    share: Arc<Mutex<Share>>,
}

impl Staging {
    /// A budget of `bytes` for slices of `slice_size`. Stores wait for at most `wait_max` at a time.
    pub fn new(bytes: u64, slice_size: usize, wait_max: Duration) -> Staging {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let reserve_len = slice_size.next_multiple_of(STEP as usize);
        // A small budget has none: a part of it would be missed.
        let reserve_len = if limit >= 2 * reserve_len { reserve_len } else { 0 };
        Staging {
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

    /// A part of the budget for a store that begins: nothing yet.
    pub fn hold(&self) -> Held {
        let share = Share {
            steps: Vec::new(),
            reserve: None,
            since: Instant::now(),
            waits: false,
            is_lost: false,
        };
        let share = Arc::new(Mutex::new(share));
        let number = self.holders.next.fetch_add(1, Ordering::Relaxed);
        self.holders.shares.lock().insert(number, Arc::clone(&share));
        Held { staging: self.clone(), number, share }
    }

    /// Takes the memory of the store that has been longest at its slice, if that is long.
    fn take_from_slowest(&self) {
        let shares = self.holders.shares.lock();
        let now = Instant::now();
        let slow = shares.values().filter_map(|share| {
            let is_slow = {
                let share = share.lock();
                let is_long = now.duration_since(share.since) >= self.slow_after();
                is_long && !share.waits && !share.steps.is_empty()
            };
            is_slow.then(|| (share.lock().since, share))
        });
        let slowest = slow.min_by_key(|(since, _)| *since).map(|(_, share)| share);
        if let Some(slowest) = slowest {
            let mut share = slowest.lock();
            share.is_lost = true;
            share.steps.clear();
            share.reserve = None;
        }
    }

    fn slow_after(&self) -> Duration {
        self.wait_max / 3
    }
}

impl Held {
    /// Takes what is missing for a slice of which `len` bytes have come; waits for it.
    ///
    /// # Errors
    /// [`StoreError::Busy`]: after a long wait, or because others waited long for this one.
    pub async fn cover(&self, len: usize) -> Result<(), StoreError> {
        loop {
            {
                let mut share = self.share.lock();
                if share.is_lost {
                    return Err(TOO_SLOW);
                }
                if share.reserve.is_some() || share.steps.len() * STEP as usize >= len {
                    return Ok(());
                }
                if let Ok(step) = Arc::clone(&self.staging.free).try_acquire_many_owned(STEP) {
                    share.add(step);
                    continue;
                }
            }
            self.wait().await?;
        }
    }

    /// Waits for one step or the reserve.
    async fn wait(&self) -> Result<(), StoreError> {
        let staging = &self.staging;
        let give_up = Instant::now() + staging.wait_max;
        let _waiting = Waiting::begin(&self.share);
        loop {
            let look_again = Instant::now() + staging.slow_after() / 10;
            tokio::select! {
                biased;
                step = Arc::clone(&staging.free).acquire_many_owned(STEP) => {
                    self.share.lock().add(step.map_err(|_| USED_UP)?);
                    return Ok(());
                }
                reserve = Arc::clone(&staging.reserve).acquire_owned() => {
                    self.share.lock().reserve = Some(reserve.map_err(|_| USED_UP)?);
                    return Ok(());
                }
                () = tokio::time::sleep_until(look_again.min(give_up)) => {
                    if Instant::now() >= give_up {
                        return Err(USED_UP);
                    }
                    staging.take_from_slowest();
                }
            }
        }
    }

    /// The slice is complete; true if its memory is to be let go, because others wait for it.
    pub fn slice_ended(&self) -> bool {
        let mut share = self.share.lock();
        let others_wait = share.reserve.take().is_some();
        if others_wait {
            share.steps.clear();
        }
        share.since = Instant::now();
        others_wait
    }

    /// # Errors
    /// [`StoreError::Busy`]: its memory went to others.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.share.lock().is_lost { Err(TOO_SLOW) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.staging.holders.shares.lock().remove(&self.number);
    }
}

impl Share {
    fn add(&mut self, step: OwnedSemaphorePermit) {
        if self.steps.is_empty() {
            self.since = Instant::now();
        }
        self.steps.push(step);
    }
}

/// Marks a share as one that waits, for as long as it does.
struct Waiting<'a>(&'a Mutex<Share>);

impl Waiting<'_> {
    fn begin(share: &Mutex<Share>) -> Waiting<'_> {
        share.lock().waits = true;
        Waiting(share)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut share = self.0.lock();
        share.waits = false;
        // Its slice was held up by others.
        share.since = Instant::now();
    }
}
