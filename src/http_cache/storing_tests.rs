//! Goal: what is stored is what RFC 9111, section 3, lets a shared cache store. Method: tables, a rule each.

use super::*;
use crate::http_cache::settings::ClientDirectives;
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
        [200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 403, 404, 410, 499, 500, 503, 599]
    {
        assert_eq!(refused(status, &[FRESH]), None, "{status}");
        let expires = ("expires", "Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(refused(status, &[expires]), None, "{status}");
    }
    for status in [206, 304, 416] {
        assert_eq!(refused(status, &[FRESH]), Some(Refused::Status), "{status}");
    }
}

/// RFC 6585, sections 3 to 6; the others, an operator may choose.
#[test]
fn what_blames_one_request_is_not_stored() {
    let public = ("cache-control", "public, max-age=60");
    for status in [400, 406, 408, 411, 412, 413, 415, 417, 421, 425, 426, 428, 429, 431, 511] {
        assert_eq!(refused(status, &[public]), Some(Refused::Status), "{status}");
        let code = StatusCode::from_u16(status).unwrap();
        let ttl_status = [(code, secs(0))].into();
        let settings = Settings { ttl_status, ..Settings::default() };
        let found = store(&get(&[]), &response(status, &[public]), &exchange(), &settings);
        let is_stored = matches!(found, Storing::Whole(_));
        assert_eq!(is_stored, !matches!(status, 428 | 429 | 431 | 511), "{status}");
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
        refused_with(&request, &response(200, &[("cache-control", control)]), &Settings::default())
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
    let control = ("cache-control", "max-age=60, private=\"set-cookie, X-A\", no-cache=\"x-b\"");
    let response =
        response(200, &[control, ("set-cookie", "a"), ("x-a", "1"), ("x-b", "1"), ("x-c", "1")]);
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
    for name in ["etag", "content-type", "date", "expires", "content-location", "content-length"] {
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
fn tags_are_kept_or_nothing_is() {
    let response_with =
        |xkey: &str| response(200, &[FRESH, ("xkey", xkey), ("cache-groups", "\"g\"")]);
    let kept = kept(&get(&[]), &response_with("a b"), &Settings::default());
    assert_eq!((kept.tags.tags.len(), kept.tags.groups.len()), (2, 1));
    let many = response_with(&"x".repeat(2000));
    assert_eq!(refused_with(&get(&[]), &many, &Settings::default()), Some(Refused::Tags));
}

/// RFC 9111, section 4.1.
#[test]
fn who_waits_gets_what_answers_both() {
    let kept = kept(&get(&[]), &response(200, &[FRESH, ("vary", "foo")]), &Settings::default());
    let answers =
        |filler: &[(&str, &str)], other: &[(&str, &str)]| kept.answers(&get(filler), &get(other));
    assert!(answers(&[("foo", "1"), ("bar", "1")], &[("foo", "1")]) && answers(&[], &[]));
    assert!(!answers(&[("foo", "1")], &[("foo", "2")]) && !answers(&[], &[("foo", "")]));
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
        assert_eq!(refused(200, &[("cache-control", control), ("last-modified", DATE_AT)]), None);
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
    let request = request(Method::POST, &[("x-http-method-override", "GET")]);
    let found = refused_with(&request, &response(200, &[FRESH, own]), &Settings::default());
    assert_eq!(found, Some(Refused::Request));
    let guessed = ("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT");
    assert_eq!(with(Method::POST, &[guessed, own]), Some(Refused::Request));
}

#[test]
fn rules_of_the_operator_forbid_to_store() {
    let (rule, own) = (vec!["header:a".parse().unwrap()], ("content-location", "page?q"));
    let fresh = response(200, &[FRESH, own]);
    let bypass = Settings { bypass: rule.clone(), ..Settings::default() };
    let no_store = Settings { no_store: rule, ..Settings::default() };
    for (settings, method, expected) in [
        (&bypass, Method::GET, Refused::Request),
        (&bypass, Method::POST, Refused::RequestNoStore),
        (&no_store, Method::GET, Refused::RequestNoStore),
        (&no_store, Method::POST, Refused::RequestNoStore),
    ] {
        let found = refused_with(&request(method.clone(), &[("a", "")]), &fresh, settings);
        assert_eq!(found, Some(expected), "{method}");
        assert_eq!(refused_with(&request(method, &[]), &fresh, settings), None);
    }
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
    for refused in
        [Refused::NoStore, Refused::Private, Refused::SetCookie, Refused::Varies, Refused::Useless]
    {
        assert!(refused.marks_key(ok) && !refused.marks_key(StatusCode::BAD_GATEWAY));
    }
    for refused in [Refused::Request, Refused::RequestNoStore, Refused::Authorization] {
        assert!(!refused.marks_key(ok), "{refused:?}");
    }
}
