//! The fields of requests that a response depends on (RFC 9111, section 4.1), and what counts as the
//! same in them.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName, VARY};

use super::list::{closing_quote, members};
use super::request::OF_ONE_CLIENT;

/// Most bytes of a request that tell one variant from others: all variants of a target have room together.
pub const KEY_LEN_MAX: usize = 512;
/// Most fields that one response may depend on.
pub const NAMES_MAX: usize = 32;

/// What `Vary` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// These fields, or none.
    Names(Names),
    /// No other request matches: `*`, or what cannot be read, or more than [`NAMES_MAX`].
    Always,
}

/// Names of fields, each once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Names(Vec<HeaderName>);

/// What a request has in the fields of some [`Names`], so that two requests have the same key only if a
/// response that depends on these fields answers both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VariantKey(Vec<u8>);

impl Vary {
    /// What all lines of `Vary` in `headers` say.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Vary {
        let mut names = Vec::new();
        for line in headers.get_all(VARY) {
            let Ok(line) = line.to_str() else { return Vary::Always };
            for member in members(line) {
                match member.parse::<HeaderName>() {
                    // Evaluated here: no request to the origin has them.
                    Ok(name) if OF_ONE_CLIENT.contains(&name) => {}
                    Ok(name) if member != "*" => names.push(name),
                    _ => return Vary::Always,
                }
            }
        }
        Names::new(names).map_or(Vary::Always, Vary::Names)
    }
}

impl Names {
    /// `None` if there are more than [`NAMES_MAX`].
    #[must_use]
    pub fn new(mut names: Vec<HeaderName>) -> Option<Names> {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        (names.len() <= NAMES_MAX).then_some(Names(names))
    }

    /// Whether the response depends on no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter()
    }

    /// Whether `name` is among them.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }

    /// What `request` has in these fields. `left_out` does not count, if it is given.
    fn key_without(&self, request: &HeaderMap, left_out: Option<&HeaderName>) -> VariantKey {
        let mut key = Vec::new();
        for name in self.0.iter().filter(|name| Some(*name) != left_out) {
            // Absent is another thing than empty. Lengths keep values apart.
            match normalized(request, name) {
                None => key.push(0),
                Some(value) => {
                    key.push(1);
                    key.extend_from_slice(&(value.len() as u64).to_le_bytes());
                    key.extend_from_slice(&value);
                }
            }
        }
        VariantKey(key)
    }

    /// Whether `request` says no more in these fields than is kept of a variant.
    #[must_use]
    pub fn fits(&self, request: &HeaderMap) -> bool {
        self.key(request).as_bytes().len() <= KEY_LEN_MAX
    }

    /// What `request` has in these fields.
    #[must_use]
    pub fn key(&self, request: &HeaderMap) -> VariantKey {
        self.key_without(request, None)
    }

    /// As [`Names::key`], without `Accept-Language`.
    #[must_use]
    pub fn key_without_language(&self, request: &HeaderMap) -> VariantKey {
        self.key_without(request, Some(&ACCEPT_LANGUAGE))
    }
}

impl VariantKey {
    /// The bytes: what differs in a field differs here.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: Vec<u8>) -> VariantKey {
        VariantKey(bytes)
    }
}

/// Field `name` of a request as it is compared: all lines as one, without white space around commas
/// (RFC 9110, section 5.3). Members of `Accept`, `Accept-Encoding` and `Accept-Language` also without
/// order and case, which mean nothing there. `None` if it is absent.
#[must_use]
pub fn normalized(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    request.get(name)?;
    let lines: Vec<_> = request.get_all(name).iter().map(|line| trimmed(line.as_bytes())).collect();
    let joined = lines.join(&b","[..]);
    let is_set = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name);
    match std::str::from_utf8(&joined) {
        Ok(text) if is_set => {
            let mut sorted: Vec<String> = members(text).map(without_case_and_space).collect();
            sorted.sort_unstable();
            Some(sorted.join(",").into_bytes())
        }
        _ => Some(without_space_at_commas(&joined)),
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = line.iter().position(is_text).unwrap_or(line.len());
    let end = line.iter().rposition(is_text).map_or(start, |last| last + 1);
    &line[start..end]
}

/// White space before and behind commas outside of quotes goes.
fn without_space_at_commas(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b'"' => {
                let end = closing_quote(line, at).unwrap_or(line.len() - 1);
                plain.extend_from_slice(&line[at..=end]);
                at = end + 1;
            }
            b',' => {
                while matches!(plain.last(), Some(b' ' | b'\t')) {
                    plain.pop();
                }
                plain.push(b',');
                at += 1;
                while matches!(line.get(at), Some(b' ' | b'\t')) {
                    at += 1;
                }
            }
            byte => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

/// A member in lower case and without white space, but for what is in quotes.
fn without_case_and_space(member: &str) -> String {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let mut plain = String::with_capacity(member.len());
    for c in member.chars() {
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        match c {
            _ if is_quoted => plain.push(c),
            ' ' | '\t' => {}
            _ => plain.push(c.to_ascii_lowercase()),
        }
    }
    plain
}

/// The language that a request likes better than all others, in lower case (RFC 9110, section 12.5.4).
/// `None` if it names none, or several as its best.
#[must_use]
pub fn best_language(request: &HeaderMap) -> Option<String> {
    let text = normalized(request, &ACCEPT_LANGUAGE)?;
    let text = String::from_utf8(text).ok()?;
    let mut best: Option<(&str, u16)> = None;
    let mut is_shared = false;
    for member in text.split(',') {
        let (language, weight) = match member.split_once(";q=") {
            Some((language, weight)) => (language, thousandths(weight)?),
            None => (member, 1000),
        };
        match best {
            Some((_, known)) if weight < known => {}
            Some((_, known)) if weight == known => is_shared = true,
            _ => (best, is_shared) = (Some((language, weight)), false),
        }
    }
    let (language, weight) = best.filter(|_| !is_shared)?;
    let is_language = language.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_language && weight > 0 && !language.is_empty()).then(|| language.to_owned())
}

/// A weight from `0` to `1.000` (RFC 9110, section 12.4.2).
pub(super) fn thousandths(weight: &str) -> Option<u16> {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let is_sound =
        matches!(whole, "0" | "1") && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    let part: u16 = format!("{part:0<3}").parse().ok().filter(|_| is_sound)?;
    Some(whole.parse::<u16>().ok()? * 1000 + part).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::headers;

    fn names(lines: &[&str]) -> Option<Vec<String>> {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        match Vary::of(&headers(&lines)) {
            Vary::Names(names) => Some(names.iter().map(|name| name.to_string()).collect()),
            Vary::Always => None,
        }
    }

    /// RFC 9110, section 12.5.5.
    #[test]
    fn names_come_from_all_lines() {
        assert_eq!(names(&[]).unwrap(), [""; 0]);
        assert_eq!(names(&["Foo, bar", "", "FOO , ,Baz"]).unwrap(), ["bar", "baz", "foo"]);
        for lines in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["a, *"], &["*, a"]]
        {
            assert_eq!(names(lines), None, "{lines:?}");
        }
        assert_eq!(names(&["a b"]), None);
        assert_eq!(names(&["Range, If-None-Match, foo"]).unwrap(), ["foo"]);
        let many =
            |count: usize| (0..count).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(names(&[&many(32)]).unwrap().len(), 32);
        assert_eq!(names(&[&many(33)]), None);
    }

    fn same(name: &str, first: &[&str], second: &[&str]) -> bool {
        let names = Names::new(vec![name.parse().unwrap()]).unwrap();
        let key = |values: &[&str]| {
            let lines: Vec<_> = values.iter().map(|value| (name, *value)).collect();
            names.key(&headers(&lines))
        };
        key(first) == key(second)
    }

    /// RFC 9111, section 4.1.
    #[test]
    fn lines_are_joined_and_space_at_commas_goes() {
        assert!(same("foo", &["1, 2"], &["1", "2"]));
        assert!(same("foo", &["1,2"], &[" 1,\t2 "]));
        assert!(same("foo", &[r#""a, b" , c"#], &[r#""a, b",c"#]));
        assert!(!same("foo", &[r#""a, b""#], &[r#""a,b""#]), "quoted");
        assert!(!same("foo", &["1 2"], &["12"]));
        assert!(!same("foo", &["1, 2"], &["2, 1"]));
        assert!(!same("foo", &["a"], &["A"]));
        assert!(!same("foo", &[], &[""]), "absent is not empty");
        assert!(same("foo", &[], &[]));
        assert!(!same("foo", &["\"a"], &["\"a "]) || same("foo", &["\"a"], &["\"a"]));
    }

    #[test]
    fn order_and_case_mean_nothing_in_three_fields() {
        for name in ["accept", "accept-encoding", "accept-language"] {
            assert!(same(name, &["en, de"], &["De,EN"]), "{name}");
            assert!(same(name, &["en ; q=0.5, de"], &["de", "en;q=0.5"]), "{name}");
            assert!(!same(name, &["en;q=0.5, de"], &["en, de;q=0.5"]), "{name}");
            assert!(!same(name, &["en"], &["en, de"]), "{name}");
            assert!(!same(name, &["x;a=\"B\""], &["x;a=\"b\""]), "{name}");
            assert!(!same(name, &[r#"x;a="\"B""#], &[r#"x;a="\"b""#]), "{name}");
        }
        assert!(!same("cookie", &["a, b"], &["b, a"]));
    }

    #[test]
    fn values_of_different_fields_stay_apart() {
        let names = Names::new(vec!["x-a".parse().unwrap(), "x-b".parse().unwrap()]).unwrap();
        let key = |a: &str, b: &str| names.key(&headers(&[("x-a", a), ("x-b", b)]));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(key("", "c"), names.key(&headers(&[("x-b", "c")])));
        assert_ne!(names.key(&headers(&[("x-a", "c")])), names.key(&headers(&[("x-b", "c")])));
    }

    /// RFC 9110, sections 12.4.2 and 12.5.4.
    #[test]
    fn the_best_language_is_one() {
        let best = |text: &str| best_language(&headers(&[("accept-language", text)]));
        assert_eq!(best("fr;q=0.5, de;q=1.0").as_deref(), Some("de"));
        assert_eq!(best("De-AT, fr;q=0.999").as_deref(), Some("de-at"));
        for text in
            ["en, de", "", "*", "en;q=0", "en;q=2", "en;q=x", "en;q=0.5,fr;q=0.5", "de;q=1.001"]
        {
            assert_eq!(best(text), None, "{text}");
        }
        assert_eq!(best_language(&headers(&[])), None);
    }
}
