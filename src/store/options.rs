//! How a store behaves.

use std::time::Duration;

use crate::store::log::sequences::PER_EPOCH;
use crate::store::place::DeviceNumber;

/// Default bytes a second for the scrubber: 4 TB in three days, 16 TB in eleven. That is one to three
/// hundredths of the throughput of an NVMe or SATA disk, a tenth of a slow hard disk's.
pub const SCRUB_BYTES_PER_SEC: u64 = 16 << 20;

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest time that an acknowledged change is only in memory.
    pub flush_interval: Duration,
    /// Most bytes a second that the scrubber reads; 0 turns it off.
    pub scrub_bytes_per_sec: u64,
    /// Number of this device among those whose stores share a RAM tier; must be unique among them.
    pub device_number: DeviceNumber,
    /// Bytes of memory shared by bodies on their way to clients.
    pub range_buffer_bytes: u64,
    /// Settings for tests.
    pub knobs: TestKnobs,
}

/// Settings by which tests make rare events frequent.
#[derive(Clone, Copy, Debug)]
pub struct TestKnobs {
    /// Bits of the key hash in use, by default all; with fewer, keys collide.
    pub hash_mask: u64,
    /// Sequence numbers in one epoch, by default the maximum; with fewer, epochs end soon.
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
