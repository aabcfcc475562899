//! What a stored response that is used answers (RFC 9111, section 4.3.2; RFC 9110, sections 13.2 and
//! 14.2): whole, in parts, or as 304.

use std::ops::Range;
use std::time::SystemTime;

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, HeaderName, HeaderValue,
    LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, Method, StatusCode};

use super::conditional::{Access, DateKind, Validators, Verdict, evaluate, is_etag, range_applies};
use super::date::date;
use super::head::{RequestHead, StoredHead};
use super::range::{Selection, select, select_exactly};
use super::request::OF_ONE_CLIENT;
use crate::clock::Timestamp;

/// Fields that a 304 carries (RFC 9110, section 15.4.5), besides `Last-Modified` where there is no
/// entity tag.
const OF_VALIDATION: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];

/// How a stored response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With its own status and the whole body.
    Whole,
    /// 304.
    NotModified,
    /// 206 with these bytes: at least one range, ascending, apart from each other, none empty.
    Parts(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// What is known of a stored body.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Its length in bytes.
    pub len: u64,
    /// Whether some of it may be missing: no byte is read then that nobody asked for.
    pub is_partial: bool,
}

/// How `stored` with `body` answers `request`.
#[must_use]
pub fn answer(request: &RequestHead, stored: &StoredHead, body: Body) -> Answer {
    let asks_for_all = !request.headers.keys().any(|name| OF_ONE_CLIENT.contains(name));
    // RFC 9110, section 13.2.1.
    if asks_for_all || !stored.status.is_success() {
        return Answer::Whole;
    }
    let present = validators(stored);
    match evaluate(&request.headers, Some(&present), Access::Read) {
        Verdict::NotModified => return Answer::NotModified,
        // Only `If-Match` and `If-Unmodified-Since` fail, and requests with those are passed.
        Verdict::Failed | Verdict::Proceed => {}
    }
    // RFC 9110, section 14.2.
    let has_ranges = request.method == Method::GET && stored.status == StatusCode::OK;
    let asked = request.headers.get(RANGE).filter(|_| has_ranges);
    let asked = asked.filter(|_| range_applies(&request.headers, &present));
    let select = if body.is_partial { select_exactly } else { select };
    match asked.map_or(Selection::Whole, |range| select(range.as_bytes(), body.len)) {
        Selection::Whole => Answer::Whole,
        Selection::Parts(parts) => Answer::Parts(parts),
        Selection::Nothing => Answer::Unsatisfiable,
    }
}

/// What identifies the version of a stored response. Without `Last-Modified` its `Date` is taken (RFC
/// 9111, section 4.3.2).
#[must_use]
pub fn validators(stored: &StoredHead) -> Validators {
    let etag = stored.headers.get(ETAG).filter(|tag| is_etag(tag.as_bytes())).cloned();
    // No client has an empty tag: nothing but `*` matches it.
    let etag = etag.unwrap_or_else(|| HeaderValue::from_static(""));
    let sent = stored.date();
    let (modified, kind) = match date(&stored.headers, &LAST_MODIFIED) {
        Some(modified) => (Some(modified), kind_of(modified, sent)),
        None => (sent, DateKind::Weak),
    };
    Validators { etag, modified, kind }
}

/// Another version may have the date of its own second (RFC 9110, section 8.8.2.2).
fn kind_of(modified: SystemTime, sent: Option<SystemTime>) -> DateKind {
    match sent {
        Some(sent) if modified < sent => DateKind::Strong,
        _ => DateKind::Weak,
    }
}

/// The fields of an answer with the stored response, but for those that depend on what is sent of its
/// body.
#[must_use]
pub fn answer_headers(stored: StoredHead, answer: &Answer, now: Timestamp) -> HeaderMap {
    let age = stored.age(now).as_secs();
    let mut headers = match answer {
        Answer::NotModified => validation_fields(&stored.headers),
        _ => stored.headers,
    };
    // RFC 9111, section 5.1.
    headers.insert(AGE, HeaderValue::from(age));
    headers
}

fn validation_fields(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let has_etag = stored.contains_key(ETAG);
    for (name, value) in stored {
        if OF_VALIDATION.contains(name) || (name == LAST_MODIFIED && !has_etag) {
            headers.append(name, value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::settings::Settings;
    use crate::http_cache::storing::{Storing, store};
    use crate::http_cache::testing::{DATE_AT, exchange, get, request, response};

    const BODY: Body = Body { len: 1000, is_partial: false };
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:32:57 GMT";

    fn stored(status: u16, lines: &[(&str, &str)]) -> StoredHead {
        let mut response = response(status, lines);
        response.headers.insert(CACHE_CONTROL, "max-age=60".parse().unwrap());
        match store(&get(&[]), &response, &exchange(), &Settings::default()) {
            Storing::Whole(kept) => kept.head,
            other => panic!("{other:?}"),
        }
    }

    fn to(lines: &[(&str, &str)], stored: &StoredHead) -> Answer {
        answer(&get(lines), stored, BODY)
    }

    /// RFC 9111, section 4.3.2.
    #[test]
    fn preconditions_are_evaluated_against_the_stored_response() {
        let tagged = stored(200, &[("etag", "\"a\""), ("last-modified", MODIFIED)]);
        assert_eq!(to(&[("if-none-match", "\"b\", W/\"a\"")], &tagged), Answer::NotModified);
        assert_eq!(to(&[("if-none-match", "*")], &tagged), Answer::NotModified);
        assert_eq!(
            to(&[("if-none-match", "\"b\""), ("if-modified-since", DATE_AT)], &tagged),
            Answer::Whole
        );
        assert_eq!(to(&[("if-modified-since", MODIFIED)], &tagged), Answer::NotModified);
        let before = "Sun, 06 Nov 1994 08:32:56 GMT";
        assert_eq!(to(&[("if-modified-since", before)], &tagged), Answer::Whole);
        let untagged = stored(200, &[]);
        assert_eq!(to(&[("if-none-match", "\"\"")], &untagged), Answer::Whole);
        assert_eq!(to(&[("if-none-match", "")], &untagged), Answer::Whole);
        let after = "Sun, 06 Nov 1994 08:49:38 GMT";
        assert_eq!(to(&[("if-modified-since", after)], &untagged), Answer::NotModified, "by Date");
        assert_eq!(to(&[("if-modified-since", MODIFIED)], &untagged), Answer::Whole);
        let changed = stored(203, &[("etag", "\"a\"")]);
        assert_eq!(to(&[("if-none-match", "\"a\"")], &changed), Answer::NotModified);
        assert_eq!(to(&[("range", "bytes=0-1")], &changed), Answer::Whole);
        let missing = stored(404, &[("etag", "\"a\"")]);
        assert_eq!(to(&[("if-none-match", "\"a\"")], &missing), Answer::Whole);
    }

    /// RFC 9110, sections 13.1.5 and 14.2.
    #[test]
    fn ranges_are_cut_from_the_stored_response() {
        let tagged = stored(200, &[("etag", "\"a\""), ("last-modified", MODIFIED)]);
        let range = ("range", "bytes=5-9");
        assert_eq!(to(&[range], &tagged), Answer::Parts(vec![5..10; 1]));
        assert_eq!(to(&[("range", "bytes=2000-")], &tagged), Answer::Unsatisfiable);
        assert_eq!(to(&[range, ("if-range", "\"a\"")], &tagged), Answer::Parts(vec![5..10; 1]));
        assert_eq!(to(&[range, ("if-range", MODIFIED)], &tagged), Answer::Parts(vec![5..10; 1]));
        assert_eq!(to(&[range, ("if-range", "W/\"a\"")], &tagged), Answer::Whole);
        assert_eq!(to(&[range, ("if-range", "\"b\"")], &tagged), Answer::Whole);
        assert_eq!(to(&[range, ("if-none-match", "\"a\"")], &tagged), Answer::NotModified);
        let head = answer(&request(Method::HEAD, &[range]), &tagged, BODY);
        assert_eq!(head, Answer::Whole, "HEAD has no ranges");
        assert_eq!(to(&[range], &stored(404, &[])), Answer::Whole);
        let two = get(&[("range", "bytes=0-1,5-9")]);
        let partial = answer(&two, &tagged, Body { is_partial: true, ..BODY });
        assert_eq!(partial, Answer::Parts(vec![0..2, 5..10]));
        assert_eq!(answer(&two, &tagged, BODY), Answer::Parts(vec![0..10; 1]));
        let untagged = stored(200, &[]);
        assert_eq!(to(&[range, ("if-range", DATE_AT)], &untagged), Answer::Whole);
        assert_eq!(to(&[range, ("if-range", "")], &untagged), Answer::Whole);
    }

    /// RFC 9110, section 15.4.5; RFC 9111, section 5.1.
    #[test]
    fn answers_carry_their_age() {
        let stored = stored(200, &[("etag", "\"a\""), ("x-a", "1"), ("last-modified", MODIFIED)]);
        let whole = answer_headers(stored.clone(), &Answer::Whole, Timestamp(107));
        assert_eq!(
            (&whole["age"], &whole["x-a"], &whole["date"]),
            (&"7".parse().unwrap(), &"1".parse().unwrap(), &DATE_AT.parse().unwrap())
        );
        let short = answer_headers(stored, &Answer::NotModified, Timestamp(107));
        let mut names: Vec<_> = short.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "cache-control", "date", "etag"]);
    }
}
