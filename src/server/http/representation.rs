//! Headers of objects: which ones of a store are kept, and which ones a reader gets.

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;
use hyper::HeaderMap;
use hyper::header::{
    AGE, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION,
    CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName, HeaderValue, LAST_MODIFIED,
};

use super::conditional::{DateKind, Validators, is_etag};
use super::refusal::Refusal;
use super::service::Service;
use crate::cache::{Hit, METADATA_LEN_MAX};
use crate::clock::{Clock, Timestamp};
use crate::server::metadata::{Fields, Metadata};

/// The flags of an entry that was stored by the memcached protocol, if it has any.
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-rawcached-flags");

/// A date has 29 characters, an entity tag 8 + 16 digits and three more.
const MADE_UP_LEN_MAX: usize = 32;
/// The end of the year 9999, since the Unix epoch.
const LAST_SECOND: u64 = 253_402_300_799;
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Headers that are kept with an object and given back; all others belong to one message.
pub(super) const KEPT: [HeaderName; 11] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    CONTENT_LOCATION,
    ETAG,
    LAST_MODIFIED,
    CACHE_CONTROL,
    EXPIRES,
    CACHE_TAG,
    SURROGATE_KEY,
];

/// Kept headers that a 304 carries (RFC 9110, section 15.4.5).
const OF_VALIDATION: [HeaderName; 4] = [CACHE_CONTROL, CONTENT_LOCATION, ETAG, EXPIRES];

/// Gathers the headers of a store that are kept.
pub(super) fn kept(headers: &HeaderMap) -> Result<Fields, Refusal> {
    let mut fields = Fields::default();
    for name in &KEPT {
        for value in headers.get_all(name) {
            keep(&mut fields, name, value.as_bytes())?;
        }
    }
    Ok(fields)
}

/// Adds one header to `fields`.
pub(super) fn keep(fields: &mut Fields, name: &HeaderName, value: &[u8]) -> Result<(), Refusal> {
    if name == ETAG && !is_etag(value) {
        return Err(Refusal::BAD_ETAG);
    }
    let pushed = fields.push(name.as_str().as_bytes(), value);
    let fits = pushed.is_ok() && fields.metadata_len() <= METADATA_LEN_MAX;
    if fits { Ok(()) } else { Err(Refusal::HEADERS_TOO_LARGE) }
}

/// What is known of an object besides its body.
#[derive(Clone, Debug)]
pub(super) struct Representation {
    pub(super) metadata: Metadata,
    stored_at: Timestamp,
    /// When it was stored or last refreshed, by the present wall clock.
    wall_date: SystemTime,
    cas: u64,
}

impl Service {
    pub(super) fn representation(&self, hit: &Hit) -> Representation {
        Representation::of(hit, self.cache.clock())
    }
}

impl Representation {
    pub(super) fn of(hit: &Hit, clock: &Clock) -> Representation {
        let metadata = Metadata::decode(hit.metadata());
        let stored_at = hit.lifetime().stored_at;
        let date = date_of(&metadata, stored_at);
        let wall_date = system_time(clock.wall_at(date));
        Representation { metadata, stored_at, wall_date, cas: hit.cas() }
    }

    /// When it was stored or last refreshed.
    pub(super) fn date(&self) -> Timestamp {
        date_of(&self.metadata, self.stored_at)
    }

    fn field(&self, name: &HeaderName) -> Option<HeaderValue> {
        let Metadata::Object(object) = &self.metadata else { return None };
        HeaderValue::from_maybe_shared(object.field(name.as_str())?).ok()
    }

    /// Whether header `name` was stored.
    pub(super) fn has_field(&self, name: &HeaderName) -> bool {
        self.field(name).is_some()
    }

    /// Entity tag and date: the stored ones, else made-up ones.
    pub(super) fn validators(&self) -> Validators {
        let etag = self.field(&ETAG).unwrap_or_else(|| self.made_up_etag());
        let Some(text) = self.field(&LAST_MODIFIED) else {
            let (modified, kind) = (Some(self.wall_date), DateKind::MadeUp);
            return Validators { etag, modified, kind };
        };
        let modified = text.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        let kind = match modified.is_some_and(|date| date < self.wall_date) {
            true => DateKind::Strong,
            false => DateKind::Weak,
        };
        Validators { etag, modified, kind }
    }

    fn made_up_etag(&self) -> HeaderValue {
        match &self.metadata {
            Metadata::Object(object) => header(format_args!("\"{:016x}\"", object.tag)),
            // Moving an object on the device may change its tag; different bodies of this cache
            // never share one.
            _ => header(format_args!("\"{:x}-{:x}\"", self.stored_at.0, self.cas)),
        }
    }

    /// Adds all headers of the object except those that depend on its length.
    pub(super) fn describe(&self, headers: &mut HeaderMap, now: Timestamp) {
        self.add_fields(headers, |_| true);
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, OCTETS);
        }
        if let Metadata::Flags(flags @ 1..) = self.metadata {
            headers.insert(FLAGS, HeaderValue::from(flags));
        }
        self.add_made_up(headers, now);
    }

    /// Adds the headers of a 304.
    pub(super) fn describe_validation(&self, headers: &mut HeaderMap, now: Timestamp) {
        self.add_fields(headers, |name| OF_VALIDATION.contains(name));
        self.add_made_up(headers, now);
    }

    fn add_fields(&self, headers: &mut HeaderMap, wanted: impl Fn(&HeaderName) -> bool) {
        let Metadata::Object(object) = &self.metadata else { return };
        for (name, value) in object.fields() {
            let name = HeaderName::from_bytes(&name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value))
                && wanted(&name)
            {
                headers.append(name, value);
            }
        }
    }

    fn add_made_up(&self, headers: &mut HeaderMap, now: Timestamp) {
        if !headers.contains_key(ETAG) {
            headers.insert(ETAG, self.made_up_etag());
        }
        let date = self.date();
        let text = header(format_args!("{}", HttpDate::from(self.wall_date)));
        if !headers.contains_key(LAST_MODIFIED) {
            let modified = self.field(&LAST_MODIFIED).unwrap_or_else(|| text.clone());
            headers.insert(LAST_MODIFIED, modified);
        }
        // `Age` counts from `Date`, and so does the lifetime that `Expires` gives.
        headers.insert(DATE, text);
        headers.insert(AGE, HeaderValue::from(now.since(date).as_secs()));
    }
}

/// A header value of at most [`MADE_UP_LEN_MAX`] characters that every header may have. Made
/// without a heap string, which would cost as much as a lookup.
fn header(text: fmt::Arguments<'_>) -> HeaderValue {
    let mut bytes = [0; MADE_UP_LEN_MAX];
    let mut rest = &mut bytes[..];
    let written = rest.write_fmt(text);
    debug_assert!(written.is_ok(), "{text} is too long");
    let len = MADE_UP_LEN_MAX - rest.len();
    HeaderValue::from_bytes(&bytes[..len]).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

/// When an object was stored or last refreshed.
fn date_of(metadata: &Metadata, stored_at: Timestamp) -> Timestamp {
    match metadata {
        Metadata::Object(object) => object.date,
        Metadata::Flags(_) | Metadata::Foreign => stored_at,
    }
}

/// Seconds since the Unix epoch, limited to dates that HTTP can write: the years 1970 to 9999.
fn system_time(wall: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(wall).unwrap_or(0).min(LAST_SECOND))
}
