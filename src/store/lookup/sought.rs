//! A key to look up. Owns that it is hashed once, however many entries it is compared with.

use crate::format::Kind;
use crate::store::entry::Entry;

/// What to do with an entry in its grace time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Return it.
    Accept,
    /// Treat it as a miss.
    Refuse,
}

/// A key and its hash. Objects and slices have different hash keys and kinds, so an object's key never
/// matches a slice.
#[derive(Clone, Copy)]
pub(in crate::store) struct Sought<'a> {
    key: &'a [u8],
    hash: u64,
    is_slice: bool,
}

impl<'a> Sought<'a> {
    /// The key of an object, and its hash.
    pub fn object(key: &'a [u8], hash: u64) -> Sought<'a> {
        Sought { key, hash, is_slice: false }
    }

    /// The key of a slice, and its hash.
    pub fn slice(key: &'a [u8], hash: u64) -> Sought<'a> {
        Sought { key, hash, is_slice: true }
    }

    /// The key's bytes.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Whether it is the key of a slice.
    pub fn is_slice(&self) -> bool {
        self.is_slice
    }

    /// The key's hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether an entry has this key.
    pub fn is_of(&self, entry: &Entry) -> bool {
        (entry.kind() == Kind::Slice) == self.is_slice && entry.key() == self.key
    }
}
