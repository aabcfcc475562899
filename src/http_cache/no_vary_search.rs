//! `No-Vary-Search`: which parts of a query an origin says do not matter, and what that makes of a target
//! (draft-ietf-httpbis-no-vary-search). Owns how a rule is read, kept and followed.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, Parser};

/// The field that says so.
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");
/// Longest rule that is kept, in bytes as [`KeptRule::encode`] writes it. A longer one is taken as the default rule.
pub const RULE_LEN_MAX: usize = 4 << 10;

/// First byte of a rule that is kept: the version of its encoding.
const VERSION: u8 = 1;
const KEY_ORDER: u8 = 1;
const ALL_BUT: u8 = 2;

/// What a value is written without: what ends it, and what stands for something else. A space becomes `+`.
const VALUE: &AsciiSet = &CONTROLS.add(b'%').add(b'&').add(b'+').add(b'#');
/// The same of a name.
const NAME: &AsciiSet = &VALUE.add(b'=');

/// What of a query matters to a response. By default all of it does, to the last byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The order of parameters with different names does not matter.
    ignores_order: bool,
    ignored: Ignored,
}

/// Parameters that do not matter, by their decoded names; these are in order, and each is there once.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ignored {
    Only(Vec<Vec<u8>>),
    AllBut(Vec<Vec<u8>>),
}

impl Default for Ignored {
    fn default() -> Ignored {
        Ignored::Only(Vec::new())
    }
}

/// A rule that is kept, with a name of its own: what is stored by it is found by that too, so that nothing that was
/// stored by an earlier rule is found by a later one, or by the same once it is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRule {
    /// Random.
    pub name: [u8; 16],
    /// What it says.
    pub rule: Rule,
}

impl Rule {
    /// What the response with `headers` says. A field that is absent, or cannot be read, or is longer than is kept, is
    /// the default rule: that shares least.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Rule {
        let lines: Vec<&[u8]> =
            headers.get_all(NO_VARY_SEARCH).iter().map(|line| line.as_bytes()).collect();
        if lines.is_empty() {
            return Rule::default();
        }
        let members = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>();
        let rule = members.ok().and_then(|members| Rule::read(&members));
        rule.filter(|rule| rule.encoded_len() <= RULE_LEN_MAX).unwrap_or_default()
    }

    /// The draft, section "Parse a URL search variance". Members with other names mean nothing.
    fn read(members: &Dictionary) -> Option<Rule> {
        let ignores_order = match members.get("key-order") {
            None => false,
            Some(entry) => flag(entry)?,
        };
        let ignored = match (members.get("params"), members.get("except")) {
            (None, None) => Ignored::default(),
            (Some(ListEntry::InnerList(names)), None) => Ignored::Only(names_in(names)?),
            (Some(params), except) => match (flag(params)?, except) {
                (true, Some(ListEntry::InnerList(names))) => Ignored::AllBut(names_in(names)?),
                (true, None) => Ignored::AllBut(Vec::new()),
                (false, None) => Ignored::default(),
                _ => return None,
            },
            (None, Some(_)) => return None,
        };
        Some(Rule { ignores_order, ignored })
    }

    /// Whether all of a query matters.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Rule::default()
    }

    /// The same text for all targets that this rule takes for one: what does not matter is left out, the rest is in one
    /// order and one encoding. By the default rule it is the target as it came.
    ///
    /// Names and values are compared as bytes. The draft compares them as text, where all that is not UTF-8 is
    /// one; here such URLs are two.
    #[must_use]
    pub fn normalize<'a>(&self, path_and_query: &'a str) -> Cow<'a, str> {
        if self.is_default() {
            return path_and_query.into();
        }
        let Some((path, query)) = path_and_query.split_once('?') else {
            return path_and_query.into();
        };
        // The URL standard of WHATWG, section "application/x-www-form-urlencoded parsing".
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        let parameters =
            parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
        let decoded = parameters.map(|(name, value)| (decoded(name), decoded(value)));
        let mut kept: Vec<_> = decoded.filter(|(name, _)| self.matters(name)).collect();
        if self.ignores_order {
            // Those with one name keep their order.
            kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut text = path.to_owned();
        for (number, (name, value)) in kept.iter().enumerate() {
            text.push(if number == 0 { '?' } else { '&' });
            encode_to(&mut text, name, NAME);
            text.push('=');
            encode_to(&mut text, value, VALUE);
        }
        text.into()
    }

    /// Whether a parameter with this name matters.
    fn matters(&self, name: &[u8]) -> bool {
        let is_in = |names: &[Vec<u8>]| names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        match &self.ignored {
            Ignored::Only(names) => !is_in(names),
            Ignored::AllBut(names) => is_in(names),
        }
    }

    fn names(&self) -> &[Vec<u8>] {
        match &self.ignored {
            Ignored::Only(names) | Ignored::AllBut(names) => names,
        }
    }

    fn encoded_len(&self) -> usize {
        KEPT_FIXED_LEN + self.names().iter().map(|name| 2 + name.len()).sum::<usize>()
    }
}

/// Bytes of a rule that is kept before its names: version, name, flags.
const KEPT_FIXED_LEN: usize = 1 + 16 + 1;

impl KeptRule {
    /// The rule as bytes, at most [`RULE_LEN_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Rule { ignores_order, ignored } = &self.rule;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let is_all_but = matches!(ignored, Ignored::AllBut(_));
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.name);
        bytes.push(flag(*ignores_order, KEY_ORDER) | flag(is_all_but, ALL_BUT));
        for name in self.rule.names() {
            // All names together are shorter than that can say.
            let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(name);
        }
        bytes
    }

    /// What [`KeptRule::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<KeptRule> {
        let (name, rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let (flags, mut rest) = rest.split_first()?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        while !rest.is_empty() {
            let (len, behind) = rest.split_first_chunk()?;
            let (one, behind) = behind.split_at_checked(u16::from_le_bytes(*len).into())?;
            names.push(one.to_vec());
            rest = behind;
        }
        let is_sound = flags & !(KEY_ORDER | ALL_BUT) == 0
            && bytes.len() <= RULE_LEN_MAX
            && names.is_sorted_by(|one, next| one < next);
        let ignored = match flags & ALL_BUT {
            0 => Ignored::Only(names),
            _ => Ignored::AllBut(names),
        };
        let rule = Rule { ignores_order: flags & KEY_ORDER != 0, ignored };
        is_sound.then_some(KeptRule { name: *name, rule })
    }
}

fn flag(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(Item { bare_item: BareItem::Boolean(is_set), .. }) => Some(*is_set),
        _ => None,
    }
}

/// The draft, section "Parse a key".
fn names_in(list: &InnerList) -> Option<Vec<Vec<u8>>> {
    let name = |item: &Item| match &item.bare_item {
        BareItem::String(name) => Some(decoded(name.as_str())),
        _ => None,
    };
    let mut names = list.items.iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names)
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

fn encode_to(text: &mut String, bytes: &[u8], set: &'static AsciiSet) {
    for piece in percent_encode(bytes, set) {
        text.push_str(&piece.replace(' ', "+"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http_cache::testing::headers;

    fn rule(value: &str) -> Rule {
        Rule::of(&headers(&[("no-vary-search", value)]))
    }

    /// A rule that cannot be told from the default one by accident.
    fn sound(value: &str) -> Rule {
        let found = rule(value);
        assert!(!found.is_default(), "{value}");
        found
    }

    /// The draft, section "Obtain a URL search variance", its examples.
    #[test]
    fn what_cannot_be_read_is_the_default_rule() {
        for value in [
            "unknown-key",
            "key-order=\"not a boolean\"",
            "params=\"not a boolean or inner list\"",
            "params=(not-a-string)",
            "params=(\"a\"), except=(\"x\")",
            "params=(), except=()",
            "params=?0, except=(\"x\")",
            "params, except=(not-a-string)",
            "params, except=\"not an inner list\"",
            "params, except=?1",
            "except=(\"x\")",
            "except=()",
            "params=?0",
            "params=()",
            "key-order=?0",
            // One member that is wrong takes the others with it, and so does a field that is no dictionary.
            "key-order, params=1",
            "key-order, except=(\"x\")",
            "key-order=1, params",
            "params=(\"a\" b)",
            "params=(\"a\"",
            "params,",
            "Params",
            "\"params\"",
            "",
        ] {
            assert!(rule(value).is_default(), "{value}");
        }
        assert!(Rule::of(&headers(&[])).is_default());
        let long = |len: usize| rule(&format!("key-order, params=(\"{}\")", "x".repeat(len)));
        let longest = RULE_LEN_MAX - KEPT_FIXED_LEN - 2;
        assert!(!long(longest).is_default() && long(longest + 1).is_default());
    }

    #[test]
    fn unconventional_forms_are_read() {
        for (value, expected) in [
            ("params=?1", "params"),
            ("key-order=?1", "key-order"),
            ("params, key-order, except=(\"x\")", "key-order, params, except=(\"x\")"),
            ("params, except=()", "params"),
            ("params=(\"b\" \"a\" \"b\";x=1);y, z=(1)", "params=(\"a\" \"b\")"),
            ("params=(\"a\"), params", "params"),
            ("params=(\"%61+%C3%A9\")", "params=(\"a%20%c3%a9\")"),
        ] {
            assert_eq!(sound(value), sound(expected), "{value}");
        }
        let lines = [("no-vary-search", "key-order"), ("no-vary-search", "params")];
        assert_eq!(Rule::of(&headers(&lines)), sound("key-order, params"));
    }

    /// The draft, section "Comparing": targets that are one, and some that are not.
    #[test]
    fn targets_that_are_one_get_one_text() {
        for (value, one, others) in [
            ("params=(\"a\")", "/p?x=1", &["/p?x=1"][..]),
            (
                "params=(\"a\")",
                "/p?a=1&x=1",
                &["/p?x=1", "/p?x=1&a", "/p?a=2&&x=1&a=3", "/p?%61&x=%31"],
            ),
            ("params=(\"a\")", "/p", &["/p?", "/p?a", "/p?a=", "/p?&&", "/p?a=b=c&a=d"]),
            ("params=(\"a\")", "/p?x", &["/p?x=", "/p?&x&", "/p?x=&a"]),
            ("params=(\"a\")", "/p?x+y=z+%2B", &["/p?x%20y=z%20%2b", "/p?%78+y=z+%2B"]),
            ("params=(\"a b\")", "/p", &["/p?a+b=1", "/p?a%20b=1"]),
            (
                "params=(\"%C3%A9+%E6%B0%97\")",
                "/p",
                &["/p?%C3%A9%20%E6%B0%97=3", "/p?%c3%a9+%e6%b0%97=4"],
            ),
            ("params", "/p", &["/p?a=1", "/p?b", "/p?%ff", "/p?"]),
            ("params, except=(\"x\")", "/p?x=1", &["/p?a=1&x=1", "/p?x=1&b=2"]),
            ("params, except=(\"x\")", "/p?x=1&x=2", &["/p?x=1&a&x=2"]),
            ("key-order", "/p?a=1&b=2&c=3", &["/p?c=3&b=2&a=1", "/p?b=2&a=1&c=3"]),
            ("key-order", "/p?b=2&b=1&a=3", &["/p?a=3&b=2&b=1", "/p?b=2&a=3&b=1"]),
            ("key-order", "/p?a=%zz", &["/p?a=%25zz"]),
            ("key-order, params=(\"u\")", "/p?a=1&b=2", &["/p?b=2&u=9&a=1"]),
            ("key-order, params, except=(\"a\" \"b\")", "/p?a=1&b=2", &["/p?b=2&u=9&a=1"]),
            ("params=(\"\")", "/p?x=1", &["/p?=&x=1", "/p?=y&x=1&=z"]),
            ("key-order", "/p?=&a=1", &["/p?a=1&="]),
        ] {
            let rule = sound(value);
            for other in others {
                assert_eq!(rule.normalize(other), rule.normalize(one), "{value}: {one} {other}");
            }
        }
    }

    #[test]
    fn targets_that_are_two_get_two_texts() {
        for (value, one, others) in [
            ("params=(\"a\")", "/p?x=1", &["/p", "/q?x=1", "/p?x=2", "/p?X=1", "/p?x=1&x=1"][..]),
            ("params=(\"a\")", "/p?x=1&y=2", &["/p?y=2&x=1", "/p?x=1%26y=2", "/p?x=1&y=2&A=3"]),
            ("params=(\"a\")", "/p?x=+", &["/p?x=%2B", "/p?x=", "/p?x=%2520"]),
            ("params=(\"a\")", "/p?x=%ff", &["/p?x=%fe", "/p?x=%EF%BF%BD"]),
            ("params=(\"a\")", "/p?x%3D1=2", &["/p?x=1%3D2", "/p?x=1=2"]),
            ("params=(\"a\")", "/%70", &["/p"]),
            ("params=(\"a\")", "/p?x=a?b;c", &["/p?x=a", "/p?x=a?b"]),
            ("params", "/p", &["/P", "/p/", "//p"]),
            ("params, except=(\"x\")", "/p?x=1", &["/p", "/p?x=2", "/p?x"]),
            ("params, except=(\"x\")", "/p?x=1&x=2", &["/p?x=2&x=1", "/p?x=1"]),
            ("key-order", "/p?a=1&a=2", &["/p?a=2&a=1", "/p?a=1"]),
            ("key-order", "/p", &["/p?a", "/p?="]),
            ("params=(\"%2B\")", "/p?%2B=1&+=1", &["/p", "/p?+=2"]),
        ] {
            let rule = sound(value);
            for other in others {
                assert_ne!(rule.normalize(other), rule.normalize(one), "{value}: {one} {other}");
            }
        }
    }

    #[test]
    fn by_the_default_rule_every_byte_matters() {
        for target in ["/a", "/a?", "/a?b=%7e&&c", "/a?b=c&", "/a?b+c"] {
            assert!(
                matches!(Rule::default().normalize(target), Cow::Borrowed(same) if same == target)
            );
        }
    }

    #[test]
    fn a_rule_that_nobody_kept_is_none() {
        let kept = KeptRule { name: [7; 16], rule: sound("key-order, params=(\"a\" \"b\")") };
        let bytes = kept.encode();
        assert_eq!(KeptRule::decode(&bytes), Some(kept));
        let cut = |len: &usize| KeptRule::decode(&bytes[..*len]).is_some();
        let ends: Vec<usize> = (0..bytes.len()).filter(cut).collect();
        assert_eq!(ends, [KEPT_FIXED_LEN, KEPT_FIXED_LEN + 3], "where a name ends");
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            KeptRule::decode(&bytes)
        };
        assert!(with(0, 2).is_none() && with(KEPT_FIXED_LEN - 1, 4).is_none());
        assert!(with(bytes.len() - 1, b'a').is_none(), "a name is there twice");
    }

    /// What the draft does: compares lists of decoded parameters. Bytes in place of text.
    fn are_one(rule: &Rule, one: &str, other: &str) -> bool {
        if rule.is_default() {
            return one == other;
        }
        let parse = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for part in query.split('&').filter(|part| !part.is_empty()) {
                let mut halves = part.splitn(2, '=').map(decoded);
                let name = halves.next().unwrap();
                if rule.matters(&name) {
                    list.push((name, halves.next().unwrap_or_default()));
                }
            }
            if rule.ignores_order {
                list.sort_by(|one, other| one.0.cmp(&other.0));
            }
            (path.to_owned(), list)
        };
        parse(one) == parse(other)
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let names = prop::collection::vec("[a-c+=%]{0,2}|%61|%2B|\\+", 0..3);
        (any::<bool>(), any::<bool>(), names).prop_map(|(ignores_order, is_all_but, names)| {
            let mut names: Vec<_> = names.iter().map(|name| decoded(name)).collect();
            names.sort_unstable();
            names.dedup();
            let ignored = if is_all_but { Ignored::AllBut(names) } else { Ignored::Only(names) };
            Rule { ignores_order, ignored }
        })
    }

    fn targets() -> impl Strategy<Value = String> {
        "/[ab]?(\\?([abc+=&;?]|%61|%26|%3D|%2B|%25|%ff|%){0,8})?"
    }

    /// Parameters, and what is none, of which many are one.
    const PARTS: [&str; 13] = [
        "a=1",
        "%61=1",
        "a=2",
        "a",
        "a=",
        "b=1",
        "b=%31",
        "c=%26",
        "c=+",
        "c=%20",
        "",
        "=",
        "a=1%26b=1",
    ];

    /// Two targets that have the same parameters in two orders, but for one of them: they are often one.
    fn pairs() -> impl Strategy<Value = (String, String)> {
        let part = || prop::sample::select(&PARTS[..]);
        let parts = prop::collection::vec(part(), 1..4);
        let orders = parts.prop_flat_map(|parts| (Just(parts.clone()), Just(parts).prop_shuffle()));
        let changed = prop::option::of((any::<prop::sample::Index>(), part()));
        (orders, changed).prop_map(|((one, mut other), changed)| {
            if let Some((at, part)) = changed {
                let at = at.index(other.len());
                other[at] = part;
            }
            let target = |parts: &[&str]| format!("/?{}", parts.join("&"));
            (target(&one), target(&other))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn one_text_is_one_target(rule in rules(), (one, other) in pairs()) {
            let is_one = rule.normalize(&one) == rule.normalize(&other);
            prop_assert_eq!(is_one, are_one(&rule, &one, &other));
        }

        #[test]
        fn a_text_stays_as_it_is(rule in rules(), target in targets()) {
            let once = rule.normalize(&target);
            prop_assert!(are_one(&rule, &once, &target));
            prop_assert!(once.bytes().all(|byte| matches!(byte, b'!'..=b'~')));
            // A percent sign that begins nothing gets three characters.
            prop_assert!(once.len() <= 3 * target.len());
            prop_assert_eq!(rule.normalize(&once), once.clone());
        }

        #[test]
        fn a_rule_reads_back_as_it_was(rule in rules(), name: [u8; 16]) {
            let kept = KeptRule { name, rule };
            let bytes = kept.encode();
            prop_assert_eq!(bytes.len(), kept.rule.encoded_len());
            prop_assert_eq!(KeptRule::decode(&bytes), Some(kept));
        }

        #[test]
        fn nothing_that_is_read_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..64), value in "[ -~]{0,40}") {
            let _ = KeptRule::decode(&bytes);
            if let Ok(value) = http::HeaderValue::try_from(value) {
                let _ = Rule::of(&HeaderMap::from_iter([(NO_VARY_SEARCH, value)]));
            }
        }
    }
}
