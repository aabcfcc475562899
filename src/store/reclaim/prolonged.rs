//! Regions whose entries have ended by what their footers say, though their slices may not have: a head may
//! have got a new lifetime since. Owns that such a region gets a later end, or is known to be over.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::format::{FooterRecord, Kind};
use crate::planted::{self, Bug};
use crate::store::entries::Candidate;
use crate::store::large::heads::HeadState;
use crate::store::large::slice_place::slice_meta_len_max;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::place::Generation;
use crate::store::reclaim::reclaimer::Reclaimer;
use crate::store::region::contents::ContentsReader;

/// Pause before a region is looked at again of which a head could not be read.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// Whether all of a region has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has an end that has not passed.
    Ahead,
    /// It has passed, for its slices too.
    Passed,
    /// It had passed, and is later now: a live head names a slice.
    Later,
}

impl Reclaimer {
    /// Reads all of a region's contents, and tells whether it has ended, with a look at the heads of its slices
    /// if its footer says so: that reads a block for each slice, and a head for each object.
    pub(super) async fn end_of(&self, region: u32, contents: &mut ContentsReader<'_>) -> End {
        let shared = &*self.store.shared;
        let row = shared.catalog.regions.on_device(region);
        let generation = shared.catalog.regions.generation_of(region);
        let has_passed = row.keep_until() <= shared.clock.now();
        let looks = has_passed
            && generation.sequence() >= shared.purge_floor()
            && !planted::is(Bug::ReclaimUnderHeads);
        let (mut ends, mut latest) = (HashMap::new(), Timestamp::default());
        while let Some(piece) = contents.next().await {
            let slices = piece.records.iter().filter(|record| record.kind == Kind::Slice);
            for record in slices.filter(|_| looks) {
                latest = latest.max(self.end_of_slice(record, generation, &mut ends).await);
            }
        }
        if !has_passed {
            return End::Ahead;
        }
        if latest <= shared.clock.now() {
            return End::Passed;
        }
        row.raise_keep_until(latest);
        End::Later
    }

    /// The end of the head that names a slice, which is known of some objects in `ends`; 0 if there is none.
    async fn end_of_slice(
        &self,
        record: &FooterRecord,
        generation: Generation,
        ends: &mut HashMap<crate::format::Sequence, Timestamp>,
    ) -> Timestamp {
        let shared = &*self.store.shared;
        let place = generation.place(record.offset, &shared.layout);
        let index_entry = shared.catalog.lock(record.key_hash).get(place.location());
        let Some(index_entry) = index_entry else { return Timestamp::default() };
        let len = slice_meta_len_max(shared.layout.slice_size as usize);
        let candidate = Candidate::at(place, index_entry.class());
        let slice = match self.store.peek(candidate, Extent::Meta { len }).await {
            Loaded::Entry(slice, _) => slice,
            Loaded::Moved | Loaded::Damaged => return Timestamp::default(),
            Loaded::Unreadable | Loaded::Late => return shared.clock.after(PAUSE),
        };
        let Some(object) = slice.large_object() else { return Timestamp::default() };
        if let Some(end) = ends.get(&object) {
            return *end;
        }
        let end = match self.store.head_of(&slice).await {
            HeadState::Live(end) => end,
            HeadState::Dead => Timestamp::default(),
            HeadState::Unknown => shared.clock.after(PAUSE),
        };
        ends.insert(object, end);
        end
    }
}
