//! Which requests may be answered from the store (RFC 9111, section 4), and what is asked of the origin
//! on behalf of all clients.

use http::header::{
    CACHE_CONTROL, EXPECT, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, PRAGMA, RANGE,
};
use http::{HeaderMap, Method};

use super::cache_control::CacheControl;
use super::condition::any_holds;
use super::head::RequestHead;
use super::settings::{ClientDirectives, Settings};
use super::single::is_request_ambiguous;

/// Fields that change what a request is about for some frameworks. The key does not have them, so what
/// they lead to would be given to others.
const OVERRIDES: [&str; 5] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Fields that are of one client's copy, not of the object.
pub static OF_ONE_CLIENT: [HeaderName; 6] =
    [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Class {
    /// Look it up.
    Lookup(Asked),
    /// Pass it to the origin; what comes is not stored, but for a POST (see
    /// [`storing`](super::storing)).
    Pass(Pass),
}

/// Why a request is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Not GET or HEAD.
    Method,
    /// A GET or HEAD with a body.
    Body,
    /// A field names another target or method, or is by its name another field for some readers.
    Override,
    /// A precondition that only the origin may evaluate (RFC 9111, section 4.3.2).
    Precondition,
    /// A field of one value is there twice.
    Ambiguous,
    /// It means to change the protocol.
    Upgrade,
    /// The operator wants it.
    Rule,
}

/// What a request that is looked up wants.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// HEAD, not GET. One that misses is passed and stores nothing.
    pub is_head: bool,
    /// A stored response or none (RFC 9111, section 5.2.1.7).
    pub only_if_cached: bool,
    /// What comes for it is not stored: the operator wants that, or the client (RFC 9111, section 5.2.1.5).
    pub no_store: bool,
    /// The directives that have an effect.
    pub control: CacheControl,
}

/// What to do with a request for which nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Fetch the object for all who want it.
    Fill,
    /// Pass the request: a HEAD, or one whose response is not stored.
    Pass,
    /// 504 (RFC 9111, section 5.2.1.7).
    GatewayTimeout,
}

impl Asked {
    /// Whether others may wait for what comes of it: who stores nothing fills nothing.
    #[must_use]
    pub fn may_fill(&self) -> bool {
        !self.is_head && !self.only_if_cached && !self.no_store
    }

    /// What to do if nothing is stored.
    #[must_use]
    pub fn missed(&self) -> Missed {
        match self {
            Asked { only_if_cached: true, .. } => Missed::GatewayTimeout,
            asked if asked.may_fill() => Missed::Fill,
            _ => Missed::Pass,
        }
    }
}

/// What to do with `request`.
#[must_use]
pub fn classify(request: &RequestHead, settings: &Settings) -> Class {
    let is_head = request.method == Method::HEAD;
    let is_looked_up = is_head || request.method == Method::GET;
    let pass = match is_looked_up {
        true => passed_for_fields(request)
            .or(request.has_body.then_some(Pass::Body))
            .or(is_bypass(request, settings).then_some(Pass::Rule)),
        false => Some(Pass::Method),
    };
    match pass {
        Some(pass) => Class::Pass(pass),
        None => Class::Lookup(asked(request, is_head, settings)),
    }
}

/// Why the fields of a request let nothing that comes be stored, whatever its method.
#[must_use]
pub fn passed_for_fields(request: &RequestHead) -> Option<Pass> {
    let headers = &request.headers;
    if headers.keys().any(is_override) {
        Some(Pass::Override)
    } else if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        Some(Pass::Precondition)
    } else if is_request_ambiguous(headers) {
        Some(Pass::Ambiguous)
    } else {
        request.wants_upgrade.then_some(Pass::Upgrade)
    }
}

/// Whether a field may change what a request is about. Where fields become variables (RFC 3875, section 4.1.18),
/// other marks than hyphens are the same as those, so that `X_Forwarded_Host` is `X-Forwarded-Host`.
fn is_override(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.bytes().all(is_plain) || (name.starts_with("x-") && OVERRIDES.contains(&name))
}

fn asked(request: &RequestHead, is_head: bool, settings: &Settings) -> Asked {
    let headers = &request.headers;
    let mut control = CacheControl::of(headers);
    let only_if_cached = control.only_if_cached;
    match settings.client_directives {
        ClientDirectives::Ignore => control = CacheControl::default(),
        ClientDirectives::Honor => control.no_cache |= has_pragma_no_cache(headers),
    }
    let no_store = forbids_storing(request, settings);
    Asked { is_head, only_if_cached, no_store, control }
}

/// Whether the operator wants a request to be passed.
#[must_use]
pub fn is_bypass(request: &RequestHead, settings: &Settings) -> bool {
    any_holds(&settings.bypass, &request.headers) || request.controls(settings).bypass
}

/// Whether no response to a request is stored, because its client or the operator does not want it.
#[must_use]
pub fn forbids_storing(request: &RequestHead, settings: &Settings) -> bool {
    let headers = &request.headers;
    let honors = settings.client_directives == ClientDirectives::Honor;
    (honors && CacheControl::of(headers).forbids_storing)
        || any_holds(&settings.no_store, headers)
        || request.controls(settings).no_store
}

/// `Pragma: no-cache` in a request without `Cache-Control` (RFC 9111, section 5.4).
fn has_pragma_no_cache(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(PRAGMA).iter().filter_map(|line| line.to_str().ok());
    !headers.contains_key(CACHE_CONTROL)
        && lines
            .any(|line| line.split(',').any(|name| name.trim().eq_ignore_ascii_case("no-cache")))
}

/// The fields of a request that fetches an object for all: those of the client's request without its
/// preconditions and its range. Its directives go too where they have no
/// effect here, so that no other cache on the way obeys them.
#[must_use]
pub fn fill_headers(request: &RequestHead, settings: &Settings) -> HeaderMap {
    let mut headers = request.headers.clone();
    headers.remove(EXPECT);
    for name in &OF_ONE_CLIENT {
        headers.remove(name);
    }
    if settings.client_directives == ClientDirectives::Ignore {
        headers.remove(CACHE_CONTROL);
        headers.remove(PRAGMA);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::{get, request};

    fn honor() -> Settings {
        Settings { client_directives: ClientDirectives::Honor, ..Settings::default() }
    }

    fn passed(request: &RequestHead) -> Option<Pass> {
        match classify(request, &Settings::default()) {
            Class::Pass(pass) => Some(pass),
            Class::Lookup(_) => None,
        }
    }

    fn lookup(lines: &[(&str, &str)], settings: &Settings) -> Asked {
        match classify(&get(lines), settings) {
            Class::Lookup(asked) => asked,
            Class::Pass(pass) => panic!("{pass:?}"),
        }
    }

    /// RFC 9111, section 4; RFC 9110, section 9.2.3.
    #[test]
    fn only_get_and_head_are_looked_up() {
        assert_eq!(passed(&get(&[])), None);
        assert_eq!(passed(&request(Method::HEAD, &[])), None);
        let extension = Method::from_bytes(b"M-SEARCH").unwrap();
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
            Method::TRACE,
            Method::CONNECT,
            extension,
            Method::from_bytes(b"get").unwrap(),
        ] {
            assert_eq!(passed(&request(method.clone(), &[])), Some(Pass::Method), "{method}");
        }
    }

    #[test]
    fn what_the_key_does_not_say_is_passed() {
        assert_eq!(passed(&RequestHead { has_body: true, ..get(&[]) }), Some(Pass::Body));
        let folded = ["X_Forwarded_Host", "x.host", "If_None-Match", "x!"];
        let overrides = ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"];
        for name in overrides.into_iter().chain(folded) {
            assert_eq!(passed(&get(&[(name, "")])), Some(Pass::Override), "{name}");
        }
        assert_eq!(passed(&get(&[("upgrade", "h2c")])), Some(Pass::Upgrade));
        let twice = [("range", "bytes=0-1"), ("range", "bytes=2-3")];
        assert_eq!(passed(&get(&twice)), Some(Pass::Ambiguous));
    }

    /// RFC 9111, section 4.3.2.
    #[test]
    fn preconditions_for_the_origin_are_passed() {
        assert_eq!(passed(&get(&[("if-match", "*")])), Some(Pass::Precondition));
        assert_eq!(passed(&get(&[("if-unmodified-since", "x")])), Some(Pass::Precondition));
        assert_eq!(passed(&get(&[("if-none-match", "*"), ("if-modified-since", "x")])), None);
        assert_eq!(passed(&get(&[("range", "bytes=0-1"), ("if-range", "\"a\"")])), None);
    }

    /// RFC 9111, section 5.2.1.
    #[test]
    fn directives_of_clients_have_an_effect_if_they_are_honored() {
        let line = ("cache-control", "no-cache, max-age=0, only-if-cached");
        let asked = lookup(&[line], &Settings::default());
        assert_eq!((asked.only_if_cached, asked.control), (true, CacheControl::default()));
        let asked = lookup(&[line], &honor());
        assert!(asked.only_if_cached && asked.control.no_cache && asked.control.max_age.is_some());
    }

    /// RFC 9111, section 5.4.
    #[test]
    fn pragma_counts_without_cache_control() {
        let no_cache = |lines: &[(&str, &str)]| lookup(lines, &honor()).control.no_cache;
        assert!(no_cache(&[("pragma", "x, No-Cache")]));
        assert!(!no_cache(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]));
        assert!(!no_cache(&[("pragma", "foo")]));
        let ignored = lookup(&[("pragma", "no-cache")], &Settings::default());
        assert!(!ignored.control.no_cache);
    }

    /// RFC 9111, section 5.2.1.7.
    #[test]
    fn a_miss_is_filled_passed_or_refused() {
        let missed = |lines: &[(&str, &str)]| lookup(lines, &Settings::default()).missed();
        assert_eq!(missed(&[]), Missed::Fill);
        assert_eq!(missed(&[("cache-control", "only-if-cached")]), Missed::GatewayTimeout);
        let no_store = [("cache-control", "no-store")];
        assert_eq!(missed(&no_store), Missed::Fill, "it has no effect");
        assert_eq!(lookup(&no_store, &honor()).missed(), Missed::Pass);
        let head = classify(&request(Method::HEAD, &[]), &Settings::default());
        assert!(matches!(head, Class::Lookup(asked) if asked.missed() == Missed::Pass));
    }

    #[test]
    fn rules_of_the_operator_pass_requests_or_have_nothing_stored() {
        let rules = |text: &str| vec![text.parse().unwrap()];
        let settings = Settings {
            bypass: rules("cookie:session"),
            no_store: rules("header:x-preview=1"),
            ..Settings::default()
        };
        let session = ("cookie", "session=1");
        for method in [Method::GET, Method::HEAD] {
            let class = classify(&request(method, &[session]), &settings);
            assert!(matches!(class, Class::Pass(Pass::Rule)), "{class:?}");
        }
        let hidden = classify(&get(&[("connection", "cookie"), session]), &settings);
        assert!(matches!(hidden, Class::Pass(Pass::Rule)), "Connection cannot hide that");
        let asked = lookup(&[("x-preview", "1")], &settings);
        assert!(asked.no_store && !asked.may_fill() && asked.missed() == Missed::Pass);
        let asked = lookup(&[("x-preview", "0"), ("cookie", "a=session")], &settings);
        assert!(!asked.no_store && asked.may_fill());
        let fields = [("x-rawcached-bypass", "1"), ("x-rawcached-no-store", "1")];
        assert!(lookup(&fields, &settings).may_fill(), "nobody trusts them");
        let trusted = ["x-rawcached-bypass", "x-rawcached-no-store"];
        let trusted = trusted.map(|name| name.parse().unwrap()).to_vec();
        let settings = Settings { trusted, ..settings };
        let class = classify(&get(&fields), &settings);
        assert!(matches!(class, Class::Pass(Pass::Rule)), "{class:?}");
        let named = [("connection", "x-rawcached-no-store"), fields[1]];
        assert!(lookup(&named, &settings).no_store, "Connection cannot hide that");
        let no_store = ("cache-control", "no-store");
        assert!(
            lookup(&[no_store], &honor()).no_store && lookup(&[no_store], &settings).may_fill()
        );
    }

    #[test]
    fn what_the_origin_does_not_get_does_not_count() {
        let lines =
            [("connection", "x-forwarded-proto, x-original-url"), ("x-forwarded-proto", "https")];
        assert!(!get(&lines).headers().contains_key("x-forwarded-proto"));
        let credentials = get(&[("connection", "authorization, cookie"), ("authorization", "x")]);
        assert!(credentials.has_credentials(), "Connection cannot hide that");
    }

    #[test]
    fn a_fill_asks_for_what_all_can_use() {
        let request = get(&[
            ("if-none-match", "\"a\""),
            ("if-modified-since", "x"),
            ("if-range", "\"a\""),
            ("range", "bytes=0-1"),
            ("expect", "100-continue"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("accept", "a/b"),
            ("authorization", "x"),
        ]);
        let names = |settings: &Settings| {
            let headers = fill_headers(&request, settings);
            let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&Settings::default()), ["accept", "authorization"]);
        assert_eq!(names(&honor()), ["accept", "authorization", "cache-control", "pragma"]);
    }
}
