//! Parallel reading of a range of a large object. Owns the order of what is given and its
//! verification; the slices are the store's.
//!
//! `plan` says which blocks are needed, each once; `window` reads them, several at a time;
//! [`RangeReader`] checks every piece against its checksum before it gives it away.

pub(in crate::store) mod options;
pub(in crate::store) mod plan;
pub(in crate::store) mod stats;
mod window;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::clock::Stopwatch;
use crate::format::{BODY_CHUNK, EntryHeader, Kind, ObjectHead, SliceKey};
use crate::store::counters::{add, count};
use crate::store::large::slice_place::{SlicePlace, checked_part};
use crate::store::large::slices::SliceReader;
use crate::store::lookup::bodies::TruncatedBody;
use crate::store::place::Generation;
use crate::store::shared::Store;
use options::RangeOptions;
use plan::{Plan, Want};
use window::{Pieces, Unavailable, Window};

/// Most bytes checked and given in one go.
const GIVEN_LEN_MAX: usize = 1 << 20;

/// Slices looked up ahead of what is given.
const WANTS_MAX: usize = 256;

/// Reads a range of an object's body, several pieces at a time, in order. Dropping it takes back
/// what has not reached the device yet.
pub(super) struct RangeReader {
    store: Store,
    head: ObjectHead,
    options: RangeOptions,
    /// Body bytes that no want covers yet.
    unplanned: Range<u64>,
    wants: VecDeque<Want>,
    plan: Plan,
    window: Window,
    current: Option<Current>,
    ready: VecDeque<Bytes>,
    /// A call failed or was dropped half way: what would be given next is not what comes next.
    broken: bool,
    /// It came to its end, or failed.
    finished: bool,
}

/// The slice that is being given.
struct Current {
    want: Want,
    /// What is known of it, if it is read by itself.
    by_itself: SliceReader,
    /// Checksums and where the body begins, once they are known to be sound.
    checks: Option<Checks>,
}

struct Checks {
    header: EntryHeader,
    table: Vec<u8>,
}

impl Checks {
    fn is_sound(&self, piece: usize, bytes: &Pieces) -> bool {
        let mut checksum = crc32fast::Hasher::new();
        for part in bytes {
            checksum.update(part);
        }
        self.header.chunk_checksum(&self.table, piece) == Some(checksum.finalize())
    }
}

impl RangeReader {
    /// Begins to read `range` of the body, and has its first piece when it returns.
    ///
    /// # Errors
    /// The first piece is gone or damaged.
    ///
    /// # Panics
    /// If the range is empty or ends beyond the body.
    pub async fn open(
        (store, head): (&Store, ObjectHead),
        range: Range<u64>,
        options: RangeOptions,
    ) -> Result<RangeReader, TruncatedBody> {
        assert!(range.start < range.end && range.end <= head.len, "{range:?} of {}", head.len);
        count(&store.shared.reading.ranges.ranges);
        let window = Window::new(Arc::clone(&store.shared), options, range.end - range.start);
        let mut reader = RangeReader {
            store: store.clone(),
            head,
            options,
            unplanned: range,
            wants: VecDeque::new(),
            plan: Plan::new(store.shared.layout.alignment),
            window,
            current: None,
            ready: VecDeque::new(),
            broken: false,
            finished: false,
        };
        reader.advance().await?;
        Ok(reader)
    }

    /// The next piece of the range, at most 1 MiB; `None` at its end.
    ///
    /// # Errors
    /// A piece is gone, damaged or took too long: the range ends here, short. So it does where an
    /// earlier call failed or was dropped before it had ended.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TruncatedBody> {
        if self.broken {
            return Err(TruncatedBody);
        }
        if self.ready.is_empty() {
            self.advance().await?;
        }
        let chunk = self.ready.pop_front();
        add(
            &self.store.shared.reading.ranges.bytes,
            chunk.as_ref().map_or(0, |chunk| chunk.len() as u64),
        );
        // A caller that counts bytes does not ask again for the end.
        self.finished = self.is_given();
        Ok(chunk)
    }

    fn is_given(&self) -> bool {
        self.ready.is_empty()
            && self.current.is_none()
            && self.wants.is_empty()
            && self.unplanned.is_empty()
    }

    /// Makes at least one piece ready, unless the end is reached.
    async fn advance(&mut self) -> Result<(), TruncatedBody> {
        // Stays so if this fails, or if the caller drops it half way.
        self.broken = true;
        let advanced = self.try_to_advance().await;
        self.broken = advanced.is_err();
        self.finished |= self.broken;
        advanced
    }

    async fn try_to_advance(&mut self) -> Result<(), TruncatedBody> {
        while self.ready.is_empty() {
            self.read_ahead();
            let Some(mut current) = self.current.take().or_else(|| self.next_want()) else {
                return Ok(());
            };
            match self.give_from_window(&mut current).await {
                Ok(()) => {}
                Err(Unavailable::Missing) => self.give_by_itself(&mut current).await?,
                Err(Unavailable::TimedOut) => {
                    self.window.count_timeout();
                    return Err(TruncatedBody);
                }
            }
            if !current.want.within.is_empty() {
                self.current = Some(current);
            }
        }
        self.read_ahead();
        Ok(())
    }

    fn next_want(&mut self) -> Option<Current> {
        let want = self.wants.pop_front()?;
        let by_itself = SliceReader::new(&self.head, want.number);
        Some(Current { want, by_itself, checks: None })
    }

    /// Plans and begins reads until there are as many as there may be.
    fn read_ahead(&mut self) {
        while let Some(wanted) = self.window.wants() {
            while self.plan.next_len() < wanted
                && !self.plan.has_several()
                && self.wants.len() < WANTS_MAX
                && !self.unplanned.is_empty()
            {
                self.plan_slice();
            }
            if !self.window.begin(&mut self.plan) {
                break;
            }
        }
        // With every slice in memory there is nothing to read, but something to give.
        if self.wants.is_empty() && self.current.is_none() && !self.unplanned.is_empty() {
            self.plan_slice();
        }
        self.window.poll();
    }

    fn plan_slice(&mut self) {
        let slice_size = u64::from(self.head.slice_size);
        let number = self.unplanned.start / slice_size;
        let slice_start = number * slice_size;
        let end = self.unplanned.end.min(slice_start + slice_size);
        let body_len = usize_of(slice_size.min(self.head.len - slice_start));
        let within = usize_of(self.unplanned.start - slice_start)..usize_of(end - slice_start);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let at = self.store.slice_place(SliceKey::of_slice(self.head.object, number), body_len);
        if let Some(place) = &at {
            self.plan.add(place, &within);
        }
        self.wants.push_back(Want { number, within, at });
        self.unplanned.start = end;
    }

    /// Gives what the window has of the current slice: at least one checked piece of it.
    async fn give_from_window(&mut self, current: &mut Current) -> Result<(), Unavailable> {
        let place = current.want.at.ok_or(Unavailable::Missing)?;
        let checks = match current.checks.take() {
            Some(checks) => checks,
            None => self.read_checks(&place, current.want.number).await?,
        };
        let wanted = current.want.within.clone();
        let checked = checked_part(&wanted, place.body_len);
        let mut end = checked.start;
        while end < checked.end && end - checked.start < GIVEN_LEN_MAX {
            let piece = end..(end + BODY_CHUNK).min(checked.end);
            let bytes = place.body(piece.clone());
            if end > checked.start && !self.window.has(place.generation, &bytes) {
                break;
            }
            let pieces = match self.wait_for(place.generation, bytes).await {
                Ok(pieces) if checks.is_sound(piece.start / BODY_CHUNK, &pieces) => pieces,
                Err(Unavailable::TimedOut) => return Err(Unavailable::TimedOut),
                // What was given so far is sound; the rest is read once more, by itself.
                Ok(_) | Err(Unavailable::Missing) => {
                    count(&self.store.shared.reading.ranges.retries);
                    current.want.at = None;
                    break;
                }
            };
            let skip = wanted.start.saturating_sub(piece.start);
            let keep = piece.end.min(wanted.end) - piece.start;
            self.give(pieces, skip..keep);
            end = piece.end;
        }
        current.want.within.start = end.clamp(wanted.start, wanted.end);
        current.checks = Some(checks);
        Ok(())
    }

    /// Puts the bytes `within` the pieces before the caller, joined to what lies before them.
    fn give(&mut self, pieces: Pieces, within: Range<usize>) {
        let mut at = 0;
        for piece in pieces {
            let start = within.start.clamp(at, at + piece.len()) - at;
            let end = within.end.clamp(at, at + piece.len()) - at;
            at += piece.len();
            if start < end {
                self.ready.push_back(piece.slice(start..end));
            }
        }
    }

    async fn wait_for(
        &mut self,
        generation: Generation,
        bytes: Range<u64>,
    ) -> Result<Pieces, Unavailable> {
        loop {
            self.read_ahead();
            if let Some(pieces) = self.window.gather(generation, &bytes)? {
                // What was read in another generation of the region is not looked at.
                let is_present = self.store.shared.catalog.regions.is_in(generation);
                return if is_present { Ok(pieces) } else { Err(Unavailable::Missing) };
            }
            self.window.arrive().await?;
        }
    }

    /// Header, key and checksum table of a slice, checked.
    async fn read_checks(
        &mut self,
        place: &SlicePlace,
        number: u32,
    ) -> Result<Checks, Unavailable> {
        let meta = self.wait_for(place.generation, place.meta()).await?.concat();
        let seed = self.store.shared.catalog.regions.seed_of(place.generation);
        let header = EntryHeader::decode(&meta, seed, place.offset);
        let header = header.map_err(|_| Unavailable::Missing)?;
        let key = SliceKey::of_slice(self.head.object, number).encode();
        let is_slice = header.kind == Kind::Slice
            && header.metadata_len == 0
            && header.body_len as usize == place.body_len
            && meta[header.key_range()] == key;
        if !is_slice || header.check_meta(&meta).is_err() {
            return Err(Unavailable::Missing);
        }
        let table = meta[header.table_range()].to_vec();
        Ok(Checks { header, table })
    }

    /// Gives the rest of a slice that is in memory, moved, or was not read whole: as the store
    /// gives it, with all its checks and second tries.
    async fn give_by_itself(&mut self, current: &mut Current) -> Result<(), TruncatedBody> {
        if current.want.at.take().is_some() {
            count(&self.store.shared.reading.ranges.retries);
        }
        let within = current.want.within.clone();
        let watch = Stopwatch::start();
        let piece = current.by_itself.piece(&self.store, within);
        let piece = tokio::time::timeout(self.options.timeout, piece).await;
        self.store.shared.reading.ranges.waited(watch.elapsed());
        if piece.is_err() {
            self.window.count_timeout();
        }
        let piece = piece.ok().flatten().ok_or(TruncatedBody)?;
        current.want.within.start += piece.len();
        self.ready.push_back(piece);
        Ok(())
    }
}

impl Drop for RangeReader {
    fn drop(&mut self) {
        if !self.finished {
            self.store.shared.reading.ranges.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
