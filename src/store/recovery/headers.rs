//! Reads the region headers. Owns what a header alone says of its region. Until it is read, the region
//! counts neither as free nor as one to be emptied.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::format::{LogKind, REGION_HEADER_LEN, RegionHeader, RegionUse, Sequence, Trailer};
use crate::store::recovery::parallel::READ_ATTEMPTS;
use crate::store::recovery::progress::ProgressLog;
use crate::store::recovery::work::Recovery;
use crate::store::region::state::RegionState;
use crate::store::region::table::RegionTable;

/// Headers read at the same time, in device order: they are small and far apart, so a slow disk can
/// choose the nearest.
const PARALLEL: usize = 256;

/// Longest read of a header before it counts as failed: on a slow disk others wait behind it.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Regions that hold no entries according to their headers.
#[derive(Default)]
pub(super) struct Vacant {
    /// All of them.
    pub free: Vec<u32>,
    /// Those that hold a part of an index snapshot, of any epoch.
    pub snapshots: Vec<u32>,
}

impl Recovery {
    /// Fills the region table from the region headers. Does not release vacant regions yet, as they may
    /// hold a snapshot. Ends early if the store stops.
    pub(super) async fn read_region_headers(&self) -> Vacant {
        let progress = &self.store.shared.recovery.progress;
        let mut waiting = 0..self.store.shared.layout.region_count;
        progress.headers_total.store(u64::from(waiting.end), Ordering::Relaxed);
        let mut log = ProgressLog::start();
        let mut vacant = Vacant::default();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < PARALLEL
                && !self.store.shared.is_stopping()
                && let Some(region) = waiting.next()
            {
                reading.push(self.read_region_header(region));
            }
            let Some((region, header)) = reading.next().await else { break };
            // Else blank, damaged or unreadable: the footer decides.
            if let Some(header) = header {
                self.store.shared.clock.anchor(header.stamp);
                {
                    // A failed write flags all regions under this lock too.
                    let _log = self.store.shared.log.lock();
                    take_header(&self.store.shared.catalog.regions, region, &header);
                }
                if header.region_use != RegionUse::Log {
                    vacant.free.push(region);
                }
                if header.region_use == RegionUse::Snapshot {
                    vacant.snapshots.push(region);
                }
            }
            let done = progress.headers_done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(PARALLEL as u64) {
                log.tell(&progress.snapshot());
                tokio::task::yield_now().await;
            }
        }
        // They were found in the order of reads; fill a new device from its start.
        vacant.free.sort_unstable();
        vacant.snapshots.sort_unstable();
        vacant
    }

    async fn read_region_header(&self, region: u32) -> (u32, Option<RegionHeader>) {
        let start = self.store.shared.layout.region_offset(region);
        let range = start..start + REGION_HEADER_LEN as u64;
        for _ in 0..READ_ATTEMPTS {
            let read = self.store.shared.device.read_exact(range.clone());
            // A disk may retry as long as it likes; one bad spot must not hold up all others.
            if let Ok(Ok(bytes)) = tokio::time::timeout(HEADER_WAIT_MAX, read).await {
                return (region, RegionHeader::decode(&bytes, self.store.shared.uuid, region).ok());
            }
            if self.store.shared.is_stopping() {
                break;
            }
        }
        (region, None)
    }
}

/// Takes a region's generation and state from its header.
pub(super) fn take_header(regions: &RegionTable, region: u32, header: &RegionHeader) {
    let state = match header.region_use {
        RegionUse::Log => RegionState::Unknown,
        RegionUse::Free | RegionUse::Snapshot => RegionState::Free,
    };
    regions.begin_generation(region, header.generation, state);
    // Its tombstones, carried ones too, are of its epoch or earlier ones.
    let end = Sequence::first_of(header.generation.epoch().saturating_add(1));
    regions.on_device(region).set_log(header.log, end);
    if header.log == LogKind::Purges {
        // A failure before this point noted it as unindexed.
        regions.note_indexed(region);
    }
    if header.touched {
        regions.on_device(region).set_touched();
    }
}

/// A header with the generation of a sound trailer. Whether entries were touched is unknown: assume so.
pub(super) fn header_by(trailer: &Trailer) -> RegionHeader {
    RegionHeader {
        generation: trailer.generation,
        region_use: RegionUse::Log,
        stamp: trailer.stamp,
        touched: true,
        log: trailer.log,
    }
}
