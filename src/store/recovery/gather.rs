//! Reads what every region holds, from footers or slots. Owns how much is read at a time and on which
//! thread it is decoded; which version wins is settled later.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::device::DeviceError;
use crate::format::{
    Damage, Footer, REGION_HEADER_LEN, RegionHeader, RegionUse, Sequence, Trailer,
};
use crate::store::counters::count;
use crate::store::log::core::Incomplete;
use crate::store::recovery::found_purges::FoundPurges;
use crate::store::recovery::headers::{header_by, take_header};
use crate::store::recovery::memory::Shares;
use crate::store::recovery::parallel::{PARALLEL, READ_ATTEMPTS, on_thread};
use crate::store::recovery::parts::Parts;
use crate::store::recovery::progress::ProgressLog;
use crate::store::recovery::region_versions::{Region, Summary};
use crate::store::recovery::work::Recovery;
use crate::store::region::contents::{ContentsReader, FooterPieces, SCAN_MEMORY};
use crate::store::region::reader::{Effort, RawFooter, Tail};
use crate::store::region::state::RegionState;

/// A footer of at most this many records is decoded without an extra thread, which would cost more.
const INLINE_RECORDS_MAX: u32 = 4096;

/// Most unreadable regions that are logged one by one; the rest is only counted.
const UNREADABLE_NAMED_MAX: u64 = 5;

/// What the first pass over all regions shows, besides versions.
pub(super) struct Gathered {
    pub incomplete: Incomplete,
    /// Regions that hold entries, in the generation that was read: later passes read them again.
    pub regions: Vec<(u32, Sequence)>,
    pub purges: Arc<FoundPurges>,
}

/// Shared by the readers of single regions.
struct Gathering {
    parts: Arc<Parts>,
    /// In KiB, for footers and scans. Who needs more takes all of it: a longer footer is read in pieces.
    memory: Semaphore,
    memory_kib: u32,
    threads: Semaphore,
    /// Of the first pass only: it finds all of them.
    purges: Option<Arc<FoundPurges>>,
    headerless: Mutex<Vec<u32>>,
    /// Regions that could not be read.
    unreadable: AtomicU64,
}

impl Gathering {
    /// What `bytes` bytes take of the memory, in KiB.
    fn kib(&self, bytes: u64) -> u32 {
        u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(self.memory_kib)
    }
}

impl Recovery {
    fn gathering(
        &self,
        parts: &Arc<Parts>,
        threads: usize,
        purges: Option<&Arc<FoundPurges>>,
    ) -> Gathering {
        let footers = Shares::of(self.store.shared.options.recovery_bytes_max).footers;
        let memory_kib = u32::try_from(footers >> 10).unwrap_or(u32::MAX).max(1);
        Gathering {
            parts: Arc::clone(parts),
            memory: Semaphore::new(memory_kib as usize),
            memory_kib,
            threads: Semaphore::new(threads),
            purges: purges.cloned(),
            headerless: Mutex::default(),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Reads what every region holds that may hold anything, in the first pass. Ends early if the store
    /// stops.
    pub(super) async fn gather(&self, parts: &Arc<Parts>, threads: usize) -> Gathered {
        let progress = &self.store.shared.recovery.progress;
        let purges = Arc::new(FoundPurges::new(self.store.shared.log.lock().floors()));
        let gathering = self.gathering(parts, threads, Some(&purges));
        let unknown = |row: &crate::store::region::row::Region| row.state() == RegionState::Unknown;
        let found = self.store.shared.catalog.regions.iter().filter(|(_, row)| unknown(row));
        let mut waiting = found.map(|(region, _)| region).collect::<Vec<_>>().into_iter();
        progress.regions_total.store(waiting.len() as u64, Ordering::Relaxed);
        let mut log = ProgressLog::start();
        let (mut unsealed, mut regions) = (HashMap::new(), Vec::new());
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < PARALLEL
                && !self.store.shared.is_stopping()
                && let Some(region) = waiting.next()
            {
                reading.push(self.gather_region(region, &gathering));
            }
            let Some((region, footer)) = reading.next().await else { break };
            unsealed.extend(footer.map(|footer| (region, footer)));
            let row = self.store.shared.catalog.regions.on_device(region);
            if matches!(row.state(), RegionState::Sealed | RegionState::Open) {
                regions.push((region, row.generation()));
            }
            progress.regions_done.fetch_add(1, Ordering::Relaxed);
            progress.found.store(gathering.parts.len(), Ordering::Relaxed);
            log.tell(&progress.snapshot());
            tokio::task::yield_now().await;
        }
        drop(reading);
        let unreadable = gathering.unreadable.into_inner();
        if unreadable > 0 {
            let why = "regions are unreadable: older versions of what they hold may be served until they are read";
            tracing::error!(regions = unreadable, "{why}");
        }
        let headerless = gathering.headerless.into_inner();
        let incomplete = Incomplete { unsealed, headerless };
        Gathered { incomplete, regions, purges }
    }

    /// Reads regions again, for versions of the parts that an earlier pass had no memory for. Ends early
    /// if the store stops.
    pub(super) async fn gather_again(
        &self,
        regions: &[(u32, Sequence)],
        parts: &Arc<Parts>,
        threads: usize,
    ) {
        let progress = &self.store.shared.recovery.progress;
        let gathering = self.gathering(parts, threads, None);
        let found_before = progress.found.load(Ordering::Relaxed);
        progress.regions_total.fetch_add(regions.len() as u64, Ordering::Relaxed);
        let mut waiting = regions.iter().copied();
        let mut log = ProgressLog::start();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < PARALLEL
                && !self.store.shared.is_stopping()
                && let Some(region) = waiting.next()
            {
                reading.push(self.gather_region_again(region, &gathering));
            }
            let Some(()) = reading.next().await else { break };
            progress.regions_done.fetch_add(1, Ordering::Relaxed);
            progress.found.store(found_before + gathering.parts.len(), Ordering::Relaxed);
            log.tell(&progress.snapshot());
            tokio::task::yield_now().await;
        }
    }

    async fn gather_region_again(&self, (region, generation): (u32, Sequence), to: &Gathering) {
        let row = self.store.shared.catalog.regions.on_device(region);
        let mut attempt = 1;
        while row.generation() == generation {
            match self.try_gather_again(region, generation, to).await {
                Ok(()) => return,
                Err(_) if attempt < READ_ATTEMPTS => attempt += 1,
                Err(error) => {
                    // The rest of what it holds stays unknown, as if a part of it could not be read.
                    self.store.shared.log.lock().note_unindexed(region);
                    self.store.shared.catalog.regions.note_unread(region);
                    count(&self.store.shared.counters.read_errors);
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(region, error, "a region that was read is unreadable now");
                    return;
                }
            }
        }
    }

    async fn try_gather_again(
        &self,
        number: u32,
        generation: Sequence,
        gathering: &Gathering,
    ) -> Result<(), DeviceError> {
        let region = self.region(number);
        if let Ok(tail) = self.store.reader().read_tail(number).await
            && let Ok(trailer) = tail.trailer
            && trailer.generation == generation
            && let Ok(Some(Summary { hole: None, .. })) =
                self.gather_records(region, (tail, trailer), gathering).await
        {
            return Ok(());
        }
        // The slots say the same.
        let _memory = gathering.memory.acquire_many(gathering.kib(SCAN_MEMORY)).await;
        let mut contents = self.store.read_contents(number, generation, Effort::All).await?;
        let summary = region.take_pieces(&mut contents, gathering).await?;
        // What a hole hides is unknown. To find a version twice does no harm.
        summary.hole.map_or(Ok(()), Err)
    }

    fn region(&self, number: u32) -> Region {
        Region {
            number,
            layout: self.store.shared.layout,
            touched: self.store.shared.catalog.regions.on_device(number).is_touched(),
            now: self.store.shared.clock.now(),
        }
    }

    /// Reads what a region holds, from its footer, else from header and slots; gives the footer to
    /// write if one is missing.
    async fn gather_region(&self, region: u32, gathering: &Gathering) -> (u32, Option<Footer>) {
        let row = self.store.shared.catalog.regions.on_device(region);
        let mut by_header = row.generation();
        let mut attempt = 1;
        loop {
            match self.try_gather_region(region, &mut by_header, gathering).await {
                Ok(unsealed) => return (region, unsealed),
                Err(_) if attempt < READ_ATTEMPTS => attempt += 1,
                Err(error) => {
                    row.set_state(RegionState::Unreadable);
                    self.store.shared.log.lock().note_unindexed(region);
                    self.store.shared.catalog.regions.note_unread(region);
                    count(&self.store.shared.counters.read_errors);
                    if gathering.unreadable.fetch_add(1, Ordering::Relaxed) < UNREADABLE_NAMED_MAX {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(region, error, "region unreadable");
                    }
                    return (region, None);
                }
            }
        }
    }

    async fn try_gather_region(
        &self,
        region: u32,
        by_header: &mut Sequence,
        gathering: &Gathering,
    ) -> Result<Option<Footer>, DeviceError> {
        let row = self.store.shared.catalog.regions.on_device(region);
        let found = self.gather_footer(region, by_header, gathering).await;
        let is_headerless = row.generation() > *by_header;
        let unsealed = match found {
            Ok(true) => None,
            // Without a header too, the slots alone would leave too much in doubt.
            Err(error) if *by_header == Sequence(0) || is_headerless => return Err(error),
            Ok(false) if row.generation() == Sequence(0) && !self.find_header(region).await? => {
                return Ok(None);
            }
            _ => {
                if !is_headerless {
                    *by_header = row.generation();
                }
                let _memory = gathering.memory.acquire_many(gathering.kib(SCAN_MEMORY)).await;
                let contents =
                    self.store.read_contents(region, row.generation(), Effort::All).await?;
                self.gather_contents(region, contents, gathering).await?
            }
        };
        // For a region not read whole, reuse writes a new header.
        if is_headerless && !row.is_unread() {
            gathering.headerless.lock().push(region);
        }
        Ok(unsealed)
    }

    /// Retries a header that was unreadable or damaged at open; false if the region holds nothing.
    async fn find_header(&self, region: u32) -> Result<bool, DeviceError> {
        let header = self.read_header(region).await?;
        if let Some(header) = header.filter(|header| header.region_use == RegionUse::Log) {
            take_header(&self.store.shared.catalog.regions, region, &header);
            self.store.shared.clock.anchor(header.stamp);
            return Ok(true);
        }
        self.store.found_blank(region);
        Ok(false)
    }

    /// The header of a region; `None` if it is damaged, or there is none.
    async fn read_header(&self, region: u32) -> Result<Option<RegionHeader>, DeviceError> {
        let start = self.store.shared.layout.region_offset(region);
        let range = start..start + REGION_HEADER_LEN as u64;
        let bytes = self.store.shared.device.read_exact(range).await?;
        Ok(RegionHeader::decode(&bytes, self.store.shared.uuid, region).ok())
    }

    /// False if there is no sound footer of the present or a later generation.
    async fn gather_footer(
        &self,
        number: u32,
        by_header: &mut Sequence,
        gathering: &Gathering,
    ) -> Result<bool, DeviceError> {
        let row = self.store.shared.catalog.regions.on_device(number);
        let tail = self.store.reader().read_tail(number).await?;
        let Ok(trailer) = tail.trailer else { return Ok(false) };
        if trailer.generation < row.generation() {
            return Ok(false);
        }
        if trailer.generation > row.generation() {
            // A header that cannot be read may be of a later generation, whose entries count.
            let header = self.read_header(number).await?;
            match header.filter(|header| header.generation >= trailer.generation) {
                Some(header) => {
                    take_header(&self.store.shared.catalog.regions, number, &header);
                    *by_header = header.generation;
                    if header.region_use != RegionUse::Log {
                        // It was freed, and its footer was not overwritten yet.
                        self.store.found_blank(number);
                        return Ok(true);
                    }
                    if header.generation > trailer.generation {
                        return Ok(false);
                    }
                }
                None => self.begin_generation_by_trailer(number, &trailer),
            }
        }
        self.store.shared.clock.anchor(trailer.stamp);
        let region = self.region(number);
        let Some(summary) = self.gather_records(region, (tail, trailer), gathering).await? else {
            return Ok(false);
        };
        self.note_summary(&region, &summary);
        if let Some(error) = &summary.hole {
            self.note_hole(number, error);
        }
        row.set_state(RegionState::Sealed);
        Ok(true)
    }

    fn note_summary(&self, region: &Region, summary: &Summary) {
        let row = self.store.shared.catalog.regions.on_device(region.number);
        row.raise_keep_until(if region.touched { Timestamp::MAX } else { summary.keep_until });
        row.add_tombstones(summary.tombstones);
        // What ended gets no index entry.
        let until = summary.forgotten_until.0;
        self.store.shared.ages.forgotten_until.fetch_max(until, Ordering::AcqRel);
    }

    /// A part of a region is unreadable: what is in it is unknown.
    fn note_hole(&self, number: u32, error: &DeviceError) {
        let error = error as &dyn std::error::Error;
        tracing::error!(region = number, error, "a part of a region is unreadable");
        self.store.shared.log.lock().note_unindexed(number);
        self.store.shared.catalog.regions.note_unread(number);
    }

    /// Adds the versions in a footer to the parts; `None` if it is damaged.
    async fn gather_records(
        &self,
        region: Region,
        (tail, trailer): (Tail, Trailer),
        gathering: &Gathering,
    ) -> Result<Option<Summary>, DeviceError> {
        let layout = &self.store.shared.layout;
        let len = trailer.footer_len(layout.alignment).min(layout.region_size);
        let _memory = gathering.memory.acquire_many(gathering.kib(len)).await;
        if len >> 10 > u64::from(gathering.memory_kib) {
            drop(tail);
            let reader = self.store.reader();
            let pieces = FooterPieces::verify(reader, region.number, trailer).await?;
            let Ok(pieces) = pieces else { return Ok(None) };
            let mut contents = ContentsReader::of_pieces(pieces);
            return region.take_pieces(&mut contents, gathering).await.map(Some);
        }
        let raw = self.store.reader().read_records(region.number, tail, &trailer).await?;
        let Ok(raw) = raw else { return Ok(None) };
        Ok(take_footer(region, raw, trailer, gathering).await.ok())
    }

    /// Takes the generation from a sound trailer if the header does not have it. Footers are written
    /// after headers, so the header was damaged later; whether an entry was touched is unknown.
    fn begin_generation_by_trailer(&self, number: u32, trailer: &Trailer) {
        take_header(&self.store.shared.catalog.regions, number, &header_by(trailer));
    }

    async fn gather_contents(
        &self,
        number: u32,
        mut contents: ContentsReader<'_>,
        gathering: &Gathering,
    ) -> Result<Option<Footer>, DeviceError> {
        let row = self.store.shared.catalog.regions.on_device(number);
        let region = self.region(number);
        let mut summary = Summary::default();
        let mut footer = (!contents.is_sealed()).then(Footer::default);
        while let Some(piece) = contents.next().await {
            region.take_piece(piece, &mut summary, gathering);
            if let Some(footer) = &mut footer {
                footer.append(piece);
            }
            let memory_max = self.store.shared.catalog.limit.footer;
            footer = footer.filter(|footer| footer.memory() <= memory_max);
        }
        let hole = contents.end()?;
        self.store.shared.clock.anchor(contents.stamp());
        self.note_summary(&region, &summary);
        if let Some(error) = &hole {
            // Write no footer, which would make the loss permanent: the blocks may become readable
            // again.
            self.note_hole(number, error);
            footer = None;
        } else if footer.is_none() && !contents.is_sealed() {
            // There is no memory for its footer. The next starts scan it too, until it is freed.
            row.condemn();
        }
        let state = if footer.is_some() { RegionState::Open } else { RegionState::Sealed };
        row.set_state(state);
        Ok(footer)
    }
}

/// Decodes a footer, on a thread of its own if it is long.
async fn take_footer(
    region: Region,
    raw: RawFooter,
    trailer: Trailer,
    gathering: &Gathering,
) -> Result<Summary, Damage> {
    let (parts, purges) = (Arc::clone(&gathering.parts), gathering.purges.clone());
    let work = move || region.take_apart(&raw, &trailer, (&parts, purges.as_deref()));
    if trailer.record_count <= INLINE_RECORDS_MAX {
        return work();
    }
    on_thread(&gathering.threads, work).await.unwrap_or(Err(Damage::Short))
}

impl Region {
    /// Adds the versions in what is left of a region to the parts.
    async fn take_pieces(
        &self,
        contents: &mut ContentsReader<'_>,
        gathering: &Gathering,
    ) -> Result<Summary, DeviceError> {
        let mut summary = Summary::default();
        while let Some(piece) = contents.next().await {
            self.take_piece(piece, &mut summary, gathering);
            tokio::task::yield_now().await;
        }
        summary.hole = contents.end()?;
        Ok(summary)
    }

    fn take_piece(&self, piece: &Footer, summary: &mut Summary, gathering: &Gathering) {
        summary.tombstones += piece.tombstones.len() + piece.purge_records.len();
        piece.records.iter().for_each(|record| summary.count(record, self));
        gathering.parts.add(self.versions(piece));
        if let Some(purges) = &gathering.purges {
            purges.add(piece.purge_records.iter().copied());
        }
    }
}
