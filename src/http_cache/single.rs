//! Fields of one value (RFC 9110, section 5.3): two of them mean two things to two readers.

use http::HeaderMap;
use http::header::{
    AGE, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
};

/// Fields of one value that requests and stored objects may have.
pub const SINGLE: [HeaderName; 13] = [
    AGE,
    CONTENT_DISPOSITION,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    IF_MODIFIED_SINCE,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
    RANGE,
];

/// Fields that decide what a response is, and for how long. `Age` has a rule of its own (RFC 9111,
/// section 5.1).
static OF_RESPONSES: [HeaderName; 10] = [
    CONTENT_DISPOSITION,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    LOCATION,
];

/// Fields that decide what a request asks for. `If-None-Match` is a list.
const OF_REQUESTS: [HeaderName; 5] =
    [AUTHORIZATION, IF_MODIFIED_SINCE, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// Whether field `name` is there twice.
#[must_use]
pub fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// A field of one value that a response has twice with different values. Who stores such a response
/// would have to guess which one its reader believes.
#[must_use]
pub fn ambiguous(headers: &HeaderMap) -> Option<&'static HeaderName> {
    // Few responses repeat any field.
    if headers.len() == headers.keys_len() {
        return None;
    }
    OF_RESPONSES.iter().find(|name| {
        let mut values = headers.get_all(*name).iter();
        let first = values.next();
        values.any(|value| Some(value) != first)
    })
}

/// Whether a request has a field of one value twice.
#[must_use]
pub fn is_request_ambiguous(headers: &HeaderMap) -> bool {
    headers.len() != headers.keys_len() && OF_REQUESTS.iter().any(|name| is_repeated(headers, name))
}

/// Leaves one of the fields that are there twice with the same value.
pub fn merge(headers: &mut HeaderMap) {
    if headers.len() == headers.keys_len() {
        return;
    }
    for name in &OF_RESPONSES {
        if is_repeated(headers, name)
            && let Some(first) = headers.get(name).cloned()
        {
            headers.insert(name, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::headers;

    #[test]
    fn two_different_values_are_ambiguous() {
        for name in &OF_RESPONSES {
            let twice = headers(&[(name.as_str(), "1"), ("vary", "a"), (name.as_str(), "2")]);
            assert_eq!(ambiguous(&twice), Some(name));
            let mut same = headers(&[(name.as_str(), "1"), ("vary", "a"), (name.as_str(), "1")]);
            assert_eq!(ambiguous(&same), None);
            merge(&mut same);
            assert_eq!(same.len(), 2);
        }
        let lists = headers(&[("cache-control", "a"), ("cache-control", "b"), ("age", "1")]);
        assert_eq!(ambiguous(&lists), None);
    }

    #[test]
    fn a_request_says_once_what_it_asks_for() {
        assert!(is_request_ambiguous(&headers(&[("range", "bytes=0-1"), ("range", "bytes=0-1")])));
        assert!(!is_request_ambiguous(&headers(&[("accept", "a"), ("accept", "b")])));
    }
}
