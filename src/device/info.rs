//! What an open device turned out to be. Owns the facts for logs, metrics and the CLI.

use std::path::PathBuf;

use serde::Serialize;

/// What kind of device a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// An image file in a file system.
    File,
    /// Memory that behaves like a device, for tests.
    Simulated,
}

/// Facts about an open device, fixed at open.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// The path it was opened by.
    pub path: PathBuf,
    /// Block device, image file or simulation.
    pub kind: DeviceKind,
    /// The engine that moves the bytes: `io_uring`, `threads`, `simulated`.
    pub engine: &'static str,
    /// Why the engine is not io_uring although the best one was wanted.
    pub engine_fallback: Option<String>,
    /// Whether transfers bypass the page cache.
    pub direct: bool,
    /// Why direct I/O is off although it was wanted.
    pub fallback: Option<String>,
    /// Whether lookups read through the page cache where that is faster, though the rest is direct.
    pub adaptive: bool,
    /// Why adaptive reads are off although they were wanted.
    pub adaptive_fallback: Option<String>,
    /// The file system accepts direct writes but buffers them all the same
    /// (btrfs with data checksums, since Linux 6.14).
    pub direct_writes_buffered: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Usable bytes.
    pub size: u64,
    /// Offsets and lengths of transfers are multiples of this many bytes.
    pub alignment: u32,
    /// Buffer addresses are multiples of this many bytes.
    pub memory_alignment: u32,
}
