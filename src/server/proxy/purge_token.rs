//! The secret that lets a client PURGE. Never shows what it is.

use std::fmt;

use constant_time_eq::constant_time_eq;

/// What a client has to send as `Authorization: Bearer TOKEN` to be allowed to PURGE.
#[derive(Clone)]
pub struct PurgeToken(Box<str>);

impl PurgeToken {
    /// A token as it is written behind `Bearer` (RFC 6750, section 2.1); `None` for what cannot be one.
    #[must_use]
    pub fn new(text: &str) -> Option<PurgeToken> {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let is_token = !text.is_empty() && text.bytes().all(is_of_token);
        is_token.then(|| PurgeToken(text.into()))
    }

    /// Whether the value of `Authorization` has it. How long that takes says nothing of the token but its length.
    pub(super) fn is_in(&self, credentials: &[u8]) -> bool {
        let Some((scheme, given)) = credentials.split_at_checked(b"Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && constant_time_eq(given.trim_ascii_start(), self.0.as_bytes())
    }
}

impl fmt::Debug for PurgeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PurgeToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_behind_bearer_is_it() {
        let token = PurgeToken::new("abc.DEF=").unwrap();
        for right in ["Bearer abc.DEF=", "bearer abc.DEF=", "BEARER   abc.DEF="] {
            assert!(token.is_in(right.as_bytes()), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "abc.DEF=",
            "Bearer abc.DEF",
            "Bearer abc.DEF==",
            "Bearer abc.def=",
            "Bearer abc.DEF= x",
            "Bearerabc.DEF=",
            "Basic abc.DEF=",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_no_token_and_none_is_shown() {
        for text in ["", " ", "a b", "a\nb", "\u{e4}", "a\"b"] {
            assert!(PurgeToken::new(text).is_none(), "{text:?}");
        }
        assert_eq!(format!("{:?}", PurgeToken::new("secret").unwrap()), "PurgeToken(..)");
    }
}
