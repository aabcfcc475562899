//! One device as a crash-safe store: a log of regions and an index in memory. Owns what is on the
//! device; knows nothing of protocols, and of the RAM tier only its interface.
//!
//! The rules it keeps are numbered in `docs/ARCHITECTURE.md`, "Rules of truth".

mod catalog;
mod counters;
mod damage;
mod durability;
mod entries;
mod entry;
mod formatting;
pub mod index;
mod large;
mod lifecycle;
mod log;
mod lookup;
mod mutation;
mod options;
mod place;
pub mod purges;
mod ram_tier;
mod reclaim;
mod recovery;
mod region;
mod scrub;
mod shared;
mod snapshot;
mod stats;
mod superblock;
#[cfg(test)]
mod testing;
mod timekeeper;
mod transaction;

pub use counters::CountersSnapshot;
pub use entries::Tier;
pub use entry::Entry;
pub use formatting::{FormatError, FormatOptions};
pub use index::index_entry::{IndexEntry, Location, SizeClass};
pub use index::key_hash::KeyHasher;
pub use large::object::{LargeObject, ObjectBody};
pub use large::parts::PartialObject;
pub use large::ranges::options::{RangeOptions, ZeroRangeOption};
pub use large::ranges::stats::RangeStats;
pub use large::upload::Upload;
pub use log::write::Ticket;
pub(crate) use lookup::bodies::HeldBody;
pub use lookup::bodies::TruncatedBody;
pub use lookup::budget::BodyShare;
pub use lookup::sought::Stale;
pub use mutation::declare::{Declaration, Declared};
pub use mutation::fills::Fill;
pub use mutation::purge::Purge;
pub use mutation::request::{
    Ack, Condition, KEY_LEN_MAX, Lifetime, METADATA_LEN_MAX, StoreError, Stored, TAG_LEN_MAX,
    TAGS_LEN_MAX, Value,
};
pub use mutation::update::Update;
pub use options::{Options, SCRUB_BYTES_PER_SEC, TestKnobs};
pub use place::{DeviceNumber, Place};
pub use ram_tier::{NotResident, Resident};
pub use recovery::{OpenError, RecoveryStats, Superblocks, read_superblocks};
// Used by inspection too, which looks at a device without a store.
pub(crate) use purges::table::{Since, Subject};
pub(crate) use purges::{Floors, Purges, Verdict};
pub(crate) use recovery::{Version, settle};
pub(crate) use region::reader::{FoundFooter, RegionReader, SlotWalk, sound_slot};
pub use scrub::{ScrubStep, Scrubber};
pub use shared::Store;
pub(crate) use snapshot::{dump, first_piece_offset};
pub use stats::StoreStats;
