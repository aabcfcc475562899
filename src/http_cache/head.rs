//! Heads of messages as the core sees them: what was asked, what came, what is stored, and when.

use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE, DATE, UPGRADE};
use http::{HeaderMap, Method, StatusCode};

use super::control_fields::{Controls, control_fields};
use super::date::date;
use super::freshness::Terms;
use super::hop_by_hop::remove_hop_by_hop;
use super::settings::Settings;
use super::target::Target;
use crate::clock::Timestamp;

/// The head of a request, as it is given on: without fields that are for one connection. What the
/// origin does not get can neither select a variant nor be a part of a key.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    /// What is for this cache alone, trusted or not.
    pub(super) control_fields: HeaderMap,
    pub(super) has_body: bool,
    pub(super) wants_upgrade: bool,
}

impl RequestHead {
    /// `target` is the URI that the key is made of; `headers` are all fields but those that frame the
    /// message; `has_body` says whether a body follows, even an empty one whose length is announced.
    #[must_use]
    pub fn new(
        method: Method,
        target: Target,
        mut headers: HeaderMap,
        has_body: bool,
    ) -> RequestHead {
        let wants_upgrade = headers.contains_key(UPGRADE);
        // Before `Connection` takes some of them away: a front may have set them behind it.
        let control_fields = control_fields(&headers);
        remove_hop_by_hop(&mut headers);
        RequestHead { method, target, headers, control_fields, has_body, wants_upgrade }
    }

    /// What to do.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// With what.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The fields that are given on.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// What it says to this cache, as far as that is trusted.
    #[must_use]
    pub fn controls(&self, settings: &Settings) -> Controls {
        Controls::of(&self.control_fields, &settings.trusted)
    }

    /// Whether the response may be for one user only: no lifetime is guessed then.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION) || self.headers.contains_key(COOKIE)
    }
}

/// The head of a response as it came from the origin.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Never an interim one (1xx).
    pub status: StatusCode,
    /// All fields.
    pub headers: HeaderMap,
    /// Whether nothing but the end of the connection ends the body (RFC 9112, section 6.3): one that was
    /// cut off looks whole.
    pub ends_with_connection: bool,
}

/// When a response was asked for and came.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When the request left.
    pub requested_at: Timestamp,
    /// When the head of the response was there.
    pub received_at: Timestamp,
    /// The same by the wall clock.
    pub received_date: SystemTime,
}

/// The head of a stored response.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// Status of the response.
    pub status: StatusCode,
    /// The fields that readers get, without `Age`, always with a `Date`.
    pub headers: HeaderMap,
    /// When it came, or was validated last.
    pub received_at: Timestamp,
    /// How old it was then (RFC 9111, section 4.2.3: `corrected_initial_age`), in whole seconds.
    pub initial_age: Duration,
    /// What was said of its use.
    pub terms: Terms,
    /// When it was made stale before its time, by a soft purge: the origin's grace still holds. What an
    /// unsafe request invalidates is removed instead (RFC 9111, section 4.4).
    pub ended_at: Option<Timestamp>,
}

impl StoredHead {
    /// Its age (RFC 9111, section 4.2.3: `current_age`). Never falls as `now` rises.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.since(self.received_at))
    }

    /// How long it is fresh from `now` on; zero if it is stale.
    #[must_use]
    pub fn fresh_for(&self, now: Timestamp) -> Duration {
        match self.ended_at {
            Some(ended) if ended <= now => Duration::ZERO,
            _ => self.terms.lifetime.saturating_sub(self.age(now)),
        }
    }

    /// Whether it is fresh (RFC 9111, section 4.2). A stored response is stale when its age has come to
    /// its lifetime.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        !self.fresh_for(now).is_zero()
    }

    /// For how long it has been stale; zero if it is fresh.
    #[must_use]
    pub fn staleness(&self, now: Timestamp) -> Duration {
        let natural = self.age(now).saturating_sub(self.terms.lifetime);
        match self.ended_at {
            Some(ended) => natural.max(now.since(ended)),
            None => natural,
        }
    }

    /// What `Cache-Status` says of its freshness (RFC 9211, section 2.6): seconds that it stays fresh, or
    /// below zero since when it is stale.
    #[must_use]
    pub fn ttl_secs(&self, now: Timestamp) -> i64 {
        let secs = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match self.fresh_for(now) {
            Duration::ZERO => -secs(self.staleness(now)),
            fresh_for => secs(fresh_for),
        }
    }

    /// `Date`, by the origin's clock.
    #[must_use]
    pub fn date(&self) -> Option<SystemTime> {
        date(&self.headers, &DATE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http_cache::testing::secs;

    fn stored(received_at: u32, initial_age: u64, lifetime: u64, ended: Option<u32>) -> StoredHead {
        StoredHead {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            received_at: Timestamp(received_at),
            initial_age: secs(initial_age),
            terms: Terms { lifetime: secs(lifetime), ..Terms::default() },
            ended_at: ended.map(Timestamp),
        }
    }

    #[test]
    fn freshness_ends_when_the_age_has_come_to_the_lifetime() {
        let stored = stored(100, 10, 30, None);
        assert_eq!(
            (stored.age(Timestamp(110)), stored.fresh_for(Timestamp(110))),
            (secs(20), secs(10))
        );
        assert!(stored.is_fresh(Timestamp(119)) && !stored.is_fresh(Timestamp(120)));
        assert_eq!(stored.staleness(Timestamp(120)), secs(0));
        assert_eq!(stored.staleness(Timestamp(125)), secs(5));
        assert_eq!((stored.ttl_secs(Timestamp(115)), stored.ttl_secs(Timestamp(125))), (5, -5));
    }

    #[test]
    fn what_was_ended_is_stale_from_then_on() {
        let stored = stored(100, 0, 50, Some(110));
        assert!(stored.is_fresh(Timestamp(109)) && !stored.is_fresh(Timestamp(110)));
        assert_eq!(stored.staleness(Timestamp(115)), secs(5));
        assert_eq!(stored.staleness(Timestamp(300)), secs(190));
    }

    proptest! {
        #[test]
        fn age_never_falls(received: u32, initial: u64, lifetime: u64, first: u32, second: u32,
                           ended: Option<u32>) {
            let stored = stored(received, initial, lifetime, ended);
            let (first, second) = (Timestamp(first.min(second)), Timestamp(first.max(second)));
            prop_assert!(stored.age(first) <= stored.age(second));
            prop_assert!(stored.age(first) >= secs(initial));
            prop_assert!(stored.fresh_for(first) >= stored.fresh_for(second));
            prop_assert!(stored.staleness(first) <= stored.staleness(second));
            prop_assert!(!stored.is_fresh(first) || stored.staleness(first).is_zero());
            // What is stale never becomes fresh again.
            prop_assert!(stored.is_fresh(first) || !stored.is_fresh(second));
        }
    }
}
