//! Whether a stored response answers a request (RFC 9111, sections 4 and 4.2.4; RFC 5861; RFC 8246).

use std::time::Duration;

use http::StatusCode;

use super::head::StoredHead;
use super::request::Asked;
use crate::clock::Timestamp;

/// What to do with the stored response that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answer with it.
    Fresh,
    /// Answer with it, and fetch a new one in the background.
    StaleWhileRevalidate,
    /// Answer with it: the client takes it although it is stale.
    StaleForClient,
    /// Ask the origin first.
    Validate(Why),
    /// 504: the client wants no request to the origin (RFC 9111, section 5.2.1.7).
    GatewayTimeout,
}

/// Why the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is stale, or must be validated before every use.
    Stale,
    /// It is fresh, but not fresh enough for the client.
    Client,
}

/// How an origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be reached, did not answer in time, or what came is no whole response.
    Connection,
    /// It answered with this status.
    Status(StatusCode),
}

impl Failure {
    /// Whether a stale response may stand in for it (RFC 5861, section 4).
    #[must_use]
    pub fn is_error(self) -> bool {
        match self {
            Failure::Connection => true,
            Failure::Status(status) => matches!(status.as_u16(), 500 | 502 | 503 | 504),
        }
    }
}

/// Whether and how `stored` answers a request at `now`.
#[must_use]
pub fn reuse(asked: &Asked, stored: &StoredHead, now: Timestamp) -> Reuse {
    let found = match refusal_of_client(asked, stored, now) {
        Some(why) => Reuse::Validate(why),
        None => without_client(asked, stored, now),
    };
    match found {
        Reuse::Validate(_) if asked.only_if_cached => Reuse::GatewayTimeout,
        found => found,
    }
}

/// As if the client would take whatever may be used.
fn without_client(asked: &Asked, stored: &StoredHead, now: Timestamp) -> Reuse {
    let terms = &stored.terms;
    if terms.no_cache {
        return Reuse::Validate(Why::Stale);
    }
    if stored.is_fresh(now) {
        return Reuse::Fresh;
    }
    let staleness = stored.staleness(now);
    if is_within(staleness, terms.stale_while_revalidate) {
        return Reuse::StaleWhileRevalidate;
    }
    match asked.control.max_stale {
        Some(allowed) if !terms.forbids_stale && staleness <= allowed => Reuse::StaleForClient,
        _ => Reuse::Validate(Why::Stale),
    }
}

/// Whether the client refuses what may be used (RFC 9111, section 5.2.1).
fn refusal_of_client(asked: &Asked, stored: &StoredHead, now: Timestamp) -> Option<Why> {
    let control = &asked.control;
    let is_fresh = stored.is_fresh(now) && !stored.terms.no_cache;
    let why = if is_fresh { Why::Client } else { Why::Stale };
    if control.no_cache {
        return Some(why);
    }
    if control.min_fresh.is_some_and(|min| !is_fresh || stored.fresh_for(now) < min) {
        return Some(why);
    }
    let max_age = control.max_age?;
    // A reload of what does not change (RFC 8246, section 2).
    if max_age.is_zero() && is_fresh && stored.terms.immutable {
        return None;
    }
    let age_max = max_age.saturating_add(control.max_stale.unwrap_or_default());
    let wants_fresh = control.max_stale.is_none() && !is_fresh;
    (wants_fresh || stored.age(now) > age_max).then_some(why)
}

/// Whether `stored` may stand in for an origin that failed (RFC 5861, section 4; RFC 9111, section
/// 4.2.4). A client that refuses what is stored for a newer one gets this rather than an error.
#[must_use]
pub fn stands_in(asked: &Asked, stored: &StoredHead, now: Timestamp, failure: Failure) -> bool {
    let terms = &stored.terms;
    if terms.no_cache || !failure.is_error() {
        return false;
    }
    if stored.is_fresh(now) {
        return !asked.control.no_cache;
    }
    // Terms that forbid stale use have no grace of their own.
    let of_client = asked.control.stale_if_error.filter(|_| !terms.forbids_stale);
    let allowed = terms.stale_if_error.max(of_client.unwrap_or_default());
    is_within(stored.staleness(now), allowed)
}

/// A grace of zero allows nothing.
fn is_within(staleness: Duration, grace: Duration) -> bool {
    !grace.is_zero() && staleness <= grace
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::cache_control::CacheControl;
    use crate::http_cache::request::{Class, classify};
    use crate::http_cache::settings::{ClientDirectives, Settings};
    use crate::http_cache::storing::{Storing, store};
    use crate::http_cache::testing::{exchange, get, response};

    fn stored(control: &str) -> StoredHead {
        let response = response(200, &[("cache-control", control), ("etag", "\"a\"")]);
        match store(&get(&[]), &response, &exchange(), &Settings::default()) {
            Storing::Whole(kept) => kept.head,
            other => panic!("{other:?}"),
        }
    }

    fn asked(control: &str) -> Asked {
        let settings =
            Settings { client_directives: ClientDirectives::Honor, ..Settings::default() };
        match classify(&get(&[("cache-control", control)]), &settings) {
            Class::Lookup(asked) => asked,
            Class::Pass(pass) => panic!("{pass:?}"),
        }
    }

    /// Of a response that came in second 100.
    fn at(age: u32, response: &str, request: &str) -> Reuse {
        reuse(&asked(request), &stored(response), Timestamp(100 + age))
    }

    const STALE: Reuse = Reuse::Validate(Why::Stale);
    const CLIENT: Reuse = Reuse::Validate(Why::Client);

    /// RFC 9111, section 4.
    #[test]
    fn what_is_fresh_is_used() {
        assert_eq!(at(0, "max-age=10", ""), Reuse::Fresh);
        assert_eq!(at(9, "max-age=10", ""), Reuse::Fresh);
        assert_eq!(at(10, "max-age=10", ""), STALE);
        assert_eq!(at(0, "max-age=10, no-cache", ""), STALE);
        assert_eq!(at(0, "max-age=0", ""), STALE);
        assert_eq!(at(9, "max-age=10, must-revalidate", ""), Reuse::Fresh);
    }

    /// RFC 5861, section 3.
    #[test]
    fn stale_responses_are_used_while_they_are_refreshed() {
        let swr = "max-age=10, stale-while-revalidate=5";
        assert_eq!(at(9, swr, ""), Reuse::Fresh);
        assert_eq!(at(10, swr, ""), Reuse::StaleWhileRevalidate);
        assert_eq!(at(15, swr, ""), Reuse::StaleWhileRevalidate);
        assert_eq!(at(16, swr, ""), STALE);
        assert_eq!(at(10, "max-age=10, stale-while-revalidate=0", ""), STALE);
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
            assert_eq!(at(12, &format!("{swr}, {strict}"), ""), STALE, "{strict}");
        }
        assert_eq!(at(12, swr, "max-age=0"), STALE);
        assert_eq!(at(12, swr, "max-age=60"), STALE, "the client wants it fresh");
        assert_eq!(at(12, swr, "no-cache"), STALE);
    }

    /// RFC 9111, section 5.2.1.
    #[test]
    fn clients_may_ask_for_more() {
        let fresh = "max-age=100";
        assert_eq!(at(20, fresh, "no-cache"), CLIENT);
        assert_eq!(at(20, fresh, "max-age=0"), CLIENT);
        assert_eq!(at(20, fresh, "max-age=19"), CLIENT);
        assert_eq!(at(20, fresh, "max-age=20"), Reuse::Fresh);
        assert_eq!(at(20, fresh, "min-fresh=80"), Reuse::Fresh);
        assert_eq!(at(20, fresh, "min-fresh=81"), CLIENT);
        assert_eq!(at(20, fresh, "no-store"), Reuse::Fresh);
        assert_eq!(at(120, fresh, "min-fresh=0"), STALE);
    }

    /// RFC 9111, sections 5.2.1.2 and 4.2.4.
    #[test]
    fn clients_may_take_what_is_stale() {
        assert_eq!(at(15, "max-age=10", "max-stale=5"), Reuse::StaleForClient);
        assert_eq!(at(16, "max-age=10", "max-stale=5"), STALE);
        assert_eq!(at(9999, "max-age=10", "max-stale"), Reuse::StaleForClient);
        assert_eq!(at(15, "max-age=10, must-revalidate", "max-stale"), STALE);
        assert_eq!(at(15, "max-age=10, s-maxage=10", "max-stale"), STALE);
        assert_eq!(at(15, "max-age=10, no-cache", "max-stale"), STALE);
        assert_eq!(at(15, "max-age=10", "max-stale=9, max-age=10"), Reuse::StaleForClient);
        assert_eq!(at(15, "max-age=10", "max-stale=9, max-age=5"), STALE);
        assert_eq!(at(15, "max-age=10", "max-stale=9, min-fresh=1"), STALE);
    }

    /// RFC 9111, section 5.2.1.7.
    #[test]
    fn who_wants_no_request_gets_504_instead() {
        let only = "only-if-cached";
        assert_eq!(at(0, "max-age=10", only), Reuse::Fresh);
        assert_eq!(at(10, "max-age=10", only), Reuse::GatewayTimeout);
        assert_eq!(at(0, "max-age=10, no-cache", only), Reuse::GatewayTimeout);
        assert_eq!(at(0, "max-age=10", "only-if-cached, no-cache"), Reuse::GatewayTimeout);
        assert_eq!(at(12, "max-age=10", "only-if-cached, max-stale=5"), Reuse::StaleForClient);
    }

    /// RFC 8246, section 2.
    #[test]
    fn what_is_immutable_is_not_validated_by_a_reload_while_it_is_fresh() {
        assert_eq!(at(5, "max-age=10, immutable", "max-age=0"), Reuse::Fresh);
        assert_eq!(at(5, "max-age=10, immutable", "no-cache"), CLIENT, "a forced reload");
        assert_eq!(at(10, "max-age=10, immutable", "max-age=0"), STALE);
        assert_eq!(at(5, "max-age=10, immutable, no-cache", "max-age=0"), STALE);
    }

    #[test]
    fn what_was_made_stale_is_validated() {
        let now = Timestamp(105);
        let ended = |control: &str| StoredHead { ended_at: Some(now), ..stored(control) };
        assert_eq!(reuse(&Asked::default(), &ended("max-age=10"), now), STALE);
        let swr = ended("max-age=10, stale-while-revalidate=5");
        assert_eq!(reuse(&Asked::default(), &swr, now), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse(&Asked::default(), &swr, Timestamp(111)), STALE);
    }

    /// RFC 5861, section 4.
    #[test]
    fn stale_responses_stand_in_for_errors() {
        let stands = |age: u32, response: &str, request: &str, failure: Failure| {
            stands_in(&asked(request), &stored(response), Timestamp(100 + age), failure)
        };
        let sie = "max-age=10, stale-if-error=5";
        let status = |status: u16| Failure::Status(StatusCode::from_u16(status).unwrap());
        for failure in [Failure::Connection, status(500), status(502), status(503), status(504)] {
            assert!(stands(15, sie, "", failure), "{failure:?}");
            assert!(!stands(16, sie, "", failure), "{failure:?}");
        }
        for failure in [status(200), status(404), status(501), status(505), status(599)] {
            assert!(!stands(12, sie, "", failure), "{failure:?}");
        }
        assert!(!stands(12, "max-age=10", "", Failure::Connection));
        assert!(stands(12, "max-age=10", "stale-if-error=5", Failure::Connection));
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
            let response = format!("{sie}, {strict}");
            assert!(!stands(12, &response, "stale-if-error=5", Failure::Connection), "{strict}");
        }
        assert!(stands(5, "max-age=10", "max-age=0", Failure::Connection), "it is fresh");
        assert!(!stands(5, "max-age=10", "no-cache", Failure::Connection));
        assert!(!stands(0, "no-cache", "", Failure::Connection));
    }

    #[test]
    fn clients_that_are_ignored_change_nothing() {
        let ignored = |control: &str| {
            let request = get(&[("cache-control", control)]);
            match classify(&request, &Settings::default()) {
                Class::Lookup(asked) => asked,
                Class::Pass(pass) => panic!("{pass:?}"),
            }
        };
        for control in ["no-cache", "max-age=0", "min-fresh=999", "max-stale"] {
            let asked = ignored(control);
            assert_eq!(asked.control, CacheControl::default());
            assert_eq!(reuse(&asked, &stored("max-age=10"), Timestamp(105)), Reuse::Fresh);
            assert_eq!(reuse(&asked, &stored("max-age=10"), Timestamp(115)), STALE);
        }
    }
}
