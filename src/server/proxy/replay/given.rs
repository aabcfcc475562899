//! Leases that were given to clients: each is to bring the response, and names its lease by a number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::HeaderName;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::cache::Lease;
use crate::clock::Timestamp;
use crate::server::proxy::outcome::HIT_FOR_MISS;
use crate::server::proxy::place::Place;

/// In the answer to a GET, and in the PUT that brings the response: a lease.
pub(super) const LEASE: HeaderName = HeaderName::from_static("x-rawcached-lease");
/// Most leases that are given at one time.
const GIVEN_MAX: usize = 16 << 10;
/// How long a lease that nobody waits for any more is kept: what it brings is stored as long as no purge came since it
/// was given.
const LATE_MAX: Duration = Duration::from_secs(300);

/// The right to bring a response, and where it goes.
pub(super) struct Given {
    lease: Lease,
    /// The key of its target.
    target: Vec<u8>,
    /// Which variants the target had: what is brought belongs to these.
    variants: Option<([u8; 16], u32)>,
    /// When it was given: the response was asked for after that.
    pub(super) at: Timestamp,
    timer: Option<AbortHandle>,
}

/// The generation of the variants at a place, if it has any.
fn generation(place: &Place) -> Option<([u8; 16], u32)> {
    place.variants.as_ref().map(|(list, _)| list.generation())
}

impl Given {
    pub(super) fn new(lease: Lease, place: &Place, at: Timestamp) -> Given {
        let (target, variants) = (place.target.clone(), generation(place));
        Given { lease, target, variants, at, timer: None }
    }

    /// The lease, and when it was given.
    pub(super) fn into_lease(self) -> (Lease, Timestamp) {
        (self.lease, self.at)
    }

    /// Whether a response may be stored at `place`, which is where it belongs now: the variants that it was asked for
    /// are there still.
    pub(super) fn fits(&self, place: &Place) -> bool {
        self.variants.is_none() || self.variants == generation(place)
    }
}

/// The leases that clients have.
#[derive(Default)]
pub(super) struct AllGiven(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// By their numbers.
    given: HashMap<u64, Given>,
    /// Those that nobody waits for any more, the oldest first, and some that are back.
    late: VecDeque<u64>,
}

impl Table {
    /// Makes room for one more, in the place of the oldest that nobody waits for; false if there is none.
    fn make_room(&mut self) -> bool {
        while self.given.len() >= GIVEN_MAX {
            let Some(oldest) = self.late.pop_front() else { return false };
            drop(self.take(oldest));
        }
        true
    }

    fn take(&mut self, number: u64) -> Option<Given> {
        let given = self.given.remove(&number)?;
        if let Some(timer) = &given.timer {
            timer.abort();
        }
        Some(given)
    }

    /// Nobody waits for a lease any more: so it will be with the next, and who comes now is not to wait as long.
    fn give_way(&mut self, number: u64) {
        let Some(given) = self.given.get_mut(&number) else { return };
        given.lease.give_way(HIT_FOR_MISS);
        let present = &self.given;
        if self.late.len() >= 2 * GIVEN_MAX {
            self.late.retain(|number| present.contains_key(number));
        }
        self.late.push_back(number);
    }
}

impl AllGiven {
    /// Gives a lease that others wait for so long; false if there are too many, and the next who waits gets it.
    pub(super) fn give(self: &Arc<Self>, number: u64, mut given: Given, time: Duration) -> bool {
        let mut all = self.0.lock();
        if !all.make_room() {
            return false;
        }
        let late = Arc::clone(self);
        let timer = tokio::spawn(async move {
            sleep(time).await;
            late.0.lock().give_way(number);
            sleep(LATE_MAX).await;
            let over = late.0.lock().given.remove(&number);
            drop(over);
        });
        given.timer = Some(timer.abort_handle());
        all.given.insert(number, given);
        true
    }

    /// Takes the lease of this number for a target back, if it is not too late.
    pub(super) fn take(&self, number: u64, target: &[u8]) -> Option<Given> {
        let mut all = self.0.lock();
        all.given.get(&number).filter(|given| given.target == target)?;
        all.take(number)
    }
}
