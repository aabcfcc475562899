//! What a trusted front, or the upstream, says to this cache alone, in fields that begin with
//! `X-Rawcached-`. They are never given on and never stored (see [`hop_by_hop`](super::hop_by_hop)), and
//! are heard only where the operator names them: else clients could use them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

/// What the names of all control fields begin with.
const PREFIX: &str = "x-rawcached-";

/// A control field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlField {
    /// Of a request: host and target in its key.
    Key,
    /// Of a request: pass it.
    Bypass,
    /// Of either: do not store the response.
    NoStore,
    /// Of either: lifetime of the response, in seconds.
    Ttl,
    /// Of either: how long the response may stand in for an error, in seconds.
    Grace,
}

/// A field that no operator can trust.
#[derive(Debug, thiserror::Error)]
#[error("write one of {}", ControlField::ALL.map(|field| field.name().to_string()).join(", "))]
pub struct ParseControlFieldError;

impl ControlField {
    const ALL: [ControlField; 5] = [
        ControlField::Key,
        ControlField::Bypass,
        ControlField::NoStore,
        ControlField::Ttl,
        ControlField::Grace,
    ];

    fn name(self) -> HeaderName {
        HeaderName::from_static(match self {
            ControlField::Key => "x-rawcached-key",
            ControlField::Bypass => "x-rawcached-bypass",
            ControlField::NoStore => "x-rawcached-no-store",
            ControlField::Ttl => "x-rawcached-ttl",
            ControlField::Grace => "x-rawcached-grace",
        })
    }

    /// Its value in `headers`, if it is one of those `trusted`. Of several lines the last one counts: a proxy
    /// adds its own behind those of its client.
    fn value(self, headers: &HeaderMap, trusted: &[ControlField]) -> Option<Vec<u8>> {
        let last = headers.get_all(self.name()).iter().next_back();
        let value = last.filter(|_| trusted.contains(&self))?.as_bytes().trim_ascii().to_vec();
        Some(value).filter(|value| !value.is_empty())
    }

    /// Whether it is there and neither empty nor `0`.
    fn is_set(self, headers: &HeaderMap, trusted: &[ControlField]) -> bool {
        self.value(headers, trusted).is_some_and(|value| value != b"0")
    }

    fn secs(self, headers: &HeaderMap, trusted: &[ControlField]) -> Option<Duration> {
        let value = self.value(headers, trusted)?;
        let is_number = value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(&value).ok().filter(|_| is_number)?;
        text.parse().ok().map(Duration::from_secs)
    }
}

impl FromStr for ControlField {
    type Err = ParseControlFieldError;

    fn from_str(text: &str) -> Result<ControlField, ParseControlFieldError> {
        let is_it = |field: &ControlField| field.name().as_str().eq_ignore_ascii_case(text);
        ControlField::ALL.into_iter().find(is_it).ok_or(ParseControlFieldError)
    }
}

impl fmt::Display for ControlField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_str())
    }
}

/// What the control fields of a message say, as far as they are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Host and target in the key.
    pub key: Option<Vec<u8>>,
    /// Pass the request.
    pub bypass: bool,
    /// Do not store the response.
    pub no_store: bool,
    /// Lifetime of the response.
    pub ttl: Option<Duration>,
    /// The request said that, not the origin: it does not make a response one that may be stored.
    pub is_ttl_of_request: bool,
    /// How long the response may stand in for an error.
    pub grace: Option<Duration>,
}

impl Controls {
    /// What `headers` say.
    #[must_use]
    pub fn of(headers: &HeaderMap, trusted: &[ControlField]) -> Controls {
        if trusted.is_empty() || headers.is_empty() {
            return Controls::default();
        }
        Controls {
            key: ControlField::Key.value(headers, trusted),
            bypass: ControlField::Bypass.is_set(headers, trusted),
            no_store: ControlField::NoStore.is_set(headers, trusted),
            ttl: ControlField::Ttl.secs(headers, trusted),
            is_ttl_of_request: false,
            grace: ControlField::Grace.secs(headers, trusted),
        }
    }

    /// Of a response, where these are of its request: what the response says counts more.
    #[must_use]
    pub fn or(self, request: &Controls) -> Controls {
        Controls {
            no_store: self.no_store || request.no_store,
            ttl: self.ttl.or(request.ttl),
            is_ttl_of_request: self.ttl.is_none(),
            grace: self.grace.or(request.grace),
            ..self
        }
    }
}

/// Whether a field is a control field, or may become one.
#[must_use]
pub(super) fn is_control(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// The control fields among `headers`.
#[must_use]
pub(super) fn control_fields(headers: &HeaderMap) -> HeaderMap {
    let fields = headers.iter().filter(|(name, _)| is_control(name));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::{headers, secs};

    #[test]
    fn what_is_trusted_is_heard() {
        let found = headers(&[
            ("x-rawcached-key", "a.example/b"),
            ("x-rawcached-bypass", "1"),
            ("x-rawcached-no-store", "yes"),
            ("x-rawcached-ttl", "5"),
            ("x-rawcached-grace", "6"),
        ]);
        let all = Controls {
            key: Some(b"a.example/b".to_vec()),
            bypass: true,
            no_store: true,
            ttl: Some(secs(5)),
            is_ttl_of_request: false,
            grace: Some(secs(6)),
        };
        assert_eq!(Controls::of(&found, &ControlField::ALL), all);
        assert_eq!(Controls::of(&found, &[]), Controls::default());
        let ttl = Controls { ttl: Some(secs(5)), ..Controls::default() };
        assert_eq!(Controls::of(&found, &[ControlField::Ttl]), ttl);
    }

    #[test]
    fn what_says_nothing_is_not_heard() {
        for (name, value) in [
            ("x-rawcached-key", ""),
            ("x-rawcached-bypass", "0"),
            ("x-rawcached-no-store", " "),
            ("x-rawcached-ttl", "5s"),
            ("x-rawcached-ttl", "+5"),
            ("x-rawcached-grace", "-1"),
            ("x-rawcached-grace", "99999999999999999999999"),
            ("x-rawcached-other", "1"),
        ] {
            let found = Controls::of(&headers(&[(name, value)]), &ControlField::ALL);
            assert_eq!(found, Controls::default(), "{name}: {value}");
        }
    }

    #[test]
    fn the_last_line_counts() {
        let lines = [("x-rawcached-ttl", "5"), ("x-rawcached-ttl", "6")];
        assert_eq!(Controls::of(&headers(&lines), &ControlField::ALL).ttl, Some(secs(6)));
        let lines = [("x-rawcached-bypass", "1"), ("x-rawcached-bypass", "0")];
        assert!(!Controls::of(&headers(&lines), &ControlField::ALL).bypass);
    }

    #[test]
    fn a_response_says_more_than_its_request() {
        let request = Controls {
            ttl: Some(secs(1)),
            grace: Some(secs(2)),
            no_store: true,
            ..Controls::default()
        };
        let both = Controls { ttl: Some(secs(3)), ..Controls::default() }.or(&request);
        assert_eq!((both.ttl, both.grace, both.no_store), (Some(secs(3)), Some(secs(2)), true));
    }

    #[test]
    fn names_are_written_as_they_are_read() {
        for field in ControlField::ALL {
            assert_eq!(field.to_string().parse::<ControlField>().unwrap(), field);
        }
        assert_eq!("X-Rawcached-TTL".parse::<ControlField>().unwrap(), ControlField::Ttl);
        let refused = "X-Rawcached-Purge".parse::<ControlField>().unwrap_err().to_string();
        assert!(
            refused.starts_with("write one of x-rawcached-key, x-rawcached-bypass"),
            "{refused}"
        );
    }
}
