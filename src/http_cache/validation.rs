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
