//! Directives of `Cache-Control` (RFC 9111, section 5.2). Pure.
//!
//! What is not in the grammar counts for what it may forbid and never for what it may allow.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, DATE, EXPIRES, HeaderName, VARY};

use super::list::{closing_quote, is_token, is_token_char, members};

/// Fields without which an object cannot be given out rightly: a directive that names one of them
/// means all of the object.
const NEEDED: [HeaderName; 5] = [CACHE_CONTROL, CONTENT_ENCODING, DATE, EXPIRES, VARY];

/// The directives that matter here, from all lines of the header. Those of requests and of responses
/// have different names but for `max-age`, `no-cache`, `no-store` and `stale-if-error`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// A shared cache must not keep it: `no-store`, or `private` for all of it. Says nothing of
    /// `must_understand`, which may set `no-store` aside.
    pub forbids_storing: bool,
    /// `private` for all of it (RFC 9111, section 5.2.2.7).
    pub private: bool,
    /// `must-understand` (RFC 9111, section 5.2.2.3).
    pub must_understand: bool,
    /// `public` (RFC 9111, section 5.2.2.9).
    pub public: bool,
    /// A response to a request with `Authorization` may be kept: `public`, `must-revalidate` or
    /// `s-maxage` (RFC 9111, section 3.5).
    pub permits_authorized: bool,
    /// It must be validated before every use: `no-cache` for all of it.
    pub no_cache: bool,
    /// It must not be used when stale: `must-revalidate`, `proxy-revalidate`, `no-cache`, or
    /// `s-maxage`, which is `proxy-revalidate` too (RFC 9111, sections 4.2.4 and 5.2.2.10).
    pub forbids_stale: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// Fields that no reader gets: `private` and `no-cache` with field names. Who never asks the
    /// origin never validates either, so both mean the same.
    pub withheld: Vec<HeaderName>,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `s-maxage`.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861, section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861, section 4).
    pub stale_if_error: Option<Duration>,
    /// In requests: how stale an answer may be; without a number, any staleness.
    pub max_stale: Option<Duration>,
    /// In requests: how long an answer must stay fresh at least.
    pub min_fresh: Option<Duration>,
    /// In requests: a stored response or none (RFC 9111, section 5.2.1.7).
    pub only_if_cached: bool,
}

impl CacheControl {
    /// The directives in field `Cache-Control` of `headers`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> CacheControl {
        let mut found = CacheControl::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for member in members(&String::from_utf8_lossy(line.as_bytes())) {
                match directive(member) {
                    Some((name, argument)) => found.add(name, argument.as_deref()),
                    None => words(member).for_each(|word| found.add_doubtful(word)),
                }
            }
        }
        found
    }

    /// Adds a directive; names are in any case.
    pub(super) fn add(&mut self, name: &str, argument: Option<&str>) {
        let seconds = || argument.map(seconds_of).unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.forbids_storing = true,
            "private" => match argument.and_then(field_names) {
                Some(mut names) => self.withheld.append(&mut names),
                None => (self.forbids_storing, self.private) = (true, true),
            },
            "public" => (self.public, self.permits_authorized) = (true, true),
            "must-understand" => self.must_understand = true,
            "immutable" => self.immutable = true,
            "only-if-cached" => self.only_if_cached = true,
            "no-cache" => match argument.and_then(field_names) {
                Some(mut names) => self.withheld.append(&mut names),
                None => (self.no_cache, self.forbids_stale) = (true, true),
            },
            "must-revalidate" => {
                (self.forbids_stale, self.permits_authorized) = (true, true);
            }
            "proxy-revalidate" => self.forbids_stale = true,
            "max-age" => once(&mut self.max_age, seconds()),
            "s-maxage" => {
                self.forbids_stale = true;
                self.permits_authorized |= argument.is_some_and(is_number);
                once(&mut self.s_maxage, seconds());
            }
            "stale-while-revalidate" => least(&mut self.stale_while_revalidate, seconds()),
            "stale-if-error" => least(&mut self.stale_if_error, seconds()),
            "min-fresh" => most(&mut self.min_fresh, argument.map_or(Duration::MAX, min_fresh_of)),
            "max-stale" => least(&mut self.max_stale, argument.map_or(Duration::MAX, seconds_of)),
            _ => {}
        }
    }

    /// A word of something that is no directive: it counts for what it may forbid.
    pub(super) fn add_doubtful(&mut self, word: &str) {
        let forbids = ["no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"];
        let ends = ["max-age", "s-maxage"];
        if forbids.iter().chain(&ends).any(|name| word.eq_ignore_ascii_case(name)) {
            let permits_authorized = self.permits_authorized;
            self.add(word, None);
            self.permits_authorized = permits_authorized;
        }
    }
}

/// A lifetime that is given twice, and not the same, is over (RFC 9111, section 4.2.1).
fn once(known: &mut Option<Duration>, new: Duration) {
    *known = match *known {
        Some(known) if known != new => Some(Duration::ZERO),
        _ => Some(new),
    };
}

/// Of two allowances the smaller one counts.
fn least(known: &mut Option<Duration>, new: Duration) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

/// Of two demands the larger one counts.
fn most(known: &mut Option<Duration>, new: Duration) {
    *known = (*known).max(Some(new));
}

/// Name and argument of a member: `name`, `name=token` or `name="text"`; `None` of any other.
fn directive(member: &str) -> Option<(&str, Option<Cow<'_, str>>)> {
    let Some((name, argument)) = member.split_once('=') else {
        return is_token(member).then_some((member, None));
    };
    let argument = match argument.strip_prefix('"') {
        Some(_) if closing_quote(argument.as_bytes(), 0)? + 1 == argument.len() => {
            unescaped(&argument[1..argument.len() - 1])
        }
        Some(_) => return None,
        None if is_token(argument) => Cow::Borrowed(argument),
        None => return None,
    };
    is_token(name).then_some((name, Some(argument)))
}

/// Text between quotes without the backslashes that quote single characters.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut quoted = false;
    for c in text.chars() {
        quoted = c == '\\' && !quoted;
        if !quoted {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// What could be names in a text that is no directive.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_token_char(c))
}

/// The field names in an argument of `private` or `no-cache`. `None` if the directive means all of
/// the object: because of one of [`NEEDED`], or of what is no list of names.
fn field_names(argument: &str) -> Option<Vec<HeaderName>> {
    let names = argument.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<HeaderName> = names.map(|name| name.parse().ok()).collect::<Option<_>>()?;
    let is_part = !names.is_empty() && !names.iter().any(|name| NEEDED.contains(name));
    is_part.then_some(names)
}

/// A number that cannot be read means "already over" (RFC 9111, section 4.2.1); one that is too
/// large means a very long time.
fn seconds_of(text: &str) -> Duration {
    let secs = if is_number(text) { text.parse().unwrap_or(u64::MAX) } else { 0 };
    Duration::from_secs(secs)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A demand that cannot be read is one that nothing meets.
fn min_fresh_of(text: &str) -> Duration {
    if is_number(text) { seconds_of(text) } else { Duration::MAX }
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
        assert_eq!((found.max_age, found.s_maxage), (secs(60), secs(0)), "no space beside =");
        assert_eq!(found.stale_if_error, secs(7));
        assert!(!found.forbids_storing && !found.no_cache);
        assert_eq!(parse(&["s-maxage=\"5\",max-age=007"]).s_maxage, secs(5));
        assert_eq!(parse(&[]), CacheControl::default());
        assert_eq!(parse(&["", ",, ,"]), CacheControl::default());
    }

    #[test]
    fn storing_is_forbidden_by_no_store_and_by_private_without_fields() {
        for line in
            ["no-store", "private", "max-age=1, Private", "no-store=\"x\"", "private=\"x\",private"]
        {
            assert!(parse(&[line]).forbids_storing, "{line}");
        }
        for line in ["private=\"set-cookie, no-store\"", "x=no-store", "privatex", "no-stores"] {
            assert!(!parse(&[line]).forbids_storing, "{line}");
        }
        assert!(parse(&["no-cache"]).no_cache && !parse(&["no-cache=\"x\""]).no_cache);
    }

    #[test]
    fn quoted_text_neither_hides_nor_makes_directives() {
        for line in [
            r#"note="a\"", no-store"#,
            r#"note="\"", private"#,
            r#"a="\"b", no-store, c="d\"""#,
            r#"a="\\\"", no-store"#,
            r#"a="\\", no-store"#,
            r#"a="", no-store"#,
        ] {
            assert!(parse(&[line]).forbids_storing, "{line}");
        }
        for line in [
            r#"note="no-store""#,
            r#"note="x, no-store, y""#,
            r#"note="a\", no-store, b""#,
            r#"note="\\", max-age=60"#,
            r#"note="\n\o-store, private""#,
        ] {
            assert!(!parse(&[line]).forbids_storing, "{line}");
        }
        assert_eq!(parse(&[r#"note="5\" disk", max-age=1"#]).max_age, secs(1));
        assert_eq!(parse(&[r#"max-age="6\0""#]).max_age, secs(60));
    }

    #[test]
    fn what_is_not_in_the_grammar_forbids_and_allows_nothing() {
        for line in [
            "note=\"open, no-store",
            "note=\"open\\\", no-store",
            "max-age=60; no-store",
            "max-age=60 private",
            "\"no-store\"",
            "a=\"b\"no-store",
            "no-store :",
        ] {
            assert!(parse(&[line]).forbids_storing, "{line}");
        }
        assert!(parse(&["a b=\"must-revalidate\""]).forbids_stale);
        assert!(parse(&["(no-cache)"]).no_cache);
        for line in
            ["max-age =60", "max-age= 60", "max-age=60;x", "x=\"y, max-age=60", "max-age=\"60\"s"]
        {
            assert_eq!(parse(&[line]).max_age, secs(0), "{line}");
        }
        let found = parse(&["stale-if-error=9; x, max-stale=9 y, max-stale=\"z"]);
        assert_eq!((found.stale_if_error, found.max_stale), (None, None));
        // One that is refused says nothing of the others.
        assert_eq!(parse(&["a b, max-age=5"]).max_age, secs(5));
    }

    #[test]
    fn stale_use_is_forbidden_by_all_that_ask_for_validation() {
        for line in ["must-revalidate", "Proxy-Revalidate", "no-cache", "s-maxage=9", "s-maxage"] {
            assert!(parse(&[line]).forbids_stale, "{line}");
        }
        for line in ["max-age=9", "no-cache=\"set-cookie\"", "immutable"] {
            assert!(!parse(&[line]).forbids_stale, "{line}");
        }
    }

    #[test]
    fn fields_that_are_named_are_withheld() {
        let found = parse(&["private=\"Set-Cookie, ,X-A\", no-cache=\"ETag\"", "private=x-b"]);
        let names: Vec<_> = found.withheld.iter().map(HeaderName::as_str).collect();
        assert_eq!(names, ["set-cookie", "x-a", "etag", "x-b"]);
        assert!(!found.forbids_storing && !found.no_cache);
        for argument in [
            "\"\"",
            "\" , \"",
            "\"a b\"",
            "\"a,(\"",
            "\"Vary\"",
            "\"x, Cache-Control\"",
            "\"content-encoding\"",
        ] {
            assert!(parse(&[&format!("private={argument}")]).forbids_storing, "{argument}");
            assert!(parse(&[&format!("no-cache={argument}")]).no_cache, "{argument}");
        }
    }

    #[test]
    fn strange_numbers_are_taken_on_the_safe_side() {
        for value in ["=abc", "=-1", "=+1", "=1.5", "='60'", "=\"\"", "=", ""] {
            assert_eq!(parse(&[&format!("max-age{value}")]).max_age, secs(0), "{value}");
        }
        assert_eq!(parse(&["max-age=99999999999999999999999"]).max_age, secs(u64::MAX));
        assert_eq!(parse(&["max-stale"]).max_stale, Some(Duration::MAX));
        assert_eq!(parse(&["max-stale=3"]).max_stale, secs(3));
        assert_eq!(parse(&["max-stale=x"]).max_stale, secs(0));
        assert_eq!(parse(&["stale-if-error"]).stale_if_error, secs(0));
    }

    #[test]
    fn directives_of_requests_are_found() {
        let found = parse(&["only-if-cached, min-fresh=5, min-fresh=9"]);
        assert_eq!((found.only_if_cached, found.min_fresh), (true, secs(9)));
        assert_eq!(parse(&["min-fresh"]).min_fresh, Some(Duration::MAX));
        assert_eq!(parse(&["min-fresh=x"]).min_fresh, Some(Duration::MAX));
    }

    #[test]
    fn what_permits_is_found_in_the_grammar_only() {
        let found = parse(&["public, must-understand, immutable, must-revalidate"]);
        assert!(found.public && found.must_understand && found.immutable);
        let found = parse(&["(public), x must-understand, \"immutable\", x; public"]);
        assert!(!found.public && !found.must_understand && !found.immutable);
    }

    #[test]
    fn some_directives_permit_to_keep_what_was_authorized() {
        for line in ["public", "must-revalidate", "s-maxage=0"] {
            assert!(parse(&[line]).permits_authorized, "{line}");
        }
        for line in
            ["max-age=9", "proxy-revalidate", "no-cache", "immutable", "s-maxage", "s-maxage=x"]
        {
            assert!(!parse(&[line]).permits_authorized, "{line}");
        }
        for line in ["(s-maxage=5)", "(must-revalidate)", "x public", "\"s-maxage=9\""] {
            assert!(!parse(&[line]).permits_authorized, "{line}");
        }
    }

    #[test]
    fn a_lifetime_that_is_given_twice_is_over_unless_both_agree() {
        assert_eq!(parse(&["max-age=10, max-age=5"]).max_age, secs(0));
        assert_eq!(parse(&["max-age=5", "max-age=10", "max-age=10"]).max_age, secs(0));
        assert_eq!(parse(&["s-maxage=1, s-maxage=2"]).s_maxage, secs(0));
        assert_eq!(parse(&["max-age=5, max-age=5"]).max_age, secs(5));
        assert_eq!(parse(&["stale-if-error=9, stale-if-error=7"]).stale_if_error, secs(7));
        assert_eq!(parse(&["max-stale=9, max-stale"]).max_stale, secs(9));
    }
}
