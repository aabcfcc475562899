//! How the origin is asked whether a stored response is still good (RFC 9111, section 4.3.1).

use http::HeaderMap;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};

use super::conditional::is_etag;
use super::date::date;
use super::head::{RequestHead, StoredHead};
use super::request::fill_headers;
use super::settings::Settings;

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
