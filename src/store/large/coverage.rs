//! What is there of an object that comes part by part. Owns how that is found out: by the index, and by a look
//! at the header of each slot that was not seen before.

use std::ops::Range;

use futures_util::stream::{self, StreamExt as _};
use smallvec::SmallVec;

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
pub(in crate::store) const GRANULE_LEN_MAX: u32 = 64 << 10;

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
        let mut steps = 0usize;
        while start < end {
            let next = end.min((start / step + 1) * step);
            if !self.missing(head, start..next).await.is_empty() {
                return false;
            }
            start = next;
            steps += 1;
            if steps.is_multiple_of(GRANULES_AT_ONCE / LOOKS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
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
        let failures = granules.failures();
        // Another key's index entry may look like its.
        let extent = match self.is_in_doubt(head.object) {
            true => Extent::Whole,
            false => Extent::Key { key_len: SliceKey::LEN },
        };
        let range = head.range_of(number);
        match self.slot_of(key, extent).await {
            Sighted::Slot(slot) if slot.body_len() as u64 == range.end - range.start => {
                granules.note_whole(of_granule, failures);
                Granule::Whole
            }
            Sighted::Slot(_) | Sighted::Nothing => Granule::Fragments(Fragments::new()),
            Sighted::Unknown => Granule::Unknown,
        }
    }

    /// The fragments of a granule.
    pub(in crate::store) async fn fragments(&self, head: &ObjectHead, number: u32) -> Granule {
        let (of_granule, granules) = ((head.object, number), &self.shared.large.granules);
        let (failures, known) = (granules.failures(), granules.known_fragments(of_granule));
        let range = head.range_of(number);
        let (mut indexed, mut seen) = (SmallVec::<[u32; 17]>::new(), Fragments::new());
        let extent = match self.is_in_doubt(head.object) {
            true => Extent::Whole,
            false => Extent::Meta { len: FRAGMENT_META_LEN },
        };
        for fragment in FRAGMENT_NUMBERS {
            let key = SliceKey { object: head.object, number, fragment };
            if !self.is_indexed(key) {
                continue;
            }
            indexed.push(fragment);
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
        let mut known = match seen.is_empty() {
            true => known,
            false => granules.add_fragments(of_granule, seen, failures),
        };
        known.retain(|fragment| indexed.contains(&fragment.number));
        Granule::Fragments(known)
    }

    /// Takes a slice or a fragment out of the index, wherever it is.
    pub(in crate::store) async fn drop_slot(&self, key: SliceKey) {
        let key = key.encode();
        let key_hash = self.slice_hash(&key);
        for _ in 0..ATTEMPTS_MAX {
            let mut has_moved = false;
            for candidate in self.candidates(key_hash) {
                let extent = Extent::Key { key_len: SliceKey::LEN };
                match self.load(candidate, extent).await {
                    Loaded::Entry(slot, _) if slot.kind() == Kind::Slice && slot.key() == key => {
                        has_moved |= !self.forget(key_hash, slot.place());
                    }
                    Loaded::Moved => has_moved = true,
                    _ => {}
                }
            }
            if !has_moved || self.shared.is_stopping() {
                return;
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
            let (mut has_moved, mut is_unknown, mut damaged) = (false, false, Vec::new());
            for candidate in self.candidates(sought.hash()) {
                if !self.is_visible(candidate.place()) {
                    continue;
                }
                match self.peek(candidate, extent).await {
                    Loaded::Entry(slot, _) if sought.is_of(&slot) => return Sighted::Slot(slot),
                    Loaded::Moved => has_moved = true,
                    Loaded::Entry(..) => {}
                    Loaded::Damaged => damaged.push(candidate),
                    Loaded::Unreadable | Loaded::Late => is_unknown = true,
                }
            }
            match (has_moved, is_unknown) {
                (true, _) => {}
                (false, true) => return Sighted::Unknown,
                (false, false) => {
                    // Its tombstone is to be older than what comes in its place.
                    for candidate in damaged {
                        self.drop_damaged(sought.hash(), candidate);
                    }
                    return Sighted::Nothing;
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::clock::{Clock, Timestamp};
    use crate::device::SimDevice;
    use crate::format::{ObjectHead, SliceKey};
    use crate::store::large::parts::PartialObject;
    use crate::store::lookup::sought::Stale;
    use crate::store::shared::Store;
    use crate::store::testing;

    async fn declare(store: &Store) -> (Arc<PartialObject>, ObjectHead) {
        let object = testing::declare(store, b"key", 100_000).await.unwrap();
        let (entry, _) = store.lookup(b"key", Stale::Accept).await.unwrap();
        (object, entry.object_head().unwrap())
    }

    /// The header of a granule's slot is damaged, and the granule is stored once more.
    #[tokio::test(start_paused = true)]
    async fn what_takes_the_place_of_a_damaged_slot_survives_a_start() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let (object, head) = declare(&store).await;
        let (first, last) = object.fill(0, &[7; 65_536], true).await.unwrap();
        store.flush_between(first, last).await.unwrap();
        testing::push_out_of_memory(&store).await;
        let key = SliceKey::of_slice(head.object, 0);
        let place = store.candidates(store.slice_hash(&key.encode()))[0].place();
        let (generation, offset) = place.split(&store.shared.layout);
        sim.corrupt(store.shared.layout.region_offset(generation.region()) + offset + 20, 0xff);
        store.shared.large.granules.forget((head.object, 0));
        assert_eq!(object.missing(0..65_536).await, vec![0..65_536; 1]);
        let (first, last) = object.fill(0, &[7; 65_536], true).await.unwrap();
        store.flush_between(first, last).await.unwrap();
        let mut body = store.large_object(head).read(0..65_536, &Default::default()).await.unwrap();
        assert!(body.next_chunk().await.unwrap().is_some());
        drop((object, body, store));
        sim.kill();
        let store = testing::open(&sim, &clock).await;
        store.recovered().await;
        let (entry, _) = store.lookup(b"key", Stale::Accept).await.unwrap();
        let object = store.large_object(entry.object_head().unwrap());
        assert_eq!(object.missing(0..65_536).await, [], "it was acknowledged");
    }

    /// Of two pieces of a granule, one goes, and the other is not remembered.
    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_gone_does_not_come_back_with_one_that_is_seen() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        let (object, head) = declare(&store).await;
        object.fill(0, &[1; 10], false).await.unwrap();
        object.fill(20, &[2; 10], false).await.unwrap();
        let (of_granule, granules) = ((head.object, 0), &store.shared.large.granules);
        let known = granules.known_fragments(of_granule);
        granules.set_fragments(of_granule, known[..1].into(), granules.failures());
        let key = SliceKey { object: head.object, number: 0, fragment: known[0].number };
        store.drop_slot(key).await;
        assert_eq!(object.missing(0..30).await, vec![0..20; 1]);
    }
}
