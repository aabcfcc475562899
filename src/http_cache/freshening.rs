//! What the answer to a validation makes of a stored response (RFC 9111, sections 3.2, 4.3.3 to 4.3.5).

use http::header::{
    AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use http::{Method, StatusCode};

use super::age::initial_age;
use super::conditional::{is_etag, strong_match, weak_match};
use super::date::date;
use super::freshness::{Circumstances, control, terms};
use super::head::{Exchange, RequestHead, ResponseHead, StoredHead};
use super::hop_by_hop::remove_hop_by_hop;
use super::settings::Settings;
use super::single;
use super::storing::{Kept, forbidden};
use super::vary::{Names, Vary};

/// Fields that a 304 does not change: what belongs to the body that is stored, to one message, or to
/// one client.
const NOT_MERGED: [HeaderName; 6] = [
    AGE,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
];

/// What becomes of a stored response.
#[derive(Clone, Debug)]
pub enum Freshening {
    /// It is good: this is its head now. It answers the client.
    Updated(Box<Kept>),
    /// It answers the client as it is, and what is stored stays as it is: the origin's word was for this
    /// client only.
    Once,
    /// It answers the client, with the fields of this head, and is removed: it may not be stored any
    /// longer.
    Removed(Box<StoredHead>),
    /// The origin means another version: ask again without preconditions.
    AskAgain,
    /// It is not what the origin has now: it is stale, or gone.
    Outdated,
}

/// What `response`, a 304 to a validation of `stored` for `request`, makes of it.
#[must_use]
pub fn freshen(
    stored: &StoredHead,
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Freshening {
    let is_ambiguous = single::ambiguous(&response.headers).is_some();
    if is_ambiguous || !is_same_version(&stored.headers, &response.headers) {
        return Freshening::AskAgain;
    }
    update(stored, request, response, exchange, settings)
}

/// What `response`, an answer to a HEAD, makes of `stored` (RFC 9111, section 4.3.5).
#[must_use]
pub fn freshen_by_head(
    stored: &StoredHead,
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
    len: u64,
) -> Freshening {
    let headers = &response.headers;
    let is_head = request.method == Method::HEAD && response.status == StatusCode::OK;
    if !is_head || stored.status != StatusCode::OK || single::ambiguous(headers).is_some() {
        return Freshening::Once;
    }
    let given_len = headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let is_other_len = given_len.is_some_and(|given: u64| given != len);
    if is_other_len || (has_validator && !is_same_version(&stored.headers, headers)) {
        return Freshening::Outdated;
    }
    match has_validator {
        true => update(stored, request, response, exchange, settings),
        // Nothing says that it is the same.
        false => Freshening::Once,
    }
}

/// Whether the validators of `response` are those of the stored response (RFC 9111, section 4.3.4). One
/// without any confirms what it was asked for.
fn is_same_version(stored: &HeaderMap, response: &HeaderMap) -> bool {
    let tag = |headers: &HeaderMap| headers.get(ETAG).map(|tag| tag.as_bytes().to_vec());
    let given = tag(response).filter(|tag| is_etag(tag));
    match (given, tag(stored)) {
        // A weak tag of a strong one: a proxy on the way compresses.
        (Some(given), Some(known)) if given.starts_with(b"W/") => weak_match(&given, &known),
        (Some(given), Some(known)) => strong_match(&given, &known),
        (Some(_), None) => false,
        (None, _) => match date(response, &LAST_MODIFIED) {
            Some(given) => date(stored, &LAST_MODIFIED) == Some(given),
            None => true,
        },
    }
}

fn update(
    stored: &StoredHead,
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Freshening {
    let (said, _) = control(&response.headers, settings);
    let is_authorized = request.headers.contains_key(AUTHORIZATION);
    let mut headers = merged(&stored.headers, &response.headers, exchange);
    let (control, _) = control(&headers, settings);
    for name in &control.withheld {
        headers.remove(name);
    }
    let of = Circumstances {
        status: stored.status,
        received_date: exchange.received_date,
        has_credentials: request.has_credentials(),
        settings,
    };
    let head = StoredHead {
        status: stored.status,
        terms: terms(&headers, of),
        headers,
        received_at: exchange.received_at,
        initial_age: initial_age(&response.headers, exchange),
        ended_at: None,
    };
    // What the stored response says in a targeted field does not outweigh what was said now.
    let controls = [&said, &control];
    if controls.iter().any(|control| forbidden(control, head.status).is_some()) {
        return Freshening::Removed(Box::new(head));
    }
    // What an origin says to an authorized client is for others only if it says so (RFC 9111, section
    // 3.5).
    if is_authorized && !said.permits_authorized && !control.permits_authorized {
        return Freshening::Once;
    }
    let vary = match settings.ignores_vary {
        true => Vary::Names(Names::default()),
        false => Vary::of(&head.headers),
    };
    match vary {
        Vary::Names(vary) => Freshening::Updated(Box::new(Kept { head, vary })),
        Vary::Always => Freshening::Removed(Box::new(head)),
    }
}

/// The stored fields with those of `response` in place of their own (RFC 9111, section 3.2).
fn merged(stored: &HeaderMap, response: &HeaderMap, exchange: &Exchange) -> HeaderMap {
    let mut new = response.clone();
    remove_hop_by_hop(&mut new);
    single::merge(&mut new);
    for name in &NOT_MERGED {
        new.remove(name);
    }
    // The stored tag is the stronger one, or the same.
    if stored.contains_key(ETAG) {
        new.remove(ETAG);
    }
    if date(&new, &DATE).is_none() {
        let text = httpdate::fmt_http_date(exchange.received_date);
        if let Ok(value) = HeaderValue::try_from(text) {
            new.insert(DATE, value);
        }
    }
    let mut merged = stored.clone();
    for name in new.keys() {
        merged.remove(name);
    }
    for (name, value) in &new {
        merged.append(name, value.clone());
    }
    merged
}

/// Whether the variant of a response that was freshened has another key than before.
#[must_use]
pub fn is_rekeyed(before: &StoredHead, after: &StoredHead) -> bool {
    Vary::of(&before.headers) != Vary::of(&after.headers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::http_cache::freshness::Source;
    use crate::http_cache::settings::SetCookie;
    use crate::http_cache::storing::{Storing, store};
    use crate::http_cache::testing::{
        DATE_AT, at, exchange, get, headers, request, response, secs,
    };

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
        Exchange {
            requested_at: Timestamp(198),
            received_at: Timestamp(200),
            received_date: at(100),
        }
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
            assert!(
                matches!(of(&get(&[]), &old, &[TAG, line]), Freshening::Removed(_)),
                "{line:?}"
            );
        }
        let targeted = stored(&[("cdn-cache-control", "max-age=60"), TAG]);
        let said = [TAG, ("cache-control", "no-store")];
        assert!(matches!(of(&get(&[]), &targeted, &said), Freshening::Removed(_)));
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
            freshen_by_head(
                &old,
                &head,
                &response(status, lines),
                &later(),
                &Settings::default(),
                10,
            )
        };
        let len = ("content-length", "10");
        assert!(matches!(by_head(200, &[TAG, len]), Freshening::Updated(_)));
        assert!(matches!(by_head(200, &[TAG]), Freshening::Updated(_)));
        assert!(matches!(by_head(200, &[TAG, ("content-length", "11")]), Freshening::Outdated));
        assert!(matches!(by_head(200, &[("etag", "\"b\""), len]), Freshening::Outdated));
        assert!(matches!(by_head(200, &[len]), Freshening::Once));
        assert!(matches!(by_head(410, &[TAG, len]), Freshening::Once));
        assert!(matches!(
            by_head(200, &[TAG, ("cache-control", "private")]),
            Freshening::Removed(_)
        ));
    }
}
