//! How old a response is when it comes (RFC 9111, sections 4.2.3 and 5.1).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, DATE};

use super::date::date;
use super::head::Exchange;

/// The age of a response when it came (`corrected_initial_age`): the larger one of what its `Date` and
/// what its `Age` with the delay of the request say.
#[must_use]
pub fn initial_age(headers: &HeaderMap, exchange: &Exchange) -> Duration {
    let response_delay = exchange.received_at.since(exchange.requested_at);
    let corrected = age_value(headers).saturating_add(response_delay);
    apparent_age(headers, exchange).max(corrected)
}

/// By the clocks of the origin and of this host. A `Date` in the future counts as now.
fn apparent_age(headers: &HeaderMap, exchange: &Exchange) -> Duration {
    let sent = date(headers, &DATE).unwrap_or(exchange.received_date);
    let age = exchange.received_date.duration_since(sent).unwrap_or_default();
    Duration::from_secs(age.as_secs())
}

/// The first member of `Age`; zero if that is not a number. One that is too large is very old (RFC 9111,
/// sections 1.2.2 and 5.1).
fn age_value(headers: &HeaderMap) -> Duration {
    let text = headers.get(AGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = text.split(',').next().unwrap_or_default().trim_matches([' ', '\t']);
    let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    let secs = if is_number { first.parse().unwrap_or(u64::MAX) } else { 0 };
    Duration::from_secs(secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::http_cache::testing::{DATE_AT, at, headers, secs};

    fn age(lines: &[(&str, &str)], delay: u32, received: u64) -> u64 {
        let exchange = Exchange {
            requested_at: Timestamp(50),
            received_at: Timestamp(50 + delay),
            received_date: at(received),
        };
        initial_age(&headers(lines), &exchange).as_secs()
    }

    /// RFC 9111, section 4.2.3.
    #[test]
    fn the_larger_one_of_apparent_and_corrected_age_counts() {
        let date = ("date", DATE_AT);
        assert_eq!(age(&[], 0, 0), 0);
        assert_eq!(age(&[], 3, 0), 3, "the delay of the request");
        assert_eq!(age(&[date], 0, 7), 7, "apparent");
        assert_eq!(age(&[date, ("age", "5")], 0, 7), 7);
        assert_eq!(age(&[date, ("age", "9")], 0, 7), 9);
        assert_eq!(age(&[date, ("age", "5")], 4, 7), 9);
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")], 2, 7), 2, "of the future");
        assert_eq!(age(&[("date", "yesterday")], 2, 7), 2);
    }

    /// RFC 9111, section 5.1.
    #[test]
    fn the_first_member_of_age_counts_if_it_is_a_number() {
        for (text, expected) in [
            ("7", 7),
            ("7, 9", 7),
            (" 7", 7),
            ("0,7", 0),
            ("007", 7),
            ("", 0),
            ("-7", 0),
            ("7.0", 0),
            ("x", 0),
        ] {
            assert_eq!(age(&[("age", text)], 0, 0), expected, "{text}");
        }
        assert_eq!(age(&[("age", "7"), ("age", "0")], 0, 0), 7);
        assert_eq!(age(&[("age", "99999999999999999999999")], 9, 0), u64::MAX);
    }

    proptest! {
        #[test]
        fn no_response_is_younger_than_it_says(value: u64, requested: u32, delay in 0..9999u32, late in 0..99999u64) {
            let requested = requested.min(u32::MAX - 9999);
            let exchange = Exchange {
                requested_at: Timestamp(requested),
                received_at: Timestamp(requested + delay),
                received_date: at(late),
            };
            let text = value.to_string();
            let age = initial_age(&headers(&[("date", DATE_AT), ("age", &text)]), &exchange);
            prop_assert!(age >= secs(value) && age >= secs(late) && age >= secs(u64::from(delay)));
        }
    }
}
