//! Fields that a request may have once. Two of them mean two things to two readers. Pure.

use http::HeaderMap;
use http::header::HeaderName;

use super::refusal::Refusal;
use crate::http_cache::single::{SINGLE, is_repeated};

/// What the names of this daemon's own fields begin with; each has one value.
const OWN: &str = "x-rawcached-";

/// # Errors
/// A field of one value is there twice.
pub(in crate::server) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    // Few requests repeat any field.
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    let is_single = |name: &HeaderName| SINGLE.contains(name) || name.as_str().starts_with(OWN);
    match headers.keys().any(|name| is_single(name) && is_repeated(headers, name)) {
        true => Err(Refusal::REPEATED),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(names: &[&str]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
        }
        check(&headers)
    }

    #[test]
    fn what_has_one_value_may_be_there_once() {
        let own = ["X-Rawcached-TTL", "x-rawcached-later"];
        for name in SINGLE.iter().map(HeaderName::as_str).chain(own) {
            assert_eq!(checked(&[name]), Ok(()), "{name}");
            assert_eq!(checked(&["accept", name, "vary", name]), Err(Refusal::REPEATED), "{name}");
        }
        for name in ["cache-control", "vary", "cache-tag", "content-encoding", "if-none-match"] {
            assert_eq!(checked(&[name, "date", name]), Ok(()), "{name}");
        }
    }
}
