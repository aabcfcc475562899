//! Leases that were given to clients: each is to bring the response, and names its lease by a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::HeaderName;
use parking_lot::Mutex;

use crate::cache::Lease;
use crate::clock::Timestamp;
use crate::server::proxy::outcome::HIT_FOR_MISS;
use crate::server::proxy::place::Place;

/// In the answer to a GET, and in the PUT that brings the response: a lease.
pub(super) const LEASE: HeaderName = HeaderName::from_static("x-rawcached-lease");
/// Most leases that are given at one time.
const GIVEN_MAX: usize = 64 << 10;

/// The right to bring a response, and where it goes.
pub(super) struct Given {
    pub(super) lease: Lease,
    pub(super) place: Place,
    /// When it was given: the response was asked for after that.
    pub(super) at: Timestamp,
}

/// The leases that clients have, by their numbers.
#[derive(Default)]
pub(super) struct AllGiven(Mutex<HashMap<u64, Given>>);

impl AllGiven {
    /// Gives a lease for so long; false if there are too many, and the next who waits gets it.
    pub(super) fn give(self: &Arc<Self>, number: u64, given: Given, time: Duration) -> bool {
        {
            let mut all = self.0.lock();
            if all.len() >= GIVEN_MAX {
                return false;
            }
            all.insert(number, given);
        }
        let all = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let late = all.0.lock().remove(&number);
            // So it will be with the next: who comes now is not to wait as long.
            if let Some(late) = late {
                late.lease.refuse(HIT_FOR_MISS);
            }
        });
        true
    }

    /// Takes the lease of this number for a target back, if it is not too late.
    pub(super) fn take(&self, number: u64, target: &[u8]) -> Option<Given> {
        let mut all = self.0.lock();
        all.get(&number).filter(|given| given.place.target == target)?;
        all.remove(&number)
    }
}
