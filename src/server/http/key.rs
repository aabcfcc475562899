//! The key that a request's path names. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::cache::KEY_LEN_MAX;
use crate::server::proxy::KEY_SEPARATOR;

/// The path of all objects, before their keys.
pub(super) const OBJECTS: &str = "/v1/objects/";

/// Why a path names no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum NoKey {
    /// Nothing is served under the path.
    UnknownPath,
    /// The key is empty.
    Empty,
    /// The key is longer than can be kept.
    TooLong,
    /// A `%` without two hexadecimal digits after it.
    Encoding,
    /// The key is one of a read-through listener.
    Reserved,
    /// The path has a query, which is not part of a key: ignoring it would mix up objects.
    Query,
}

/// The key in `path`: the bytes after `before`, such as [`OBJECTS`], after percent-decoding.
pub(in crate::server) fn key(
    path: &str,
    before: &str,
    query: Option<&str>,
) -> Result<Vec<u8>, NoKey> {
    let encoded = path.strip_prefix(before).ok_or(NoKey::UnknownPath)?;
    if query.is_some() {
        return Err(NoKey::Query);
    }
    if !is_well_encoded(encoded.as_bytes()) {
        return Err(NoKey::Encoding);
    }
    let key = Cow::from(percent_decode(encoded.as_bytes())).into_owned();
    if key.first() == Some(&KEY_SEPARATOR) {
        return Err(NoKey::Reserved);
    }
    match key.len() {
        0 => Err(NoKey::Empty),
        1..=KEY_LEN_MAX => Ok(key),
        _ => Err(NoKey::TooLong),
    }
}

fn is_well_encoded(encoded: &[u8]) -> bool {
    let is_hex = |at: usize| encoded.get(at).is_some_and(u8::is_ascii_hexdigit);
    let mut escapes = encoded.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.all(|(at, _)| is_hex(at + 1) && is_hex(at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_decoded_rest_of_the_path() {
        let cases: [(&str, &[u8]); 6] = [
            ("a", b"a"),
            ("a/b//c/", b"a/b//c/"),
            ("%2Fa%20b%00%ff", b"/a b\0\xff"),
            ("a+b", b"a+b"),
            ("../x", b"../x"),
            ("%2541", b"%41"),
        ];
        for (encoded, expected) in cases {
            assert_eq!(
                key(&format!("{OBJECTS}{encoded}"), OBJECTS, None).unwrap(),
                expected,
                "{encoded}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let of = |path: &str| key(path, OBJECTS, None).unwrap_err();
        assert_eq!(of("/v1/objects/%0aa"), NoKey::Reserved);
        assert_eq!(of("/"), NoKey::UnknownPath);
        assert_eq!(of("/v1/objects"), NoKey::UnknownPath);
        assert_eq!(of("/v2/objects/a"), NoKey::UnknownPath);
        assert_eq!(of("/v1/objects/"), NoKey::Empty);
        for bad in ["%", "%a", "%zz", "a%4", "%%41"] {
            assert_eq!(of(&format!("{OBJECTS}{bad}")), NoKey::Encoding, "{bad}");
        }
        assert_eq!(key("/v1/objects/a", OBJECTS, Some("")).unwrap_err(), NoKey::Query);
        let long = |len| format!("{OBJECTS}{}", "%61".repeat(len));
        assert_eq!(key(&long(KEY_LEN_MAX), OBJECTS, None).unwrap().len(), KEY_LEN_MAX);
        assert_eq!(of(&long(KEY_LEN_MAX + 1)), NoKey::TooLong);
    }
}
