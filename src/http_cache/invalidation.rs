//! What an unsafe request makes of stored responses (RFC 9111, section 4.4; RFC 9875, section 3).

use http::header::{CONTENT_LOCATION, HeaderName, LOCATION};
use http::{Method, StatusCode};

use super::head::{RequestHead, ResponseHead};
use super::tags::{CACHE_GROUP_INVALIDATION, Tag, groups};
use super::target::Target;

/// What is no longer good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidated {
    /// These targets, all variants of each. The first one is that of the request.
    pub targets: Vec<Target>,
    /// These groups of the origin of the request.
    pub groups: Vec<Tag>,
}

impl Invalidated {
    /// Whether nothing is invalidated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.groups.is_empty()
    }
}

/// Whether requests with `method` only read (RFC 9110, section 9.2.1). Methods that are not known do
/// not.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// What `response` to `request` invalidates: nothing unless an unsafe method succeeded.
#[must_use]
pub fn invalidated(request: &RequestHead, response: &ResponseHead) -> Invalidated {
    if is_safe(&request.method) || !is_success(response.status) {
        return Invalidated::default();
    }
    let mut targets = vec![request.target.clone()];
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(target) = named(request, response, &name)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    let groups = groups(&response.headers, &CACHE_GROUP_INVALIDATION).unwrap_or_default();
    Invalidated { targets, groups }
}

/// 2xx and 3xx.
fn is_success(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The target in a field, if it is of the same origin: no origin may empty the cache of another.
fn named(request: &RequestHead, response: &ResponseHead, name: &HeaderName) -> Option<Target> {
    let target = request.target.resolve(response.headers.get(name)?.to_str().ok()?)?;
    target.is_same_origin(&request.target).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::{request, response};

    fn gone(method: Method, status: u16, lines: &[(&str, &str)]) -> Vec<String> {
        let found = invalidated(&request(method, &[]), &response(status, lines));
        found.targets.iter().map(|target| target.path_and_query().to_owned()).collect()
    }

    /// RFC 9111, section 4.4.
    #[test]
    fn unsafe_methods_invalidate_their_target() {
        let extension = Method::from_bytes(b"M-SEARCH").unwrap();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, extension] {
            for status in [200, 201, 204, 299, 301, 303, 304, 399] {
                assert_eq!(gone(method.clone(), status, &[]), ["/dir/page?q"], "{method} {status}");
            }
            for status in [400, 404, 500, 503, 599] {
                assert_eq!(gone(method.clone(), status, &[]), [""; 0], "{method} {status}");
            }
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert_eq!(gone(method, 200, &[("location", "/x")]), [""; 0]);
        }
    }

    #[test]
    fn locations_of_the_same_origin_go_too() {
        let both = [("location", "other"), ("content-location", "http://A.example:80/dir/third?x")];
        let expected = ["/dir/page?q", "/dir/other", "/dir/third?x"];
        assert_eq!(gone(Method::POST, 201, &both), expected);
        for elsewhere in
            ["http://b.example/dir/x", "https://a.example/x", "//b.example/", "mailto:a"]
        {
            let lines = [("location", elsewhere), ("content-location", elsewhere)];
            assert_eq!(gone(Method::POST, 200, &lines), ["/dir/page?q"], "{elsewhere}");
        }
        let same = [("location", "page?q"), ("content-location", "/dir/../dir/page?q")];
        assert_eq!(gone(Method::POST, 200, &same), ["/dir/page?q"]);
    }

    /// RFC 9875, section 3.
    #[test]
    fn groups_go_with_unsafe_methods_only() {
        let lines = [("cache-group-invalidation", "\"a\", \"B\"")];
        let groups = |method: Method, status: u16| {
            invalidated(&request(method, &[]), &response(status, &lines)).groups.len()
        };
        assert_eq!(groups(Method::POST, 200), 2);
        assert_eq!((groups(Method::GET, 200), groups(Method::POST, 500)), (0, 0));
        let bad = [("cache-group-invalidation", "a, \"b\"")];
        let found = invalidated(&request(Method::POST, &[]), &response(200, &bad));
        assert!(found.groups.is_empty() && !found.is_empty());
    }
}
