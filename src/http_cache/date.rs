//! Dates in fields (RFC 9110, section 5.6.7).

use std::time::SystemTime;

use http::HeaderMap;
use http::header::HeaderName;

/// The date in field `name`: of its first line, if it is one.
#[must_use]
pub fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}
