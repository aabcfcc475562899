//! The commands of the classic text protocol, as values. Does not parse or execute them.

use std::fmt;
use std::ops::Deref;

use memchr::memrchr;

/// Longest key in bytes, as memcached has it.
pub const KEY_LEN_MAX: usize = 250;

/// A key: 1 to [`KEY_LEN_MAX`] bytes, none of them a space or a line feed, as memcached has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Checks the rules for keys.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Key<'a>> {
        let valid = (1..=KEY_LEN_MAX).contains(&bytes.len())
            && !bytes.iter().any(|byte| matches!(byte, b' ' | b'\n'));
        valid.then_some(Key(bytes))
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

/// A [`Key`] that outlives the line it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBuf(Vec<u8>);

impl KeyBuf {
    /// Borrows the key.
    #[must_use]
    pub fn as_key(&self) -> Key<'_> {
        Key(&self.0)
    }
}

impl From<Key<'_>> for KeyBuf {
    fn from(key: Key<'_>) -> KeyBuf {
        KeyBuf(key.0.to_vec())
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

/// One command. `noreply` means that the client does not read an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `get`, `gets`, `gat`, `gats`.
    Get(Retrieval<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`; the value follows the line.
    Store(Store<'a>),
    /// `delete`.
    Delete {
        /// What to delete.
        key: Key<'a>,
        /// No answer.
        noreply: bool,
    },
    /// `incr`, `decr`.
    Arithmetic {
        /// The number's key.
        key: Key<'a>,
        /// Up or down.
        direction: Direction,
        /// By how much.
        delta: u64,
        /// No answer.
        noreply: bool,
    },
    /// `touch`.
    Touch {
        /// What to touch.
        key: Key<'a>,
        /// The new expiry, as the client wrote it.
        exptime: i64,
        /// No answer.
        noreply: bool,
    },
    /// `flush_all`.
    FlushAll {
        /// When, in the notation of `exptime`; zero and below mean now.
        delay: i64,
        /// No answer.
        noreply: bool,
    },
    /// `stats` with the words that follow it.
    Stats(&'a [u8]),
    /// `version`.
    Version,
    /// `verbosity`, `cache_memlimit`: accepted without effect: these are for the operator to set.
    Accepted {
        /// No answer.
        noreply: bool,
    },
    /// `quit`.
    Quit,
}

/// What a retrieval asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retrieval<'a> {
    /// The keys in the order of the answers.
    pub keys: Keys<'a>,
    /// Answer with CAS values.
    pub with_cas: bool,
    /// The new expiry of what is found, as the client wrote it.
    pub touch: Option<i64>,
}

/// The line of a storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store<'a> {
    /// Which storage command.
    pub verb: Verb,
    /// Where to store.
    pub key: Key<'a>,
    /// Opaque to the server.
    pub flags: u32,
    /// Expiry as the client wrote it.
    pub exptime: i64,
    /// Length of the value that follows, without its line end.
    pub body_len: u64,
    /// No answer.
    pub noreply: bool,
}

/// Which storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Store in any case.
    Set,
    /// Store if the key is not there.
    Add,
    /// Store if the key is there.
    Replace,
    /// Put the value after the present one.
    Append,
    /// Put the value before the present one.
    Prepend,
    /// Store if the entry still has this CAS value.
    Cas(u64),
}

impl Verb {
    /// True for the two that need the old value to make the new one.
    #[must_use]
    pub fn extends(self) -> bool {
        matches!(self, Verb::Append | Verb::Prepend)
    }
}

/// Which way a number is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up, wrapping at 64 bits.
    Up,
    /// Down, stopping at zero.
    Down,
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
