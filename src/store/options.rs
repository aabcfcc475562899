//! How a store behaves.

use std::time::Duration;

use crate::store::log::sequences::PER_EPOCH;
use crate::store::place::DeviceNumber;

/// Bytes that the scrubber reads each second, unless told otherwise: 4 TB in three days and 16 TB in
/// eleven, one to three hundredths of what an NVMe or SATA disk gives, a tenth of a slow hard disk.
pub const SCRUB_BYTES_PER_SEC: u64 = 16 << 20;

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest time that an acknowledged change is in memory only.
    pub flush_interval: Duration,
    /// Bytes that are read each second at most to verify what is on the device; 0 does not.
    pub scrub_bytes_per_sec: u64,
    /// Which one it is of the devices whose stores share a RAM tier. No two of them have the same.
    pub device_number: DeviceNumber,
    /// Bytes of memory that bodies on their way to clients share.
    pub range_buffer_bytes: u64,
    /// What only tests change.
    pub knobs: TestKnobs,
}

/// What only tests change, to have rare things happen soon.
#[derive(Clone, Copy, Debug)]
pub struct TestKnobs {
    /// Bits of the key hash that are used, by default all: with fewer of them keys collide.
    pub hash_mask: u64,
    /// Sequence numbers in one epoch, by default as many as there are: with fewer of them it ends.
    pub sequences_per_epoch: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flush_interval: Duration::from_millis(100),
            scrub_bytes_per_sec: SCRUB_BYTES_PER_SEC,
            device_number: DeviceNumber::default(),
            range_buffer_bytes: 64 << 20,
            knobs: TestKnobs::default(),
        }
    }
}

impl Default for TestKnobs {
    fn default() -> Self {
        TestKnobs { hash_mask: u64::MAX, sequences_per_epoch: PER_EPOCH }
    }
}
