//! Conditional requests (RFC 9110, section 13). Pure.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};

use super::date::date;

/// What identifies a version of an object.
#[derive(Clone, Debug)]
pub struct Validators {
    /// Entity tag as it is sent, quotes and `W/` included.
    pub etag: HeaderValue,
    /// `None` if the stored date cannot be read.
    pub modified: Option<SystemTime>,
    /// How far `modified` can be trusted.
    pub kind: DateKind,
}

/// How far the date of a version can be trusted (RFC 9110, section 8.8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateKind {
    /// No other version has this date.
    Strong,
    /// Another version may have this date, but no older version has a later one.
    Weak,
    /// The second of the store, by this host's wall clock: several versions may have been stored in
    /// one, and the clock may be set. It says nothing of which version a client has.
    MadeUp,
}

/// What a request does with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// GET, HEAD.
    Read,
    /// PUT, PATCH, DELETE.
    Change,
}

/// What the preconditions of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do what is asked.
    Proceed,
    /// The reader has this version: 304.
    NotModified,
    /// 412.
    Failed,
}

/// True if a request has preconditions.
#[must_use]
pub fn is_conditional(headers: &HeaderMap, access: Access) -> bool {
    let has = |name: HeaderName| headers.contains_key(name);
    has(IF_MATCH)
        || has(IF_NONE_MATCH)
        || has(IF_UNMODIFIED_SINCE)
        || (access == Access::Read && has(IF_MODIFIED_SINCE))
}

/// Evaluates the preconditions in the order of RFC 9110, section 13.2.2, against the present
/// object, if any.
#[must_use]
pub fn evaluate(headers: &HeaderMap, present: Option<&Validators>, access: Access) -> Verdict {
    let modified = present.and_then(|present| present.modified);
    let kind = present.map_or(DateKind::Strong, |present| present.kind);
    // Whether the present version may differ from the one that a client with the date `limit` has.
    let is_since = |limit: SystemTime, modified: SystemTime| match kind {
        DateKind::Strong => modified > limit,
        DateKind::Weak => modified >= limit,
        DateKind::MadeUp => true,
    };
    if headers.contains_key(IF_MATCH) {
        if !matches(headers, &IF_MATCH, present, strong_match) {
            return Verdict::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (date(headers, &IF_UNMODIFIED_SINCE), modified)
        && is_since(limit, modified)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches(headers, &IF_NONE_MATCH, present, weak_match) {
            return match access {
                Access::Read => Verdict::NotModified,
                Access::Change => Verdict::Failed,
            };
        }
    } else if let (Access::Read, Some(limit), Some(modified)) =
        (access, date(headers, &IF_MODIFIED_SINCE), modified)
        && !is_since(limit, modified)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether the `Range` of the request applies to this version (RFC 9110, section 13.1.5).
#[must_use]
pub fn range_applies(headers: &HeaderMap, present: &Validators) -> bool {
    let Some(condition) = headers.get(IF_RANGE) else { return true };
    let condition = condition.as_bytes();
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return strong_match(condition, present.etag.as_bytes());
    }
    let date = date(headers, &IF_RANGE);
    present.kind == DateKind::Strong && date.is_some() && date == present.modified
}

/// Whether `text` is an entity tag (RFC 9110, section 8.8.3).
#[must_use]
pub fn is_etag(text: &[u8]) -> bool {
    let opaque = text.strip_prefix(b"W/").unwrap_or(text);
    let inner = opaque.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(|inner| inner.iter().all(|byte| !matches!(byte, 0..=b' ' | b'"' | 0x7f)))
}

/// Strong comparison (RFC 9110, section 8.8.3.2).
#[must_use]
pub fn strong_match(asked: &[u8], present: &[u8]) -> bool {
    asked == present && !asked.starts_with(b"W/")
}

/// Weak comparison (RFC 9110, section 8.8.3.2).
#[must_use]
pub fn weak_match(asked: &[u8], present: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    opaque(asked) == opaque(present)
}

/// Whether one of the tags in header `name`, or `*`, matches the present object.
fn matches(
    headers: &HeaderMap,
    name: &HeaderName,
    present: Option<&Validators>,
    compare: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let Some(present) = present else { return false };
    headers.get_all(name).iter().any(|line| {
        let line = line.as_bytes().trim_ascii();
        line == b"*" || tags(line).any(|tag| compare(tag, present.etag.as_bytes()))
    })
}

/// Splits a list of tags at commas outside quotes.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn object(etag: &'static str) -> Validators {
        let modified = httpdate::parse_http_date(AT).ok();
        Validators { etag: HeaderValue::from_static(etag), modified, kind: DateKind::Strong }
    }

    fn read(lines: &[(HeaderName, &str)]) -> Verdict {
        evaluate(&headers(lines), Some(&object("\"a,b\"")), Access::Read)
    }

    #[test]
    fn readers_with_the_same_version_get_304() {
        for tags in ["\"a,b\"", "W/\"a,b\"", "\"x\", \"a,b\"", "*", " * "] {
            assert_eq!(read(&[(IF_NONE_MATCH, tags)]), Verdict::NotModified, "{tags}");
        }
        for tags in ["\"a\"", "\"x\",\"y\"", "a,b", ""] {
            assert_eq!(read(&[(IF_NONE_MATCH, tags)]), Verdict::Proceed, "{tags}");
        }
        assert_eq!(read(&[(IF_MODIFIED_SINCE, AT)]), Verdict::NotModified);
        assert_eq!(read(&[(IF_MODIFIED_SINCE, AFTER)]), Verdict::NotModified);
        assert_eq!(read(&[(IF_MODIFIED_SINCE, BEFORE)]), Verdict::Proceed);
        assert_eq!(read(&[(IF_MODIFIED_SINCE, "yesterday")]), Verdict::Proceed);
        let tag_first = [(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, AFTER)];
        assert_eq!(read(&tag_first), Verdict::Proceed, "the tag outranks the date");
    }

    #[test]
    fn readers_that_want_another_version_get_412() {
        assert_eq!(read(&[(IF_MATCH, "\"a,b\"")]), Verdict::Proceed);
        assert_eq!(read(&[(IF_MATCH, "*")]), Verdict::Proceed);
        for tags in ["\"x\"", "W/\"a,b\""] {
            assert_eq!(read(&[(IF_MATCH, tags)]), Verdict::Failed, "{tags}");
        }
        assert_eq!(read(&[(IF_UNMODIFIED_SINCE, BEFORE)]), Verdict::Failed);
        assert_eq!(read(&[(IF_UNMODIFIED_SINCE, AT)]), Verdict::Proceed);
        let tag_first = [(IF_MATCH, "*"), (IF_UNMODIFIED_SINCE, BEFORE)];
        assert_eq!(read(&tag_first), Verdict::Proceed);
    }

    #[test]
    fn a_date_that_another_version_may_have_is_no_proof() {
        let there = |kind| Validators { kind, ..object("\"a\"") };
        let ask = |kind, name, date| {
            evaluate(&headers(&[(name, date)]), Some(&there(kind)), Access::Read)
        };
        for (kind, date) in [
            (DateKind::Weak, BEFORE),
            (DateKind::Weak, AT),
            (DateKind::MadeUp, BEFORE),
            (DateKind::MadeUp, AT),
            (DateKind::MadeUp, AFTER),
        ] {
            assert_eq!(ask(kind, IF_MODIFIED_SINCE, date), Verdict::Proceed, "{kind:?} {date}");
            assert_eq!(ask(kind, IF_UNMODIFIED_SINCE, date), Verdict::Failed, "{kind:?} {date}");
        }
        // All versions of that second were stored before.
        assert_eq!(ask(DateKind::Weak, IF_MODIFIED_SINCE, AFTER), Verdict::NotModified);
        assert_eq!(ask(DateKind::Weak, IF_UNMODIFIED_SINCE, AFTER), Verdict::Proceed);
    }

    #[test]
    fn weak_tags_match_weakly_only() {
        let weak = object("W/\"a\"");
        let ask = |name, tag| evaluate(&headers(&[(name, tag)]), Some(&weak), Access::Read);
        assert_eq!(ask(IF_NONE_MATCH, "\"a\""), Verdict::NotModified);
        assert_eq!(ask(IF_MATCH, "W/\"a\""), Verdict::Failed);
        assert!(!range_applies(&headers(&[(IF_RANGE, "W/\"a\"")]), &weak));
    }

    #[test]
    fn changes_depend_on_what_is_there() {
        let change = |lines: &[(HeaderName, &str)], present: Option<&Validators>| {
            evaluate(&headers(lines), present, Access::Change)
        };
        let there = object("\"a\"");
        assert_eq!(change(&[(IF_NONE_MATCH, "*")], Some(&there)), Verdict::Failed);
        assert_eq!(change(&[(IF_NONE_MATCH, "*")], None), Verdict::Proceed);
        assert_eq!(change(&[(IF_MATCH, "*")], None), Verdict::Failed);
        assert_eq!(change(&[(IF_MATCH, "\"a\"")], Some(&there)), Verdict::Proceed);
        assert_eq!(change(&[(IF_MODIFIED_SINCE, AFTER)], Some(&there)), Verdict::Proceed);
        assert!(is_conditional(&headers(&[(IF_MATCH, "*")]), Access::Change));
        assert!(!is_conditional(&headers(&[(IF_MODIFIED_SINCE, AT)]), Access::Change));
    }

    #[test]
    fn ranges_apply_to_the_same_version_only() {
        let there = object("\"a\"");
        let applies = |condition: &str| range_applies(&headers(&[(IF_RANGE, condition)]), &there);
        assert!(applies("\"a\"") && applies(AT));
        for condition in ["\"b\"", "W/\"a\"", BEFORE, AFTER, "a"] {
            assert!(!applies(condition), "{condition}");
        }
        assert!(range_applies(&headers(&[]), &there));
        for kind in [DateKind::Weak, DateKind::MadeUp] {
            let doubtful = Validators { kind, ..there.clone() };
            assert!(!range_applies(&headers(&[(IF_RANGE, AT)]), &doubtful));
            assert!(range_applies(&headers(&[(IF_RANGE, "\"a\"")]), &doubtful));
        }
        let undated = Validators { modified: None, ..there.clone() };
        assert!(!range_applies(&headers(&[(IF_RANGE, "nonsense")]), &undated));
    }

    #[test]
    fn entity_tags_are_quoted() {
        for tag in ["\"\"", "\"a\"", "W/\"a\"", "\"a,b'\""] {
            assert!(is_etag(tag.as_bytes()), "{tag}");
        }
        for tag in ["", "a", "\"", "W/a", "\"a", "\"a\"b\"", "\"a b\"", "w/\"a\""] {
            assert!(!is_etag(tag.as_bytes()), "{tag}");
        }
    }
}
