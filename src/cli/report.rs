//! What the offline commands tell. Owns the field names, which are also those of `--json`: whole
//! words, the unit last.

use serde::Serialize;

/// What `format` is about to erase.
#[derive(Debug, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of the device or file.
    pub size_bytes: u64,
    /// What was found on it, if anything.
    pub contents: Option<String>,
    /// What was found is not a rawcached store.
    pub is_foreign: bool,
}

/// How `format` is to be done.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Alignment in bytes; `None` asks the device.
    pub alignment: Option<u32>,
}

/// What `format` did.
#[derive(Debug, Serialize)]
pub struct FormatReport {
    /// The path as it was named.
    pub path: String,
    /// The new store's identity.
    pub uuid: String,
    /// Bytes of the device.
    pub size_bytes: u64,
    /// Bytes of a region.
    pub region_size_bytes: u64,
    /// Regions on the device.
    pub regions: u32,
    /// Alignment of all I/O.
    pub alignment_bytes: u32,
}

/// What a formatted device holds.
#[derive(Debug, Serialize)]
pub struct InspectReport {
    /// The path as it was named.
    pub path: String,
    /// The store's identity.
    pub uuid: String,
    /// Counts the starts that wrote to it.
    pub epoch: u32,
    /// When it was formatted, in seconds since 1970.
    pub formatted_at: u32,
    /// State of the superblock copies: `good`, or what is wrong.
    pub superblocks: Vec<String>,
    /// Bytes of the device.
    pub size_bytes: u64,
    /// Bytes of a region.
    pub region_size_bytes: u64,
    /// Alignment of all I/O.
    pub alignment_bytes: u32,
    /// Regions on the device.
    pub regions: u32,
    /// Largest object that it takes: half of the device.
    pub object_max_bytes: u64,
}

/// One entry of `ls`.
#[derive(Debug, Serialize)]
pub struct ListEntry {
    /// The key, bytes outside printable ASCII escaped.
    pub key: String,
    /// Length of the body.
    pub size_bytes: u64,
    /// When it was stored, in seconds since 1970.
    pub stored_at: u32,
    /// Until when it is fresh, in seconds since 1970.
    pub fresh_until: u32,
    /// Until when it is kept, in seconds since 1970.
    pub keep_until: u32,
    /// Region it is in.
    pub region: u32,
    /// Offset of its slot on the device.
    pub offset_bytes: u64,
}

/// What `check` found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The path as it was named.
    pub path: String,
    /// Regions that were read.
    pub regions: u64,
    /// Entries whose checksums were verified.
    pub entries: u64,
    /// Bytes that were verified.
    pub verified_bytes: u64,
    /// What is damaged, one line each.
    pub damaged: Vec<String>,
}
