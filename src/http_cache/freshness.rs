//! How a response may be used: how long it is fresh (RFC 9111, section 4.2.1) and what it may be used
//! for after that (section 4.2.4; RFC 5861).

use std::time::{Duration, SystemTime};

use http::header::{DATE, EXPIRES, HeaderName, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};

use super::cache_control::CacheControl;
use super::control_fields::Controls;
use super::date::date;
use super::settings::Settings;
use super::targeted::targeted;

const X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");
/// Part of the time since the last change that a response is taken to stay the same (RFC 9111, section
/// 4.2.2).
const HEURISTIC_PART: u32 = 10;

/// What a response says of its use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// For how long it is fresh, from age zero.
    pub lifetime: Duration,
    /// Who said so.
    pub source: Source,
    /// It must be validated before every use.
    pub no_cache: bool,
    /// It must not be used when stale.
    pub forbids_stale: bool,
    /// It does not change while it is fresh (RFC 8246).
    pub immutable: bool,
    /// For how long it may be used while a new one is fetched.
    pub stale_while_revalidate: Duration,
    /// For how long it may stand in for an error.
    pub stale_if_error: Duration,
}

/// Where a lifetime comes from, the strongest one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// `ttl_override`.
    Override,
    /// The response says it, if only to this cache (`X-Accel-Expires`), or a trusted field.
    Explicit,
    /// `ttl_status`, or `ttl_default`.
    Default,
    /// A guess from `Last-Modified`.
    Heuristic,
    /// Nobody: it is stale from the start.
    #[default]
    Nobody,
}

impl Terms {
    /// How long it is kept after its lifetime, because it may still be used without validation.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }
}

/// What decides on a response besides its own fields.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Its status.
    pub status: StatusCode,
    /// When it came, by the wall clock.
    pub received_date: SystemTime,
    /// Whether its request had `Cookie` or `Authorization`.
    pub has_credentials: bool,
    /// What was said to this cache alone.
    pub controls: &'a Controls,
    /// What the operator chose.
    pub settings: &'a Settings,
}

/// The directives that count for a response: those of the targeted field, else those of
/// `Cache-Control`; and whether it was the targeted field.
#[must_use]
pub fn control(headers: &HeaderMap, settings: &Settings) -> (CacheControl, bool) {
    if settings.ignores_cache_control {
        return (CacheControl::default(), false);
    }
    match targeted(headers, &settings.targeted) {
        Some(control) => (control, true),
        None => (CacheControl::of(headers), false),
    }
}

/// What a response with these fields says of its use.
#[must_use]
pub fn terms(headers: &HeaderMap, of: Circumstances<'_>) -> Terms {
    let (control, is_targeted) = control(headers, of.settings);
    let (lifetime, source) = lifetime(headers, &control, is_targeted, of);
    let allowance = |said: Option<Duration>| match control.forbids_stale {
        true => Duration::ZERO,
        false => said.unwrap_or_default(),
    };
    let said = of.controls.grace.or(control.stale_if_error);
    let said_or_default = said.or(Some(of.settings.grace_default));
    Terms {
        lifetime,
        source,
        no_cache: control.no_cache,
        forbids_stale: control.forbids_stale,
        immutable: control.immutable,
        stale_while_revalidate: allowance(control.stale_while_revalidate),
        stale_if_error: allowance(said_or_default),
    }
}

fn lifetime(
    headers: &HeaderMap,
    control: &CacheControl,
    is_targeted: bool,
    of: Circumstances<'_>,
) -> (Duration, Source) {
    let settings = of.settings;
    if let Some(ttl) = of.controls.ttl {
        let of_request = of.controls.is_ttl_of_request;
        return (ttl, if of_request { Source::Override } else { Source::Explicit });
    }
    if let Some(ttl) = settings.ttl_override {
        return (ttl, Source::Override);
    }
    if let Some(ttl) = accel_expires(headers, of) {
        return (ttl, Source::Explicit);
    }
    let expires = || match is_targeted || settings.ignores_expires {
        true => None,
        false => until_expires(headers, of.received_date),
    };
    if let Some(ttl) = control.s_maxage.or(control.max_age).or_else(expires) {
        return (ttl, Source::Explicit);
    }
    let may_guess = is_heuristic(of.status) || control.public;
    let default = settings.ttl_default.filter(|_| may_guess);
    if let Some(ttl) = settings.ttl_status.get(&of.status).copied().or(default) {
        return (ttl, Source::Default);
    }
    let guessed = guess(headers, of).filter(|_| may_guess && !of.has_credentials);
    guessed.map_or((Duration::ZERO, Source::Nobody), |ttl| (ttl, Source::Heuristic))
}

/// Whether `headers` say how long a response is fresh.
#[must_use]
pub fn is_explicit(terms: &Terms) -> bool {
    matches!(terms.source, Source::Override | Source::Explicit)
}

/// Statuses whose lifetime may be guessed (RFC 9110, section 15.1).
#[must_use]
pub fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// `Expires` minus `Date` (RFC 9111, sections 4.2.1 and 5.3). One that is no date is in the past.
fn until_expires(headers: &HeaderMap, received_date: SystemTime) -> Option<Duration> {
    headers.get(EXPIRES)?;
    let expires = date(headers, &EXPIRES).unwrap_or(SystemTime::UNIX_EPOCH);
    let from = date(headers, &DATE).unwrap_or(received_date);
    Some(expires.duration_since(from).unwrap_or_default())
}

/// A tenth of the time from `Last-Modified` to `Date` (RFC 9111, section 4.2.2).
fn guess(headers: &HeaderMap, of: Circumstances<'_>) -> Option<Duration> {
    let modified = date(headers, &LAST_MODIFIED)?;
    let sent = date(headers, &DATE).unwrap_or(of.received_date);
    let unchanged = sent.duration_since(modified).ok()?;
    let guessed = Duration::from_secs((unchanged / HEURISTIC_PART).as_secs());
    Some(guessed.min(of.settings.heuristic_max))
}

/// Seconds, or `@` and seconds since 1970. Another text is not there.
fn accel_expires(headers: &HeaderMap, of: Circumstances<'_>) -> Option<Duration> {
    if !of.settings.reads_accel_expires {
        return None;
    }
    let text = headers.get(X_ACCEL_EXPIRES)?.to_str().ok()?;
    let (is_absolute, digits) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let secs = digits.parse().ok().filter(|_| is_number).map(Duration::from_secs)?;
    if !is_absolute {
        return Some(secs);
    }
    let now = of.received_date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(secs.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::{DATE_AT, DATE_SECS, at, headers, secs};

    const DATE_FIELD: (&str, &str) = ("date", DATE_AT);
    /// Ten seconds after [`DATE_AT`].
    const EXPIRES_FIELD: (&str, &str) = ("expires", "Sun, 06 Nov 1994 08:49:47 GMT");
    /// A thousand seconds before [`DATE_AT`].
    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT");

    static NOTHING_SAID: Controls = Controls {
        key: None,
        bypass: false,
        no_store: false,
        ttl: None,
        is_ttl_of_request: false,
        grace: None,
    };

    fn of(settings: &Settings) -> Circumstances<'_> {
        Circumstances {
            status: StatusCode::OK,
            received_date: at(0),
            has_credentials: false,
            controls: &NOTHING_SAID,
            settings,
        }
    }

    fn said(lines: &[(&str, &str)]) -> Terms {
        terms(&headers(lines), of(&Settings::default()))
    }

    fn lifetime(lines: &[(&str, &str)]) -> (u64, Source) {
        let terms = said(lines);
        (terms.lifetime.as_secs(), terms.source)
    }

    /// RFC 9111, section 4.2.1; RFC 9213, section 2.2.
    #[test]
    fn the_most_specific_lifetime_counts() {
        let targeted = ("cdn-cache-control", "max-age=5");
        let shared = ("cache-control", "s-maxage=30, max-age=60");
        let control = ("cache-control", "max-age=60");
        for (lines, expected) in [
            (&[targeted, shared, EXPIRES_FIELD, DATE_FIELD, MODIFIED][..], 5),
            (&[shared, EXPIRES_FIELD, DATE_FIELD, MODIFIED], 30),
            (&[control, EXPIRES_FIELD, DATE_FIELD, MODIFIED], 60),
            (&[EXPIRES_FIELD, DATE_FIELD, MODIFIED], 10),
            (&[("cdn-cache-control", "max-age=5, &"), control], 60),
            (&[("cdn-cache-control", ""), control], 60),
            (&[("cdn-cache-control", "no-cache"), DATE_FIELD, EXPIRES_FIELD], 0),
            (&[("cache-control", "max-age=0"), EXPIRES_FIELD], 0),
        ] {
            assert_eq!(lifetime(lines).0, expected, "{lines:?}");
        }
        assert_eq!(lifetime(&[DATE_FIELD, MODIFIED]), (100, Source::Heuristic));
        assert_eq!(lifetime(&[]), (0, Source::Nobody));
    }

    /// RFC 9111, section 5.3.
    #[test]
    fn expires_is_a_distance_from_date() {
        assert_eq!(lifetime(&[EXPIRES_FIELD]), (10, Source::Explicit), "from when it came");
        let later = ("date", "Sun, 06 Nov 1994 08:49:40 GMT");
        assert_eq!(lifetime(&[EXPIRES_FIELD, later]).0, 7);
        for text in ["0", "-1", "", "Sun, 06 Nov 1994 08:49:00 GMT", "tomorrow"] {
            assert_eq!(lifetime(&[("expires", text), DATE_FIELD]), (0, Source::Explicit), "{text}");
        }
    }

    /// RFC 9111, section 4.2.2; RFC 9110, section 15.1.
    #[test]
    fn lifetimes_are_guessed_for_some_statuses() {
        let settings = Settings::default();
        let guess = |status: u16, lines: &[(&str, &str)]| {
            let status = StatusCode::from_u16(status).unwrap();
            terms(&headers(lines), Circumstances { status, ..of(&settings) }).lifetime.as_secs()
        };
        for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(guess(status, &[DATE_FIELD, MODIFIED]), 100, "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
            assert_eq!(guess(status, &[DATE_FIELD, MODIFIED]), 0, "{status}");
            assert_eq!(guess(status, &[DATE_FIELD, MODIFIED, ("cache-control", "public")]), 100);
        }
        let old = ("last-modified", "Sun, 06 Nov 1904 08:32:57 GMT");
        assert_eq!(guess(200, &[DATE_FIELD, ("last-modified", "x")]), 0);
        assert_eq!(guess(200, &[old, DATE_FIELD]), 0, "before 1970 it is no date here");
        let old = ("last-modified", "Sun, 06 Nov 1977 08:32:57 GMT");
        assert_eq!(guess(200, &[old, DATE_FIELD]), 86_400);
        let future = ("last-modified", "Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(guess(200, &[future, DATE_FIELD]), 0);
    }

    #[test]
    fn nothing_is_guessed_for_one_user() {
        let settings = Settings::default();
        let found = terms(
            &headers(&[DATE_FIELD, MODIFIED]),
            Circumstances { has_credentials: true, ..of(&settings) },
        );
        assert_eq!((found.lifetime, found.source), (secs(0), Source::Nobody));
    }

    /// RFC 5861; RFC 9111, section 4.2.4.
    #[test]
    fn what_forbids_stale_use_takes_the_grace() {
        let both = "max-age=1, stale-while-revalidate=3, stale-if-error=8";
        let found = said(&[("cache-control", both)]);
        assert_eq!((found.stale_while_revalidate, found.stale_if_error), (secs(3), secs(8)));
        assert_eq!(found.grace(), secs(8));
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=1", "no-cache"] {
            let line = format!("{both}, {strict}");
            let settings = Settings { grace_default: secs(99), ..Settings::default() };
            let found = terms(&headers(&[("cache-control", &line)]), of(&settings));
            assert_eq!(found.grace(), secs(0), "{strict}");
            assert!(found.forbids_stale, "{strict}");
        }
        let targeted = said(&[("cdn-cache-control", "max-age=1"), ("cache-control", both)]);
        assert_eq!(targeted.grace(), secs(0));
    }

    #[test]
    fn operators_overrule_what_responses_say() {
        let lines =
            [("cache-control", "max-age=60"), ("x-accel-expires", "7"), EXPIRES_FIELD, DATE_FIELD];
        let with = |settings: Settings| {
            let found = terms(&headers(&lines), of(&settings));
            (found.lifetime.as_secs(), found.source)
        };
        let default = Settings::default;
        assert_eq!(with(default()), (60, Source::Explicit));
        assert_eq!(
            with(Settings { ttl_override: Some(secs(9)), ..default() }),
            (9, Source::Override)
        );
        assert_eq!(
            with(Settings { reads_accel_expires: true, ..default() }),
            (7, Source::Explicit)
        );
        let ignores = Settings { ignores_cache_control: true, ..default() };
        assert_eq!(with(ignores.clone()), (10, Source::Explicit));
        let ignores = Settings { ignores_expires: true, ttl_default: Some(secs(3)), ..ignores };
        assert_eq!(with(ignores.clone()), (3, Source::Default));
        let ttl_status = BTreeMap::from([(StatusCode::OK, secs(4))]);
        assert_eq!(with(Settings { ttl_status, ..ignores }), (4, Source::Default));
        let grace = Settings { grace_default: secs(5), ..default() };
        assert_eq!(terms(&headers(&lines), of(&grace)).stale_if_error, secs(5));
    }

    #[test]
    fn what_is_said_to_this_cache_outranks_the_rest() {
        let settings = Settings { ttl_override: Some(secs(9)), ..Settings::default() };
        let controls =
            Controls { ttl: Some(secs(3)), grace: Some(secs(4)), ..NOTHING_SAID.clone() };
        let with = |control: &str| {
            let of = Circumstances { controls: &controls, ..of(&settings) };
            let terms = terms(&headers(&[("cache-control", control)]), of);
            assert_eq!(terms.source, Source::Explicit);
            (terms.lifetime, terms.stale_if_error)
        };
        assert_eq!(with("max-age=1, stale-if-error=2"), (secs(3), secs(4)));
        assert_eq!(with("max-age=1, must-revalidate"), (secs(3), secs(0)));
    }

    #[test]
    fn accel_expires_is_seconds_or_a_moment() {
        let settings = Settings { reads_accel_expires: true, ..Settings::default() };
        let ttl = |text: &str| {
            terms(&headers(&[("x-accel-expires", text)]), of(&settings)).lifetime.as_secs()
        };
        assert_eq!((ttl("7"), ttl("0"), ttl("x"), ttl("-1"), ttl("@")), (7, 0, 0, 0, 0));
        assert_eq!((ttl(&format!("@{}", DATE_SECS + 12)), ttl("@1")), (12, 0));
    }

    use std::collections::BTreeMap;
}
