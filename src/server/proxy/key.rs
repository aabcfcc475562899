//! Keys of a read-through listener. Pure.
//!
//! They begin with a line feed, which neither a key of the memcached protocol nor one of `/v1/objects`
//! does: nobody else reads or writes them. The key of a variant begins with that of its target, so that
//! a purge by prefix covers both.

use std::borrow::Cow;
use std::hash::{Hash as _, Hasher as _};

use ::http::header::HeaderName;
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use super::options::ProxyOptions;
use crate::cache::KEY_LEN_MAX;
use crate::http_cache::head::RequestHead;
use crate::http_cache::no_vary_search::{KeptRule, Rule};
use crate::http_cache::target::Target;
use crate::http_cache::vary::{Names, normalized};

/// First byte of all keys of read-through listeners, and what is between their parts: in no target.
pub(in crate::server) const KEY_SEPARATOR: u8 = b'\n';
/// Bytes that the key of a variant is longer than that of its target: a separator, the name of the
/// variants, and the number of one.
pub(super) const VARIANT_LEN: usize = 1 + 16 + 8;

/// What targets begin with in keys.
const TARGET: &[u8] = b"//";
/// Before the rule of a path, and behind the target in a key that a rule made. No field has that name.
const RULED: u8 = b'?';

/// Fields by which a proxy says what its client asked for, in order. An origin may answer by them, so they are a
/// part of the key where they are there.
const FORWARDED: [&str; 14] = [
    "forwarded",
    "front-end-https",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-url-scheme",
];

/// The key of `target`, asked for in the manner of `request`, by the rule of its path if there is one; `None` if it is
/// too long to be stored.
pub(super) fn key_for(
    options: &ProxyOptions,
    (target, kept): (&Target, Option<&KeptRule>),
    request: &RequestHead,
) -> Option<Vec<u8>> {
    let mut key = match (given(options, target, request), kept) {
        (Some(given), _) => key_of(options, &named(target.scheme(), &given)?),
        (None, None) => key_of(options, target),
        (None, Some(kept)) => {
            let mut key = key_by(options, target, &kept.rule);
            key.push(KEY_SEPARATOR);
            key.push(RULED);
            key.extend_from_slice(&kept.name);
            key
        }
    };
    let is_forwarded = |name: &&HeaderName| {
        let name = name.as_str();
        // The first letters of all of them: few others have these.
        name.starts_with(['f', 'x']) && FORWARDED.binary_search(&name).is_ok()
    };
    let mut forwarded: SmallVec<[_; 4]> = request.headers().keys().filter(is_forwarded).collect();
    forwarded.sort_unstable_by_key(|name| name.as_str());
    for name in forwarded.into_iter().chain(&options.key_headers) {
        if let Some(value) = part_of(request, name) {
            key.push(KEY_SEPARATOR);
            key.extend_from_slice(name.as_str().as_bytes());
            key.push(b':');
            key.extend_from_slice(&value);
        }
    }
    (key.len() <= KEY_LEN_MAX - VARIANT_LEN).then_some(key)
}

/// What the request says the key of `target` is. Another target than its own is not what was meant by that.
fn given(options: &ProxyOptions, target: &Target, request: &RequestHead) -> Option<Vec<u8>> {
    request.controls(&options.settings).key.filter(|_| target == request.target())
}

/// Whether the rule of its path has a part in the key of `target`.
pub(super) fn goes_by_rules(
    options: &ProxyOptions,
    target: &Target,
    request: &RequestHead,
) -> bool {
    options.no_vary_search && given(options, target, request).is_none()
}

/// The target that a control field names by host and path; `None` if it is none.
fn named(scheme: &str, text: &[u8]) -> Option<Target> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, path) = text.split_at(text.find('/')?);
    Target::new(scheme, host, path)
}

/// What a field adds to a key.
fn part_of(request: &RequestHead, name: &HeaderName) -> Option<Vec<u8>> {
    let value = normalized(request.headers(), name)?;
    if name.as_str() != "forwarded" {
        return Some(value);
    }
    // Readers differ in which element they believe: each keeps its place.
    let (mut kept, mut says_more) = (Vec::with_capacity(value.len()), false);
    let mut rest = &value[..];
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(rest.len());
        let pair = rest[..end].trim_ascii();
        if !is_address(pair) {
            kept.extend_from_slice(pair);
            says_more |= !pair.is_empty();
        }
        let Some((separator, behind)) = rest[end..].split_first() else { break };
        kept.push(*separator);
        rest = behind;
    }
    says_more.then_some(kept)
}

/// Whether a pair of `Forwarded` names who asks, which is another one for each client, and for certain nothing
/// else: readers are lenient.
fn is_address(pair: &[u8]) -> bool {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, value) = pair.split_at(equals);
    let is_of_address = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]\"".contains(byte);
    [&b"for"[..], b"by"].iter().any(|known| name.eq_ignore_ascii_case(known))
        && value[1..].iter().all(is_of_address)
}

/// What the keys of all targets begin with that begin as `target` does.
pub(in crate::server) fn prefix_of(options: &ProxyOptions, target: &Target) -> Vec<u8> {
    key_with(options, &[target.authority().as_bytes(), target.path_and_query().as_bytes()])
}

/// What the keys of `target` begin with.
pub(in crate::server) fn key_of(options: &ProxyOptions, target: &Target) -> Vec<u8> {
    key_by(options, target, &Rule::default())
}

/// What the keys begin with of all targets that are one with `target` by `rule`.
pub(in crate::server) fn key_by(options: &ProxyOptions, target: &Target, rule: &Rule) -> Vec<u8> {
    let kept = without(target.path_and_query(), &options.ignore_query);
    key_with(options, &[target.authority().as_bytes(), rule.normalize(&kept).as_bytes()])
}

/// The key of the rule of the path of `target`. No purge of targets covers it: it is no content, and all that was
/// stored by it would be lost.
pub(in crate::server) fn rule_key(options: &ProxyOptions, target: &Target) -> Vec<u8> {
    let path = target.path_and_query();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let parts = [target.authority().as_bytes(), path.as_bytes()];
    key_of_kind(options, &[&[RULED][..], TARGET].concat(), &parts)
}

/// The key of the listener for the `parts` of host and target.
fn key_with(options: &ProxyOptions, parts: &[&[u8]]) -> Vec<u8> {
    // No scheme: the upstream is not told one, but for what proxies say in fields.
    key_of_kind(options, TARGET, parts)
}

fn key_of_kind(options: &ProxyOptions, kind: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum::<usize>() + options.name.len();
    let mut key = Vec::with_capacity(len + VARIANT_LEN);
    key.push(KEY_SEPARATOR);
    key.extend_from_slice(options.name.as_bytes());
    key.push(KEY_SEPARATOR);
    key.extend_from_slice(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// `target` without the parameters `ignored`.
pub(super) fn without<'a>(target: &'a str, ignored: &[String]) -> Cow<'a, str> {
    if ignored.is_empty() {
        return target.into();
    }
    let Some((path, query)) = target.split_once('?') else { return target.into() };
    let name_of = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_owned();
    // Some readers see several parameters where these are.
    let is_kept =
        |parameter: &&str| parameter.contains([';', '?']) || !ignored.contains(&name_of(parameter));
    let kept: Vec<_> = query.split('&').filter(is_kept).collect();
    if kept.is_empty() { path.into() } else { format!("{path}?{}", kept.join("&")).into() }
}

/// The key of variant `id` of the target with `key`.
pub(super) fn variant_key(key: &[u8], name: &[u8; 16], id: u64) -> Vec<u8> {
    let mut variant = Vec::with_capacity(key.len() + VARIANT_LEN);
    variant.extend_from_slice(key);
    variant.push(KEY_SEPARATOR);
    variant.extend_from_slice(name);
    variant.extend_from_slice(&id.to_le_bytes());
    variant
}

/// The number of the variant that depends on `names` and answers `request`. Keyed by the random `name`:
/// nobody outside can make two that are the same.
pub(super) fn variant_id(name: &[u8; 16], names: &Names, request: &RequestHead) -> u64 {
    let mut hasher = SipHasher13::new_with_key(name);
    for field in names.iter() {
        field.as_str().hash(&mut hasher);
    }
    names.key(request.headers()).as_bytes().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::header::{HeaderMap, HeaderValue};

    use super::*;
    use crate::http_cache::no_vary_search::NO_VARY_SEARCH;
    use crate::server::proxy::options::UpstreamAddress;

    fn options() -> ProxyOptions {
        ProxyOptions::new("main", UpstreamAddress::Unix("/x".into()))
    }

    fn target_key(options: &ProxyOptions, request: &RequestHead) -> Option<Vec<u8>> {
        key_for(options, (request.target(), None), request)
    }

    fn request(target: &str, lines: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let target = Target::new("http", "A.example:80", target).unwrap();
        RequestHead::new(Method::GET, target, headers, false)
    }

    #[test]
    fn a_key_names_listener_scheme_host_and_target() {
        let key = target_key(&options(), &request("/a?b=c", &[("x", "y")])).unwrap();
        assert_eq!(key, b"\nmain\n//a.example/a?b=c");
    }

    #[test]
    fn parameters_that_are_ignored_are_no_part_of_it() {
        let ignore_query = vec!["utm".to_owned(), "b".to_owned()];
        let options = ProxyOptions { ignore_query, ..options() };
        for (target, expected) in [
            ("/a?utm=1&c=2&b&utm=3", "/a?c=2"),
            ("/a?utm=1", "/a"),
            ("/a?", "/a?"),
            ("/a?utmx=1&bb=b", "/a?utmx=1&bb=b"),
            ("/utm=1", "/utm=1"),
            ("/a?utm=1;c=2", "/a?utm=1;c=2"),
            ("/a?utm=1?c=2&utm=3", "/a?utm=1?c=2"),
        ] {
            let key = target_key(&options, &request(target, &[])).unwrap();
            assert_eq!(key, format!("\nmain\n//a.example{expected}").as_bytes(), "{target}");
        }
    }

    #[test]
    fn chosen_fields_are_a_part_of_it() {
        let key_headers = vec!["x".parse().unwrap(), "y".parse().unwrap()];
        let options = ProxyOptions { key_headers, ..options() };
        let key = |lines: &[(&'static str, &'static str)]| {
            String::from_utf8(target_key(&options, &request("/", lines)).unwrap()).unwrap()
        };
        assert_eq!(key(&[]), "\nmain\n//a.example/");
        assert_eq!(key(&[("x", "1"), ("y", "")]), "\nmain\n//a.example/\nx:1\ny:");
        assert_ne!(key(&[("x", "")]), key(&[]));
        assert_ne!(key(&[("x", "1")]), key(&[("y", "1")]));
    }

    #[test]
    fn what_a_proxy_says_of_its_client_is_a_part_of_it() {
        let key = |name: &'static str, value: &'static str| {
            let key = target_key(&options(), &request("/", &[(name, value)])).unwrap();
            String::from_utf8(key).unwrap().split_off("\nmain\n//a.example/".len())
        };
        assert_eq!(key("x-forwarded-proto", "https"), "\nx-forwarded-proto:https");
        assert_eq!(key("x-forwarded-host", "b"), "\nx-forwarded-host:b");
        assert!(FORWARDED.is_sorted(), "it is searched");
        assert!(FORWARDED.iter().all(|name| name.starts_with(['f', 'x'])));
        assert_eq!(key("x-forwarded-for", "192.0.2.1"), "");
        assert_eq!(key("forwarded", "for=192.0.2.1;by=x"), "");
        assert_eq!(key("forwarded", "For=\"[2001:db8::1]:4711\", for=_x"), "");
        assert_eq!(key("forwarded", "for=a host=b, x"), "\nforwarded:for=a host=b,x");
        assert_eq!(key("forwarded", "host=\"a,b\""), "\nforwarded:host=\"a,b\"");
        assert_eq!(key("x-host", "b"), "\nx-host:b");
        assert_eq!(
            key("forwarded", "for=192.0.2.1; Host=b;proto=https, for=x"),
            "\nforwarded:;Host=b;proto=https,"
        );
        // Readers that believe the first element see no host here.
        assert_eq!(key("forwarded", "for=x, for=y;host=b"), "\nforwarded:,;host=b");
    }

    #[test]
    fn a_trusted_front_names_host_and_target() {
        let mut options = options();
        let field = [("x-rawcached-key", "b.example/c"), ("x-forwarded-proto", "https")];
        let request = request("/a", &field);
        let expected = b"\nmain\n//a.example/a\nx-forwarded-proto:https";
        assert_eq!(target_key(&options, &request).unwrap(), expected, "it is not trusted");
        options.settings.trusted = vec!["x-rawcached-key".parse().unwrap()];
        let expected = b"\nmain\n//b.example/c\nx-forwarded-proto:https";
        assert_eq!(target_key(&options, &request).unwrap(), expected);
        let other = Target::new("http", "a.example", "/d").unwrap();
        let expected = b"\nmain\n//a.example/d\nx-forwarded-proto:https";
        assert_eq!(key_for(&options, (&other, None), &request).unwrap(), expected);
    }

    #[test]
    fn a_rule_has_keys_of_its_own() {
        let value = HeaderValue::from_static("key-order, params=(\"x\")");
        let headers = HeaderMap::from_iter([(NO_VARY_SEARCH, value)]);
        let kept = KeptRule { name: *b"0123456789abcdef", rule: Rule::of(&headers) };
        let mut options = ProxyOptions { ignore_query: vec!["utm".to_owned()], ..options() };
        options.settings.trusted = vec!["x-rawcached-key".parse().unwrap()];
        let key = |target: &str, lines: &[(&'static str, &'static str)]| {
            let request = request(target, lines);
            let key = key_for(&options, (request.target(), Some(&kept)), &request).unwrap();
            String::from_utf8(key).unwrap()
        };
        let expected = "\nmain\n//a.example/a?b=&c=1\n?0123456789abcdef";
        for target in ["/a?c=1&b", "/a?b=&x=2&c=1", "/a?utm=1&c=1&b&x"] {
            assert_eq!(key(target, &[]), expected, "{target}");
        }
        let host = ("x-host", "b");
        assert_eq!(key("/a?c=1&b", &[host]), format!("{expected}\nx-host:b"));
        let given = ("x-rawcached-key", "b.example/c?x=1");
        assert_eq!(key("/a", &[given]), "\nmain\n//b.example/c?x=1", "it is named");
        let found = key_by(&options, request("/a?b&x", &[]).target(), &kept.rule);
        assert_eq!(found, b"\nmain\n//a.example/a?b=");
        for target in ["/a", "/a?", "/a?b?c", "/a?utm=1"] {
            let key = rule_key(&options, request(target, &[]).target());
            assert_eq!(key, b"\nmain\n?//a.example/a", "{target}");
        }
    }

    #[test]
    fn a_key_has_room_for_its_variants() {
        let long =
            |len: usize| target_key(&options(), &request(&format!("/{}", "a".repeat(len)), &[]));
        let fixed = b"\nmain\n//a.example/".len();
        let longest = KEY_LEN_MAX - VARIANT_LEN - fixed;
        let key = long(longest).unwrap();
        assert_eq!(variant_key(&key, &[7; 16], 1).len(), KEY_LEN_MAX);
        assert!(long(longest + 1).is_none());
    }

    #[test]
    fn a_variant_has_a_number_of_its_own() {
        let names = |list: &[&str]| {
            Names::new(list.iter().map(|name| name.parse().unwrap()).collect()).unwrap()
        };
        let id = |list: &[&str], lines: &[(&'static str, &'static str)]| {
            variant_id(&[7; 16], &names(list), &request("/", lines))
        };
        assert_eq!(id(&["x"], &[("x", "1"), ("y", "2")]), id(&["x"], &[("x", " 1 "), ("y", "3")]));
        assert_ne!(id(&["x"], &[("x", "1")]), id(&["x"], &[("x", "2")]));
        assert_ne!(id(&["x"], &[("x", "1")]), id(&["y"], &[("y", "1")]));
        assert_ne!(
            variant_id(&[7; 16], &names(&[]), &request("/", &[])),
            variant_id(&[8; 16], &names(&[]), &request("/", &[]))
        );
    }
}
