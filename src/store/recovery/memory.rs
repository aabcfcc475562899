//! How recovery divides its part of memory. Pure.

/// Most bytes of footers that are read and decoded at a time: more makes no start faster.
const FOOTERS_MAX: u64 = 32 << 20;

/// Bytes for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Shares {
    /// Versions of entries, from which the newest of each key is chosen.
    pub versions: u64,
    /// Footers being read and decoded. One that is longer is read by itself, in pieces.
    pub footers: u64,
    /// Keys that are changed meanwhile.
    pub changed: u64,
}

impl Shares {
    /// The shares of `bytes` bytes.
    pub fn of(bytes: u64) -> Shares {
        let (footers, changed) = ((bytes / 4).min(FOOTERS_MAX), bytes / 8);
        Shares { versions: bytes - footers - changed, footers, changed }
    }
}
