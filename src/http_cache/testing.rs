//! What the tests of this room share: heads from lines of text, and moments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, Method, StatusCode};

use super::head::{Exchange, RequestHead, ResponseHead};
use super::target::Target;
use crate::clock::Timestamp;

/// `Date` of the responses in tests.
pub const DATE_AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
/// The same in seconds.
pub const DATE_SECS: u64 = 784_111_777;

/// Fields from pairs of name and value.
pub fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

/// A GET of `http://a.example/dir/page?q` with these fields.
pub fn get(lines: &[(&str, &str)]) -> RequestHead {
    request(Method::GET, lines)
}

/// As [`get`], with another method.
pub fn request(method: Method, lines: &[(&str, &str)]) -> RequestHead {
    let target = Target::new("http", "a.example", "/dir/page?q").unwrap();
    RequestHead::new(method, target, headers(lines), false)
}

/// A response with a `Date` and these fields.
pub fn response(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
    let mut headers = headers(lines);
    if !headers.contains_key("date") {
        headers.insert("date", DATE_AT.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    ResponseHead { status, headers, ends_with_connection: false }
}

/// Asked and answered in second 100, which is [`DATE_AT`].
pub fn exchange() -> Exchange {
    let received_date = at(0);
    Exchange { requested_at: Timestamp(100), received_at: Timestamp(100), received_date }
}

/// [`DATE_AT`] plus so many seconds.
pub fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(DATE_SECS + secs)
}

/// A duration in seconds.
pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
