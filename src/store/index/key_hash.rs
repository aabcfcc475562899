//! Hashes of keys, tags and prefixes, as stored in footers, tombstones and purge records. Pure functions of
//! text and secret, the same on every machine.

use siphasher::sip::SipHasher13;
use siphasher::sip128;

use crate::format::{Kind, Secret};

/// Labels by which the secret gives a hash key for each kind of key, so that no object's key can be
/// made to collide with slices.
const OBJECTS: &[u8] = b"object key";
const SLICES: &[u8] = b"slice key";
const TAGS: &[u8] = b"tag";
const PREFIXES: &[u8] = b"prefix";

/// Hashes the keys of one cache by SipHash-1-3. Only someone who knows the secret can choose keys that
/// collide.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    objects: SipHasher13,
    slices: SipHasher13,
    tags: SipHasher13,
    prefixes: SipHasher13,
}

impl KeyHasher {
    /// The hashes of the cache with this secret.
    #[must_use]
    pub fn new(secret: Secret) -> KeyHasher {
        let derived = |domain| {
            let key = sip128::SipHasher13::new_with_key(&secret.0).hash(domain);
            SipHasher13::new_with_keys(key.h1, key.h2)
        };
        KeyHasher {
            objects: derived(OBJECTS),
            slices: derived(SLICES),
            tags: derived(TAGS),
            prefixes: derived(PREFIXES),
        }
    }

    /// The hash of an object's key.
    #[must_use]
    pub fn object(&self, key: &[u8]) -> u64 {
        self.objects.hash(key)
    }

    /// The hash of a slice's key.
    #[must_use]
    pub fn slice(&self, key: &[u8]) -> u64 {
        self.slices.hash(key)
    }

    /// The hash of a tag's name.
    #[must_use]
    pub fn tag(&self, name: &[u8]) -> u64 {
        self.tags.hash(name)
    }

    /// What hashes the prefixes of keys: written a piece at a time, it gives the hash of each beginning.
    #[must_use]
    pub fn prefixes(&self) -> SipHasher13 {
        self.prefixes
    }

    /// The hash of the key of an entry of this kind.
    #[must_use]
    pub fn of(&self, kind: Kind, key: &[u8]) -> u64 {
        if kind == Kind::Slice { self.slice(key) } else { self.object(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from a second implementation, which reproduces the published ones for SipHash-2-4.
    #[test]
    fn hashes_stay_as_they_are() {
        let hasher = KeyHasher::new(Secret(std::array::from_fn(|n| u8::try_from(n).unwrap())));
        let long = b"a key of more than sixteen bytes";
        assert_eq!(hasher.object(b""), 0xc5ef_81e3_dd23_147d);
        assert_eq!(hasher.object(b"key"), 0xfce6_910c_41a6_fe6c);
        assert_eq!(hasher.object(long), 0xcf51_70b2_970a_e00c);
        assert_eq!(hasher.slice(b""), 0x023f_dc08_fff6_234c);
        assert_eq!(hasher.slice(b"key"), 0x2b34_5db5_9afe_4b86);
        assert_eq!(hasher.slice(long), 0xbce4_d393_bae2_cf2d);
    }

    #[test]
    fn a_prefix_is_hashed_in_pieces_as_at_once() {
        let hasher = KeyHasher::new(Secret([3; 16])).prefixes();
        let key: Vec<u8> = (0..100).collect();
        for step in 1..20 {
            let mut pieces = hasher;
            for (n, piece) in key.chunks(step).enumerate() {
                std::hash::Hasher::write(&mut pieces, piece);
                let so_far = key.len().min((n + 1) * step);
                assert_eq!(std::hash::Hasher::finish(&pieces), hasher.hash(&key[..so_far]));
            }
        }
    }

    #[test]
    fn another_secret_gives_other_hashes() {
        let (a, b) = (KeyHasher::new(Secret([1; 16])), KeyHasher::new(Secret([2; 16])));
        assert_ne!(a.object(b"key"), b.object(b"key"));
        assert_eq!(a.of(Kind::Head, b"key"), a.object(b"key"));
        assert_eq!(a.of(Kind::Slice, b"key"), a.slice(b"key"));
        let of_each = [a.object(b"key"), a.slice(b"key"), a.tag(b"key"), a.prefixes().hash(b"key")];
        assert!((0..4).all(|n| of_each[..n].iter().all(|hash| *hash != of_each[n])));
    }
}
