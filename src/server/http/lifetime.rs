//! How long an object lives, by its head and by the headers of the request that stores or changes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;

use super::head::Head;
use super::refusal::Refusal;
use crate::clock::Clock;

/// Fresh lifetime in seconds; outranks all other headers.
pub(super) const TTL: HeaderName = HeaderName::from_static("x-rawcached-ttl");
/// Seconds after the fresh lifetime in which readers that allow stale objects still get this one.
pub(super) const GRACE: HeaderName = HeaderName::from_static("x-rawcached-grace");

/// What is said about lifetimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Lifetimes {
    /// Fresh lifetime; `None` if nothing is said.
    pub(super) ttl: Option<Duration>,
    /// Grace after the fresh lifetime, zero if stale use is forbidden; `None` if nothing is said.
    pub(super) grace: Option<Duration>,
}

impl Lifetimes {
    /// These, and `others` where nothing is said.
    pub(super) fn or(self, others: Lifetimes) -> Lifetimes {
        Lifetimes { ttl: self.ttl.or(others.ttl), grace: self.grace.or(others.grace) }
    }
}

/// The lifetimes that the whole of a head gives; `clock` is for `Expires` without `Date`.
pub(super) fn of_head(head: &Head, clock: &Clock) -> Lifetimes {
    let control = &head.control;
    let ttl = if control.no_cache {
        Some(Duration::ZERO)
    } else {
        control.s_maxage.or(control.max_age).or_else(|| until_expires(head, clock))
    };
    let grace = match control.forbids_stale {
        true => Some(Duration::ZERO),
        false => control.stale_while_revalidate.max(control.stale_if_error),
    };
    Lifetimes { ttl, grace }
}

/// The lifetimes in this daemon's own headers.
pub(in crate::server) fn explicit(headers: &HeaderMap) -> Result<Lifetimes, Refusal> {
    Ok(Lifetimes { ttl: seconds(headers, &TTL)?, grace: seconds(headers, &GRACE)? })
}

fn seconds(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Duration>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let secs = digits.and_then(|digits| digits.parse().ok());
    secs.map(|secs| Some(Duration::from_secs(secs))).ok_or(Refusal::BAD_LIFETIME)
}

/// `Expires` minus `Date` (RFC 9111, section 4.2.1), or minus the wall clock if there is no `Date`.
fn until_expires(head: &Head, clock: &Clock) -> Option<Duration> {
    let expires = head.expires()?;
    Some(match head.date() {
        Some(from) => expires.duration_since(from).unwrap_or_default(),
        None => clock.until_wall(unix_secs(expires)),
    })
}

fn unix_secs(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// Lifetime and grace of a store with these headers.
    fn of(lines: &[(&str, &str)]) -> Result<(Option<u64>, Option<u64>), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let clock = Clock::manual(Timestamp(5));
        clock.set_wall(784_111_777);
        let found = explicit(&headers)?.or(of_head(&Head::of(&headers)?, &clock));
        Ok((found.ttl.map(|ttl| ttl.as_secs()), found.grace.map(|grace| grace.as_secs())))
    }

    #[test]
    fn the_most_specific_lifetime_counts() {
        let control = ("cache-control", "max-age=60, stale-while-revalidate=9");
        let shared = ("cache-control", "max-age=60, s-maxage=30, stale-while-revalidate=9");
        let expires = ("expires", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(of(&[]).unwrap(), (None, None));
        assert_eq!(of(&[control, expires]).unwrap(), (Some(60), Some(9)));
        assert_eq!(of(&[shared, expires]).unwrap(), (Some(30), Some(0)));
        assert_eq!(of(&[("cache-control", "max-age=60"), expires]).unwrap(), (Some(60), None));
        assert_eq!(of(&[expires]).unwrap(), (Some(10), None));
        assert_eq!(of(&[control, ("x-rawcached-ttl", "5")]).unwrap(), (Some(5), Some(9)));
        assert_eq!(of(&[control, ("x-rawcached-grace", "0")]).unwrap(), (Some(60), Some(0)));
        assert_eq!(of(&[shared, ("x-rawcached-grace", "7")]).unwrap(), (Some(30), Some(7)));
    }

    #[test]
    fn expires_counts_from_the_date_that_came_with_it() {
        let expires = ("expires", "Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(of(&[expires, ("date", "Sun, 06 Nov 1994 08:48:47 GMT")]).unwrap().0, Some(60));
        assert_eq!(of(&[expires, ("date", "Sun, 06 Nov 1994 09:48:47 GMT")]).unwrap().0, Some(0));
        assert_eq!(of(&[("expires", "0")]).unwrap().0, Some(0));
    }

    #[test]
    fn stale_use_is_bounded_by_the_longer_promise_and_by_what_forbids_it() {
        let both = "max-age=1, stale-while-revalidate=3, stale-if-error=8";
        assert_eq!(of(&[("cache-control", both)]).unwrap().1, Some(8));
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
            let strict = format!("{both}, {strict}");
            assert_eq!(of(&[("cache-control", &strict)]).unwrap().1, Some(0), "{strict}");
        }
        let in_part = format!("{both}, no-cache=\"set-cookie\"");
        assert_eq!(of(&[("cache-control", &in_part)]).unwrap(), (Some(1), Some(8)));
        assert_eq!(of(&[("cache-control", "no-cache, max-age=9")]).unwrap().0, Some(0));
    }

    #[test]
    fn lifetimes_that_cannot_be_read_are_refused() {
        for value in ["", "-1", "1.5", "10s", "99999999999999999999999"] {
            assert_eq!(of(&[("x-rawcached-ttl", value)]), Err(Refusal::BAD_LIFETIME), "{value}");
            assert_eq!(of(&[("x-rawcached-grace", value)]), Err(Refusal::BAD_LIFETIME), "{value}");
        }
        let twice = [("x-rawcached-ttl", "5"), ("x-rawcached-ttl", "5")];
        assert_eq!(of(&twice), Err(Refusal::BAD_LIFETIME));
    }
}
