//! Inspects a formatted device on which no store runs. Owns what can be learnt without one: never
//! writes, never repairs, and holds the bytes of one region at a time.

mod check;
mod explain;
mod finding;
mod inspection;
mod listing;
mod purged;
mod region;
mod sight;
mod snapshot;

pub use check::{CheckEvent, CheckSummary, Incomplete};
pub use explain::{Explained, ExplainedKey, ExplainedRegion, Fate, Filling, Share};
pub use finding::Finding;
pub use inspection::Inspection;
pub use listing::{Listed, ListedState, ListingSummary};
pub use sight::{Condition, RegionSurvey};
pub use snapshot::{SnapshotPartSurvey, SnapshotState};

use crate::format::{EntryHeader, Seed};
use crate::store::SlotWalk;

/// The slots in one generation of a region, from byte `start` on, that are sound but for their body.
/// For fuzzing: the walk itself is not public.
#[doc(hidden)]
#[must_use]
pub fn sound_slots(bytes: &[u8], start: u64, seed: Seed) -> Vec<(u64, EntryHeader)> {
    let slots = SlotWalk::new(bytes, start, seed);
    slots.filter_map(|(offset, found)| Some((offset, found.ok()?))).collect()
}
