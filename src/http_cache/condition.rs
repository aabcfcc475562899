//! Rules of the operator by what a request has in a field or a cookie. Owns their text.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName};

use super::control_fields::is_control;
use super::hop_by_hop::is_hop_by_hop;

/// What a request has to have for a rule to hold: a field or a cookie, if there is a value, with that
/// value. Written `header:NAME`, `header:NAME=VALUE`, `cookie:NAME`, `cookie:NAME=VALUE`; a `*` at the end
/// of the name of a cookie stands for any rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    of: Of,
    /// Every byte of it; `None` is any value.
    value: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Of {
    Header(HeaderName),
    Cookie {
        name: String,
        /// The name only begins so.
        is_prefix: bool,
    },
}

/// What is no condition.
#[derive(Debug, thiserror::Error)]
pub enum ParseConditionError {
    /// It names neither a field nor a cookie.
    #[error("write header:NAME, header:NAME=VALUE, cookie:NAME or cookie:NAME=VALUE")]
    Unknown,
    /// No request is known by that field.
    #[error("{0} is a field of the connection, or is in the key: no rule can go by it")]
    Field(HeaderName),
}

impl Condition {
    /// Whether it holds for a request with these fields.
    #[must_use]
    pub fn holds(&self, headers: &HeaderMap) -> bool {
        let is_value =
            |found: &[u8]| self.value.as_ref().is_none_or(|value| value.as_bytes() == found);
        match &self.of {
            Of::Header(name) => {
                headers.get_all(name).iter().any(|line| is_value(line.as_bytes().trim_ascii()))
            }
            Of::Cookie { name, is_prefix } => cookies(headers).any(|(found, value)| {
                let is_it = match is_prefix {
                    true => found.starts_with(name.as_bytes()),
                    false => found == name.as_bytes(),
                };
                is_it && is_value(value)
            }),
        }
    }
}

/// Whether rules and keys can go by a field: it is none of the connection, in the key anyway, or taken out before.
#[must_use]
pub fn is_of_requests(name: &HeaderName) -> bool {
    let is_taken = [HOST, EXPECT, CONTENT_LENGTH].contains(name) || is_control(name);
    !is_taken && !is_hop_by_hop(name)
}

/// Whether one of `conditions` holds.
#[must_use]
pub fn any_holds(conditions: &[Condition], headers: &HeaderMap) -> bool {
    conditions.iter().any(|condition| condition.holds(headers))
}

/// Names and values of all cookies (RFC 6265, section 4.2.1). One without `=` is a name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
    })
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(text: &str) -> Result<Condition, ParseConditionError> {
        let (kind, rest) = text.split_once(':').ok_or(ParseConditionError::Unknown)?;
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (rest, None),
        };
        let is_text = |c: char| matches!(c, ' '..='~');
        let is_whole =
            value.iter().all(|value| value.trim() == value && value.chars().all(is_text));
        let of = match kind {
            "header" => {
                // A name may have that sign, but whoever writes it means more than one field.
                let name = Some(name).filter(|name| !name.ends_with('*'));
                let name = name.and_then(|name| name.parse::<HeaderName>().ok());
                let name = name.ok_or(ParseConditionError::Unknown)?;
                if !is_of_requests(&name) {
                    return Err(ParseConditionError::Field(name));
                }
                Of::Header(name)
            }
            "cookie" => {
                let (name, is_prefix) = match name.strip_suffix('*') {
                    Some(prefix) => (prefix, true),
                    None => (name, false),
                };
                let is_name = |c: char| matches!(c, '!'..='~') && !matches!(c, ';' | ',' | '*');
                if name.is_empty() || !name.chars().all(is_name) {
                    return Err(ParseConditionError::Unknown);
                }
                Of::Cookie { name: name.to_owned(), is_prefix }
            }
            _ => return Err(ParseConditionError::Unknown),
        };
        if is_whole { Ok(Condition { of, value }) } else { Err(ParseConditionError::Unknown) }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Of::Header(name) => write!(f, "header:{name}")?,
            Of::Cookie { name, is_prefix } => {
                write!(f, "cookie:{name}{}", if *is_prefix { "*" } else { "" })?;
            }
        }
        self.value.iter().try_for_each(|value| write!(f, "={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::headers;

    fn holds(condition: &str, lines: &[(&str, &str)]) -> bool {
        condition.parse::<Condition>().unwrap().holds(&headers(lines))
    }

    #[test]
    fn a_field_is_there_or_has_a_value() {
        let lines = [("x-preview", "0"), ("x-preview", " 1 "), ("x-empty", "")];
        for condition in
            ["header:X-Preview", "header:x-preview=1", "header:x-preview=0", "header:x-empty"]
        {
            assert!(holds(condition, &lines), "{condition}");
        }
        for condition in ["header:x", "header:x-preview=", "header:x-preview=2", "header:x-empty=0"]
        {
            assert!(!holds(condition, &lines), "{condition}");
        }
        assert!(holds("header:x-empty=", &lines));
        assert!(!holds("header:a=x", &[("a", "X")]), "values are exact");
    }

    #[test]
    fn a_cookie_is_there_or_has_a_value() {
        let lines =
            [("cookie", "a=1; session=x=y;b"), ("cookie", "wordpress_logged_in_1f=z; c= 2 ")];
        for condition in [
            "cookie:a",
            "cookie:a=1",
            "cookie:session",
            "cookie:session=x=y",
            "cookie:b",
            "cookie:b=",
            "cookie:c=2",
            "cookie:wordpress_logged_in_*",
            "cookie:wordpress_logged_in_*=z",
            "cookie:wordpress_logged_in_1f",
        ] {
            assert!(holds(condition, &lines), "{condition}");
        }
        for condition in [
            "cookie:A",
            "cookie:sess",
            "cookie:ession",
            "cookie:session=x",
            "cookie:a=",
            "cookie:1",
            "cookie:ordpress_*",
            "cookie:wordpress_logged_in_*=y",
        ] {
            assert!(!holds(condition, &lines), "{condition}");
        }
        assert!(!holds("cookie:a", &[("x", "a=1")]));
        assert!(holds("cookie:a", &[("cookie", "\u{e4}=1; a =1")]), "beside what is no text");
    }

    #[test]
    fn a_condition_is_written_as_it_is_read() {
        for text in ["header:x-a", "header:x-a=b c", "cookie:a", "cookie:a*=", "cookie:a=b=c"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-A".parse::<Condition>().unwrap().to_string(), "header:x-a");
        for text in [
            "",
            "session",
            "header:",
            "header:a b",
            "header:x*",
            "cookie:",
            "cookie:*",
            "cookie:=x",
            "cookie:a;b",
            "cookie:a*b",
            "Cookie:a",
            "query:a",
            "header:a= b",
            "header:a=\u{e4}",
        ] {
            assert!(
                matches!(text.parse::<Condition>(), Err(ParseConditionError::Unknown)),
                "{text}"
            );
        }
        for text in ["header:Host", "header:connection", "header:upgrade"] {
            let refused = text.parse::<Condition>();
            assert!(matches!(refused, Err(ParseConditionError::Field(_))), "{text}");
        }
    }
}
