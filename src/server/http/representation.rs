//! What a reader gets of an object besides its body: the headers that are kept with it, and those
//! that are made up.

use std::fmt;
use std::io::Write as _;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderName,
    HeaderValue, LAST_MODIFIED, VARY,
};
use httpdate::HttpDate;

use super::service::Service;
use crate::cache::{Hit, Lifetime};
use crate::clock::{Clock, Timestamp};
use crate::http_cache::conditional::{DateKind, Validators};
use crate::server::codec;
use crate::server::metadata::Metadata;

/// The flags of an entry that was stored by the memcached protocol, if it has any.
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-rawcached-flags");

/// A date has 29 characters, an entity tag 8 + 16 digits and three more.
const MADE_UP_LEN_MAX: usize = 32;
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Kept headers that a 304 carries (RFC 9110, section 15.4.5).
const OF_VALIDATION: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];

/// What is known of an object besides its body.
#[derive(Clone, Debug)]
pub(super) struct Representation {
    pub(super) metadata: Metadata,
    stored_at: Timestamp,
    /// How old it was then, in seconds.
    age_secs: u32,
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
        let Lifetime { stored_at, age_secs, .. } = hit.lifetime();
        let wall_date = wall_date(clock, stored_at);
        Representation { metadata, stored_at, age_secs, wall_date, cas: hit.cas() }
    }

    /// When it was stored or last refreshed.
    pub(super) fn date(&self) -> Timestamp {
        self.stored_at
    }

    fn field(&self, name: &HeaderName) -> Option<HeaderValue> {
        let Metadata::Object(object) = &self.metadata else { return None };
        HeaderValue::from_maybe_shared(object.field(name.as_str())?).ok()
    }

    /// The headers that were stored.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.add_fields(&mut headers, |_| true);
        headers
    }

    /// Whether the `Last-Modified` that was stored may be that of another version too.
    pub(super) fn has_weak_date(&self) -> bool {
        matches!(&self.metadata, Metadata::Object(object) if object.has_weak_date)
    }

    /// Entity tag and date: the stored ones, else made-up ones.
    pub(super) fn validators(&self) -> Validators {
        let etag = self.field(&ETAG).unwrap_or_else(|| self.made_up_etag());
        let Some(text) = self.field(&LAST_MODIFIED) else {
            let (modified, kind) = (Some(self.wall_date), DateKind::MadeUp);
            return Validators { etag, modified, kind };
        };
        let modified = text.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
        let kind = if self.has_weak_date() { DateKind::Weak } else { DateKind::Strong };
        Validators { etag, modified, kind }
    }

    fn made_up_etag(&self) -> HeaderValue {
        match &self.metadata {
            Metadata::Object(object) => made_up_etag(object.tag),
            // Different bodies of this cache never share one.
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
        let text = header(format_args!("{}", HttpDate::from(self.wall_date)));
        if !headers.contains_key(LAST_MODIFIED) {
            let modified = self.field(&LAST_MODIFIED).unwrap_or_else(|| text.clone());
            headers.insert(LAST_MODIFIED, modified);
        }
        // `Expires` is a distance from the `Date` that came with it.
        if !headers.contains_key(DATE) {
            headers.insert(DATE, text);
        }
        let age = now.since(self.stored_at).as_secs() + u64::from(self.age_secs);
        headers.insert(AGE, HeaderValue::from(age));
    }
}

/// The entity tag of an object that came without one, of the number that is kept with it.
pub(super) fn made_up_etag(tag: u64) -> HeaderValue {
    header(format_args!("\"{tag:016x}\""))
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

/// The calendar time of `stamp` by the present wall clock.
pub(super) fn wall_date(clock: &Clock, stamp: Timestamp) -> SystemTime {
    codec::date(clock.wall_at(stamp))
}
