//! Directives of `Cache-Control` (RFC 9111, section 5.2). Pure.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::CACHE_CONTROL;

/// The directives that matter here, from all lines of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheControl {
    /// A shared cache must not keep it: `no-store`, or `private` for all of it.
    pub(super) forbids_storing: bool,
    /// It must be validated before every use: `no-cache` for all of it.
    pub(super) no_cache: bool,
    /// It must not be used when stale: `must-revalidate` or `proxy-revalidate`.
    pub(super) must_revalidate: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) s_maxage: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    /// In requests: how stale an answer may be; without a number, any staleness.
    pub(super) max_stale: Option<Duration>,
}

impl CacheControl {
    pub(super) fn of(headers: &HeaderMap) -> CacheControl {
        let mut found = CacheControl::default();
        for line in headers.get_all(CACHE_CONTROL) {
            found.add(&String::from_utf8_lossy(line.as_bytes()));
        }
        found
    }

    fn add(&mut self, line: &str) {
        for directive in directives(line) {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(unquoted(argument.trim()))),
                None => (directive.trim(), None),
            };
            let seconds = argument.map(seconds);
            match name.to_ascii_lowercase().as_str() {
                "no-store" => self.forbids_storing = true,
                // With field names, `private` and `no-cache` restrict single headers only.
                "private" if argument.is_none() => self.forbids_storing = true,
                "no-cache" if argument.is_none() => self.no_cache = true,
                "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
                "max-age" => earliest(&mut self.max_age, seconds.unwrap_or_default()),
                "s-maxage" => earliest(&mut self.s_maxage, seconds.unwrap_or_default()),
                "stale-while-revalidate" => self.stale_while_revalidate = seconds,
                "stale-if-error" => self.stale_if_error = seconds,
                "max-stale" => self.max_stale = Some(seconds.unwrap_or(Duration::MAX)),
                _ => {}
            }
        }
    }
}

/// Of two values for one directive the more restrictive one counts (RFC 9111, section 4.2.1).
fn earliest(known: &mut Option<Duration>, new: Duration) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

/// Splits at commas outside quotes.
fn directives(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// A number that cannot be read means "already over" (RFC 9111, section 4.2.1); one that is too
/// large means a very long time.
fn seconds(text: &str) -> Duration {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let secs = if digits { text.parse().unwrap_or(u64::MAX) } else { 0 };
    Duration::from_secs(secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        CacheControl::of(&headers)
    }

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    #[test]
    fn directives_are_found_in_all_lines_and_in_any_case() {
        let found = parse(&["Public, MAX-AGE=60 , s-maxage = \"5\"", "stale-if-error=7"]);
        assert_eq!((found.max_age, found.s_maxage), (secs(60), secs(5)));
        assert_eq!(found.stale_if_error, secs(7));
        assert!(!found.forbids_storing && !found.no_cache && !found.must_revalidate);
        assert!(parse(&["proxy-revalidate"]).must_revalidate);
        assert_eq!(parse(&[]), CacheControl::default());
    }

    #[test]
    fn storing_is_forbidden_by_no_store_and_by_private_without_fields() {
        for line in ["no-store", "private", "max-age=1, Private"] {
            assert!(parse(&[line]).forbids_storing, "{line}");
        }
        for line in ["private=\"set-cookie, no-store\"", "x=no-store", "\"no-store\"", "privatex"] {
            assert!(!parse(&[line]).forbids_storing, "{line}");
        }
        assert!(parse(&["no-cache"]).no_cache && !parse(&["no-cache=\"x\""]).no_cache);
    }

    #[test]
    fn strange_numbers_are_taken_on_the_safe_side() {
        assert_eq!(parse(&["max-age=abc"]).max_age, secs(0));
        assert_eq!(parse(&["max-age=-1"]).max_age, secs(0));
        assert_eq!(parse(&["max-age"]).max_age, secs(0));
        assert_eq!(parse(&["max-age=10, max-age=5"]).max_age, secs(5));
        assert_eq!(parse(&["max-age=99999999999999999999999"]).max_age, secs(u64::MAX));
        assert_eq!(parse(&["max-stale"]).max_stale, Some(Duration::MAX));
        assert_eq!(parse(&["max-stale=3"]).max_stale, secs(3));
    }
}
