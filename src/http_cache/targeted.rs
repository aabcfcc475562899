//! Targeted cache control (RFC 9213): a field such as `CDN-Cache-Control`, which takes the place of
//! `Cache-Control` and `Expires` for the caches that it names.

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::cache_control::CacheControl;

/// The targeted field for all caches of the origin's side (RFC 9213, section 3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The directives of the first of the fields `names` that is there, is a structured field, and is not
/// empty (RFC 9213, section 2.2).
#[must_use]
pub fn targeted(headers: &HeaderMap, names: &[HeaderName]) -> Option<CacheControl> {
    names.iter().find_map(|name| directives(headers, name))
}

fn directives(headers: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return None;
    }
    let members: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    if members.is_empty() {
        return None;
    }
    let mut found = CacheControl::default();
    for (key, member) in &members {
        add(&mut found, key.as_str(), member);
    }
    Some(found)
}

/// Adds one directive. A value of a type that the directive has not forbids what it may forbid, and
/// allows nothing (RFC 9213, section 2.1, has it ignored, which would allow).
fn add(found: &mut CacheControl, name: &str, member: &ListEntry) {
    let item = match member {
        ListEntry::Item(Item { bare_item, .. }) => Some(bare_item),
        ListEntry::InnerList(_) => None,
    };
    let is_number =
        matches!(name, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error");
    let names_fields = matches!(name, "private" | "no-cache");
    match item {
        Some(BareItem::Integer(secs)) if is_number => {
            found.add(name, Some(&i64::from(*secs).to_string()));
        }
        Some(BareItem::Boolean(true)) if !is_number => found.add(name, None),
        Some(BareItem::String(fields)) if names_fields => found.add(name, Some(fields.as_str())),
        Some(BareItem::Token(fields)) if names_fields => found.add(name, Some(fields.as_str())),
        _ => found.add_doubtful(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_cache::testing::{headers, secs};

    fn parse(lines: &[&str]) -> Option<CacheControl> {
        let lines: Vec<_> = lines.iter().map(|line| ("cdn-cache-control", *line)).collect();
        targeted(&headers(&lines), &[CDN_CACHE_CONTROL])
    }

    #[test]
    fn directives_are_read_as_a_dictionary() {
        let found = parse(&["max-age=60, stale-if-error=5;x=1", "must-revalidate, foo"]).unwrap();
        assert_eq!((found.max_age, found.stale_if_error), (Some(secs(60)), Some(secs(5))));
        assert!(found.forbids_stale && !found.forbids_storing);
        assert!(parse(&["no-store"]).unwrap().forbids_storing);
        assert!(parse(&["private"]).unwrap().private);
        assert_eq!(parse(&["no-cache=\"x-a\""]).unwrap().withheld, ["x-a"]);
        assert_eq!(parse(&["max-age=99999999999"]).unwrap().max_age, Some(secs(99_999_999_999)));
        assert_eq!(parse(&["max-age=5, max-age=9"]).unwrap().max_age, Some(secs(9)), "RFC 9651");
    }

    /// RFC 9213, section 2.2.
    #[test]
    fn a_field_that_does_not_parse_or_is_empty_is_void() {
        for line in [
            "",
            " ",
            "max-age=60, &&&",
            "max-age =60",
            "max-age= 60",
            "MaX-aGe=60",
            "max-age=60,",
            "a;",
        ] {
            assert_eq!(parse(&[line]), None, "{line}");
        }
        assert_eq!(parse(&["max-age=60", "&"]), None, "all lines are one field");
        assert_eq!(targeted(&headers(&[]), &[CDN_CACHE_CONTROL]), None);
    }

    #[test]
    fn the_first_valid_field_counts() {
        let own = HeaderName::from_static("rawcached-cache-control");
        let names = [own, CDN_CACHE_CONTROL];
        let both = |own: &str| {
            let lines = [("cdn-cache-control", "max-age=1"), ("rawcached-cache-control", own)];
            targeted(&headers(&lines), &names).unwrap().max_age
        };
        assert_eq!(both("max-age=2"), Some(secs(2)));
        assert_eq!((both(""), both("&")), (Some(secs(1)), Some(secs(1))));
        assert_eq!(both("private"), None);
    }

    /// RFC 9213, section 2.1.
    #[test]
    fn values_of_the_wrong_type_allow_nothing() {
        for value in ["=\"60\"", "=60.0", "=-1", "=tok", "=?1", "=(60)", "", "=:YQ==:"] {
            assert_eq!(
                parse(&[&format!("max-age{value}")]).unwrap().max_age,
                Some(secs(0)),
                "{value}"
            );
        }
        for value in ["=1", "=(a)", "=?0", "=\"a b\""] {
            assert!(parse(&[&format!("private{value}")]).unwrap().private, "{value}");
            let found = parse(&[&format!("public{value}, no-store{value}")]).unwrap();
            assert!(!found.public && found.forbids_storing, "{value}");
            let found = parse(&[&format!("must-revalidate{value}, stale-if-error{value}x")]);
            assert!(found.is_none_or(|found| found.forbids_stale && !found.permits_authorized));
        }
    }
}
