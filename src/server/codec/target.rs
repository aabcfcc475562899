//! Targets of requests (RFC 9112, section 3.2), from the bytes as they came.

use memchr::memchr;

use super::fault::Fault;
use super::host::is_host;

/// Longest target in bytes.
pub const TARGET_LEN_MAX: usize = 64 << 10;

/// The path and the query of a target, still percent-encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    text: Box<str>,
    path_len: usize,
    authority: Option<Authority>,
}

/// Scheme and host of a target in absolute form. They count in place of `Host` (RFC 9112, section
/// 3.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// `https`, not `http`.
    pub is_https: bool,
    /// The host, and the port if there is one, as they came.
    pub host: Box<str>,
}

impl Target {
    /// Reads a target in origin form (`/path?query`), absolute form (`http://host/path`), or `*`.
    pub(super) fn parse(text: &str) -> Result<Target, Fault> {
        if text.len() > TARGET_LEN_MAX {
            return Err(Fault::TARGET_LEN);
        }
        if !text.bytes().all(|byte| ALLOWED[usize::from(byte)]) {
            return Err(if text.contains('#') { Fault::FRAGMENT } else { Fault::TARGET });
        }
        let (authority, text) = match text.as_bytes().first() {
            Some(b'/') => (None, text),
            _ if text == "*" => (None, text),
            _ => {
                let (authority, rest) = split_authority(text).ok_or(Fault::TARGET)?;
                (Some(authority), rest)
            }
        };
        let path_len = memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        // An absolute target without a path names the root.
        let (text, path_len) = match path_len {
            0 => (format!("/{text}").into_boxed_str(), 1),
            _ => (Box::from(text), path_len),
        };
        Ok(Target { text, path_len, authority })
    }

    /// The same target with another path and query, which begins with a slash or is `*`.
    #[must_use]
    pub fn with_path_and_query(&self, text: &str) -> Target {
        let path_len = memchr(b'?', text.as_bytes()).unwrap_or(text.len());
        Target { text: text.into(), path_len, authority: self.authority.clone() }
    }

    /// Path and query as they came.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.text
    }

    /// What a target in absolute form names before its path.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The path, which begins with a slash, or is `*`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_len]
    }

    /// What is behind the first question mark, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..).filter(|_| self.path_len < self.text.len())
    }
}

/// Bytes that may stand in a target. RFC 3986 has fewer; browsers and proxies send `|`, `{`, `"` and
/// others as they are, and no reader takes them for anything else.
const ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        allowed[byte as usize] = !matches!(byte, b'#' | b'<' | b'>' | b'`');
        byte += 1;
    }
    allowed
};

/// Scheme and authority of a target in absolute form, and what follows them.
fn split_authority(text: &str) -> Option<(Authority, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    is_host(host.as_bytes()).then(|| (Authority { is_https, host: host.into() }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_both_forms() {
        let cases = [
            ("/", "/", None),
            ("*", "*", None),
            ("/a/b", "/a/b", None),
            ("//a", "//a", None),
            ("/a?b?c", "/a", Some("b?c")),
            ("/a?", "/a", Some("")),
            ("/a|{\"b\"}^[c]\\~!", "/a|{\"b\"}^[c]\\~!", None),
            ("http://x", "/", None),
            ("HTTP://x:80/a", "/a", None),
            ("https://[::1]:8080/a?b", "/a", Some("b")),
            ("http://x?b", "/", Some("b")),
            ("http://x/a://b", "/a://b", None),
        ];
        for (text, path, query) in cases {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.path(), target.query()), (path, query), "{text}");
        }
        let long = format!("/{}", "a".repeat(TARGET_LEN_MAX - 1));
        assert_eq!(Target::parse(&long).unwrap().path(), long);
        assert_eq!(Target::parse(&format!("{long}a")), Err(Fault::TARGET_LEN));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["/a#b", "/#", "#", "/a?b#c", "http://x/a#b", "http://x#/a", "*#", "/a%23#"] {
            assert_eq!(Target::parse(text), Err(Fault::FRAGMENT), "{text}");
        }
        for text in [
            "",
            "a",
            "a/b",
            "x:80",
            "?a",
            "**",
            "*/a",
            "/a b",
            "/a\tb",
            "/a\0b",
            "/a\x7fb",
            "/\u{fc}",
            "/a<b",
            "/a>b",
            "/a`b",
            "http:/x/a",
            "http:///a",
            "http://a@b/c",
            "http://x:y/a",
            "http://x:99999/a",
            "http://a b/c",
            "ftp://x/a",
            "://x/a",
            "//x:1/a\r",
            "http://[::1/a",
        ] {
            assert_eq!(Target::parse(text), Err(Fault::TARGET), "{text}");
        }
    }
}
