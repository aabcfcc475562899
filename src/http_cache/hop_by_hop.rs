//! Fields that are for one connection (RFC 9110, section 7.6.1; RFC 9111, section 3.1), or for this cache
//! alone. They are neither stored nor given on.

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, ETAG, EXPIRES, HOST, HeaderName, LAST_MODIFIED, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};

use super::control_fields::is_control;
use super::list::members;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Never given on. Trailers are dropped, so `Trailer` announces nothing.
static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields for all recipients. `Connection` may not name them (RFC 9110, section 7.6.1), and a peer that
/// does so must not make this cache forget that a response is private.
static END_TO_END: [HeaderName; 14] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    ETAG,
    EXPIRES,
    HOST,
    LAST_MODIFIED,
    SET_COOKIE,
    VARY,
];

/// Whether `name` is for one connection, whatever `Connection` says.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Removes the fields for one connection, those that `Connection` names, and those for this cache.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    // Most messages have none: one look at each field costs less than a search for each of these.
    let others = headers.keys().filter(|name| is_hop_by_hop(name) || is_control(name));
    for name in others.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(members).filter_map(|member| member.parse().ok());
    names.filter(|name| !END_TO_END.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing;

    #[test]
    fn fields_of_the_connection_go() {
        let mut headers = testing::headers(&[
            ("connection", "close, X-A"),
            ("connection", "x-b,(, "),
            ("x-a", "1"),
            ("x-b", "1"),
            ("x-b", "2"),
            ("x-c", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-rawcached-ttl", "1"),
            ("x-rawcached-ttl", "2"),
            ("x-rawcached-whatever", ""),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-c"]);
    }

    #[test]
    fn connection_cannot_take_what_is_for_all() {
        for name in &END_TO_END {
            let mut headers =
                testing::headers(&[("connection", name.as_str()), (name.as_str(), "1")]);
            remove_hop_by_hop(&mut headers);
            assert_eq!(headers.keys().collect::<Vec<_>>(), [name]);
        }
    }
}
