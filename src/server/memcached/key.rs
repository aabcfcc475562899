//! Keys, and the words that a line has. Owns the rules for keys; finds nothing.

use std::fmt;
use std::ops::Deref;

use memchr::memrchr;

/// Longest key in bytes, as memcached has it.
pub const KEY_LEN_MAX: usize = 250;

/// A key: 1 to [`KEY_LEN_MAX`] bytes. As text it has no space and no line feed in it, as memcached has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Checks the rules for keys as text.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Key<'a>> {
        let valid = (1..=KEY_LEN_MAX).contains(&bytes.len())
            && !bytes.iter().any(|byte| matches!(byte, b' ' | b'\n'));
        valid.then_some(Key(bytes))
    }

    /// A key that was encoded as text, of which this is what it stands for: any bytes.
    #[must_use]
    pub(super) fn decoded(bytes: &'a [u8]) -> Key<'a> {
        Key(bytes)
    }
}

impl Deref for Key<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// The keys of a retrieval, each one valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys<'a>(&'a [u8]);

impl<'a> Keys<'a> {
    /// Checks every key in `text`, which is of one line; spaces separate keys.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Option<Keys<'a>> {
        let mut rest = text;
        // From one space to the last that a key's length allows: few steps in a line of many keys, so
        // that it can be checked at once.
        while let Some(reach) = rest.get(..=KEY_LEN_MAX) {
            rest = &rest[memrchr(b' ', reach)? + 1..];
        }
        Some(Keys(text))
    }

    /// The keys in order.
    pub fn iter(&self) -> impl Iterator<Item = Key<'a>> + Send + use<'a> {
        tokens(self.0).map(Key)
    }
}

/// The words of a line, separated by spaces.
pub(super) fn tokens<'a>(line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Send + use<'a> {
    line.split(|byte| *byte == b' ').filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_checked_as_if_one_by_one(lens in proptest::collection::vec(0..260_usize, 0..20)) {
            let words: Vec<String> = lens.iter().map(|len| "k".repeat(*len)).collect();
            let text = words.join(" ");
            let valid = lens.iter().all(|len| *len <= KEY_LEN_MAX);
            prop_assert_eq!(Keys::new(text.as_bytes()).is_some(), valid);
        }
    }
}
