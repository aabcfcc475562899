//! The secret of a cache: the key of its key hashes, so that no outsider can choose keys that collide.
//! Owns that it is never printed.

use std::fmt;

/// 128 random bits, drawn at format and the same on every device of a cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?} {:#?}", Secret([171; 16]), Some(Secret([171; 16])));
        assert!(!shown.contains("171") && !shown.contains("ab"), "{shown}");
    }
}
