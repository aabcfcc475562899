//! The head of an object: which header fields of a store are kept, and what a change makes of them.
//! Pure. What they say of its life is `lifetime`'s.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, LAST_MODIFIED, VARY,
};

use super::refusal::Refusal;
use crate::cache::METADATA_LEN_MAX;
use crate::http_cache::cache_control::CacheControl;
use crate::http_cache::conditional::is_etag;
use crate::http_cache::date::date;
use crate::server::metadata::Fields;

const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Fields that are kept with an object and given back; all others belong to one message. `Date` is
/// kept with `Expires`, which is a distance from it.
pub const KEPT: [HeaderName; 12] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    CONTENT_LOCATION,
    ETAG,
    LAST_MODIFIED,
    CACHE_CONTROL,
    EXPIRES,
    VARY,
    CACHE_TAG,
    SURROGATE_KEY,
];

/// The fields of an object, of those that are kept.
#[derive(Clone, Debug)]
pub(super) struct Head {
    fields: HeaderMap,
    /// When the origin said this, by its clock, if it told.
    date: Option<SystemTime>,
    pub(super) control: CacheControl,
}

impl Head {
    /// What is kept of the headers of a store.
    ///
    /// # Errors
    /// An `ETag` without quotes.
    pub(super) fn of(headers: &HeaderMap) -> Result<Head, Refusal> {
        Head::gather(|name| (headers, headers.contains_key(name)), date(headers, &DATE))
    }

    /// The head `stored` with the fields that `patch` names in place of its own; those that are empty
    /// there go. `validated_after` is how long after the store the origin confirmed it, if it did: its
    /// `Date` moved on by that, unless `patch` has a newer one.
    ///
    /// # Errors
    /// As for [`Head::of`].
    pub(super) fn patched(
        stored: &HeaderMap,
        patch: &HeaderMap,
        validated_after: Option<Duration>,
    ) -> Result<Head, Refusal> {
        let kept = date(stored, &DATE).filter(|_| !patch.contains_key(EXPIRES));
        let moved = kept.and_then(|at| at.checked_add(validated_after.unwrap_or_default()));
        let source = |name: &HeaderName| match patch.contains_key(name) {
            true => (patch, patch.get_all(name).iter().any(|value| !value.is_empty())),
            false => (stored, stored.contains_key(name)),
        };
        Head::gather(source, date(patch, &DATE).or(moved))
    }

    /// The fields that `source` has: each is taken from the headers that it gives, if it says so.
    fn gather<'a>(
        source: impl Fn(&HeaderName) -> (&'a HeaderMap, bool),
        date: Option<SystemTime>,
    ) -> Result<Head, Refusal> {
        let mut fields = HeaderMap::new();
        for name in &KEPT {
            let (headers, true) = source(name) else { continue };
            for value in headers.get_all(name) {
                if name == ETAG && !is_etag(value.as_bytes()) {
                    return Err(Refusal::BAD_ETAG);
                }
                fields.append(name, value.clone());
            }
        }
        let control = CacheControl::of(&fields);
        Ok(Head { fields, date, control })
    }

    /// Whether `patch` names a field that is kept, or `Date`.
    pub(super) fn is_named_in(patch: &HeaderMap) -> bool {
        KEPT.iter().chain(&[DATE]).any(|name| patch.contains_key(name))
    }

    /// Whether `patch` says anew how long an object lives: it is a validation of the object.
    pub(super) fn is_validated_by(patch: &HeaderMap) -> bool {
        [CACHE_CONTROL, EXPIRES].iter().any(|name| patch.contains_key(name))
            || date(patch, &DATE).is_some()
    }

    /// Whether no request matches it but the one it answered (RFC 9111, section 4.1).
    pub(super) fn varies_always(&self) -> bool {
        let mut members =
            self.fields.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
        members.any(|member| member.trim_ascii() == b"*")
    }

    /// `Expires`; one that cannot be read is in the past.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.fields.get(EXPIRES)?;
        Some(date(&self.fields, &EXPIRES).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// When the origin said this, by its clock.
    pub(super) fn date(&self) -> Option<SystemTime> {
        self.date
    }

    /// `Last-Modified`.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        date(&self.fields, &LAST_MODIFIED)
    }

    /// Whether another version may have the same `Last-Modified`: one of that second (RFC 9110, section
    /// 8.8.2.2). `now` is when this came, which counts if the origin did not say when it sent it.
    pub(super) fn has_weak_date(&self, now: SystemTime) -> bool {
        self.modified().is_some_and(|modified| modified >= self.date.unwrap_or(now))
    }

    /// The fields that readers get, as they are stored.
    ///
    /// # Errors
    /// They are too long.
    pub(super) fn stored(&self) -> Result<Fields, Refusal> {
        let mut fields = Fields::default();
        for name in &KEPT {
            if self.control.withheld.contains(name) {
                continue;
            }
            for value in self.fields.get_all(name) {
                keep(&mut fields, name, value.as_bytes())?;
            }
        }
        if let Some(date) = self.date.filter(|_| self.fields.contains_key(EXPIRES)) {
            keep(&mut fields, &DATE, httpdate::fmt_http_date(date).as_bytes())?;
        }
        Ok(fields)
    }
}

fn keep(fields: &mut Fields, name: &HeaderName, value: &[u8]) -> Result<(), Refusal> {
    let pushed = fields.push(name.as_str().as_bytes(), value);
    let fits = pushed.is_ok() && fields.metadata_len() <= METADATA_LEN_MAX;
    if fits { Ok(()) } else { Err(Refusal::HEADERS_TOO_LARGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:47 GMT";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn head(lines: &[(&str, &str)]) -> Head {
        Head::of(&headers(lines)).unwrap()
    }

    fn names(head: &Head) -> Vec<String> {
        let fields = head.stored().unwrap();
        let object = crate::server::metadata::ObjectMetadata::new(1, false, fields);
        object.fields().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect()
    }

    fn time(text: &str) -> SystemTime {
        httpdate::parse_http_date(text).unwrap()
    }

    #[test]
    fn a_date_is_kept_with_expires_if_it_is_one() {
        let expires = ("expires", LATER);
        assert_eq!(names(&head(&[expires, ("date", AT)])), ["expires", "date"]);
        assert_eq!(names(&head(&[expires, ("date", "today")])), ["expires"]);
        assert_eq!(names(&head(&[("etag", "\"a\""), ("date", AT)])), ["etag"]);
    }

    #[test]
    fn fields_that_are_for_one_reader_are_not_kept() {
        let named = ("cache-control", "private=\"content-type\", no-cache=\"ETag, x\"");
        let given = [("content-type", "a/b"), ("etag", "\"a\""), ("vary", "accept"), named];
        assert_eq!(names(&head(&given)), ["cache-control", "vary"]);
    }

    #[test]
    fn a_star_in_vary_matches_nothing() {
        for lines in [&[("vary", "*")][..], &[("vary", "a , *")], &[("vary", "a"), ("vary", "*,b")]]
        {
            assert!(head(lines).varies_always(), "{lines:?}");
        }
        assert!(!head(&[("vary", "accept, x-*")]).varies_always());
    }

    #[test]
    fn a_patch_replaces_what_it_names_and_takes_what_is_empty() {
        let stored = headers(&[
            ("content-type", "a/b"),
            ("cache-tag", "x"),
            ("cache-tag", "y"),
            ("expires", LATER),
            ("date", AT),
        ]);
        let patch = headers(&[("content-type", "c/d"), ("cache-tag", ""), ("x-other", "1")]);
        let patched = Head::patched(&stored, &patch, None).unwrap();
        assert_eq!(names(&patched), ["content-type", "expires", "date"]);
        assert_eq!(patched.fields["content-type"], "c/d");
        assert_eq!(patched.date(), Some(time(AT)));
        let patch = headers(&[("etag", "a")]);
        assert_eq!(Head::patched(&stored, &patch, None).unwrap_err(), Refusal::BAD_ETAG);
    }

    #[test]
    fn the_date_of_a_validation_is_the_origins() {
        let stored = headers(&[("expires", LATER), ("date", AT)]);
        let after = |patch: &[(&str, &str)]| {
            let after = Some(Duration::from_secs(7));
            Head::patched(&stored, &headers(patch), after).unwrap().date()
        };
        assert_eq!(after(&[("cache-control", "public")]), Some(time(AT) + Duration::from_secs(7)));
        assert_eq!(after(&[("date", LATER)]), Some(time(LATER)));
        assert_eq!(after(&[("expires", LATER)]), None, "which clock is that of?");
        assert_eq!(after(&[("expires", LATER), ("date", LATER)]), Some(time(LATER)));
    }

    #[test]
    fn a_last_modified_of_its_own_second_is_weak() {
        let modified = ("last-modified", AT);
        let weak = |lines: &[(&str, &str)], now: &str| head(lines).has_weak_date(time(now));
        assert!(weak(&[modified], AT) && !weak(&[modified], LATER));
        assert!(weak(&[modified, ("date", AT)], LATER), "the clock of the origin is behind");
        assert!(!weak(&[modified, ("date", LATER)], AT), "it is ahead");
        assert!(!weak(&[], AT) && !weak(&[("last-modified", "x")], AT));
    }
}
