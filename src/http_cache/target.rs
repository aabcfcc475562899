//! URIs of `http` and `https` as far as a cache compares them: scheme, authority, path with query
//! (RFC 9110, section 4.2; RFC 3986, section 5).

/// What a request is about. Scheme and host are in lower case, a default port is left out, and there is
/// no fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: &'static str,
    authority: String,
    path_and_query: String,
}

impl Target {
    /// `None` for another scheme than `http` and `https`, an authority that is empty or has a user, and a
    /// path that does not begin with a slash or is no printable ASCII.
    #[must_use]
    pub fn new(scheme: &str, authority: &str, path_and_query: &str) -> Option<Target> {
        let (scheme, port) = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => ("http", ":80"),
            _ if scheme.eq_ignore_ascii_case("https") => ("https", ":443"),
            _ => return None,
        };
        let authority = authority.strip_suffix(port).unwrap_or(authority);
        let authority = authority.strip_suffix(':').unwrap_or(authority);
        let is_printable = |byte: u8| matches!(byte, b'!'..=b'~');
        let is_of_authority =
            |byte| is_printable(byte) && !matches!(byte, b'@' | b'/' | b'?' | b'#' | b'\\');
        let is_authority = !authority.is_empty() && authority.bytes().all(is_of_authority);
        let end = path_and_query.bytes().position(|byte| byte == b'#');
        let path_and_query = &path_and_query[..end.unwrap_or(path_and_query.len())];
        let is_path = path_and_query.starts_with('/') && path_and_query.bytes().all(is_printable);
        (is_authority && is_path).then(|| Target {
            scheme,
            authority: authority.to_ascii_lowercase(),
            path_and_query: path_and_query.to_owned(),
        })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query, still percent-encoded.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// Whether both are of one origin (RFC 9110, section 4.3.1).
    #[must_use]
    pub fn is_same_origin(&self, other: &Target) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }

    /// The URI that `reference` means in a response for this target (RFC 3986, section 5.2); `None` for
    /// what is no URI of `http` or `https`.
    #[must_use]
    pub fn resolve(&self, reference: &str) -> Option<Target> {
        let reference = reference.split('#').next().unwrap_or_default();
        if let Some((scheme, rest)) = split_scheme(reference) {
            return Target::of_hierarchy(scheme, rest.strip_prefix("//")?);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return Target::of_hierarchy(self.scheme, rest);
        }
        let (path, query) = split_query(reference);
        let (own_path, own_query) = split_query(&self.path_and_query);
        let path_and_query = match path {
            "" => format!("{own_path}{}", if query.is_empty() { own_query } else { query }),
            _ if path.starts_with('/') => format!("{}{query}", without_dots(path)),
            _ => {
                let folder = own_path.rfind('/').map_or("/", |slash| &own_path[..=slash]);
                format!("{}{query}", without_dots(&format!("{folder}{path}")))
            }
        };
        Target::new(self.scheme, &self.authority, &path_and_query)
    }

    fn of_hierarchy(scheme: &str, rest: &str) -> Option<Target> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = split_query(rest);
        let path = if path.is_empty() { "/".to_owned() } else { without_dots(path) };
        Target::new(scheme, authority, &format!("{path}{query}"))
    }
}

/// Scheme and rest of a reference that has a scheme.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

/// The query with its question mark, or nothing.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

/// `path`, which begins with a slash, without its segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.get(1..).unwrap_or_default();
    let mut ends_open = false;
    for segment in segments.split('/') {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if ends_open {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Target {
        Target::new("http", "a.example", "/b/c/d?q").unwrap()
    }

    fn resolved(reference: &str) -> Option<String> {
        let target = base().resolve(reference)?;
        Some(format!("{}://{}{}", target.scheme, target.authority, target.path_and_query))
    }

    /// RFC 3986, section 5.4, without what is no URI of this kind.
    #[test]
    fn references_are_resolved() {
        for (reference, expected) in [
            ("", "http://a.example/b/c/d?q"),
            ("#s", "http://a.example/b/c/d?q"),
            ("g", "http://a.example/b/c/g"),
            ("./g", "http://a.example/b/c/g"),
            ("g/", "http://a.example/b/c/g/"),
            ("/g", "http://a.example/g"),
            ("//g", "http://g/"),
            ("?y", "http://a.example/b/c/d?y"),
            ("g?y#s", "http://a.example/b/c/g?y"),
            (".", "http://a.example/b/c/"),
            ("..", "http://a.example/b/"),
            ("../g", "http://a.example/b/g"),
            ("../../../../g", "http://a.example/g"),
            ("/./g", "http://a.example/g"),
            ("/../g", "http://a.example/g"),
            ("g..", "http://a.example/b/c/g.."),
            ("./../g", "http://a.example/b/g"),
            ("g/../h", "http://a.example/b/c/h"),
            ("g?y/../x", "http://a.example/b/c/g?y/../x"),
            ("HTTPS://G.example:443?x", "https://g.example/?x"),
            ("http://g:8080", "http://g:8080/"),
        ] {
            assert_eq!(resolved(reference).as_deref(), Some(expected), "{reference}");
        }
        for reference in
            ["mailto:a", "http:g", "ftp://a/b", "http://", "http://u@a/", "a b", "/\u{e4}"]
        {
            assert_eq!(resolved(reference), None, "{reference}");
        }
    }

    #[test]
    fn hosts_compare_without_case_and_default_port() {
        let same = |uri: &str| base().is_same_origin(&base().resolve(uri).unwrap());
        assert!(same("http://A.EXAMPLE:80/x") && same("HTTP://a.example:/") && same("/x"));
        assert!(!same("https://a.example/") && !same("http://a.example:81/") && !same("//b/"));
        assert!(!same("http://a.example:443/"));
    }

    #[test]
    fn what_is_no_target_is_none() {
        for (scheme, authority, path) in [
            ("ws", "a", "/"),
            ("http", "", "/"),
            ("http", "a", "x"),
            ("http", "a", "*"),
            ("http", "a", "/ "),
        ] {
            assert_eq!(Target::new(scheme, authority, path), None, "{scheme} {authority} {path}");
        }
    }
}
