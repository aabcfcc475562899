//! The regions that could not be read whole at the start, tried again until they can be. Owns what
//! becomes of what they turn out to hold: it takes older versions out of the index and adds nothing.
//!
//! Which of the entries in such a region still count nobody knows any more, since what changed
//! meanwhile left tombstones without a look at them. So none is indexed; the region is emptied next,
//! and its tombstones are carried on.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{
    Footer, ObjectHead, REGION_HEADER_LEN, RegionHeader, RegionUse, Sequence, Tombstone, Trailer,
};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entries::Candidate;
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::recovery::headers::{header_by, take_header};
use crate::store::recovery::parallel::READ_ATTEMPTS;
use crate::store::recovery::work::Recovery;
use crate::store::region::contents::ContentsReader;
use crate::store::region::reader::Effort;
use crate::store::region::state::RegionState;

/// First and longest pause between two attempts.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(256)];
/// Records that are looked up in the index without giving way to other tasks.
const BATCH: usize = 256;
/// Bytes of a key that are read with a header: most keys are shorter.
const KEY_LEN: usize = 256;

/// The generation of a region that can be read after all, and what it holds: all of that was read once.
type Found<'a> = (RegionHeader, ContentsReader<'a>);

/// Whether an entry in the index is an older version of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Older {
    No,
    /// With its head, if it is a large object's.
    Yes(Option<ObjectHead>),
    /// It cannot be read.
    Maybe,
    /// It is not where it was.
    Moved,
}

impl Recovery {
    /// Tries the regions that could not be read again and again, until all are read or freed.
    pub(super) async fn read_unread_regions(&self) {
        let mut pause = PAUSES[0];
        while !self.unread_regions().is_empty() {
            if self.is_stopped_within(pause).await {
                return;
            }
            let mut any = false;
            for region in self.unread_regions() {
                any |= !self.store.shared.is_stopping() && self.read_again(region).await;
            }
            pause = if any { PAUSES[0] } else { (pause * 2).min(PAUSES[1]) };
        }
    }

    /// Regions that could not be read whole so far, but for those that hold nothing that counts.
    fn unread_regions(&self) -> Vec<u32> {
        let regions = &self.store.shared.catalog.regions;
        let rows = regions.iter().filter(|(region, row)| {
            let is_unread = row.is_unread() || row.state() == RegionState::Unreadable;
            is_unread && !regions.is_dead(*region)
        });
        rows.map(|(region, _)| region).collect()
    }

    async fn is_stopped_within(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            let changed = self.store.shared.signals.changes.notified();
            if self.store.shared.is_stopping() {
                return true;
            }
            if tokio::time::timeout_at(end, changed).await.is_err() {
                return self.store.shared.is_stopping();
            }
        }
    }

    /// Tries to read a region that could not be read whole so far; true if it was.
    pub(in crate::store) async fn read_again(&self, region: u32) -> bool {
        let row = self.store.shared.catalog.regions.on_device(region);
        let generation = row.generation();
        let Ok(found) = self.find_again(region).await else { return false };
        // Entries that were found in it at the start are of the generation that it was in then.
        let state = match &found {
            Some((header, _)) if header.generation == generation => row.state(),
            _ => RegionState::Unreadable,
        };
        let is_settled = matches!(state, RegionState::Unreadable | RegionState::Sealed);
        // Reclaim may be about to free it, or have freed it.
        if !is_settled || !row.change_state(state, RegionState::Reclaiming) {
            return false;
        }
        let is_read = state == RegionState::Sealed && !row.is_unread();
        if is_read || row.generation() != generation {
            row.set_state(state);
            return false;
        }
        match found {
            None => {
                self.store.shared.catalog.regions.note_read(region);
                self.store.found_blank(region);
            }
            Some((header, mut contents)) => {
                let (mut keep_until, mut tombstones) = (Timestamp::default(), 0);
                let mut are_out = true;
                while are_out && let Some(piece) = contents.next().await {
                    keep_until = keep_until.max(piece.keep_until_max());
                    tombstones += piece.all_tombstones().count() + piece.purge_records.len();
                    self.store.take_late_purges(&piece.purge_records);
                    are_out = planted::is(Bug::IgnoreRereadVersions)
                        || self.take_out_older_versions(piece).await;
                }
                let is_whole = matches!(contents.end(), Ok(None));
                if !are_out || !is_whole || self.store.shared.is_stopping() {
                    // Some may have stayed: what is in the region is not known then.
                    row.set_state(state);
                    return false;
                }
                self.take_generation(region, &header, (keep_until, tombstones));
            }
        }
        count(&self.store.shared.counters.regions_reread);
        tracing::info!(region, "a region that could not be read at the start is read");
        true
    }

    /// Reads a region; `None` if it has no entries and is free.
    async fn find_again(&self, region: u32) -> Result<Option<Found<'_>>, DeviceError> {
        let shared = &*self.store.shared;
        let start = shared.layout.region_offset(region);
        let bytes = shared.device.read_exact(start..start + REGION_HEADER_LEN as u64).await?;
        // The last block must be read too: it may tell of a later generation.
        let trailer = self.store.reader().read_tail(region).await?.trailer.ok();
        let Some(header) = self.generation_by(region, &bytes, trailer.as_ref()) else {
            return Ok(None);
        };
        let read = self.store.read_contents(region, header.generation, Effort::Whole).await;
        let mut contents = read?;
        while contents.next().await.is_some() {}
        if let Some(error) = contents.end()? {
            return Err(error);
        }
        contents.restart();
        Ok(Some((header, contents)))
    }

    /// The generation that a region is in, by what can be read now and what was read at the start; `None` if
    /// it holds nothing.
    fn generation_by(
        &self,
        region: u32,
        block: &[u8],
        trailer: Option<&Trailer>,
    ) -> Option<RegionHeader> {
        let row = self.store.shared.catalog.regions.on_device(region);
        let known = row.generation();
        let header = RegionHeader::decode(block, self.store.shared.uuid, region).ok();
        let header = header.filter(|header| header.generation >= known);
        let by_header = header.map_or(known, |header| header.generation);
        if let Some(trailer) = trailer.filter(|trailer| trailer.generation > by_header) {
            return Some(header_by(trailer));
        }
        match header {
            Some(header) => (header.region_use == RegionUse::Log).then_some(header),
            None if known == Sequence(0) => None,
            None => Some(RegionHeader {
                generation: known,
                region_use: RegionUse::Log,
                stamp: Timestamp::default(),
                touched: row.is_touched(),
                log: row.log(),
            }),
        }
    }

    /// Has a region, of which older versions are no longer in the index, emptied next.
    fn take_generation(
        &self,
        region: u32,
        header: &RegionHeader,
        (keep_until, tombstones): (Timestamp, usize),
    ) {
        let shared = &*self.store.shared;
        let row = shared.catalog.regions.on_device(region);
        if row.generation() != header.generation {
            take_header(&shared.catalog.regions, region, header);
        }
        if row.holds_purges() {
            // So it has no entries.
            let _log = shared.log.lock();
            shared.catalog.regions.note_indexed(region);
        }
        row.raise_keep_until(keep_until);
        let counted = usize::try_from(row.tombstones()).unwrap_or(usize::MAX);
        row.add_tombstones(tombstones.saturating_sub(counted));
        row.forget_failures();
        row.condemn();
        row.set_state(RegionState::Sealed);
        shared.catalog.regions.note_read(region);
        shared.signals.wake_reclaimer.notify_one();
    }

    /// Takes every entry of an earlier start out of the index that a record of a region prevails over,
    /// unless the store stops: then nothing goes from the index. False if one may have stayed.
    pub(in crate::store) async fn take_out_older_versions(&self, footer: &Footer) -> bool {
        let records = footer.records.iter().map(|record| {
            (Tombstone { key_hash: record.key_hash, sequence: record.sequence }, record.supersedes)
        });
        let tombstones = footer.tombstones.iter().map(|tombstone| (*tombstone, true));
        for (n, (newer, is_tombstone)) in records.chain(tombstones).enumerate() {
            if self.store.shared.is_stopping() {
                return false;
            }
            if n % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            if !self.take_out_older(newer, is_tombstone).await {
                return false;
            }
        }
        true
    }

    /// False if an entry moved each time it was looked at.
    async fn take_out_older(&self, newer: Tombstone, is_tombstone: bool) -> bool {
        for _ in 0..READ_ATTEMPTS {
            let mut moved = false;
            for candidate in self.store.candidates(newer.key_hash) {
                let place = candidate.place();
                if !self.store.is_of_earlier_start(place) || place.is_in_ram() {
                    continue;
                }
                let is_older = self.is_older(candidate, newer).await;
                let head = match is_older {
                    Older::No => continue,
                    Older::Moved => {
                        moved = true;
                        continue;
                    }
                    Older::Yes(head) => head,
                    Older::Maybe => None,
                };
                if !is_tombstone || is_older == Older::Maybe {
                    // Its death is not on record, or it is another key's: it must not pass for gone.
                    let (generation, _) = place.split(&self.store.shared.layout);
                    self.store.shared.log.lock().note_unindexed_in(generation);
                }
                if !self.store.forget(newer.key_hash, place) {
                    // Taken out by others, or where reclaim wrote it again.
                    moved = true;
                } else if let Some(head) = head {
                    self.store.discard(head);
                }
            }
            if !moved {
                return true;
            }
        }
        false
    }

    /// Whether an entry is an older version of a key.
    async fn is_older(&self, candidate: Candidate, newer: Tombstone) -> Older {
        if candidate.place().generation() > newer.sequence {
            return Older::No;
        }
        let mut loaded = self.store.peek(candidate, Extent::Key { key_len: KEY_LEN }).await;
        if matches!(&loaded, Loaded::Entry(entry, _) if entry.sequence() < newer.sequence) {
            // The key is believed of a verified slot only.
            loaded = self.store.peek(candidate, Extent::Whole).await;
        }
        match loaded {
            Loaded::Entry(entry, _) if entry.sequence() >= newer.sequence => Older::No,
            Loaded::Entry(entry, _) => {
                if self.store.hash_of(entry.kind(), entry.key()) != newer.key_hash {
                    return Older::No;
                }
                Older::Yes(entry.object_head())
            }
            Loaded::Moved => Older::Moved,
            Loaded::Damaged | Loaded::Unreadable | Loaded::Late => Older::Maybe,
        }
    }
}
