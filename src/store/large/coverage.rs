//! What is there of an object that comes part by part. Owns how that is found out: by the index, and by a look
//! at the header of each slot that was not seen before.

use std::ops::Range;

use futures_util::stream::{self, StreamExt as _};

use crate::format::{ENTRY_HEADER_LEN, FRAGMENT_RECORDS_LEN, Kind, Layout, ObjectHead, SliceKey};
use crate::store::entry::Entry;
use crate::store::large::granules::{FRAGMENT_NUMBERS, Fragment, Fragments, Granule};
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::lookup::sought::Sought;
use crate::store::shared::Store;

/// What an index entry leads to.
pub(in crate::store) enum Sighted {
    Slot(Entry),
    /// Nothing, or other keys' slots.
    Nothing,
    /// It cannot be read.
    Unknown,
}

/// Gaps that are named, and granules with a gap that are looked at: what follows counts as missing.
const GAPS_MAX: usize = 1000;
const LACKING_MAX: usize = 4096;
/// Granules that are looked at at a time: each may cost a read.
const LOOKS_AT_ONCE: usize = 32;
/// Granules looked for in the index without letting others run.
const GRANULES_AT_ONCE: usize = 256;
/// Looks at a slot that keeps moving.
const ATTEMPTS_MAX: usize = 16;
/// Bytes before the body in the slot of a fragment.
const FRAGMENT_META_LEN: usize = ENTRY_HEADER_LEN + SliceKey::LEN + FRAGMENT_RECORDS_LEN;
/// Longest granule in bytes: one checksum covers so many.
const GRANULE_LEN_MAX: u32 = 64 << 10;

impl Store {
    /// Bytes of a granule on this device.
    pub(in crate::store) fn granule_len(layout: &Layout) -> u32 {
        layout.slice_size.min(GRANULE_LEN_MAX)
    }

    /// The ranges of `range` that are not there, in order and apart from each other. At most [`GAPS_MAX`] of
    /// them, in [`LACKING_MAX`] granules: then the last one stands for all that follows. Reads the headers of
    /// slots that were not seen in this run.
    pub(in crate::store) async fn missing(
        &self,
        head: &ObjectHead,
        range: Range<u64>,
    ) -> Vec<Range<u64>> {
        let range = range.start..range.end.min(head.len);
        let looks = head
            .slices_of(range.clone())
            .map(async |number| (head.range_of(number), self.granule(head, number).await));
        let mut looks = stream::iter(looks).buffered(LOOKS_AT_ONCE);
        let mut missing: Vec<Range<u64>> = Vec::new();
        let (mut looked, mut lacking) = (0usize, 0);
        while let Some((of_granule, granule)) = looks.next().await {
            looked += 1;
            if looked.is_multiple_of(GRANULES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let wanted = range.start.max(of_granule.start)..range.end.min(of_granule.end);
            let within = |at: u64| usize::try_from(at - of_granule.start).unwrap_or(usize::MAX);
            let gaps = granule.gaps(within(wanted.start)..within(wanted.end));
            lacking += usize::from(!gaps.is_empty());
            for gap in gaps {
                let (start, end) = (gap.start as u64, gap.end as u64);
                let gap = of_granule.start + start..of_granule.start + end;
                match missing.last_mut() {
                    Some(last) if last.end == gap.start => last.end = gap.end,
                    _ => missing.push(gap),
                }
            }
            if missing.len() >= GAPS_MAX || lacking >= LACKING_MAX {
                missing.truncate(GAPS_MAX);
                if let Some(last) = missing.last_mut() {
                    last.end = range.end;
                }
                break;
            }
        }
        missing
    }

    /// Whether all of `range` is there.
    pub(in crate::store) async fn lacks_nothing(
        &self,
        head: &ObjectHead,
        range: Range<u64>,
    ) -> bool {
        // In steps: nothing is looked at after the first of them with a gap.
        let step = u64::from(head.slice_size) * LOOKS_AT_ONCE as u64;
        let (mut start, end) = (range.start, range.end.min(head.len));
        while start < end {
            let next = end.min((start / step + 1) * step);
            if !self.missing(head, start..next).await.is_empty() {
                return false;
            }
            start = next;
        }
        true
    }

    /// What is there of a granule.
    pub(in crate::store) async fn granule(&self, head: &ObjectHead, number: u32) -> Granule {
        let key = SliceKey::of_slice(head.object, number);
        loop {
            let was_indexed = self.is_indexed(key);
            if was_indexed {
                match self.whole(head, number).await {
                    Granule::Fragments(_) => {}
                    granule => return granule,
                }
            }
            let fragments = self.fragments(head, number).await;
            // They may have been joined to a whole one meanwhile.
            if was_indexed || !self.is_indexed(key) {
                return fragments;
            }
        }
    }

    /// Whether what the index has is the slot of the whole granule; no fragments are looked for.
    async fn whole(&self, head: &ObjectHead, number: u32) -> Granule {
        let (of_granule, granules) = ((head.object, number), &self.shared.large.granules);
        let key = SliceKey::of_slice(head.object, number);
        if granules.is_whole(of_granule) {
            return Granule::Whole;
        }
        // Another key's index entry may look like its.
        let extent = match granules.is_distrusted(head.object) {
            true => Extent::Whole,
            false => Extent::Key { key_len: SliceKey::LEN },
        };
        let range = head.range_of(number);
        match self.slot_of(key, extent).await {
            Sighted::Slot(slot) if slot.body_len() as u64 == range.end - range.start => {
                granules.note_whole(of_granule);
                Granule::Whole
            }
            Sighted::Slot(_) | Sighted::Nothing => Granule::Fragments(Fragments::new()),
            Sighted::Unknown => Granule::Unknown,
        }
    }

    /// The fragments of a granule.
    pub(in crate::store) async fn fragments(&self, head: &ObjectHead, number: u32) -> Granule {
        let (of_granule, granules) = ((head.object, number), &self.shared.large.granules);
        let mut known = granules.known_fragments(of_granule);
        let range = head.range_of(number);
        let mut seen = Fragments::new();
        let extent = match granules.is_distrusted(head.object) {
            true => Extent::Whole,
            false => Extent::Meta { len: FRAGMENT_META_LEN },
        };
        for fragment in FRAGMENT_NUMBERS {
            let key = SliceKey { object: head.object, number, fragment };
            if !self.is_indexed(key) {
                known.retain(|other| other.number != fragment);
                continue;
            }
            if known.iter().any(|other| other.number == fragment) {
                continue;
            }
            let slot = match self.slot_of(key, extent).await {
                Sighted::Slot(slot) => slot,
                Sighted::Nothing => continue,
                Sighted::Unknown => return Granule::Unknown,
            };
            if let Some(within) = within_granule(&slot)
                && within.end as u64 <= range.end - range.start
            {
                seen.push(Fragment { number: fragment, within });
            }
        }
        if !seen.is_empty() {
            known = granules.add_fragments(of_granule, seen);
        }
        Granule::Fragments(known)
    }

    /// Takes a slice or a fragment out of the index, wherever it is.
    pub(in crate::store) async fn drop_slot(&self, key: SliceKey) {
        let key = key.encode();
        let key_hash = self.slice_hash(&key);
        for candidate in self.candidates(key_hash) {
            let extent = Extent::Key { key_len: SliceKey::LEN };
            if let Loaded::Entry(slot, _) = self.load(candidate, extent).await
                && slot.kind() == Kind::Slice
                && slot.key() == key
            {
                self.forget(key_hash, slot.place());
            }
        }
    }

    /// Whether the index has an index entry that may be the slice's.
    pub(in crate::store) fn is_indexed(&self, key: SliceKey) -> bool {
        !self.shared.catalog.lock(self.slice_hash(&key.encode())).candidates().is_empty()
    }

    /// The slot of a slice or a fragment; no lookup of it: nothing is counted or kept in RAM.
    pub(in crate::store) async fn slot_of(&self, key: SliceKey, extent: Extent) -> Sighted {
        let key = key.encode();
        let sought = Sought::slice(&key, self.slice_hash(&key));
        for _ in 0..ATTEMPTS_MAX {
            let (mut has_moved, mut is_unknown) = (false, false);
            for candidate in self.candidates(sought.hash()) {
                if !self.is_visible(candidate.place()) {
                    continue;
                }
                match self.peek(candidate, extent).await {
                    Loaded::Entry(slot, _) if sought.is_of(&slot) => return Sighted::Slot(slot),
                    Loaded::Moved => has_moved = true,
                    Loaded::Entry(..) | Loaded::Damaged => {}
                    Loaded::Unreadable | Loaded::Late => is_unknown = true,
                }
            }
            match (has_moved, is_unknown) {
                (true, _) => {}
                (false, true) => return Sighted::Unknown,
                (false, false) => return Sighted::Nothing,
            }
        }
        Sighted::Unknown
    }
}

/// Where a fragment says that it is in its granule.
pub(in crate::store) fn within_granule(slot: &Entry) -> Option<Range<usize>> {
    let start = slot.records().fragment_start? as usize;
    Some(start..start + slot.body_len())
}
