//! Slices of large objects: whether the index has them, and reading of one piece after piece. Where they are
//! and how they are verified is as with every entry.

use std::ops::Range;

use bytes::Bytes;

use crate::format::{ObjectHead, SliceKey};
use crate::store::entry::Entry;
use crate::store::large::coverage::within_granule;
use crate::store::large::granules::Granule;
use crate::store::large::slice_place::{SlicePlace, slice_meta_len};
use crate::store::lookup::budget::UNSHARED_LEN_MAX;
use crate::store::lookup::load::Extent;
use crate::store::shared::Store;

/// Slices looked for in the index without letting others run: some tens of microseconds.
const SLICES_AT_ONCE: usize = 256;

/// Reads one slice of an object, piece after piece.
pub(in crate::store) struct SliceReader {
    head: ObjectHead,
    key: SliceKey,
    body_len: usize,
    /// The slice without its body, once it was found.
    let_go: Option<Entry>,
}

impl SliceReader {
    /// A reader of slice `number`.
    pub fn new(head: &ObjectHead, number: u32) -> SliceReader {
        let range = head.range_of(number);
        let body_len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let key = SliceKey::of_slice(head.object, number);
        SliceReader { head: *head, key, body_len, let_go: None }
    }

    /// Index of the slice in the body.
    pub fn number(&self) -> u32 {
        self.key.number
    }

    /// The bytes `within` of the slice, or the first of them, as there is memory. `None` if it is
    /// gone, or damaged in what is read of it.
    pub async fn piece(&mut self, store: &Store, within: Range<usize>) -> Option<Bytes> {
        if within.end > self.body_len {
            return None;
        }
        if let Some(let_go) = &self.let_go
            && let Some(piece) = store.piece_again(let_go, within.clone()).await
        {
            return Some(piece);
        }
        // For the first time, or once more where reclaim has moved it.
        let extent = store.extent_of_slice(self.body_len);
        let mut found = store.slice(self.key, extent).await;
        if found.is_none() {
            let piece = store.fragment_piece(&self.head, self.key.number, within.clone()).await;
            if piece.is_some() {
                return piece;
            }
            // Retry once: its fragments may have been joined to a whole one meanwhile.
            found = store.slice(self.key, extent).await;
        }
        let (entry, _) = found?;
        if entry.body_len() != self.body_len {
            return None;
        }
        if !entry.has_body() {
            let let_go = self.let_go.insert(entry);
            return store.piece_again(let_go, within).await;
        }
        let piece = store.body_piece(&entry, within.clone());
        if piece.len() < within.len() {
            self.let_go = Some(entry.without_body());
        }
        Some(piece)
    }
}

impl Store {
    /// The first bytes `within` a slice that one of its fragments has; `None` if none has the first of them.
    async fn fragment_piece(
        &self,
        head: &ObjectHead,
        number: u32,
        within: Range<usize>,
    ) -> Option<Bytes> {
        // Retry once: a fragment may have been joined with others since it was seen.
        for _ in 0..2 {
            let Granule::Fragments(fragments) = self.fragments(head, number).await else { break };
            let has_first = |at: &Range<usize>| at.contains(&within.start);
            if let Some(fragment) = fragments.iter().find(|one| has_first(&one.within)) {
                let key = SliceKey { object: head.object, number, fragment: fragment.number };
                if let Some((slot, _)) = self.slice(key, Extent::Answer).await
                    && let Some(at) = within_granule(&slot).filter(has_first)
                {
                    let end = within.end.min(at.end);
                    let piece = within.start - at.start..end - at.start;
                    return Some(self.body_piece(&slot, piece));
                }
            }
            self.shared.large.granules.forget((head.object, number));
        }
        None
    }

    /// Whether the index has an index entry for each slice that holds bytes `range` of an object, or there are
    /// fragments that hold them. Lets others run in between: there may be millions of them.
    pub(in crate::store) async fn has_slices(&self, head: &ObjectHead, range: Range<u64>) -> bool {
        for (n, number) in (0usize..).zip(head.slices_of(range.clone())) {
            if n > 0 && n.is_multiple_of(SLICES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let key = SliceKey::of_slice(head.object, number).encode();
            if self.shared.catalog.lock(self.slice_hash(&key)).candidates().is_empty() {
                let slice = head.range_of(number);
                let within = |at: u64| {
                    let at = at.clamp(slice.start, slice.end) - slice.start;
                    usize::try_from(at).unwrap_or(usize::MAX)
                };
                let fragments = self.fragments(head, number).await;
                if !fragments.gaps(within(range.start)..within(range.end)).is_empty() {
                    return false;
                }
            }
        }
        true
    }

    /// Where a slice with a body of `body_len` bytes is on the device; `None` if it is in memory too,
    /// gone, or not the only one with its fingerprint: then the reader of slices knows. Counts as a hit.
    pub(in crate::store) fn slice_place(
        &self,
        key: SliceKey,
        body_len: usize,
    ) -> Option<SlicePlace> {
        let key_hash = self.slice_hash(&key.encode());
        let candidates = self.candidates(key_hash);
        let [candidate] = candidates[..] else { return None };
        let (generation, offset) = candidate.place().split(&self.shared.layout);
        if self.shared.catalog.regions.get(generation.region())?.in_memory()
            || self.shared.catalog.resident.get(candidate.place()).is_some()
        {
            return None;
        }
        if !candidate.is_hit {
            self.shared.catalog.lock(key_hash).mark_hit(candidate.location());
        }
        Some(SlicePlace { generation, offset, body_len })
    }

    /// How much of a slice is read at once: what comes before its body where there is neither
    /// memory to hold it nor a RAM tier that wants it.
    fn extent_of_slice(&self, body_len: usize) -> Extent {
        let is_short = body_len <= UNSHARED_LEN_MAX;
        if is_short
            || self.shared.reading.bodies.has(body_len)
            || self.shared.catalog.resident.admits(body_len as u64)
        {
            return Extent::Answer;
        }
        Extent::Meta { len: slice_meta_len(body_len) }
    }
}
