//! The `Range` and `Content-Range` headers (RFC 9110, section 14): which bytes of an object a client
//! asks for, and which ones came. Pure.

use std::ops::Range;

use http::HeaderMap;
use http::header::CONTENT_RANGE;

/// Most ranges that are served; a request with more gets the whole object. Clients have no use for
/// many, and each costs a part header.
const RANGES_MAX: usize = 32;
/// Ranges with a gap shorter than a part header, in bytes, are served as one.
const GAP_MIN: u64 = 96;

/// What to answer to a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole object: the header is not understood, or asks for too much.
    Whole,
    /// These bytes: at least one range, ascending, apart from each other, none of them empty.
    Parts(Vec<Range<u64>>),
    /// No byte of the object.
    Nothing,
}

/// What `header` selects of an object of `len` bytes.
#[must_use]
pub fn select(header: &[u8], len: u64) -> Selection {
    select_apart(header, len, GAP_MIN)
}

/// As [`select`], without bytes between ranges that nobody asked for.
#[must_use]
pub fn select_exactly(header: &[u8], len: u64) -> Selection {
    select_apart(header, len, 1)
}

/// Ranges with a gap of less than `gap_min` bytes are joined.
fn select_apart(header: &[u8], len: u64, gap_min: u64) -> Selection {
    // A suffix of nothing is all of it, and no `Content-Range` can say so (RFC 9110, section 14.1.2).
    if len == 0 {
        return Selection::Whole;
    }
    let Some(specs) = std::str::from_utf8(header).ok().and_then(specs) else {
        return Selection::Whole;
    };
    let mut parts = Vec::new();
    for (count, spec) in specs.split(',').map(trim).filter(|spec| !spec.is_empty()).enumerate() {
        if count == RANGES_MAX {
            return Selection::Whole;
        }
        match resolve(spec, len) {
            None => return Selection::Whole,
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
        }
    }
    if parts.is_empty() { Selection::Nothing } else { Selection::Parts(coalesce(parts, gap_min)) }
}

/// The text after `bytes=`.
fn specs(header: &str) -> Option<&str> {
    let (unit, specs) = header.split_once('=')?;
    let some = specs.split(',').any(|spec| !trim(spec).is_empty());
    (trim(unit).eq_ignore_ascii_case("bytes") && some).then_some(specs)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The bytes that one `first-last`, `first-` or `-suffix` selects; `None` for any other text.
fn resolve(spec: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return Some(len.saturating_sub(number(last)?)..len);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then(|| first.min(len)..last.saturating_add(1).min(len))
}

/// Where the only range of `header` begins, if it says that from the front (RFC 9110, section 14.1.2).
#[must_use]
pub fn only_start(header: &[u8]) -> Option<u64> {
    let spec = specs(std::str::from_utf8(header).ok()?)?;
    let (first, last) = spec.split_once('-')?;
    let start = exact_number(trim(first))?;
    let last = trim(last);
    (last.is_empty() || exact_number(last)? >= start).then_some(start)
}

/// What `Content-Range` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes that come.
    pub range: Range<u64>,
    /// Length of the whole object.
    pub len: u64,
}

/// The part that `Content-Range: bytes first-last/length` names (RFC 9110, section 14.4); `None` for
/// anything else.
#[must_use]
pub fn part(headers: &HeaderMap) -> Option<Part> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (unit, rest) = text.split_once(' ')?;
    let (range, len) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, len) = (exact_number(first)?, exact_number(last)?, exact_number(len)?);
    let is_sound = unit.eq_ignore_ascii_case("bytes") && first <= last && last < len;
    is_sound.then_some(Part { range: first..last + 1, len })
}

fn exact_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Digits only; a number that is too large becomes the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn coalesce(mut parts: Vec<Range<u64>>, gap_min: u64) -> Vec<Range<u64>> {
    parts.sort_unstable_by_key(|part| part.start);
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(parts.len());
    for part in parts {
        match apart.last_mut() {
            Some(before) if part.start < before.end.saturating_add(gap_min) => {
                before.end = before.end.max(part.end);
            }
            _ => apart.push(part),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(header: &str, len: u64) -> Vec<(u64, u64)> {
        match select(header.as_bytes(), len) {
            Selection::Parts(parts) => parts.iter().map(|part| (part.start, part.end)).collect(),
            other => panic!("{header}: {other:?}"),
        }
    }

    #[test]
    fn ranges_are_resolved_against_the_length() {
        assert_eq!(parts("bytes=0-0", 10), [(0, 1)]);
        assert_eq!(parts("bytes=2-5", 10), [(2, 6)]);
        assert_eq!(parts("bytes=2-", 10), [(2, 10)]);
        assert_eq!(parts("bytes=2-99999999999999999999999", 10), [(2, 10)]);
        assert_eq!(parts("bytes=-3", 10), [(7, 10)]);
        assert_eq!(parts("bytes=-30", 10), [(0, 10)]);
        assert_eq!(parts("Bytes= 1-2 , ", 10), [(1, 3)]);
        assert_eq!(parts("bytes=5-6,20-30", 10), [(5, 7)]);
        assert_eq!(parts("bytes=0-18446744073709551615", 10), [(0, 10)]);
    }

    #[test]
    fn the_start_of_one_range_needs_no_length() {
        for (header, start) in [
            ("bytes=7-", Some(7)),
            ("bytes= 7-9 ", Some(7)),
            ("bytes=9-7", None),
            ("bytes=-7", None),
            ("bytes=7-9,11-", None),
            ("bytes=7-9,", None),
            ("items=7-9", None),
            ("bytes=7", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(only_start(header.as_bytes()), start, "{header}");
        }
    }

    #[test]
    fn no_byte_is_added_where_none_may_be() {
        let parts = |header: &str| match select_exactly(header.as_bytes(), 1000) {
            Selection::Parts(parts) => parts,
            other => panic!("{header}: {other:?}"),
        };
        assert_eq!(parts("bytes=4-9,0-1,12-12"), [0..2, 4..10, 12..13]);
        assert_eq!(parts("bytes=0-1,2-3,3-8"), vec![0..9; 1]);
    }

    #[test]
    fn ranges_past_the_end_select_nothing() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-,-0"] {
            assert_eq!(select(header.as_bytes(), 10), Selection::Nothing, "{header}");
        }
        let far = "99999999999999999999";
        let header = format!("bytes={far}-{far}9");
        assert_eq!(select(header.as_bytes(), 10), Selection::Nothing);
    }

    #[test]
    fn all_ranges_of_an_empty_object_select_the_whole() {
        for header in ["bytes=0-", "bytes=-1", "bytes=0-0", "bytes=-0", "bytes=5-9,-3", "x"] {
            assert_eq!(select(header.as_bytes(), 0), Selection::Whole, "{header}");
        }
    }

    #[test]
    fn what_is_not_understood_selects_the_whole() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1",
            "bytes=--1",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,x",
            "bytes=1-2-3",
            "bytes=0x1-2",
        ] {
            assert_eq!(select(header.as_bytes(), 10), Selection::Whole, "{header}");
        }
        assert_eq!(select(b"bytes=\xff", 10), Selection::Whole);
    }

    #[test]
    fn several_ranges_are_sorted_and_joined_where_they_are_near() {
        assert_eq!(parts("bytes=5000-5999,0-9", 9000), [(0, 10), (5000, 6000)]);
        assert_eq!(parts("bytes=0-9,5-20,21-30", 9000), [(0, 31)]);
        assert_eq!(parts("bytes=0-9,100-109", 9000), [(0, 110)]);
        assert_eq!(parts("bytes=0-9,106-109", 9000), [(0, 10), (106, 110)]);
        assert_eq!(parts("bytes=0-,0-,0-,-5", 9000), [(0, 9000)]);
    }

    #[test]
    fn too_many_ranges_select_the_whole() {
        let many = |count: u64| {
            let specs = (0..count).map(|n| format!("{}-{}", n * 1000, n * 1000));
            format!("bytes={}", specs.collect::<Vec<_>>().join(","))
        };
        assert_eq!(parts(&many(32), 100_000).len(), 32);
        assert_eq!(select(many(33).as_bytes(), 100_000), Selection::Whole);
    }

    #[test]
    fn content_range_names_bytes_of_a_known_length() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            part(&headers).map(|part| (part.range, part.len))
        };
        assert_eq!(of("bytes 0-0/1"), Some((0..1, 1)));
        assert_eq!(of("Bytes 10-19/1000"), Some((10..20, 1000)));
        let most = u64::MAX;
        assert_eq!(of(&format!("bytes 0-{}/{most}", most - 1)), Some((0..most, most)));
        for text in [
            "bytes 0-9/*",
            "bytes */10",
            "bytes 9-8/10",
            "bytes 0-10/10",
            "bytes=0-9/10",
            "0-9/10",
            "bytes 0-9",
            "items 0-9/10",
            "bytes +0-9/10",
            "bytes -9/10",
            "bytes 0-/10",
            "bytes  0-9/10",
            "bytes 0-9/99999999999999999999",
            "bytes 0-9/10, bytes 0-9/10",
            "",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
