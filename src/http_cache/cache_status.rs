//! The field `Cache-Status` (RFC 9211): how this cache came to its answer.

use std::fmt::Write as _;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Name of the field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Name of this cache in it.
const CACHE: &str = "rawcached";
/// Room for most members, in bytes.
const OFTEN_LEN: usize = 48;
/// Longest `detail`, in bytes.
const DETAIL_LEN_MAX: usize = 128;

/// How one answer came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// It came from the store, without a request to the origin.
    pub hit: bool,
    /// Why the request went to the origin. Not said of a hit.
    pub forwarded: Option<Forwarded>,
    /// Status of the origin's answer, where it is not that of this one.
    pub forwarded_status: Option<StatusCode>,
    /// Seconds that the answer stays fresh; below zero since when it is stale.
    pub ttl_secs: Option<i64>,
    /// What came is stored.
    pub stored: bool,
    /// The request to the origin is another client's too.
    pub collapsed: bool,
    /// Nobody waited for others: the last response to this was not to be stored.
    pub hit_for_miss: bool,
    /// More, in words.
    pub detail: Option<String>,
}

/// Why a request went to the origin (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It is not of those that are looked up.
    Bypass,
    /// Its method needs the origin.
    Method,
    /// Nothing is stored of the target.
    UriMiss,
    /// Something is stored, but nothing that these fields select.
    VaryMiss,
    /// What is stored is fresh, but the client wants more.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Forwarded {
    fn as_str(self) -> &'static str {
        match self {
            Forwarded::Bypass => "bypass",
            Forwarded::Method => "method",
            Forwarded::UriMiss => "uri-miss",
            Forwarded::VaryMiss => "vary-miss",
            Forwarded::Request => "request",
            Forwarded::Stale => "stale",
            Forwarded::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// Of a request that went to the origin.
    #[must_use]
    pub fn forwarded(why: Forwarded) -> CacheStatus {
        CacheStatus { forwarded: Some(why), ..CacheStatus::default() }
    }

    /// Adds this cache behind those nearer to the origin (RFC 9211, section 2).
    pub fn append_to(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.member()) {
            headers.append(CACHE_STATUS, value);
        }
    }

    /// The member of the list.
    #[must_use]
    pub fn member(&self) -> String {
        let mut text = String::with_capacity(OFTEN_LEN);
        text.push_str(CACHE);
        if self.hit {
            text.push_str("; hit");
        } else if let Some(forwarded) = self.forwarded {
            let _ = write!(text, "; fwd={}", forwarded.as_str());
            if let Some(status) = self.forwarded_status {
                let _ = write!(text, "; fwd-status={}", status.as_u16());
            }
        }
        if let Some(secs) = self.ttl_secs {
            // The largest integer of structured fields (RFC 9651, section 3.3.1).
            let secs = secs.clamp(-999_999_999_999_999, 999_999_999_999_999);
            text.push_str("; ttl=");
            text.push_str(itoa::Buffer::new().format(secs));
        }
        if self.stored && !self.hit {
            text.push_str("; stored");
        }
        if self.collapsed && !self.hit {
            text.push_str("; collapsed");
        }
        let detail = self.detail.as_deref();
        if let Some(detail) = detail.or(self.hit_for_miss.then_some("hit-for-miss")) {
            let _ = write!(text, "; detail={}", quoted(detail));
        }
        text
    }
}

/// As a string of structured fields (RFC 9651, section 4.1.6); what it cannot have becomes a question
/// mark.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().take(DETAIL_LEN_MAX) {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, Parser};

    use super::*;

    /// RFC 9211, sections 2.1 to 2.8.
    #[test]
    fn what_happened_is_said_in_a_member() {
        let status = CacheStatus { hit: true, ttl_secs: Some(376), ..CacheStatus::default() };
        assert_eq!(status.member(), "rawcached; hit; ttl=376");
        let stale = CacheStatus { ttl_secs: Some(-412), ..status };
        assert_eq!(stale.member(), "rawcached; hit; ttl=-412");
        let miss = CacheStatus {
            forwarded: Some(Forwarded::UriMiss),
            stored: true,
            collapsed: true,
            ..CacheStatus::default()
        };
        assert_eq!(miss.member(), "rawcached; fwd=uri-miss; stored; collapsed");
        let validated = CacheStatus {
            forwarded: Some(Forwarded::Stale),
            forwarded_status: Some(StatusCode::NOT_MODIFIED),
            detail: Some("a \"b\" \u{e4}".to_owned()),
            ..CacheStatus::default()
        };
        let expected = r#"rawcached; fwd=stale; fwd-status=304; detail="a \"b\" ?""#;
        assert_eq!(validated.member(), expected);
        for (forwarded, name) in [
            (Forwarded::Bypass, "bypass"),
            (Forwarded::Method, "method"),
            (Forwarded::VaryMiss, "vary-miss"),
            (Forwarded::Request, "request"),
            (Forwarded::Partial, "partial"),
        ] {
            let status = CacheStatus { forwarded: Some(forwarded), ..CacheStatus::default() };
            assert_eq!(status.member(), format!("rawcached; fwd={name}"));
        }
    }

    #[test]
    fn it_comes_behind_other_caches() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_STATUS, HeaderValue::from_static("Other; hit"));
        CacheStatus { hit: true, ..CacheStatus::default() }.append_to(&mut headers);
        let lines: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(lines, ["Other; hit", "rawcached; hit"]);
    }

    proptest! {
        #[test]
        fn it_is_always_a_structured_field(hit: bool, ttl_secs: Option<i64>, detail: Option<String>) {
            let status = CacheStatus { hit, ttl_secs, detail, ..CacheStatus::default() };
            let mut headers = HeaderMap::new();
            status.append_to(&mut headers);
            let list: List = Parser::new(headers[CACHE_STATUS].as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
        }
    }
}
