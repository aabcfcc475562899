//! What is kept with an entry of a read-through listener: the head of a response, the variants of a target, or
//! the rule of a path. Owns the bytes.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, EXPIRES, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::cache::{Hit, Lifetime, METADATA_LEN_MAX};
use crate::clock::Clock;
use crate::http_cache::date::date;
use crate::http_cache::freshness::{Source, Terms};
use crate::http_cache::head::StoredHead;
use crate::http_cache::no_vary_search::KeptRule;
use crate::http_cache::variants::Variants;
use crate::server::codec;

/// First byte of a response's head, which is also the version of its encoding.
const RESPONSE: u8 = 1;
/// First byte of the variants of a target.
const VARIANTS: u8 = 2;
/// First byte of the rule of a path.
const RULE: u8 = 3;
/// Bytes before the fields: kind, flags, source, status, and three times in seconds.
const FIXED_LEN: usize = 17;

/// Room for the marks of lines, and for what is added to them, in bytes.
const LINES_EXTRA_LEN: usize = 256;

const NO_CACHE: u8 = 1;
const FORBIDS_STALE: u8 = 2;
const IMMUTABLE: u8 = 4;

/// What the metadata of an entry say.
#[derive(Debug)]
pub(super) enum Stored {
    /// A response: all but its times, which the entry itself has.
    Response(ResponseRecord),
    /// The entry has no body: the responses are under keys of their own.
    Variants(Variants),
    /// The entry has no body: which targets of a path are one.
    Rule(KeptRule),
}

/// The head of a response whose fields are not looked into.
#[derive(Debug)]
pub(super) struct Outline<'a> {
    pub(super) status: StatusCode,
    pub(super) terms: Terms,
    /// The rest of the metadata.
    fields: &'a [u8],
}

/// What the fields of a response say that were written as lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The first `Date`.
    date: Option<SystemTime>,
    pub(super) has_date: bool,
    pub(super) has_accept_ranges: bool,
}

/// The head of a response without times.
#[derive(Debug)]
pub(super) struct ResponseRecord {
    status: StatusCode,
    terms: Terms,
    headers: HeaderMap,
}

impl Stored {
    /// What `metadata` say; `None` for anything that no read-through listener has written.
    pub(super) fn decode(metadata: &[u8]) -> Option<Stored> {
        match *metadata.first()? {
            RESPONSE => ResponseRecord::decode(metadata).map(Stored::Response),
            VARIANTS => Stored::variants(metadata).map(Stored::Variants),
            RULE => KeptRule::decode(&metadata[1..]).map(Stored::Rule),
            _ => None,
        }
    }

    /// The variants that `metadata` tell of; `None` if they tell of something else, which is not read.
    pub(super) fn variants(metadata: &[u8]) -> Option<Variants> {
        match metadata.split_first()? {
            (&VARIANTS, list) => Variants::decode(list),
            _ => None,
        }
    }
}

/// The metadata of a target with variants; `None` if they are too long.
pub(super) fn encode_variants(variants: &Variants) -> Option<Bytes> {
    let mut bytes = vec![VARIANTS];
    bytes.extend_from_slice(&variants.encode());
    (bytes.len() <= METADATA_LEN_MAX).then(|| bytes.into())
}

/// The metadata of the rule of a path.
pub(super) fn encode_rule(rule: &KeptRule) -> Bytes {
    let mut bytes = vec![RULE];
    bytes.extend_from_slice(&rule.encode());
    bytes.into()
}

/// The metadata of a response; `None` if they are too long.
pub(super) fn encode_response(head: &StoredHead) -> Option<Bytes> {
    let terms = &head.terms;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(terms.no_cache, NO_CACHE)
        | flag(terms.forbids_stale, FORBIDS_STALE)
        | flag(terms.immutable, IMMUTABLE);
    let mut bytes = vec![RESPONSE, flags, source_number(terms.source)];
    bytes.extend_from_slice(&head.status.as_u16().to_le_bytes());
    for time in [terms.lifetime, terms.stale_while_revalidate, terms.stale_if_error] {
        let secs = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&secs.to_le_bytes());
    }
    debug_assert_eq!(bytes.len(), FIXED_LEN);
    for (name, value) in &head.headers {
        put(&mut bytes, name.as_str().as_bytes())?;
        put(&mut bytes, value.as_bytes())?;
    }
    (bytes.len() <= METADATA_LEN_MAX).then(|| bytes.into())
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(part.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(part);
    Some(())
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(u16::from_le_bytes(*len).into())?;
    *rest = behind;
    Some(part)
}

/// Whether all `bytes` are so: without an early end, which lets the compiler look at many of them at once.
fn are_all(bytes: &[u8], is_so: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & is_so(*byte))
}

fn source_number(source: Source) -> u8 {
    match source {
        Source::Nobody => 0,
        Source::Heuristic => 1,
        Source::Default => 2,
        Source::Explicit => 3,
        Source::Override => 4,
    }
}

fn source_of(number: u8) -> Option<Source> {
    Some(match number {
        0 => Source::Nobody,
        1 => Source::Heuristic,
        2 => Source::Default,
        3 => Source::Explicit,
        4 => Source::Override,
        _ => return None,
    })
}

impl<'a> Outline<'a> {
    /// What `metadata` say of a response; `None` if they do not.
    pub(super) fn read(metadata: &'a [u8]) -> Option<Outline<'a>> {
        let (fixed, fields) = metadata.split_first_chunk::<FIXED_LEN>()?;
        let secs = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            Duration::from_secs(u32::from_le_bytes(bytes).into())
        };
        let has = |flag: u8| fixed[1] & flag != 0;
        let terms = Terms {
            lifetime: secs(5),
            source: source_of(fixed[2])?,
            no_cache: has(NO_CACHE),
            forbids_stale: has(FORBIDS_STALE),
            immutable: has(IMMUTABLE),
            stale_while_revalidate: secs(9),
            stale_if_error: secs(13),
        };
        let status = StatusCode::from_u16(u16::from_le_bytes([fixed[3], fixed[4]])).ok()?;
        (fixed[0] == RESPONSE).then_some(Outline { status, terms, fields })
    }

    /// The head without its fields, of an entry with this lifetime.
    pub(super) fn head(self, lifetime: &Lifetime) -> StoredHead {
        let Outline { status, terms, .. } = self;
        StoredHead {
            status,
            headers: HeaderMap::new(),
            received_at: lifetime.stored_at,
            initial_age: Duration::from_secs(lifetime.age_secs.into()),
            terms,
            ended_at: None,
        }
    }

    /// Appends the fields as they are sent; `None` if one of them is none that can be.
    pub(super) fn write(&self, output: &mut Vec<u8>) -> Option<Written> {
        let (mut rest, mut written) = (self.fields, Written::default());
        output.reserve(rest.len() + LINES_EXTRA_LEN);
        while !rest.is_empty() {
            let (name, value) = (take(&mut rest)?, take(&mut rest)?);
            let is_name = |byte| matches!(byte, b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z');
            let is_text = |byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            if name.is_empty() || !are_all(name, is_name) || !are_all(value, is_text) {
                return None;
            }
            if name == b"date" && !written.has_date {
                let text = str::from_utf8(value).ok();
                written.date = text.and_then(|text| httpdate::parse_http_date(text).ok());
            }
            written.has_date |= name == b"date";
            written.has_accept_ranges |= name == b"accept-ranges";
            for part in [name, b": ", value, b"\r\n"] {
                output.extend_from_slice(part);
            }
        }
        Some(written)
    }
}

impl Written {
    /// Whether the dates have to be moved, as the response was validated since it was written.
    pub(super) fn is_renewed(&self, lifetime: &Lifetime, clock: &Clock) -> bool {
        lateness(self.date, lifetime, codec::date(clock.wall_at(lifetime.stored_at))).is_some()
    }
}

/// How much later than its `date` an entry, which came or was validated last at `received`, was sent.
fn lateness(
    date: Option<SystemTime>,
    lifetime: &Lifetime,
    received: SystemTime,
) -> Option<Duration> {
    let age = Duration::from_secs(lifetime.age_secs.into());
    let later = received.checked_sub(age)?.duration_since(date?).ok()?;
    // A second is rounding.
    (later >= Duration::from_secs(2)).then_some(later)
}

impl ResponseRecord {
    fn decode(metadata: &[u8]) -> Option<ResponseRecord> {
        let Outline { status, terms, fields: rest } = Outline::read(metadata)?;
        // One copy, shared by all values.
        let copy = Bytes::copy_from_slice(rest);
        let mut rest = &copy[..];
        let mut headers = HeaderMap::with_capacity(16);
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(take(&mut rest)?).ok()?;
            let value = copy.slice_ref(take(&mut rest)?);
            headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        }
        Some(ResponseRecord { status, terms, headers })
    }

    /// The head with the times of its entry, which came, or was validated last, at `received` by the wall clock.
    fn with_times(mut self, lifetime: &Lifetime, received: SystemTime) -> StoredHead {
        if let Some(later) = lateness(date(&self.headers, &DATE), lifetime, received) {
            put_off(&mut self.headers, later);
        }
        StoredHead {
            status: self.status,
            headers: self.headers,
            received_at: lifetime.stored_at,
            initial_age: Duration::from_secs(lifetime.age_secs.into()),
            terms: self.terms,
            ended_at: None,
        }
    }

    /// The head of what `hit` found.
    pub(super) fn of_hit(self, hit: &Hit, clock: &Clock) -> StoredHead {
        let (lifetime, now) = (hit.lifetime(), clock.now());
        let received = codec::date(clock.wall_at(lifetime.stored_at));
        let mut head = self.with_times(&lifetime, received);
        // A purge made it stale, or nobody knows its age.
        if head.is_fresh(now) && !hit.is_fresh(now) {
            head.ended_at = Some(lifetime.fresh_until.min(now));
            if lifetime.fresh_until >= now {
                // Nobody knows since when: no grace that began then can be told from one that is over.
                head.terms.stale_while_revalidate = Duration::ZERO;
                head.terms.stale_if_error = Duration::ZERO;
            }
        }
        head
    }

    /// The head of what is being stored with `lifetime`.
    pub(super) fn of_store(self, lifetime: &Lifetime) -> StoredHead {
        self.with_times(lifetime, SystemTime::UNIX_EPOCH)
    }
}

/// Whether the head `new` of a validated response follows from `known` and the times of the entry: `Date` is later,
/// and `Expires` by as much. Then nothing of the entry but its times is written.
pub(super) fn is_renewed(known: &StoredHead, new: &StoredHead) -> bool {
    let later = known.date().zip(new.date());
    let later = later.and_then(|(known, new)| new.duration_since(known).ok());
    let mut headers = known.headers.clone();
    if let Some(later) = later {
        put_off(&mut headers, later);
    }
    known.status == new.status && known.terms == new.terms && headers == new.headers
}

/// Moves the dates that tell of the lifetime.
fn put_off(headers: &mut HeaderMap, later: Duration) {
    for name in [DATE, EXPIRES] {
        let moved = date(headers, &name).and_then(|date| date.checked_add(later));
        let is_writable = |moved: &SystemTime| *moved < codec::date(i64::MAX);
        let text = moved.filter(is_writable).map(httpdate::fmt_http_date);
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
}

/// How long a response that can be validated is kept after it became stale: a validation costs less
/// than a transfer.
const KEPT_FOR_VALIDATION: Duration = Duration::from_secs(7 * 86_400);

/// When an entry with `head` ends.
pub(super) fn lifetime(head: &StoredHead, can_be_validated: bool) -> Lifetime {
    let fresh = match head.terms.no_cache {
        true => Duration::ZERO,
        false => head.terms.lifetime.saturating_sub(head.initial_age),
    };
    let kept = if can_be_validated { KEPT_FOR_VALIDATION } else { Duration::ZERO };
    let fresh_until = head.received_at.plus(fresh);
    let keep_until = fresh_until.plus(head.terms.grace().max(kept));
    let age_secs = u32::try_from(head.initial_age.as_secs()).unwrap_or(u32::MAX);
    Lifetime { stored_at: head.received_at, fresh_until, keep_until, age_secs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::http_cache::no_vary_search::{RULE_LEN_MAX, Rule};

    fn head() -> StoredHead {
        let mut headers = HeaderMap::new();
        for (name, value) in [("etag", "\"a\""), ("x", ""), ("link", "</a>"), ("link", "\u{e4}")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let terms = Terms {
            lifetime: Duration::from_secs(60),
            source: Source::Explicit,
            no_cache: false,
            forbids_stale: true,
            immutable: true,
            stale_while_revalidate: Duration::from_secs(5),
            stale_if_error: Duration::from_secs(u64::MAX),
        };
        StoredHead {
            status: StatusCode::NOT_FOUND,
            headers,
            received_at: Timestamp(100),
            initial_age: Duration::from_secs(7),
            terms,
            ended_at: None,
        }
    }

    fn decoded(bytes: &[u8]) -> Option<ResponseRecord> {
        match Stored::decode(bytes)? {
            Stored::Response(record) => Some(record),
            Stored::Variants(_) | Stored::Rule(_) => None,
        }
    }

    #[test]
    fn a_head_reads_back_as_it_was() {
        let head = head();
        let bytes = encode_response(&head).unwrap();
        let found = decoded(&bytes).unwrap().of_store(&lifetime(&head, true));
        assert_eq!((found.status, &found.headers), (head.status, &head.headers));
        assert_eq!((found.received_at, found.initial_age), (head.received_at, head.initial_age));
        let capped = Duration::from_secs(u32::MAX.into());
        assert_eq!(found.terms, Terms { stale_if_error: capped, ..head.terms });
    }

    /// Whoever gets the lines gets what others get who have the fields.
    #[test]
    fn fields_are_written_as_they_are_read() {
        let dated = "Sun, 06 Nov 1994 08:49:37 GMT";
        for more in [&[][..], &[("date", dated)], &[("date", dated), ("accept-ranges", "none")]] {
            let mut head = head();
            for (name, value) in more {
                head.headers.insert(*name, HeaderValue::from_static(value));
            }
            let bytes = encode_response(&head).unwrap();
            let outline = Outline::read(&bytes).unwrap();
            let mut lines = Vec::new();
            let written = outline.write(&mut lines).unwrap();
            let found = decoded(&bytes).unwrap();
            let mut expected = Vec::new();
            for (name, value) in &found.headers {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    expected.extend_from_slice(part);
                }
            }
            assert_eq!(lines, expected);
            let lifetime = lifetime(&head, true);
            let found = found.of_store(&lifetime);
            assert_eq!((written.date, written.has_date), (found.date(), !more.is_empty()));
            assert_eq!(written.has_accept_ranges, more.len() == 2);
            let bare = outline.head(&lifetime);
            assert_eq!((bare.status, bare.received_at), (found.status, found.received_at));
            assert_eq!((bare.terms, bare.initial_age), (found.terms, found.initial_age));
        }
        // A name of no bytes, a value with the end of a line in it, and one with a control character.
        for fields in [&b"\0\0\x01\0b"[..], b"\x01\0x\x05\0a\r\nb:", b"\x01\0x\x01\0\x7f"] {
            let bytes = [&[RESPONSE; FIXED_LEN][..], fields].concat();
            assert_eq!(Outline::read(&bytes).unwrap().write(&mut Vec::new()), None);
        }
    }

    /// What a 304 brings that says nothing new.
    #[test]
    fn dates_follow_the_times_of_an_entry() {
        let dated = |day: u32, lines: &[(&'static str, &'static str)]| {
            let mut found = head();
            let date = |day: u32| format!("Mon, {day:02} Jan 2029 00:00:00 GMT").parse().unwrap();
            found.headers.insert(DATE, date(day));
            found.headers.insert(EXPIRES, date(day + 7));
            for (name, value) in lines {
                found.headers.insert(*name, HeaderValue::from_static(value));
            }
            found.terms.stale_if_error = Duration::ZERO;
            found
        };
        let known = dated(1, &[]);
        assert!(is_renewed(&known, &dated(1, &[])));
        assert!(is_renewed(&known, &StoredHead { received_at: Timestamp(900), ..dated(8, &[]) }));
        for lines in [
            [("x", "y")],
            [("expires", "Mon, 08 Jan 2029 00:00:01 GMT")],
            [("expires", "0")],
            [("etag", "\"b\"")],
        ] {
            assert!(!is_renewed(&known, &dated(8, &lines)), "{lines:?}");
        }
        let mut other = dated(8, &[]);
        other.terms.no_cache = true;
        assert!(!is_renewed(&known, &other));
        assert!(!is_renewed(&dated(8, &[]), &known), "earlier");
        // A week after the first of January, and seven seconds, which it was old when it came.
        let bytes = encode_response(&known).unwrap();
        let received = dated(8, &[]).date().unwrap() + Duration::from_secs(7);
        let lifetime = lifetime(&known, true);
        let read = |received| decoded(&bytes).unwrap().with_times(&lifetime, received).headers;
        assert_eq!(read(received), dated(8, &[]).headers);
        let written = known.date().unwrap() + Duration::from_secs(7);
        for secs in [0, 1] {
            assert_eq!(read(written + Duration::from_secs(secs)), known.headers, "rounding");
        }
        assert_eq!(read(written - Duration::from_secs(90)), known.headers, "never earlier");
    }

    #[test]
    fn what_nobody_wrote_is_nothing() {
        let bytes = encode_response(&head()).unwrap();
        for len in 0..FIXED_LEN {
            assert!(Stored::decode(&bytes[..len]).is_none(), "{len}");
        }
        assert!(Stored::decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(Stored::decode(&[&[9], &bytes[1..]].concat()).is_none());
        let variants = encode_variants(&Variants::new([7; 16])).unwrap();
        assert!(matches!(Stored::decode(&variants), Some(Stored::Variants(_))));
        let rule = encode_rule(&KeptRule { name: [7; 16], rule: Rule::default() });
        assert!(matches!(Stored::decode(&rule), Some(Stored::Rule(_))));
        assert!(rule.len() <= METADATA_LEN_MAX - RULE_LEN_MAX, "there is room for the longest");
        assert!(Stored::variants(&variants).is_some() && Stored::variants(&bytes).is_none());
    }

    #[test]
    fn a_head_that_is_too_long_is_not_kept() {
        let mut head = head();
        let long = HeaderValue::from_bytes(&vec![b'x'; METADATA_LEN_MAX]).unwrap();
        head.headers.insert("long", long);
        assert!(encode_response(&head).is_none());
    }

    #[test]
    fn an_entry_is_fresh_as_long_as_its_response_and_kept_for_a_validation() {
        let mut head = head();
        head.terms.stale_if_error = Duration::from_secs(30);
        let found = lifetime(&head, false);
        assert_eq!((found.fresh_until, found.keep_until), (Timestamp(153), Timestamp(183)));
        assert_eq!(lifetime(&head, true).keep_until, Timestamp(153 + 7 * 86_400));
        head.terms.no_cache = true;
        assert_eq!(lifetime(&head, true).fresh_until, Timestamp(100));
    }
}
