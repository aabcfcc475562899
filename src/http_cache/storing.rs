//! Whether a response is stored, and what of it (RFC 9111, section 3).

use http::header::{
    AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, DATE, ETAG, EXPIRES,
    HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use http::{HeaderMap, Method, StatusCode};

use super::age::initial_age;
use super::cache_control::CacheControl;
use super::conditional::is_etag;
use super::date::date;
use super::freshness::{Circumstances, Source, Terms, control, is_explicit, is_heuristic, terms};
use super::head::{Exchange, RequestHead, ResponseHead, StoredHead};
use super::hop_by_hop::remove_hop_by_hop;
use super::range::{Part, part};
use super::request::{Class, Pass, classify};
use super::settings::{ClientDirectives, SetCookie, Settings};
use super::single;
use super::vary::{Names, Vary};
use crate::cache::Validator;

const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// What becomes of a response.
#[derive(Clone, Debug)]
pub enum Storing {
    /// It is stored whole, in place of what is there of the same variant.
    Whole(Box<Kept>),
    /// It is a part of an object (RFC 9111, section 3.3). The head is that of the whole.
    Part {
        /// What is kept.
        kept: Box<Kept>,
        /// The bytes that come.
        part: Part,
        /// What it may be combined by with other parts (RFC 9111, section 3.4); with none it stays alone.
        validator: Option<Validator>,
    },
    /// It is not stored.
    No(Refused),
}

/// What is stored of a response besides its body.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The head.
    pub head: StoredHead,
    /// The fields of requests that it depends on.
    pub vary: Names,
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing that comes for such a request is stored.
    Request,
    /// The client does not want it stored (RFC 9111, section 5.2.1.5).
    RequestNoStore,
    /// A status that is not stored: 304, or 206 that is no single range of a GET.
    Status,
    /// `must-understand` with a status that is not understood (RFC 9111, section 5.2.2.3).
    NotUnderstood,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization`, and nothing permits to store it (RFC 9111, section 3.5).
    Authorization,
    /// It sets cookies.
    SetCookie,
    /// `Vary: *`, or more than is kept.
    Varies,
    /// A field of one value is there with two.
    Ambiguous,
    /// Nothing says that it may be stored (RFC 9111, section 3, last item).
    NotMarked,
    /// It is stale, and nothing could make it fresh again.
    Useless,
    /// Only the end of the connection ends it.
    UntilClose,
}

impl Refused {
    /// Whether the next request for the same is likely to meet the same: others need not wait for it.
    /// An error of the origin says nothing of what comes next.
    #[must_use]
    pub fn marks_key(self, status: StatusCode) -> bool {
        let is_of_request = matches!(
            self,
            Refused::Request | Refused::RequestNoStore | Refused::Authorization | Refused::Status
        );
        !is_of_request && !status.is_server_error()
    }
}

/// What becomes of `response`, which answers `request` or a fill on its behalf.
#[must_use]
pub fn store(
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Storing {
    match decide(request, response, exchange, settings) {
        Ok(storing) => storing,
        Err(refused) => Storing::No(refused),
    }
}

fn decide(
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Result<Storing, Refused> {
    check_request(request, settings)?;
    let part = check_status(request, response)?;
    if single::ambiguous(&response.headers).is_some() {
        return Err(Refused::Ambiguous);
    }
    if response.ends_with_connection && !settings.stores_until_close {
        return Err(Refused::UntilClose);
    }
    let (control, _) = control(&response.headers, settings);
    if let Some(refused) = forbidden(&control, response.status) {
        return Err(refused);
    }
    if request.headers.contains_key(AUTHORIZATION) && !control.permits_authorized {
        return Err(Refused::Authorization);
    }
    let of = Circumstances {
        status: response.status,
        received_date: exchange.received_date,
        has_credentials: request.has_credentials(),
        settings,
    };
    let terms = terms(&response.headers, of);
    check_marked(request, response, &control, &terms)?;
    let vary = vary_of(&response.headers, settings)?;
    let mut head = StoredHead {
        // A part is of a whole object, which is what is described.
        status: if part.is_some() { StatusCode::OK } else { response.status },
        headers: kept_headers(&response.headers, &control, exchange),
        received_at: exchange.received_at,
        initial_age: initial_age(&response.headers, exchange),
        terms,
        ended_at: None,
    };
    apply_set_cookie(&mut head.headers, settings)?;
    check_use(&head)?;
    let validator = part.as_ref().and_then(|_| validator(&head));
    let kept = Box::new(Kept { head, vary });
    Ok(match part {
        None => Storing::Whole(kept),
        Some(part) => Storing::Part { kept, part, validator },
    })
}

fn check_request(request: &RequestHead, settings: &Settings) -> Result<(), Refused> {
    match classify(request, settings) {
        Class::Lookup(asked) if asked.is_head => return Err(Refused::Request),
        Class::Lookup(_) => {}
        Class::Pass(Pass::Method) if request.method == Method::POST => {}
        Class::Pass(_) => return Err(Refused::Request),
    }
    let honors = settings.client_directives == ClientDirectives::Honor;
    let control = honors.then(|| CacheControl::of(&request.headers));
    match control {
        Some(control) if control.forbids_storing => Err(Refused::RequestNoStore),
        _ => Ok(()),
    }
}

/// The part that comes, if it is one.
fn check_status(request: &RequestHead, response: &ResponseHead) -> Result<Option<Part>, Refused> {
    match response.status {
        status if status.is_informational() => Err(Refused::Status),
        StatusCode::NOT_MODIFIED => Err(Refused::Status),
        // One without `Content-Range` has several ranges, each with its own.
        StatusCode::PARTIAL_CONTENT if request.method == Method::GET => {
            part(&response.headers).map(Some).ok_or(Refused::Status)
        }
        StatusCode::PARTIAL_CONTENT => Err(Refused::Status),
        // What is said of a range is not said of the object.
        StatusCode::RANGE_NOT_SATISFIABLE => Err(Refused::Status),
        _ => Ok(None),
    }
}

/// Why the directives of a response forbid to store it, if they do.
#[must_use]
pub fn forbidden(control: &CacheControl, status: StatusCode) -> Option<Refused> {
    if control.private {
        return Some(Refused::Private);
    }
    match (control.must_understand, is_understood(status)) {
        // `no-store` is for caches that do not know `must-understand` (RFC 9111, section 5.2.2.3).
        (true, true) => None,
        (true, false) => Some(Refused::NotUnderstood),
        (false, _) => control.forbids_storing.then_some(Refused::NoStore),
    }
}

/// Statuses whose meaning for caches is known and followed here (RFC 9110, section 15).
fn is_understood(status: StatusCode) -> bool {
    let others = [302, 303, 307, 400, 403, 451, 500, 502, 503, 504];
    is_heuristic(status) || others.contains(&status.as_u16())
}

/// RFC 9111, section 3, last item; RFC 9110, section 9.3.3, for POST.
fn check_marked(
    request: &RequestHead,
    response: &ResponseHead,
    control: &CacheControl,
    terms: &Terms,
) -> Result<(), Refused> {
    let is_marked = control.public
        || control.max_age.is_some()
        || control.s_maxage.is_some()
        || is_heuristic(response.status)
        || matches!(terms.source, Source::Explicit | Source::Default)
        // A targeted field may have put it aside: it marks nevertheless.
        || response.headers.contains_key(EXPIRES);
    if !is_marked {
        return Err(Refused::NotMarked);
    }
    if request.method == Method::POST {
        let location = response.headers.get(CONTENT_LOCATION).and_then(|text| text.to_str().ok());
        let of = location.and_then(|text| request.target.resolve(text));
        let is_own = of.is_some_and(|of| of == request.target);
        if !is_own || !response.status.is_success() || !is_explicit(terms) {
            return Err(Refused::Request);
        }
    }
    Ok(())
}

fn vary_of(headers: &HeaderMap, settings: &Settings) -> Result<Names, Refused> {
    if settings.ignores_vary {
        return Ok(Names::default());
    }
    match Vary::of(headers) {
        Vary::Names(names) => Ok(names),
        Vary::Always => Err(Refused::Varies),
    }
}

/// What readers get of `headers`.
fn kept_headers(headers: &HeaderMap, control: &CacheControl, exchange: &Exchange) -> HeaderMap {
    let mut kept = headers.clone();
    remove_hop_by_hop(&mut kept);
    single::merge(&mut kept);
    for name in [AGE, CONTENT_LENGTH, CONTENT_RANGE].iter().chain(&control.withheld) {
        kept.remove(name);
    }
    // RFC 9110, section 6.6.1.
    if date(&kept, &DATE).is_none() {
        let text = httpdate::fmt_http_date(exchange.received_date);
        if let Ok(value) = HeaderValue::try_from(text) {
            kept.insert(DATE, value);
        }
    }
    kept
}

fn apply_set_cookie(kept: &mut HeaderMap, settings: &Settings) -> Result<(), Refused> {
    let has_cookies = kept.contains_key(SET_COOKIE) || kept.contains_key(SET_COOKIE2);
    match settings.set_cookie {
        SetCookie::Never if has_cookies => return Err(Refused::SetCookie),
        SetCookie::Strip => {
            kept.remove(SET_COOKIE);
            kept.remove(SET_COOKIE2);
        }
        SetCookie::Never | SetCookie::Store => {}
    }
    Ok(())
}

/// A response that is stale from the start, has no validator and may not be used when stale would never
/// be used.
fn check_use(head: &StoredHead) -> Result<(), Refused> {
    let is_stale = head.terms.no_cache || head.initial_age >= head.terms.lifetime;
    match is_stale && !can_be_validated(&head.headers) && head.terms.grace().is_zero() {
        true => Err(Refused::Useless),
        false => Ok(()),
    }
}

/// Whether the origin can be asked for changes only (RFC 9111, section 4.3.1).
#[must_use]
pub fn can_be_validated(headers: &HeaderMap) -> bool {
    headers.get(ETAG).is_some_and(|tag| is_etag(tag.as_bytes()))
        || date(headers, &LAST_MODIFIED).is_some()
}

fn validator(head: &StoredHead) -> Option<Validator> {
    match head.headers.get(ETAG) {
        Some(tag) => Validator::etag(tag.as_bytes()),
        None => Validator::last_modified(date(&head.headers, &LAST_MODIFIED)?, head.date()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http_cache::testing::{DATE_AT, exchange, get, request, response, secs};

    fn kept(request: &RequestHead, response: &ResponseHead, settings: &Settings) -> Box<Kept> {
        match store(request, response, &exchange(), settings) {
            Storing::Whole(kept) => kept,
            other => panic!("{other:?}"),
        }
    }

    fn refused_with(
        request: &RequestHead,
        response: &ResponseHead,
        settings: &Settings,
    ) -> Option<Refused> {
        match store(request, response, &exchange(), settings) {
            Storing::No(refused) => Some(refused),
            Storing::Whole(_) | Storing::Part { .. } => None,
        }
    }

    /// Why a response to a GET is not stored.
    fn refused(status: u16, lines: &[(&str, &str)]) -> Option<Refused> {
        refused_with(&get(&[]), &response(status, lines), &Settings::default())
    }

    fn names(kept: &Kept) -> Vec<&str> {
        let mut names: Vec<_> = kept.head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");

    /// RFC 9111, section 3.
    #[test]
    fn responses_that_say_how_long_they_are_fresh_are_stored() {
        for status in
            [200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599]
        {
            assert_eq!(refused(status, &[FRESH]), None, "{status}");
            let expires = ("expires", "Sun, 06 Nov 1994 09:49:37 GMT");
            assert_eq!(refused(status, &[expires]), None, "{status}");
        }
        for status in [206, 304, 416] {
            assert_eq!(refused(status, &[FRESH]), Some(Refused::Status), "{status}");
        }
    }

    #[test]
    fn others_are_stored_if_their_status_lets_it_be_guessed() {
        let modified = ("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT");
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(refused(status, &[modified]), None, "{status}");
            assert_eq!(refused(status, &[("etag", "\"a\"")]), None, "it can be validated");
            assert_eq!(refused(status, &[]), Some(Refused::Useless), "{status}");
        }
        for status in [201, 202, 302, 403, 500, 502, 503, 504, 599] {
            assert_eq!(refused(status, &[modified]), Some(Refused::NotMarked), "{status}");
            assert_eq!(refused(status, &[modified, ("cache-control", "public")]), None, "{status}");
        }
        let overridden = Settings { ttl_override: Some(secs(9)), ..Settings::default() };
        let error = response(500, &[]);
        assert_eq!(refused_with(&get(&[]), &error, &overridden), Some(Refused::NotMarked));
        let by_status = Settings {
            ttl_status: [(StatusCode::INTERNAL_SERVER_ERROR, secs(1))].into(),
            ..Settings::default()
        };
        assert_eq!(refused_with(&get(&[]), &error, &by_status), None);
    }

    /// RFC 9111, sections 5.2.2.5 and 5.2.2.7.
    #[test]
    fn no_store_and_private_forbid() {
        for (line, expected) in [
            ("no-store, max-age=60", Refused::NoStore),
            ("NO-STORE, max-age=60", Refused::NoStore),
            ("private, max-age=60", Refused::Private),
            ("private, max-age=60, public", Refused::Private),
            ("private=\"\", max-age=60", Refused::Private),
            ("max-age=60; no-store", Refused::NoStore),
        ] {
            assert_eq!(refused(200, &[("cache-control", line)]), Some(expected), "{line}");
        }
        let targeted = ("cdn-cache-control", "max-age=60");
        let plain = ("cache-control", "no-store, private");
        assert_eq!(refused(200, &[targeted, plain]), None, "RFC 9213, section 2.2");
        let targeted = ("cdn-cache-control", "no-store");
        assert_eq!(refused(200, &[targeted, FRESH]), Some(Refused::NoStore));
        let void = ("cdn-cache-control", "max-age=60, &");
        assert_eq!(refused(200, &[void, plain]), Some(Refused::Private));
    }

    /// RFC 9111, section 5.2.2.3.
    #[test]
    fn must_understand_sets_no_store_aside_for_statuses_that_are_understood() {
        let line = ("cache-control", "max-age=60, no-store, must-understand");
        assert_eq!(refused(200, &[line]), None);
        assert_eq!(refused(599, &[line]), Some(Refused::NotUnderstood));
        let alone = ("cache-control", "max-age=60, must-understand");
        assert_eq!(refused(599, &[alone]), Some(Refused::NotUnderstood));
        let private = ("cache-control", "max-age=60, private, must-understand");
        assert_eq!(refused(200, &[private]), Some(Refused::Private));
    }

    /// RFC 9111, section 3.5.
    #[test]
    fn authorized_responses_need_a_permission() {
        let refused = |control: &str| {
            let request = get(&[("authorization", "x")]);
            refused_with(
                &request,
                &response(200, &[("cache-control", control)]),
                &Settings::default(),
            )
        };
        for control in ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"] {
            assert_eq!(refused(control), None, "{control}");
        }
        for control in ["max-age=60", "max-age=60, proxy-revalidate", "max-age=9, immutable"] {
            assert_eq!(refused(control), Some(Refused::Authorization), "{control}");
        }
    }

    /// RFC 9111, sections 5.2.2.4 and 5.2.2.7.
    #[test]
    fn fields_that_are_named_are_not_kept() {
        let control =
            ("cache-control", "max-age=60, private=\"set-cookie, X-A\", no-cache=\"x-b\"");
        let response = response(
            200,
            &[control, ("set-cookie", "a"), ("x-a", "1"), ("x-b", "1"), ("x-c", "1")],
        );
        let kept = kept(&get(&[]), &response, &Settings::default());
        assert_eq!(names(&kept), ["cache-control", "date", "x-c"]);
        assert!(!kept.head.terms.no_cache);
    }

    /// RFC 9111, section 7.3.
    #[test]
    fn cookies_are_not_given_to_others_unless_that_is_chosen() {
        for name in ["set-cookie", "set-cookie2"] {
            let response = response(200, &[FRESH, (name, "a=b")]);
            assert_eq!(
                refused_with(&get(&[]), &response, &Settings::default()),
                Some(Refused::SetCookie)
            );
            let with = |set_cookie| Settings { set_cookie, ..Settings::default() };
            let stripped = kept(&get(&[]), &response, &with(SetCookie::Strip));
            assert!(!stripped.head.headers.contains_key(name));
            let stored = kept(&get(&[]), &response, &with(SetCookie::Store));
            assert!(stored.head.headers.contains_key(name));
        }
    }

    /// RFC 9111, section 4.2.2, and what a user's response may be.
    #[test]
    fn nothing_is_guessed_of_one_users_response() {
        let modified = ("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT");
        let of = |lines: &[(&str, &str)]| {
            kept(&get(lines), &response(200, &[modified]), &Settings::default()).head.terms.lifetime
        };
        assert_eq!((of(&[]), of(&[("cookie", "a=b")])), (secs(360), secs(0)));
    }

    /// RFC 9111, section 3.1; RFC 9110, section 6.6.1.
    #[test]
    fn what_is_of_one_message_is_not_kept() {
        let mut response = response(
            200,
            &[
                FRESH,
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "1"),
                ("age", "7"),
                ("content-length", "5"),
                ("etag", "\"a\""),
                ("etag", "\"a\""),
            ],
        );
        response.headers.remove(DATE);
        let kept = kept(&get(&[]), &response, &Settings::default());
        assert_eq!(names(&kept), ["cache-control", "date", "etag"]);
        assert_eq!(kept.head.headers.get_all(ETAG).iter().count(), 1);
        assert_eq!(kept.head.headers[DATE], DATE_AT);
        assert_eq!(kept.head.initial_age, secs(7));
    }

    #[test]
    fn two_values_where_one_may_be_are_not_stored() {
        for name in
            ["etag", "content-type", "date", "expires", "content-location", "content-length"]
        {
            let lines = [FRESH, (name, "\"a\""), (name, "\"b\"")];
            assert_eq!(refused(200, &lines), Some(Refused::Ambiguous), "{name}");
        }
    }

    #[test]
    fn what_depends_on_everything_is_not_stored() {
        assert_eq!(refused(200, &[FRESH, ("vary", "accept, *")]), Some(Refused::Varies));
        let response = response(200, &[FRESH, ("vary", "Foo, bar")]);
        let names = |settings: &Settings| {
            let vary = kept(&get(&[]), &response, settings).vary;
            vary.iter().map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&Settings::default()), ["bar", "foo"]);
        let ignores = Settings { ignores_vary: true, ..Settings::default() };
        assert_eq!(names(&ignores), [""; 0]);
    }

    #[test]
    fn what_nobody_would_use_is_not_stored() {
        for control in ["max-age=0", "no-cache, max-age=60", "no-cache", "max-age=x"] {
            assert_eq!(
                refused(200, &[("cache-control", control)]),
                Some(Refused::Useless),
                "{control}"
            );
            assert_eq!(refused(200, &[("cache-control", control), ("etag", "\"a\"")]), None);
            assert_eq!(
                refused(200, &[("cache-control", control), ("last-modified", DATE_AT)]),
                None
            );
            let unquoted = [("cache-control", control), ("etag", "a")];
            assert_eq!(refused(200, &unquoted), Some(Refused::Useless));
        }
        assert_eq!(refused(200, &[FRESH, ("age", "60")]), Some(Refused::Useless));
        assert_eq!(refused(200, &[FRESH, ("age", "59")]), None);
        let swr = "max-age=0, stale-while-revalidate=9";
        assert_eq!(refused(200, &[("cache-control", swr)]), None);
    }

    /// RFC 9111, sections 3.3 and 3.4.
    #[test]
    fn a_single_range_is_stored_as_a_part() {
        let part = |lines: &[(&str, &str)]| {
            let lines = [&[FRESH, ("content-range", "bytes 4-9/10")], lines].concat();
            let request = get(&[("range", "bytes=-6")]);
            match store(&request, &response(206, &lines), &exchange(), &Settings::default()) {
                Storing::Part { kept, part, validator } => (kept, part, validator),
                other => panic!("{other:?}"),
            }
        };
        let (kept, part_of, validator) = part(&[("etag", "\"a\"")]);
        assert_eq!((part_of.range, part_of.len), (4..10, 10));
        assert_eq!(validator, Validator::etag(b"\"a\""));
        assert_eq!(kept.head.status, StatusCode::OK);
        assert!(!kept.head.headers.contains_key("content-range"));
        assert_eq!(part(&[("etag", "W/\"a\"")]).2, None);
        assert_eq!(part(&[]).2, None);
        assert!(part(&[("last-modified", "Sun, 06 Nov 1994 08:48:37 GMT")]).2.is_some());
        assert!(part(&[("last-modified", "Sun, 06 Nov 1994 08:49:00 GMT")]).2.is_none());
        for lines in [
            &[FRESH][..],
            &[FRESH, ("content-range", "bytes */10")],
            &[FRESH, ("content-range", "bytes 0-9/*")],
        ] {
            assert_eq!(refused(206, lines), Some(Refused::Status), "{lines:?}");
        }
    }

    /// RFC 9111, section 3; RFC 9110, section 9.3.3.
    #[test]
    fn methods_decide() {
        let with = |method: Method, lines: &[(&str, &str)]| {
            refused_with(&request(method, &[]), &response(200, lines), &Settings::default())
        };
        for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
            assert_eq!(with(method.clone(), &[FRESH]), Some(Refused::Request), "{method}");
        }
        let own = ("content-location", "page?q");
        assert_eq!(with(Method::POST, &[FRESH, own]), None);
        assert_eq!(with(Method::POST, &[FRESH]), Some(Refused::Request));
        let other = ("content-location", "/other");
        assert_eq!(with(Method::POST, &[FRESH, other]), Some(Refused::Request));
        let guessed = ("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT");
        assert_eq!(with(Method::POST, &[guessed, own]), Some(Refused::Request));
    }

    #[test]
    fn what_is_passed_is_not_stored() {
        let passed = get(&[("x-original-url", "/admin")]);
        let fresh = response(200, &[FRESH]);
        assert_eq!(refused_with(&passed, &fresh, &Settings::default()), Some(Refused::Request));
        let body = RequestHead { has_body: true, ..get(&[]) };
        assert_eq!(refused_with(&body, &fresh, &Settings::default()), Some(Refused::Request));
        let until_close = ResponseHead { ends_with_connection: true, ..fresh };
        assert_eq!(
            refused_with(&get(&[]), &until_close, &Settings::default()),
            Some(Refused::UntilClose)
        );
        let stores = Settings { stores_until_close: true, ..Settings::default() };
        assert_eq!(refused_with(&get(&[]), &until_close, &stores), None);
    }

    /// RFC 9111, section 5.2.1.5.
    #[test]
    fn clients_may_forbid_to_store_where_they_are_honored() {
        let request = get(&[("cache-control", "no-store")]);
        let fresh = response(200, &[FRESH]);
        assert_eq!(refused_with(&request, &fresh, &Settings::default()), None);
        let honor = Settings { client_directives: ClientDirectives::Honor, ..Settings::default() };
        assert_eq!(refused_with(&request, &fresh, &honor), Some(Refused::RequestNoStore));
    }

    #[test]
    fn only_what_the_response_forbids_marks_its_key() {
        let ok = StatusCode::OK;
        for refused in [
            Refused::NoStore,
            Refused::Private,
            Refused::SetCookie,
            Refused::Varies,
            Refused::Useless,
        ] {
            assert!(refused.marks_key(ok) && !refused.marks_key(StatusCode::BAD_GATEWAY));
        }
        for refused in [Refused::Request, Refused::RequestNoStore, Refused::Authorization] {
            assert!(!refused.marks_key(ok), "{refused:?}");
        }
    }

    fn lines() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let lines = vec![
            ("cache-control", "max-age=60"),
            ("cache-control", "s-maxage=60, public"),
            ("cache-control", "must-revalidate, stale-if-error=60"),
            ("cache-control", "x=\"no-store\", immutable"),
            ("expires", "Sun, 06 Nov 2094 08:49:37 GMT"),
            ("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT"),
            ("etag", "\"a\""),
            ("vary", "accept"),
            ("cdn-cache-control", "&"),
            ("cdn-cache-control", ""),
            ("age", "5"),
            ("connection", "cache-control, x"),
            ("surrogate-control", "max-age=99"),
            ("x-accel-expires", "99"),
            ("content-range", "bytes 0-1/2"),
        ];
        proptest::collection::vec(proptest::sample::select(lines), 0..6)
    }

    fn settings() -> impl Strategy<Value = Settings> {
        (any::<[bool; 5]>(), any::<Option<u16>>()).prop_map(|(flags, ttl)| Settings {
            set_cookie: if flags[0] { SetCookie::Store } else { SetCookie::Never },
            client_directives: match flags[1] {
                true => ClientDirectives::Honor,
                false => ClientDirectives::Ignore,
            },
            ttl_override: ttl.map(|ttl| secs(u64::from(ttl))),
            ttl_default: flags[2].then_some(secs(60)),
            reads_accel_expires: flags[3],
            ignores_expires: flags[4],
            ignores_vary: flags[2],
            grace_default: secs(60),
            ..Settings::default()
        })
    }

    proptest! {
        /// A response that forbids storing never reaches the store, whatever else it says.
        #[test]
        fn what_forbids_is_never_stored(before in lines(), after in lines(), settings in settings(),
                                        status in 200..600_u16, range: bool,
                                        line in proptest::sample::select(vec![
                                            "no-store", "private", "max-age=9, No-Store", "a=\"b\\\"\", private",
                                            "private=\"vary\"", "max-age=1; no-store", "x=\"open, no-store"])) {
            let lines = [before, vec![("cache-control", line)], after].concat();
            let request = if range { get(&[("range", "bytes=0-1")]) } else { get(&[]) };
            let found = store(&request, &response(status, &lines), &exchange(), &settings);
            prop_assert!(matches!(found, Storing::No(_)), "{:?}", found);
        }

        #[test]
        fn what_is_stored_of_an_authorized_response_was_permitted(lines in lines(), settings in settings()) {
            let request = get(&[("authorization", "x")]);
            let found = store(&request, &response(200, &lines), &exchange(), &settings);
            let permits = lines.iter().any(|(_, value)| value.contains("public") || value.contains("must-rev"));
            prop_assert!(permits || matches!(found, Storing::No(_)), "{:?}", found);
        }

        #[test]
        fn no_response_is_fresher_than_its_lifetime(lines in lines(), settings in settings()) {
            if let Storing::Whole(kept) = store(&get(&[]), &response(200, &lines), &exchange(), &settings) {
                let head = kept.head;
                prop_assert!(head.fresh_for(head.received_at) <= head.terms.lifetime);
                prop_assert!(head.headers.contains_key(DATE) && !head.headers.contains_key(AGE));
            }
        }
    }
}
