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
    /// Erasing it needs `--force`: it is not a rawcached store, or one that could still be saved.
    pub needs_force: bool,
}

/// How `format` is to be done.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Bytes to use of the device; `None` uses all.
    pub size: Option<u64>,
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
    /// Entries with a lower sequence were purged.
    pub purge_floor: u64,
    /// When it was formatted, in seconds since 1970.
    pub formatted_at: i64,
    /// Newest time on the device, in seconds since 1970.
    pub newest_stamp: i64,
    /// State of the superblock copies: `good`, or what is wrong.
    pub superblocks: Vec<String>,
    /// Both copies are good but one is older; the next start repairs it.
    pub superblock_outdated: bool,
    /// Bytes of the device.
    pub size_bytes: u64,
    /// Bytes of a region.
    pub region_size_bytes: u64,
    /// Bytes of a slice of a large object.
    pub slice_size_bytes: u32,
    /// Alignment of all I/O.
    pub alignment_bytes: u32,
    /// Largest object that it takes: half of the device.
    pub object_max_bytes: u64,
    /// Entries in all regions, dead and expired ones and slices included.
    pub entries: u64,
    /// Tombstones in all regions, not entries that replace others; those of purges count twice.
    pub tombstones: u64,
    /// Number of regions by state.
    pub regions: RegionCounts,
    /// What is wrong with headers, footers and directories of a snapshot.
    pub damaged: Vec<Damaged>,
    /// Every region, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_table: Option<Vec<RegionRow>>,
}

/// Number of regions by state.
#[derive(Debug, Default, Serialize)]
pub struct RegionCounts {
    /// All of them.
    pub all: u32,
    /// Complete, with a footer.
    pub sealed: u32,
    /// In use without a footer.
    pub unsealed: u32,
    /// Second copies of the tombstones of purges.
    pub purges: u32,
    /// Freed.
    pub free: u32,
    /// Never used.
    pub blank: u32,
    /// Never used since the format; holds older bytes.
    pub leftover: u32,
    /// Part of the index snapshot that the next start reads.
    pub snapshot: u32,
    /// Part of an index snapshot that a later change ended; as good as free.
    pub old_snapshot: u32,
    /// Header, footer or directory of a snapshot damaged.
    pub damaged: u32,
    /// Could not be read.
    pub unreadable: u32,
}

/// One region.
#[derive(Debug, Serialize)]
pub struct RegionRow {
    /// Which region.
    pub region: u32,
    /// Where it begins on the device.
    pub offset_bytes: u64,
    /// What it is.
    pub state: &'static str,
    /// Its generation.
    pub generation: u64,
    /// Entries in it.
    pub entries: u64,
    /// Tombstones in it.
    pub tombstones: u64,
    /// Bytes of its entries.
    pub entry_bytes: u64,
    /// Newest time in it, in seconds since 1970; none if there is no time in it.
    pub stamp: Option<i64>,
    /// An entry's lifetime was extended after the region was sealed.
    pub touched: bool,
}

/// One entry of `ls`.
#[derive(Debug, Serialize)]
pub struct ListEntry {
    /// The key; bytes outside printable ASCII as `\xNN`, a backslash as `\\`.
    pub key: String,
    /// Length of the body.
    pub size_bytes: u64,
    /// Pieces that the body is in; 0 if it is in the entry itself.
    pub slices: u32,
    /// `fresh`, `stale`, `expired`, `incomplete` where pieces were evicted, or `partial` where not all have come.
    pub state: &'static str,
    /// Time until it is stale, 0 if that is past.
    pub ttl_left_seconds: u64,
    /// When it was stored, in seconds since 1970.
    pub stored_at: i64,
    /// Until when it is fresh, in seconds since 1970.
    pub fresh_until: i64,
    /// Until when it is kept, in seconds since 1970.
    pub keep_until: i64,
    /// Region it is in.
    pub region: u32,
    /// Offset of its slot on the device.
    pub offset_bytes: u64,
}

/// One thing that is damaged.
#[derive(Clone, Debug, Serialize)]
pub struct Damaged {
    /// Region it is in; none for a superblock.
    pub region: Option<u32>,
    /// Where on the device.
    pub offset_bytes: u64,
    /// What is damaged and how.
    pub what: String,
}

/// What `check` found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The path as it was named.
    pub path: String,
    /// Regions that hold entries.
    pub regions_used: u64,
    /// Regions that hold nothing.
    pub regions_unused: u64,
    /// Regions that hold the index snapshot that the next start reads.
    pub regions_snapshot: u64,
    /// State of the index snapshot: `none`, `sound`, `outdated`, `unfinished` or `damaged`.
    pub snapshot: &'static str,
    /// Index entries in it.
    pub snapshot_entries: u64,
    /// Sound entries, dead and expired ones and slices included.
    pub entries: u64,
    /// Sound entries that are pieces of large objects.
    pub slices: u64,
    /// Sound tombstones, without entries that replace older ones.
    pub tombstones: u64,
    /// Live objects of which pieces were evicted; they are misses, not damage.
    pub incomplete_objects: u64,
    /// Bytes that were verified.
    pub verified_bytes: u64,
    /// Superblock copies that are older than the other; the next start repairs them.
    pub superblocks_outdated: u64,
    /// Number of things that are damaged.
    pub damaged: u64,
    /// What is damaged, at most [`DAMAGES_MAX`]; left out where it was printed as it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damages: Option<Vec<Damaged>>,
    /// Live objects that lack pieces, at most [`DAMAGES_MAX`]; left out as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Vec<IncompleteObject>>,
}

/// A live object of which pieces were evicted: a miss, but no damage.
#[derive(Clone, Debug, Serialize)]
pub struct IncompleteObject {
    /// Region its head is in.
    pub region: u32,
    /// Where the head is on the device.
    pub offset_bytes: u64,
    /// The key as `ls` writes it; empty if it cannot be read any more.
    pub key: String,
    /// Pieces of its body.
    pub slices: u32,
    /// How many of them are missing.
    pub missing: u32,
}

/// Most damages kept for one report.
pub const DAMAGES_MAX: usize = 10_000;

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Damaged { region, offset_bytes, what } = self;
        match region {
            Some(region) => write!(f, "region {region}, offset {offset_bytes}: {what}"),
            None => write!(f, "offset {offset_bytes}: {what}"),
        }
    }
}

impl std::fmt::Display for IncompleteObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let IncompleteObject { region, offset_bytes, key, slices, missing } = self;
        write!(
            f,
            "region {region}, offset {offset_bytes}: object \"{key}\" lacks {missing} of {slices} \
             slices, which were evicted: no damage"
        )
    }
}
