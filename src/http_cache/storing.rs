//! Whether a response is stored, and what of it (RFC 9111, section 3).

use http::header::{
    AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, DATE, ETAG, EXPIRES,
    HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use http::{HeaderMap, Method, StatusCode};

use super::age::initial_age;
use super::cache_control::CacheControl;
use super::conditional::is_etag;
use super::control_fields::Controls;
use super::date::date;
use super::freshness::{Circumstances, Source, Terms, control, is_explicit, is_heuristic, terms};
use super::head::{Exchange, RequestHead, ResponseHead, StoredHead};
use super::hop_by_hop::remove_hop_by_hop;
use super::range::{Part, part};
use super::request::{Class, Pass, classify, forbids_storing, is_bypass, passed_for_fields};
use super::settings::{SetCookie, Settings};
use super::single;
use super::tags::{Tags, TooManyTags};
use super::vary::{Names, Vary};
use crate::cache::Validator;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// What becomes of a response.
#[derive(Clone, Debug)]
pub enum Storing {
    /// It is stored whole, in place of what is there of the same variant.
    Whole(Box<Kept>),
    /// It is a part of an object (RFC 9111, section 3.3). The head is that of the whole.
    Part {
        /// What is kept.
        kept: Box<Kept>,
        /// The bytes that come.
        part: Part,
        /// What it may be combined by with other parts (RFC 9111, section 3.4); with none it stays alone.
        validator: Option<Validator>,
    },
    /// It is not stored.
    No(Refused),
}

/// What is stored of a response besides its body.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The head.
    pub head: StoredHead,
    /// The fields of requests that it depends on.
    pub vary: Names,
    /// What purges may select it by.
    pub tags: Tags,
}

impl Kept {
    /// Whether a response to `filler` answers `other` too, who waits for it: both have the same in the
    /// fields that it depends on. What may not be given to others is not kept at all.
    #[must_use]
    pub fn answers(&self, filler: &RequestHead, other: &RequestHead) -> bool {
        self.vary.key(&filler.headers) == self.vary.key(&other.headers)
    }
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing that comes for such a request is stored.
    Request,
    /// The client (RFC 9111, section 5.2.1.5) or the operator does not want it stored.
    RequestNoStore,
    /// A status that is not stored: 304, 206 that is no single range of a GET, or one that blames the request.
    Status,
    /// `must-understand` with a status that is not understood (RFC 9111, section 5.2.2.3).
    NotUnderstood,
    /// `no-store`, or a trusted `X-Rawcached-No-Store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had `Authorization`, and nothing permits to store it (RFC 9111, section 3.5).
    Authorization,
    /// It sets cookies.
    SetCookie,
    /// `Vary: *`, or more than is kept.
    Varies,
    /// More tags than are kept: purges would miss it.
    Tags,
    /// A field of one value is there with two.
    Ambiguous,
    /// Nothing says that it may be stored (RFC 9111, section 3, last item).
    NotMarked,
    /// It is stale, and nothing could make it fresh again.
    Useless,
    /// Only the end of the connection ends it.
    UntilClose,
}

impl Refused {
    /// Whether the next request for the same is likely to meet the same: others need not wait for it.
    /// An error of the origin says nothing of what comes next.
    #[must_use]
    pub fn marks_key(self, status: StatusCode) -> bool {
        let is_of_request = matches!(
            self,
            Refused::Request | Refused::RequestNoStore | Refused::Authorization | Refused::Status
        );
        !is_of_request && !status.is_server_error()
    }
}

/// What becomes of `response`, which answers `request` or a fill on its behalf.
#[must_use]
pub fn store(
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Storing {
    match decide(request, response, exchange, settings) {
        Ok(storing) => storing,
        Err(refused) => Storing::No(refused),
    }
}

fn decide(
    request: &RequestHead,
    response: &ResponseHead,
    exchange: &Exchange,
    settings: &Settings,
) -> Result<Storing, Refused> {
    check_request(request, settings)?;
    let part = check_status(request, response, settings)?;
    if single::ambiguous(&response.headers).is_some() {
        return Err(Refused::Ambiguous);
    }
    if response.ends_with_connection && !settings.stores_until_close {
        return Err(Refused::UntilClose);
    }
    let said = Controls::of(&response.headers, &settings.trusted);
    if said.no_store {
        return Err(Refused::NoStore);
    }
    let (control, _) = control(&response.headers, settings);
    if let Some(refused) = forbidden(&control, response.status) {
        return Err(refused);
    }
    if request.headers.contains_key(AUTHORIZATION) && !control.permits_authorized {
        return Err(Refused::Authorization);
    }
    let of = Circumstances {
        status: response.status,
        received_date: exchange.received_date,
        has_credentials: request.has_credentials(),
        controls: &said.or(&request.controls(settings)),
        settings,
    };
    let terms = terms(&response.headers, of);
    check_marked(request, response, &control, &terms)?;
    let vary = vary_of(&response.headers, settings)?;
    let mut head = StoredHead {
        // A part is of a whole object, which is what is described.
        status: if part.is_some() { StatusCode::OK } else { response.status },
        headers: kept_headers(&response.headers, &control, exchange),
        received_at: exchange.received_at,
        initial_age: initial_age(&response.headers, exchange),
        terms,
        ended_at: None,
    };
    if part.is_some() {
        // Of these bytes, not of the object (RFC 9530, section 2).
        head.headers.remove(CONTENT_DIGEST);
        head.headers.remove(CONTENT_MD5);
    }
    apply_set_cookie(&mut head.headers, settings)?;
    check_use(&head)?;
    let validator = part.as_ref().and_then(|_| strong_validator(&head));
    let tags = Tags::of(&response.headers).map_err(|TooManyTags| Refused::Tags)?;
    let kept = Box::new(Kept { head, vary, tags });
    Ok(match part {
        None => Storing::Whole(kept),
        Some(part) => Storing::Part { kept, part, validator },
    })
}

fn check_request(request: &RequestHead, settings: &Settings) -> Result<(), Refused> {
    match classify(request, settings) {
        Class::Lookup(asked) if asked.is_head => return Err(Refused::Request),
        Class::Lookup(asked) if asked.no_store => return Err(Refused::RequestNoStore),
        Class::Lookup(_) => return Ok(()),
        Class::Pass(Pass::Method)
            if request.method == Method::POST && passed_for_fields(request).is_none() => {}
        Class::Pass(_) => return Err(Refused::Request),
    }
    match is_bypass(request, settings) || forbids_storing(request, settings) {
        true => Err(Refused::RequestNoStore),
        false => Ok(()),
    }
}

/// The part that comes, if it is one.
fn check_status(
    request: &RequestHead,
    response: &ResponseHead,
    settings: &Settings,
) -> Result<Option<Part>, Refused> {
    match response.status {
        status if is_of_request(status, settings) => Err(Refused::Status),
        // RFC 9110, section 15: what is no status is an error.
        status if status.is_informational() || status.as_u16() >= 600 => Err(Refused::Status),
        StatusCode::NOT_MODIFIED => Err(Refused::Status),
        // One without `Content-Range` has several ranges, each with its own.
        StatusCode::PARTIAL_CONTENT if request.method == Method::GET => {
            part(&response.headers).map(Some).ok_or(Refused::Status)
        }
        StatusCode::PARTIAL_CONTENT => Err(Refused::Status),
        // What is said of a range is not said of the object.
        StatusCode::RANGE_NOT_SATISFIABLE => Err(Refused::Status),
        _ => Ok(None),
    }
}

/// Whether a status blames what one request says in its fields: others would get an error that is not theirs.
fn is_of_request(status: StatusCode, settings: &Settings) -> bool {
    match status.as_u16() {
        // RFC 6585, sections 3 to 6: never stored.
        428 | 429 | 431 | 511 => true,
        400 | 406 | 408 | 411 | 412 | 413 | 415 | 417 | 421 | 425 | 426 => {
            !settings.ttl_status.contains_key(&status)
        }
        _ => false,
    }
}

/// Why the directives of a response forbid to store it, if they do.
#[must_use]
pub fn forbidden(control: &CacheControl, status: StatusCode) -> Option<Refused> {
    if control.private {
        return Some(Refused::Private);
    }
    match (control.must_understand, is_understood(status)) {
        // `no-store` is for caches that do not know `must-understand` (RFC 9111, section 5.2.2.3).
        (true, true) => None,
        (true, false) => Some(Refused::NotUnderstood),
        (false, _) => control.forbids_storing.then_some(Refused::NoStore),
    }
}

/// Statuses whose meaning for caches is known and followed here (RFC 9110, section 15).
fn is_understood(status: StatusCode) -> bool {
    let others = [302, 303, 307, 400, 403, 451, 500, 502, 503, 504];
    is_heuristic(status) || others.contains(&status.as_u16())
}

/// RFC 9111, section 3, last item; RFC 9110, section 9.3.3, for POST.
fn check_marked(
    request: &RequestHead,
    response: &ResponseHead,
    control: &CacheControl,
    terms: &Terms,
) -> Result<(), Refused> {
    let is_marked = control.public
        || control.max_age.is_some()
        || control.s_maxage.is_some()
        || is_heuristic(response.status)
        || matches!(terms.source, Source::Explicit | Source::Default)
        // A targeted field may have put it aside: it marks nevertheless.
        || response.headers.contains_key(EXPIRES);
    if !is_marked {
        return Err(Refused::NotMarked);
    }
    if request.method == Method::POST {
        let location = response.headers.get(CONTENT_LOCATION).and_then(|text| text.to_str().ok());
        let of = location.and_then(|text| request.target.resolve(text));
        let is_own = of.is_some_and(|of| of == request.target);
        if !is_own || !response.status.is_success() || !is_explicit(terms) {
            return Err(Refused::Request);
        }
    }
    Ok(())
}

fn vary_of(headers: &HeaderMap, settings: &Settings) -> Result<Names, Refused> {
    if settings.ignores_vary {
        return Ok(Names::default());
    }
    match Vary::of(headers) {
        Vary::Names(names) => Ok(names),
        Vary::Always => Err(Refused::Varies),
    }
}

/// What readers get of `headers`.
fn kept_headers(headers: &HeaderMap, control: &CacheControl, exchange: &Exchange) -> HeaderMap {
    let mut kept = headers.clone();
    remove_hop_by_hop(&mut kept);
    single::merge(&mut kept);
    for name in [AGE, CONTENT_LENGTH, CONTENT_RANGE].iter().chain(&control.withheld) {
        kept.remove(name);
    }
    // RFC 9110, section 6.6.1.
    if date(&kept, &DATE).is_none() {
        let text = httpdate::fmt_http_date(exchange.received_date);
        if let Ok(value) = HeaderValue::try_from(text) {
            kept.insert(DATE, value);
        }
    }
    kept
}

fn apply_set_cookie(kept: &mut HeaderMap, settings: &Settings) -> Result<(), Refused> {
    let has_cookies = kept.contains_key(SET_COOKIE) || kept.contains_key(SET_COOKIE2);
    match settings.set_cookie {
        SetCookie::Never if has_cookies => return Err(Refused::SetCookie),
        SetCookie::Strip => {
            kept.remove(SET_COOKIE);
            kept.remove(SET_COOKIE2);
        }
        SetCookie::Never | SetCookie::Store => {}
    }
    Ok(())
}

/// A response that is stale from the start, has no validator and may not be used when stale would never
/// be used.
fn check_use(head: &StoredHead) -> Result<(), Refused> {
    let is_stale = head.terms.no_cache || head.initial_age >= head.terms.lifetime;
    match is_stale && !can_be_validated(&head.headers) && head.terms.grace().is_zero() {
        true => Err(Refused::Useless),
        false => Ok(()),
    }
}

/// Whether the origin can be asked for changes only (RFC 9111, section 4.3.1).
#[must_use]
pub fn can_be_validated(headers: &HeaderMap) -> bool {
    headers.get(ETAG).is_some_and(|tag| is_etag(tag.as_bytes()))
        || date(headers, &LAST_MODIFIED).is_some()
}

/// What tells the version of a stored response from all others, if anything does (RFC 9110, section
/// 8.8.1).
#[must_use]
pub fn strong_validator(head: &StoredHead) -> Option<Validator> {
    validator_of(&head.headers)
}

/// The same of the fields of a response.
#[must_use]
pub fn validator_of(headers: &HeaderMap) -> Option<Validator> {
    match headers.get(ETAG) {
        Some(tag) => Validator::etag(tag.as_bytes()),
        None => Validator::last_modified(date(headers, &LAST_MODIFIED)?, date(headers, &DATE)?),
    }
}

#[cfg(test)]
#[path = "storing_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "storing_property_tests.rs"]
mod property_tests;
