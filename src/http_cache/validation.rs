//! How the origin is asked whether a stored response is still good (RFC 9111, section 4.3.1).

use std::ops::Range;

use http::HeaderMap;
use http::header::{
    ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};

use super::conditional::is_etag;
use super::date::date;
use super::head::{RequestHead, StoredHead};
use super::request::fill_headers;
use super::settings::Settings;
use super::storing::strong_validator;

/// The fields of a request that validates `stored` on behalf of `request`, and of all who wait with it.
/// Without a validator it asks for the whole.
#[must_use]
pub fn validation_headers(
    request: &RequestHead,
    stored: &StoredHead,
    settings: &Settings,
) -> HeaderMap {
    let mut headers = fill_headers(request, settings);
    if let Some(tag) = stored.headers.get(ETAG).filter(|tag| is_etag(tag.as_bytes())) {
        headers.insert(IF_NONE_MATCH, tag.clone());
    }
    // As it was sent: an origin may compare it as text (RFC 9110, section 13.1.3).
    let modified = stored.headers.get(LAST_MODIFIED);
    if let Some(modified) = modified.filter(|_| date(&stored.headers, &LAST_MODIFIED).is_some()) {
        headers.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    headers
}

/// The fields of a request for the bytes `part`, which is not empty, of the version that `stored` is:
/// with `If-Range`, so that another version comes whole (RFC 9110, section 13.1.5; RFC 9111, section
/// 3.4). `None` if it has no strong validator: what came could not be told from another version.
#[must_use]
pub fn part_headers(
    request: &RequestHead,
    stored: &StoredHead,
    part: &Range<u64>,
    settings: &Settings,
) -> Option<HeaderMap> {
    let known = strong_validator(stored)?;
    let condition = if known.as_etag().is_some() { ETAG } else { LAST_MODIFIED };
    let mut headers = fill_headers(request, settings);
    headers.insert(IF_RANGE, stored.headers.get(condition)?.clone());
    let range = format!("bytes={}-{}", part.start, part.end.saturating_sub(1));
    headers.insert(RANGE, HeaderValue::try_from(range).ok()?);
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::storing::{Storing, store};
    use crate::http_cache::testing::{exchange, get, response};

    fn asked(stored: &[(&str, &str)], client: &[(&str, &str)]) -> Vec<(String, String)> {
        let settings = Settings::default();
        let response = response(200, &[&[("cache-control", "max-age=9")], stored].concat());
        let Storing::Whole(kept) = store(&get(&[]), &response, &exchange(), &settings) else {
            panic!("{stored:?}")
        };
        let headers = validation_headers(&get(client), &kept.head, &settings);
        let pairs = headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs
    }

    /// RFC 9110, section 13.1.5.
    #[test]
    fn parts_are_asked_for_with_a_strong_validator() {
        let asked = |lines: &[(&str, &str)]| {
            let settings = Settings::default();
            let response = response(200, &[&[("cache-control", "max-age=9")], lines].concat());
            let Storing::Whole(kept) = store(&get(&[]), &response, &exchange(), &settings) else {
                panic!("{lines:?}")
            };
            let client = get(&[("range", "bytes=9-"), ("if-range", "\"x\"")]);
            let headers = part_headers(&client, &kept.head, &(4..10), &settings)?;
            let text = |name| headers[name].to_str().unwrap().to_owned();
            Some((text("range"), text("if-range")))
        };
        let found = |condition: &str| Some(("bytes=4-9".to_owned(), condition.to_owned()));
        let modified = "Sun, 06 Nov 1994 08:32:57 GMT";
        assert_eq!(asked(&[("etag", "\"a\"")]), found("\"a\""));
        assert_eq!(asked(&[("last-modified", modified)]), found(modified));
        assert_eq!(asked(&[("etag", "W/\"a\""), ("last-modified", modified)]), None);
        for weak in
            [("etag", "W/\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("x", "y")]
        {
            assert_eq!(asked(&[weak]), None, "{weak:?}");
        }
    }

    fn pairs(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// RFC 9111, section 4.3.1.
    #[test]
    fn the_stored_validators_are_asked_for() {
        let modified = "Sunday, 06-Nov-94 08:49:37 GMT";
        let both = [("etag", "W/\"a\""), ("last-modified", modified)];
        let expected = [("if-modified-since", modified), ("if-none-match", "W/\"a\"")];
        assert_eq!(asked(&both, &[]), pairs(&expected));
        assert_eq!(asked(&[("etag", "a"), ("last-modified", "x")], &[]), []);
    }

    #[test]
    fn the_clients_preconditions_are_not() {
        let client = [
            ("if-none-match", "\"b\""),
            ("if-modified-since", "x"),
            ("range", "bytes=0-1"),
            ("accept", "x"),
        ];
        let expected = [("accept", "x"), ("if-none-match", "\"a\"")];
        assert_eq!(asked(&[("etag", "\"a\"")], &client), pairs(&expected));
    }
}
