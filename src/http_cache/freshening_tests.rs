//! Goal: a 304 changes a stored response as RFC 9111 has it, and nothing else. Method: tables.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::http_cache::freshness::Source;
use crate::http_cache::settings::SetCookie;
use crate::http_cache::storing::{Storing, store};
use crate::http_cache::testing::{DATE_AT, at, exchange, get, headers, request, response, secs};

const TAG: (&str, &str) = ("etag", "\"a\"");
const LATER: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:51:17 GMT");

fn stored(lines: &[(&str, &str)]) -> StoredHead {
    let settings = Settings { set_cookie: SetCookie::Store, ..Settings::default() };
    match store(&get(&[]), &response(200, lines), &exchange(), &settings) {
        Storing::Whole(kept) => kept.head,
        other => panic!("{other:?}"),
    }
}

/// A hundred seconds later.
fn later() -> Exchange {
    Exchange { requested_at: Timestamp(198), received_at: Timestamp(200), received_date: at(100) }
}

fn of(request: &RequestHead, stored: &StoredHead, lines: &[(&str, &str)]) -> Freshening {
    let response = ResponseHead {
        status: StatusCode::NOT_MODIFIED,
        headers: headers(lines),
        ends_with_connection: false,
    };
    freshen(stored, request, &response, &later(), &Settings::default())
}

fn updated(stored: &StoredHead, lines: &[(&str, &str)]) -> StoredHead {
    match of(&get(&[]), stored, lines) {
        Freshening::Updated(kept) => kept.head,
        other => panic!("{other:?}"),
    }
}

/// RFC 9111, section 3.2.
#[test]
fn fields_are_replaced_by_those_of_the_304() {
    let stored = stored(&[
        ("cache-control", "max-age=60"),
        TAG,
        ("x-old", "1"),
        ("x-both", "1"),
        ("x-both", "2"),
        ("content-encoding", "gzip"),
        ("set-cookie", "a=1"),
    ]);
    let head = updated(
        &stored,
        &[
            TAG,
            LATER,
            ("x-both", "3"),
            ("x-new", "1"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "9"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=2"),
            ("age", "3"),
        ],
    );
    let values = |name: &str| {
        let values = head.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((values("x-old"), values("x-both")), (vec!["1".into()], vec!["3".to_owned()]));
    assert_eq!((values("x-new"), values("date")), (vec!["1".into()], vec![LATER.1.to_owned()]));
    assert_eq!(
        (values("content-encoding"), values("set-cookie")),
        (vec!["gzip".into()], vec!["a=1".to_owned()])
    );
    for name in
        ["x-hop", "connection", "content-length", "content-range", "age", "transfer-encoding"]
    {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    assert_eq!((head.received_at, head.initial_age), (Timestamp(200), secs(5)));
}

/// RFC 9111, section 4.3.4: fields first, lifetimes from what they make.
#[test]
fn lifetimes_come_from_the_merged_head() {
    let grace = "max-age=60, stale-if-error=99";
    let old = stored(&[("cache-control", grace), TAG]);
    let terms = updated(&old, &[TAG]).terms;
    assert_eq!((terms.lifetime, terms.stale_if_error), (secs(60), secs(99)));
    let terms = updated(&old, &[TAG, ("cache-control", "max-age=5")]).terms;
    assert_eq!((terms.lifetime, terms.stale_if_error), (secs(5), secs(0)));
    let strict = format!("{grace}, must-revalidate");
    let terms = updated(&old, &[TAG, ("cache-control", &strict)]).terms;
    assert_eq!((terms.lifetime, terms.stale_if_error), (secs(60), secs(0)), "the grace goes");
    let old = stored(&[("expires", "Sun, 06 Nov 1994 08:52:17 GMT"), TAG]);
    assert_eq!(
        (old.terms.lifetime, updated(&old, &[TAG, LATER]).terms.lifetime),
        (secs(160), secs(60))
    );
    let old = stored(&[("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT"), TAG]);
    let cookie = get(&[("cookie", "x")]);
    let Freshening::Updated(kept) = of(&cookie, &old, &[TAG]) else { panic!() };
    assert_eq!(
        (kept.head.terms.lifetime, kept.head.terms.source),
        (Duration::ZERO, Source::Nobody)
    );
}

/// RFC 9111, section 4.3.4.
#[test]
fn another_version_is_asked_for_again() {
    let modified = ("last-modified", DATE_AT);
    let fresh = ("cache-control", "max-age=9");
    let other = ("last-modified", "Sun, 06 Nov 1994 08:49:36 GMT");
    let again = |stored_lines: &[(&str, &str)], lines: &[(&str, &str)]| {
        let stored = stored(&[&[fresh], stored_lines].concat());
        matches!(of(&get(&[]), &stored, lines), Freshening::AskAgain)
    };
    let weak = ("etag", "W/\"a\"");
    for (stored, lines) in [
        (&[TAG][..], &[("etag", "\"b\"")][..]),
        (&[TAG], &[("etag", "W/\"b\"")]),
        (&[weak], &[TAG]),
        (&[modified], &[TAG, modified]),
        (&[modified], &[other]),
        (&[TAG, modified], &[other]),
        (&[TAG], &[modified]),
        (&[TAG], &[TAG, ("etag", "\"b\"")]),
    ] {
        assert!(again(stored, lines), "{stored:?} {lines:?}");
    }
    for (stored, lines) in [
        (&[TAG][..], &[TAG][..]),
        (&[TAG], &[weak]),
        (&[weak], &[weak]),
        (&[TAG, modified], &[TAG, other]),
        (&[TAG, modified], &[modified]),
        (&[modified], &[modified]),
        (&[TAG], &[]),
        (&[TAG], &[TAG, TAG]),
    ] {
        assert!(!again(stored, lines), "{stored:?} {lines:?}");
    }
    let stored = stored(&[fresh, TAG]);
    assert_eq!(updated(&stored, &[weak]).headers["etag"], "\"a\"", "the strong one stays");
}

#[test]
fn what_may_no_longer_be_stored_is_removed() {
    let old = stored(&[("cache-control", "max-age=60"), TAG]);
    for line in [("cache-control", "no-store"), ("cache-control", "private"), ("vary", "*")] {
        assert!(matches!(of(&get(&[]), &old, &[TAG, line]), Freshening::Removed(_)), "{line:?}");
    }
    let targeted = stored(&[("cdn-cache-control", "max-age=60"), TAG]);
    let said = [TAG, ("cache-control", "no-store")];
    assert!(matches!(of(&get(&[]), &targeted, &said), Freshening::Removed(_)));
    let said = [TAG, ("x-a", "1"), ("cache-control", "private=\"x-a\"")];
    assert!(!updated(&targeted, &said).headers.contains_key("x-a"));
    let named = updated(&old, &[TAG, ("x-a", "1"), ("cache-control", "private=\"x-a\"")]);
    assert!(!named.headers.contains_key("x-a"));
}

/// RFC 9111, section 3.5.
#[test]
fn what_is_said_to_one_user_is_not_kept_for_others() {
    let old = stored(&[("cache-control", "max-age=60"), TAG]);
    let user = get(&[("authorization", "x")]);
    assert!(matches!(of(&user, &old, &[TAG, ("x-user", "1")]), Freshening::Once));
    let public = [TAG, ("cache-control", "public, max-age=9")];
    assert!(matches!(of(&user, &old, &public), Freshening::Updated(_)));
    let private = [TAG, ("cache-control", "private")];
    assert!(matches!(of(&user, &old, &private), Freshening::Removed(_)));
}

#[test]
fn a_new_vary_is_seen() {
    let old = stored(&[("cache-control", "max-age=60"), TAG, ("vary", "a, b")]);
    assert!(!is_rekeyed(&old, &updated(&old, &[TAG, ("vary", "B,A")])));
    assert!(is_rekeyed(&old, &updated(&old, &[TAG, ("vary", "a")])));
}

/// RFC 9111, section 4.3.5.
#[test]
fn a_head_may_show_that_the_stored_body_is_good() {
    let old = stored(&[("cache-control", "max-age=60"), TAG]);
    let by_head = |status: u16, lines: &[(&str, &str)]| {
        let head = request(Method::HEAD, &[]);
        freshen_by_head(&old, &head, &response(status, lines), &later(), &Settings::default(), 10)
    };
    let len = ("content-length", "10");
    assert!(matches!(by_head(200, &[TAG, len]), Freshening::Updated(_)));
    assert!(matches!(by_head(200, &[TAG]), Freshening::Updated(_)));
    assert!(matches!(by_head(200, &[TAG, ("content-length", "11")]), Freshening::Outdated));
    assert!(matches!(by_head(200, &[("etag", "\"b\""), len]), Freshening::Outdated));
    assert!(matches!(by_head(200, &[len]), Freshening::Once));
    assert!(matches!(by_head(410, &[TAG, len]), Freshening::Once));
    assert!(matches!(by_head(200, &[TAG, ("cache-control", "private")]), Freshening::Removed(_)));
}

proptest! {
    /// What forbids to store a response is never merged into one that stays.
    #[test]
    fn what_forbids_never_stays(stored_lines in lines(), before in lines(), after in lines(),
                                is_authorized: bool, line in proptest::sample::select(vec![
                                    ("cache-control", "no-store"), ("cache-control", "private"),
                                    ("cache-control", "max-age=9; private"), ("vary", "a, *")])) {
        let is_other = |(name, _): &(&str, &str)| !["etag", "set-cookie"].contains(name);
        let others = stored_lines.into_iter().filter(is_other);
        let stored_lines: Vec<_> = [("cache-control", "max-age=9"), TAG].into_iter().chain(others).collect();
        let stored = stored(&stored_lines);
        let request = if is_authorized { get(&[("authorization", "x")]) } else { get(&[]) };
        let lines = [before, vec![line], after].concat();
        let found = of(&request, &stored, &lines);
        prop_assert!(!matches!(found, Freshening::Updated(_)), "{:?}", found);
    }

    #[test]
    fn what_stays_is_of_the_same_version(lines in lines()) {
        let stored = stored(&[("cache-control", "max-age=9"), TAG]);
        if let Freshening::Updated(kept) = of(&get(&[]), &stored, &lines) {
            prop_assert_eq!(&kept.head.headers["etag"], "\"a\"");
            prop_assert!(!kept.head.headers.contains_key(SET_COOKIE));
            prop_assert!(kept.head.age(Timestamp(200)) >= secs(2));
        }
    }
}

fn lines() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let lines = vec![
        ("set-cookie", "a=b"),
        ("cache-control", "max-age=60"),
        ("cache-control", "public, must-revalidate"),
        ("etag", "\"a\""),
        ("etag", "\"b\""),
        ("etag", "W/\"a\""),
        ("last-modified", DATE_AT),
        ("vary", "b"),
        ("age", "1"),
        ("connection", "cache-control"),
        ("xkey", "a"),
    ];
    proptest::collection::vec(proptest::sample::select(lines), 0..5)
}

#[test]
fn what_a_304_says_to_this_cache_counts_where_it_is_trusted() {
    let stored = stored(&[("cache-control", "max-age=60"), TAG]);
    let with = |lines: &[(&str, &str)], trusted: &[&str]| {
        let response = ResponseHead {
            status: StatusCode::NOT_MODIFIED,
            headers: headers(lines),
            ends_with_connection: false,
        };
        let trusted = trusted.iter().map(|name| name.parse().unwrap()).collect();
        let settings = Settings { trusted, ..Settings::default() };
        freshen(&stored, &get(&[]), &response, &later(), &settings)
    };
    let ttl = [("x-rawcached-ttl", "7")];
    for (trusted, expected) in [(&[][..], 60), (&["x-rawcached-ttl"], 7)] {
        let Freshening::Updated(kept) = with(&ttl, trusted) else { panic!("{trusted:?}") };
        assert_eq!(kept.head.terms.lifetime, secs(expected));
        assert!(!kept.head.headers.contains_key("x-rawcached-ttl"));
    }
    let no_store = [("x-rawcached-no-store", "1")];
    assert!(matches!(with(&no_store, &[]), Freshening::Updated(_)));
    assert!(matches!(with(&no_store, &["x-rawcached-no-store"]), Freshening::Removed(_)));
}
