//! Who holds the lease of a key, who is next, and which keys are not worth waiting for. Knows no cache.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::marks::Marks;
use crate::store::Fill;

/// The leases of one cache, and the keys that need none.
#[derive(Default)]
pub(super) struct Leases {
    places: DashMap<Vec<u8>, Taken>,
    marks: Mutex<Marks>,
    /// Number of marks: at 0 nobody looks for them.
    marked: AtomicUsize,
}

/// What a store takes over of a lease.
#[derive(Default)]
pub(super) struct OfLease {
    /// Purges since it began prevail; `None` if the store itself is the beginning.
    pub fill: Option<Fill>,
    /// Others wait for it.
    pub held: Option<Held>,
}

/// A lease that others wait for.
pub(super) struct Held {
    /// Dropped first: it goes to the next who waits.
    _permit: OwnedSemaphorePermit,
    seat: Seat,
}

/// A lease that is taken away from a store if a purge came meanwhile.
pub(super) type SharedLease = Arc<Mutex<Option<Held>>>;

/// The lease of one key, as long as somebody holds it or waits for it.
#[derive(Clone)]
struct Place {
    /// The lease, while nobody holds it; those who wait get it in their order.
    free: Arc<Semaphore>,
    /// All who wait are to look again.
    changed: Arc<Notify>,
}

/// Somebody who holds the lease of a key or waits for it.
struct Seat {
    leases: Arc<Leases>,
    key: Vec<u8>,
    place: Place,
}

/// A place, and how many have a seat there.
struct Taken {
    place: Place,
    seats: usize,
}

/// How waiting for a lease ended.
pub(super) enum Waited {
    Held(Held),
    /// Look again: the key may be there, or marked.
    Changed,
    TooLong,
}

impl Leases {
    fn take_seat(self: &Arc<Self>, key: &[u8]) -> Seat {
        let mut taken = self.places.entry(key.to_vec()).or_insert_with(|| {
            let (free, changed) = (Arc::new(Semaphore::new(1)), Arc::new(Notify::new()));
            Taken { place: Place { free, changed }, seats: 0 }
        });
        taken.seats += 1;
        Seat { leases: Arc::clone(self), key: key.to_vec(), place: taken.place.clone() }
    }

    /// Whether a key is marked; `key_hash` is asked for its hash only if any is.
    pub fn is_marked(&self, key_hash: impl FnOnce() -> u64) -> bool {
        self.marked.load(Ordering::Acquire) > 0
            && self.marks.lock().is_marked(key_hash(), Instant::now())
    }

    /// Marks a key for so long: nobody is to wait for it.
    pub fn mark(&self, key_hash: u64, time: Duration) {
        let mut marks = self.marks.lock();
        marks.mark(key_hash, Instant::now(), time);
        self.marked.store(marks.len(), Ordering::Release);
    }

    /// A key was stored: it is worth waiting for, and who waits for it is to look, whoever holds its lease.
    pub fn note_stored(&self, key: &[u8], key_hash: impl FnOnce() -> u64, held: Option<Held>) {
        match held {
            Some(held) => held.announce(),
            None => self.announce(key),
        }
        if self.marked.load(Ordering::Acquire) > 0 {
            let mut marks = self.marks.lock();
            marks.clear(key_hash());
            self.marked.store(marks.len(), Ordering::Release);
        }
    }

    /// All who wait for a key are to look again.
    pub fn announce(&self, key: &[u8]) {
        let changed = self.places.get(key).map(|taken| Arc::clone(&taken.place.changed));
        if let Some(changed) = changed {
            changed.notify_waiters();
        }
    }

    /// Number of keys whose lease is held or waited for.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The lease of a key, if nobody has it.
    pub fn try_hold(self: &Arc<Self>, key: &[u8]) -> Option<Held> {
        let seat = self.take_seat(key);
        let permit = Arc::clone(&seat.place.free).try_acquire_owned().ok()?;
        Some(Held { _permit: permit, seat })
    }

    /// Waits for the lease of a key, or for news of it: if it is held, and there is none yet by what `is_news` says.
    pub async fn hold(
        self: &Arc<Self>,
        key: &[u8],
        deadline: Instant,
        is_news: impl AsyncFnOnce() -> bool,
    ) -> Waited {
        let seat = self.take_seat(key);
        if let Ok(permit) = Arc::clone(&seat.place.free).try_acquire_owned() {
            return Waited::Held(Held { _permit: permit, seat });
        }
        let news = Arc::clone(&seat.place.changed);
        let mut changed = pin!(news.notified());
        changed.as_mut().enable();
        // After that: what was announced before is seen, and what comes later wakes.
        if is_news().await {
            return Waited::Changed;
        }
        let permit = Arc::clone(&seat.place.free).acquire_owned();
        tokio::select! {
            biased;
            permit = permit => match permit {
                Ok(permit) => Waited::Held(Held { _permit: permit, seat }),
                Err(_) => unreachable!("a lease is never closed"),
            },
            () = changed => Waited::Changed,
            () = tokio::time::sleep_until(deadline) => Waited::TooLong,
        }
    }
}

impl Held {
    /// The key was stored, or is not worth waiting for: all who wait are to look again.
    pub(super) fn announce(&self) {
        self.seat.place.changed.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leases.places.remove_if_mut(&self.key, |_, taken| {
            taken.seats -= 1;
            taken.seats == 0
        });
    }
}
