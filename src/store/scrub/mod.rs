//! Verifies the device in the background: superblock copies, region headers, footers, tombstones and
//! every entry with its body. Owns the order of the walk, its pace, and what happens to damage. Never
//! changes anything sound, nor anything that it could not read twice.
//!
//! * A damaged **entry** leaves the index as it does when a lookup meets it, with a tombstone.
//! * A region whose **header, footer or tombstones** are damaged still serves its entries, but a start
//!   depends on the remaining copy. It is *condemned*: reclaim empties it next. That carries its
//!   tombstones to another region, from the footer if that is sound, else from the slots, re-inserts hit
//!   entries as far as reclaim may, and evicts the rest.
//! * A damaged **superblock** copy is written again from memory, unless the copy is now another store's
//!   or a later one: then somebody else uses the device, and it is left alone.
//! * An **unreadable** place is counted and left: a loose cable must not empty a cache.
//!
//! Free regions are skipped: nothing relies on them, and reuse writes a new header.

mod walk;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::device::{AlignedBuf, DeviceError};
use crate::format::{
    Footer, FooterRecord, RegionHeader, RegionUse, SUPERBLOCK_LEN, Superblock, Trailer, round_up,
};
use crate::store::counters::{add, count};
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::place::Generation;
use crate::store::region::state::RegionState;
use crate::store::shared::Store;
use walk::Walk;

/// Bytes of one read: half a millisecond of a SATA disk, the longest that a lookup waits for it.
const CHUNK: u64 = 256 << 10;
/// Regions without anything to verify that one step passes over.
const SKIPS_MAX: u32 = 1024;
/// Longest time that one read waits for lookups to pause; then it runs beside them.
const GIVE_WAY_MAX: Duration = Duration::from_secs(1);
const GIVE_WAY_STEP: Duration = Duration::from_millis(1);
const GIVE_WAY_STEP_MAX: Duration = Duration::from_millis(16);
/// Pause after a start, which needs the device for other work.
const START_PAUSE: Duration = Duration::from_secs(600);
/// Shortest time from the begin of one pass to the next, so that a small device is not read all the
/// time.
const PASS_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Verifies a store's device, piece by piece, in endless passes.
pub struct Scrubber {
    store: Store,
    /// The next region.
    region: u32,
    /// Regions left in this pass; `None` before its beginning.
    left: Option<u32>,
    began: Instant,
    current: Option<Current>,
    /// Bytes read by the present step.
    bytes: u64,
    /// Regions whose damage was logged in this pass.
    reported: BTreeSet<Option<u32>>,
}

/// The region that is being walked, and its generation.
struct Current {
    generation: Generation,
    walk: Walk,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read from the device.
    pub bytes: u64,
    /// The pass has ended: every region was visited.
    pub pass_ended: bool,
}

/// A structure that can be damaged.
#[derive(Clone, Copy, Debug)]
enum Part {
    Superblock,
    Header,
    Footer,
    Tombstones,
    Entry,
}

impl Scrubber {
    /// A scrubber that begins at `region`, modulo the number of regions.
    #[must_use]
    pub fn starting_at(store: Store, region: u32) -> Scrubber {
        Scrubber {
            store,
            region,
            left: None,
            began: Instant::now(),
            current: None,
            bytes: 0,
            reported: BTreeSet::new(),
        }
    }

    /// Scrubs until the store stops, if scrubbing is on.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.store.shared);
        let rate = shared.options.scrub_bytes_per_sec;
        if rate == 0 {
            return;
        }
        self.store.recovered().await;
        // Anywhere: with frequent restarts a walk from 0 would never reach the last regions.
        self.region = self.store.shared.clock.now().0;
        let mut due = Instant::now() + START_PAUSE;
        while !self.is_stopped_by(due).await {
            let began = Instant::now();
            let step = tokio::select! {
                biased;
                () = shared.signals.stop_scrubber.notified() => return,
                step = self.step() => step,
            };
            let micros = step.bytes.saturating_mul(1_000_000).div_ceil(rate);
            due = began + Duration::from_micros(micros.max(1));
            if step.pass_ended {
                due = due.max(self.began + PASS_INTERVAL);
            }
        }
    }

    /// Waits until `due`; true if the store stops before.
    async fn is_stopped_by(&self, due: Instant) -> bool {
        let stop = self.store.shared.signals.stop_scrubber.notified();
        tokio::time::timeout_at(due, stop).await.is_ok() || self.store.shared.is_stopping()
    }

    /// Verifies the next piece of the device: the superblock copies, a region's header and footer, or
    /// up to 256 KiB of its slots. Reads one piece at a time, when no lookup reads. Does nothing until
    /// recovery is complete.
    pub async fn step(&mut self) -> ScrubStep {
        self.bytes = 0;
        let mut pass_ended = false;
        if self.store.is_recovered() {
            match (self.left, self.current.take()) {
                (None, _) => self.begin_pass().await,
                (_, Some(current)) => self.current = self.scrub_slots(current).await,
                (Some(0), None) => {
                    self.end_pass();
                    pass_ended = true;
                }
                (Some(_), None) => self.current = self.scrub_next_region().await,
            }
        }
        add(&self.store.shared.counters.scrub_bytes, self.bytes);
        ScrubStep { bytes: self.bytes, pass_ended }
    }

    async fn begin_pass(&mut self) {
        self.left = Some(self.store.shared.layout.region_count);
        self.began = Instant::now();
        self.reported.clear();
        self.scrub_superblocks().await;
    }

    fn end_pass(&mut self) {
        let counters = &self.store.shared.counters;
        self.left = None;
        let took_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.scrub_pass_us.store(took_us, Ordering::Relaxed);
        counters.scrub_pass_at.store(u64::from(self.store.shared.clock.now().0), Ordering::Relaxed);
        count(&counters.scrub_passes);
        tracing::info!(seconds = took_us / 1_000_000, "every region was verified");
    }

    // Superblock copies.

    async fn scrub_superblocks(&mut self) {
        let expected = self.store.shared.log.lock().superblock();
        let mut bad = 0;
        for offset in self.store.shared.layout.superblock_offsets() {
            bad += u64::from(self.is_superblock_bad(&expected.0, offset).await);
        }
        // A copy that was being rewritten meanwhile may read as damaged.
        if bad == 0 || expected.1 || self.store.shared.log.lock().superblock() != expected {
            return;
        }
        let place = (None, self.store.shared.layout.superblock_offsets()[0]);
        self.report(Part::Superblock, place);
        add(&self.store.shared.counters.scrub_superblocks, bad);
        let ticket = self.store.shared.log.lock().renew_superblock(self.store.shared.clock.pair());
        match self.store.flush_through(ticket).await {
            Ok(()) => add(&self.store.shared.counters.superblocks_repaired, bad),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a superblock copy could not be repaired");
            }
        }
    }

    async fn is_superblock_bad(&mut self, expected: &Superblock, offset: u64) -> bool {
        for attempt in 0..2 {
            let range = offset..offset + expected.block_len();
            let found = match self.scrub_read(range).await {
                Ok(block) => Superblock::decode(&block[..SUPERBLOCK_LEN]),
                Err(error) => {
                    if attempt > 0 {
                        self.report_unreadable(None, &error);
                    }
                    continue;
                }
            };
            match found {
                Ok(found) if found == *expected => return false,
                Ok(found) if found.uuid != expected.uuid || found.epoch > expected.epoch => {
                    tracing::error!(offset, "a superblock copy of another store or a later start");
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    // Header and footer.

    /// Skips regions without entries and begins with the next one that has some.
    async fn scrub_next_region(&mut self) -> Option<Current> {
        for _ in 0..SKIPS_MAX {
            let left = self.left?.checked_sub(1)?;
            self.left = Some(left);
            let region = self.region % self.store.shared.layout.region_count;
            self.region = region + 1;
            let row = self.store.shared.catalog.regions.on_device(region);
            let generation = self.store.shared.catalog.regions.generation_of(region);
            match row.state() {
                _ if row.is_condemned() => {}
                RegionState::Sealed => return self.scrub_sealed(generation).await,
                RegionState::Open => {
                    let records = self.written_records(region);
                    if !records.is_empty() {
                        let seed = self.store.shared.catalog.regions.seed_of(generation);
                        let block = self.store.shared.layout.alignment;
                        return Some(Current {
                            generation,
                            walk: Walk::written(seed, records, block),
                        });
                    }
                }
                RegionState::Unreadable => count(&self.store.shared.counters.scrub_unreadable),
                RegionState::Free | RegionState::Reclaiming | RegionState::Unknown => {}
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// The entries of an unsealed region that are on the device.
    fn written_records(&self, region: u32) -> Vec<FooterRecord> {
        let mut records: Vec<FooterRecord> = Vec::new();
        loop {
            let next = records.last().map_or(0, |last| last.offset + 1);
            let more = self.store.shared.log.lock().written_records(region, next);
            if more.is_empty() {
                return records;
            }
            records.extend(more);
        }
    }

    /// Verifies header and footer; returns the walk over the slots unless the region is condemned.
    async fn scrub_sealed(&mut self, generation: Generation) -> Option<Current> {
        let layout = self.store.shared.layout;
        let seed = self.store.shared.catalog.regions.seed_of(generation);
        let header = self.twice(generation, Part::Header).await;
        let footer = self.twice(generation, Part::Footer).await;
        let damaged = match (header, footer) {
            (Verdict::Damaged, _) => Part::Header,
            (_, Verdict::Damaged) => Part::Footer,
            (_, Verdict::Sound(Some((footer, end)))) => {
                let walk = Walk::sealed(seed, footer, layout.alignment, end);
                return Some(Current { generation, walk });
            }
            _ => return None,
        };
        if self.is_sealed_generation(generation) {
            self.condemn(generation, damaged).await;
        }
        None
    }

    /// Verifies a part of a region; reads it twice before it counts as damaged.
    async fn twice(&mut self, generation: Generation, part: Part) -> Verdict {
        let mut verdict = Verdict::Unreadable;
        for _ in 0..2 {
            let read = match part {
                Part::Header => self.scrub_header(generation).await,
                _ => self.scrub_footer(generation).await,
            };
            verdict = read.unwrap_or_else(|error| {
                self.report_unreadable(Some(generation.region()), &error);
                Verdict::Unreadable
            });
            if !matches!(verdict, Verdict::Damaged) {
                break;
            }
        }
        verdict
    }

    async fn scrub_header(&mut self, generation: Generation) -> Result<Verdict, DeviceError> {
        let start = self.store.shared.layout.region_offset(generation.region());
        let range = start..start + u64::from(self.store.shared.layout.alignment);
        let block = self.scrub_read(range).await?;
        let header = RegionHeader::decode(&block, self.store.shared.uuid, generation.region());
        let is_sound = header.is_ok_and(|header| {
            header.generation == generation.sequence() && header.region_use == RegionUse::Log
        });
        Ok(if is_sound { Verdict::Sound(None) } else { Verdict::Damaged })
    }

    async fn scrub_footer(&mut self, generation: Generation) -> Result<Verdict, DeviceError> {
        let layout = self.store.shared.layout;
        let regions = Arc::clone(&self.store.shared.catalog.regions);
        let seed_of =
            |sequence| regions.seed_of(regions.generation_at(generation.region(), sequence));
        let end = layout.region_size;
        let block = u64::from(layout.alignment);
        let last = self.scrub_region(generation.region(), end - block..end).await?;
        let trailer = match Trailer::decode(&last, seed_of) {
            Ok(trailer) if trailer.generation == generation.sequence() => trailer,
            _ => return Ok(Verdict::Damaged),
        };
        let Some(start) = end.checked_sub(trailer.footer_len(layout.alignment)) else {
            return Ok(Verdict::Damaged);
        };
        if trailer.footer_memory() > self.store.shared.catalog.limit.footer {
            // Written with more memory than there is now: its entries are verified when they are read.
            return Ok(Verdict::Sound(None));
        }
        let bytes = self.scrub_region(generation.region(), start..end).await?;
        Ok(match Footer::decode(&bytes, &trailer) {
            Ok(footer) => Verdict::Sound(Some((footer, start))),
            Err(_) => Verdict::Damaged,
        })
    }

    // Slots.

    /// Verifies the next chunk of slots; returns the walk unless it has ended.
    async fn scrub_slots(&mut self, mut current: Current) -> Option<Current> {
        let Current { generation, walk } = &mut current;
        let Some(range) = walk.wants(CHUNK) else {
            if !walk.tombstones_are_sound() && self.is_sealed_generation(*generation) {
                self.condemn(*generation, Part::Tombstones).await;
            }
            return None;
        };
        let start = self.store.shared.layout.region_offset(generation.region());
        let suspects = match self.scrub_read(start + range.start..start + range.end).await {
            Ok(bytes) => walk.take(&bytes),
            Err(error) => {
                self.report_unreadable(Some(generation.region()), &error);
                walk.skip(range.end);
                Vec::new()
            }
        };
        if !self.store.shared.catalog.regions.is_in(*generation) {
            return None;
        }
        for record in suspects {
            self.scrub_suspect(*generation, &record).await;
        }
        Some(current)
    }

    /// Reads a slot that looked damaged once more, by itself, and drops its entry if it still does.
    /// Ignores slots that the index does not point to: they are dead.
    async fn scrub_suspect(&mut self, generation: Generation, record: &FooterRecord) {
        let place = generation.place(record.offset, &self.store.shared.layout);
        let Some(candidate) = self.store.candidate_at(record.key_hash, place) else { return };
        self.bytes += 2 * candidate.class().len_max();
        self.give_way().await;
        match self.store.load_stored(candidate, Extent::Whole).await {
            Loaded::Entry(..) | Loaded::Moved => {}
            Loaded::Unreadable | Loaded::Late => {
                count(&self.store.shared.counters.scrub_unreadable)
            }
            Loaded::Damaged => {
                let offset =
                    self.store.shared.layout.region_offset(generation.region()) + record.offset;
                self.report(Part::Entry, (Some(generation.region()), offset));
                count(&self.store.shared.counters.scrub_entries);
                if self.store.begin_mutation().await.is_ok()
                    && self.store.drop_damaged(record.key_hash, candidate)
                {
                    count(&self.store.shared.counters.scrub_freed);
                }
            }
        }
    }

    // What becomes of damage.

    /// Has reclaim empty a region before all others.
    async fn condemn(&mut self, generation: Generation, part: Part) {
        let region = generation.region();
        let shared = Arc::clone(&self.store.shared);
        let counters = &shared.counters;
        count(match part {
            Part::Header => &counters.scrub_headers,
            Part::Tombstones => &counters.scrub_tombstones,
            _ => &counters.scrub_footers,
        });
        self.report(part, (Some(region), self.store.shared.layout.region_offset(region)));
        if self.store.begin_mutation().await.is_ok() && self.is_sealed_generation(generation) {
            self.store.shared.catalog.regions.on_device(region).condemn();
            count(&counters.scrub_condemned);
            self.store.shared.signals.wake_reclaimer.notify_one();
        }
    }

    fn is_sealed_generation(&self, generation: Generation) -> bool {
        let row = self.store.shared.catalog.regions.on_device(generation.region());
        self.store.shared.catalog.regions.is_in(generation) && row.state() == RegionState::Sealed
    }

    fn report(&mut self, part: Part, (region, offset): (Option<u32>, u64)) {
        if self.reported.insert(region) {
            tracing::error!(region, offset, ?part, "the scrubber found damage on the device");
        } else {
            tracing::debug!(region, offset, ?part, "the scrubber found more damage");
        }
    }

    fn report_unreadable(&mut self, region: Option<u32>, error: &DeviceError) {
        count(&self.store.shared.counters.scrub_unreadable);
        let error = error as &dyn std::error::Error;
        if self.reported.insert(region) {
            tracing::error!(region, error, "the scrubber cannot read from the device");
        } else {
            tracing::debug!(region, error, "the scrubber cannot read more of the region");
        }
    }

    // Reading.

    /// Reads aligned bytes of a region, a chunk at a time.
    async fn scrub_region(
        &mut self,
        region: u32,
        range: Range<u64>,
    ) -> Result<Vec<u8>, DeviceError> {
        let start = self.store.shared.layout.region_offset(region);
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end =
                range.end.min(at + round_up(CHUNK, u64::from(self.store.shared.layout.alignment)));
            bytes.extend_from_slice(&self.scrub_read(start + at..start + end).await?);
            at = end;
        }
        Ok(bytes)
    }

    async fn scrub_read(&mut self, range: Range<u64>) -> Result<AlignedBuf, DeviceError> {
        self.give_way().await;
        let len = range.end - range.start;
        self.bytes += len;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let device = &self.store.shared.device;
        device.read(range.start, device.geometry().read_buffer(len)).await
    }

    /// Waits while lookups read from the device, up to a limit.
    async fn give_way(&self) {
        let is_busy = || self.store.shared.device.stats().reads_in_flight > 0;
        if !is_busy() {
            return;
        }
        count(&self.store.shared.counters.scrub_yields);
        let deadline = Instant::now() + GIVE_WAY_MAX;
        let mut pause = GIVE_WAY_STEP;
        while is_busy() && Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(GIVE_WAY_STEP_MAX);
        }
    }
}

/// The result of reading a header or a footer.
enum Verdict {
    /// Sound; for a footer, its contents and where it begins.
    Sound(Option<(Footer, u64)>),
    Damaged,
    Unreadable,
}
