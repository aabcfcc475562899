//! Tags that a purge selects stored responses by: `Cache-Groups` (RFC 9875) and the fields that are in
//! use for the same.

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{BareItem, Item, List, ListEntry, Parser};

/// Groups of a response (RFC 9875, section 2).
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// Groups that a response invalidates (RFC 9875, section 3).
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");
/// Members between white space.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// Members between commas.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// Members between white space or commas.
pub const XKEY: HeaderName = HeaderName::from_static("xkey");

/// Most tags of one response.
pub const TAGS_MAX: usize = 1000;
/// Longest tag, in bytes.
pub const TAG_LEN_MAX: usize = 1 << 10;
/// Most bytes of all tags of one response.
pub const TAGS_LEN_MAX: usize = 16 << 10;

/// One tag, in the case that it came in. Groups are of one origin: whoever keeps them puts the origin
/// before them.
pub type Tag = Vec<u8>;

/// The tags of a response, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Members of `Cache-Groups`.
    pub groups: Vec<Tag>,
    /// Members of the other fields.
    pub tags: Vec<Tag>,
}

/// A response has more or longer tags than are kept. A purge would miss it, so it is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTags;

impl Tags {
    /// The tags in `headers`.
    ///
    /// # Errors
    /// There are more than [`TAGS_MAX`], or longer ones than [`TAG_LEN_MAX`], or all together are longer
    /// than [`TAGS_LEN_MAX`].
    pub fn of(headers: &HeaderMap) -> Result<Tags, TooManyTags> {
        let mut tags = Vec::new();
        let is_space = |byte: &u8| byte.is_ascii_whitespace();
        let is_comma = |byte: &u8| *byte == b',';
        for line in headers.get_all(SURROGATE_KEY) {
            tags.extend(line.as_bytes().split(is_space));
        }
        for line in headers.get_all(CACHE_TAG) {
            tags.extend(line.as_bytes().split(is_comma));
        }
        for line in headers.get_all(XKEY) {
            tags.extend(line.as_bytes().split(|byte| is_space(byte) || is_comma(byte)));
        }
        let tags = tags.into_iter().map(|tag| tag.trim_ascii().to_vec()).collect();
        let groups = groups(headers, &CACHE_GROUPS).unwrap_or_default();
        let found = Tags { groups: once(groups), tags: once(tags) };
        let all = || found.groups.iter().chain(&found.tags);
        let fits = all().count() <= TAGS_MAX
            && all().all(|tag| tag.len() <= TAG_LEN_MAX)
            && all().map(Vec::len).sum::<usize>() <= TAGS_LEN_MAX;
        if fits { Ok(found) } else { Err(TooManyTags) }
    }
}

/// Each tag that is not empty, once.
fn once(mut tags: Vec<Tag>) -> Vec<Tag> {
    tags.sort_unstable();
    tags.dedup();
    tags.retain(|tag| !tag.is_empty());
    tags
}

/// The groups in field `name`: a list of strings (RFC 9875, section 2). `None` if it is absent or
/// something else. Parameters mean nothing.
#[must_use]
pub fn groups(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Tag>> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return None;
    }
    let members: List = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    members
        .into_iter()
        .map(|member| match member {
            ListEntry::Item(Item { bare_item: BareItem::String(group), .. }) => {
                Some(group.as_str().as_bytes().to_vec())
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::headers;

    fn tags(lines: &[(&str, &str)]) -> Vec<String> {
        let found = Tags::of(&headers(lines)).unwrap().tags;
        found.into_iter().map(|tag| String::from_utf8(tag).unwrap()).collect()
    }

    #[test]
    fn each_field_has_its_separators() {
        assert_eq!(tags(&[]), [""; 0]);
        assert_eq!(
            tags(&[("surrogate-key", "b a,c"), ("surrogate-key", " d  b")]),
            ["a,c", "b", "d"]
        );
        assert_eq!(tags(&[("cache-tag", "a b, c ,,c"), ("cache-tag", "D")]), ["D", "a b", "c"]);
        assert_eq!(tags(&[("xkey", "a b, c"), ("xkey", "d")]), ["a", "b", "c", "d"]);
        assert_eq!(tags(&[("xkey", "x"), ("cache-tag", "x"), ("surrogate-key", "x")]), ["x"]);
    }

    /// RFC 9875, section 2.
    #[test]
    fn groups_are_a_list_of_strings() {
        let of = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("cache-groups", *line)).collect();
            Tags::of(&headers(&lines)).unwrap().groups
        };
        assert_eq!(
            of(&["\"a b\", \"A b\";x=1", "\"c\\\"d\", \"a b\""]),
            [&b"A b"[..], b"a b", b"c\"d"]
        );
        for lines in
            [&["a"][..], &["\"a\", b"], &["\"a"], &["(\"a\")"], &["\"a\"", "1"], &["\"a\","], &[""]]
        {
            assert_eq!(of(lines), [&b""[..]; 0], "{lines:?}");
        }
        // At least 32 of 32 characters.
        let many: Vec<_> = (0..32).map(|n| format!("\"{n:032}\"")).collect();
        assert_eq!(of(&[&many.join(", ")]).len(), 32);
    }

    #[test]
    fn more_than_is_kept_is_an_error() {
        let of = |text: &str| Tags::of(&headers(&[("xkey", text)]));
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(of(&many(1000)).unwrap().tags.len(), 1000);
        assert_eq!(of(&many(1001)), Err(TooManyTags));
        assert!(of(&"x".repeat(1024)).is_ok());
        assert_eq!(of(&"x".repeat(1025)), Err(TooManyTags));
        let long: Vec<_> = (0..17).map(|n| format!("{n:01000}")).collect();
        assert!(of(&long[..16].join(" ")).is_ok());
        assert_eq!(of(&long.join(" ")), Err(TooManyTags));
    }
}
