//! Validators of objects that are stored part by part. Owns which ones are strong enough to join parts.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::format::VALIDATOR_LEN_MAX;

/// By how much `Date` must be later than `Last-Modified` for this to be strong (RFC 9110, section 8.8.2.2).
const STRONG_AFTER: Duration = Duration::from_secs(60);

/// Tells a version of an object from all others, so that parts that came at different times may be joined
/// (RFC 9110, section 15.3.7.3). Weak validators do not, and none can be made of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Validator(Vec<u8>);

const ETAG: u8 = b'E';
const LAST_MODIFIED: u8 = b'M';

impl Validator {
    /// Of a strong entity tag with its quotes, as `"abc"`, of at most 1024 bytes. `None` for a weak one, and
    /// for what is no entity tag (RFC 9110, section 8.8.3).
    #[must_use]
    pub fn etag(tag: &[u8]) -> Option<Validator> {
        let opaque = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let is_sound = opaque.iter().all(|byte| !matches!(byte, 0..=b' ' | b'"' | 0x7f));
        let validator = [&[ETAG], tag].concat();
        (is_sound && validator.len() <= VALIDATOR_LEN_MAX).then_some(Validator(validator))
    }

    /// Of the fields `Last-Modified` and `Date` of one response, in whole seconds. `None` unless `date` is at
    /// least 60 s later: until then another version may have got the same date (RFC 9110, section 8.8.2.2).
    #[must_use]
    pub fn last_modified(modified: SystemTime, date: SystemTime) -> Option<Validator> {
        let is_strong = date.duration_since(modified).is_ok_and(|later| later >= STRONG_AFTER);
        let secs = modified.duration_since(UNIX_EPOCH).ok()?.as_secs();
        is_strong.then(|| Validator([&[LAST_MODIFIED], &secs.to_le_bytes()[..]].concat()))
    }

    /// The entity tag, if it is one.
    #[must_use]
    pub fn as_etag(&self) -> Option<&[u8]> {
        self.0.strip_prefix(&[ETAG])
    }

    /// The date, if it is a `Last-Modified`.
    #[must_use]
    pub fn as_date(&self) -> Option<SystemTime> {
        let secs = self.0.strip_prefix(&[LAST_MODIFIED])?.try_into().ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_le_bytes(secs)))
    }

    pub(super) fn stored(bytes: Vec<u8>) -> Validator {
        Validator(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Validator({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_entity_tags_join_parts() {
        for tag in [&b"\"a\""[..], b"\"\"", b"\"W/\""] {
            assert_eq!(Validator::etag(tag).unwrap().as_etag(), Some(tag));
        }
        for tag in [&b"W/\"a\""[..], b"a", b"\"a", b"a\"", b"\"", b"\"a\"b\"", b"\"a b\"", b""] {
            assert_eq!(Validator::etag(tag), None, "{}", tag.escape_ascii());
        }
        let of_len = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
        assert!(Validator::etag(of_len(1024).as_bytes()).is_some());
        assert_eq!(Validator::etag(of_len(1025).as_bytes()), None);
    }

    #[test]
    fn a_date_joins_parts_if_it_is_a_minute_older_than_the_response() {
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(Validator::last_modified(at(1000), at(1059)), None);
        let strong = Validator::last_modified(at(1000), at(1060)).unwrap();
        assert_eq!(Validator::last_modified(at(1000), at(9000)), Some(strong.clone()));
        assert_ne!(Validator::last_modified(at(1001), at(9000)), Some(strong.clone()));
        assert_eq!((Validator::last_modified(at(1000), at(900)), strong.as_etag()), (None, None));
        assert_eq!(strong.as_date(), Some(at(1000)));
        assert_eq!(Validator::etag(b"\"12345678\"").unwrap().as_date(), None);
    }
}
