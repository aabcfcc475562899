//! Hashes of keys, as they are in footers and kill records. Pure functions.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::format::{Kind, Uuid};

/// The seed of all key hashes of a device.
pub fn seed_of(uuid: Uuid) -> u64 {
    xxh3_64_with_seed(&uuid.0, 0)
}

/// The hash of an object's key.
pub fn of_object(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// The hash of a slice's key: another seed, so that no object key can be made to collide with slices.
pub fn of_slice(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, !seed)
}

/// The hash of the key of an entry of this kind.
pub fn of_kind(kind: Kind, key: &[u8], seed: u64) -> u64 {
    if kind == Kind::Slice { of_slice(key, seed) } else { of_object(key, seed) }
}
