//! Keys, what is known of each, and values that say whose they are. Owns which versions a lookup may
//! give.

use std::sync::atomic::{AtomicU64, Ordering};

/// Keys; their values exceed the device.
pub const KEYS: usize = 900;
/// Bytes at the beginning of a value: its key and its version.
pub const LABEL_LEN: usize = 16;
/// Lengths of long values are multiples of this, so that a later one often lies exactly where an
/// earlier one did.
const LONG_STEP: usize = 70_000;

/// What is known of a key. Only its writer changes it.
#[derive(Default)]
struct Key {
    /// Lookups that begin now give this version or a later one.
    floor: AtomicU64,
    /// The same after a kill.
    durable_floor: AtomicU64,
    /// Versions given so far, those of removals included.
    latest: AtomicU64,
}

/// All keys.
pub struct Keys(Vec<Key>);

impl Keys {
    pub fn new() -> Keys {
        Keys((0..KEYS).map(|_| Key::default()).collect())
    }

    /// A version that nothing had before.
    pub fn next_version(&self, key: usize) -> u64 {
        self.0[key].latest.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Older versions than this are gone; after a kill too, if that is durable.
    pub fn raise_floor(&self, key: usize, version: u64, is_durable: bool) {
        self.0[key].floor.store(version, Ordering::SeqCst);
        if is_durable {
            self.0[key].durable_floor.store(version, Ordering::SeqCst);
        }
    }

    pub fn floor(&self, key: usize) -> u64 {
        self.0[key].floor.load(Ordering::SeqCst)
    }

    pub fn latest(&self, key: usize) -> u64 {
        self.0[key].latest.load(Ordering::SeqCst)
    }

    pub fn forget_what_a_kill_may_undo(&self) {
        for key in &self.0 {
            key.floor.store(key.durable_floor.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// A clean stop makes all versions durable.
    pub fn all_is_durable(&self) {
        for key in &self.0 {
            key.durable_floor.store(key.floor.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

pub fn name_of(key: usize) -> String {
    format!("key-{key}")
}

/// The value of a version: a label, and bytes that no other version has.
pub fn value_of(key: usize, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed((key as u64) << 40 ^ version);
    let len = match random.u32(0..10) {
        0 | 1 => random.usize(1..5) * LONG_STEP,
        2..5 => random.usize(2_000..60_000),
        _ => random.usize(LABEL_LEN..2_000),
    };
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes[..8].copy_from_slice(&(key as u64).to_le_bytes());
    bytes[8..LABEL_LEN].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// The version that a value says it is.
pub fn version_of(bytes: &[u8]) -> Option<u64> {
    bytes.get(8..LABEL_LEN)?.try_into().ok().map(u64::from_le_bytes)
}
