//! How a store behaves.

use std::time::Duration;

use crate::store::log::sequences::PER_EPOCH;
use crate::store::place::DeviceNumber;
use crate::store::purges::table::RECORDS_MAX;

/// Default bytes a second for the scrubber: 4 TB in three days, 16 TB in eleven. That is one to three
/// hundredths of the throughput of an NVMe or SATA disk, a tenth of a slow hard disk's.
pub const SCRUB_BYTES_PER_SEC: u64 = 16 << 20;

/// Default bytes of the index: 70 million entries.
pub const INDEX_BYTES_MAX: u64 = 1 << 30;
/// Default bytes of recovery: 14 million versions at a time.
pub const RECOVERY_BYTES_MAX: u64 = 512 << 20;
/// Default bytes that wait to be written: the buffers of a busy disk are full, and a slow one is a second
/// behind.
pub const BACKLOG_BYTES_MAX: u64 = 64 << 20;

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
    /// Most bytes of the index, with the records of the open region. When they are used up, whole regions
    /// are freed.
    pub index_bytes_max: u64,
    /// Most bytes that recovery takes besides the index: for versions of entries, footers, and the keys
    /// that are changed meanwhile. With less, it reads the footers several times.
    pub recovery_bytes_max: u64,
    /// Bytes accepted and not yet on the device from which on stores wait.
    pub backlog_bytes_max: u64,
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
    /// Purge records of each kind, by default as many as there may be; with fewer, they are folded soon.
    pub purge_records_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flush_interval: Duration::from_millis(100),
            scrub_bytes_per_sec: SCRUB_BYTES_PER_SEC,
            device_number: DeviceNumber::default(),
            range_buffer_bytes: 64 << 20,
            index_bytes_max: INDEX_BYTES_MAX,
            recovery_bytes_max: RECOVERY_BYTES_MAX,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            knobs: TestKnobs::default(),
        }
    }
}

impl Default for TestKnobs {
    fn default() -> Self {
        TestKnobs {
            hash_mask: u64::MAX,
            sequences_per_epoch: PER_EPOCH,
            purge_records_max: RECORDS_MAX,
        }
    }
}
