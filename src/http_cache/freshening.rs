//! What the answer to a validation makes of a stored response (RFC 9111, sections 3.2, 4.3.3 to 4.3.5).

use http::header::{
    AGE, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, SET_COOKIE,
};
use http::{Method, StatusCode};

use super::age::initial_age;
use super::conditional::{is_etag, strong_match, weak_match};
use super::control_fields::Controls;
use super::date::date;
use super::freshness::{Circumstances, control, terms};
use super::head::{Exchange, RequestHead, ResponseHead, StoredHead};
use super::hop_by_hop::remove_hop_by_hop;
use super::settings::Settings;
use super::single;
use super::storing::{Kept, forbidden};
use super::tags::Tags;
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
    let trusted =
        Controls::of(&response.headers, &settings.trusted).or(&request.controls(settings));
    let is_authorized = request.headers.contains_key(AUTHORIZATION);
    let mut headers = merged(&stored.headers, &response.headers, exchange);
    let (control, _) = control(&headers, settings);
    // What the stored response says in a targeted field does not outweigh what is said now.
    let controls = [&said, &control];
    for name in controls.iter().flat_map(|control| &control.withheld) {
        headers.remove(name);
    }
    let of = Circumstances {
        status: stored.status,
        received_date: exchange.received_date,
        has_credentials: request.has_credentials(),
        controls: &trusted,
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
    if trusted.no_store || controls.iter().any(|control| forbidden(control, head.status).is_some())
    {
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
    match (vary, Tags::of(&head.headers)) {
        (Vary::Names(vary), Ok(tags)) => Freshening::Updated(Box::new(Kept { head, vary, tags })),
        _ => Freshening::Removed(Box::new(head)),
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
#[path = "freshening_tests.rs"]
mod tests;
