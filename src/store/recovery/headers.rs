//! The region headers, read at open. Owns what they alone say of each region.

use futures_util::future::join_all;

use super::{PARALLEL, READ_ATTEMPTS};
use crate::clock::Clock;
use crate::device::Device;
use crate::format::{REGION_HEADER_LEN, RegionHeader, RegionUse, Sequence, Superblock, Trailer};
use crate::store::regions::{RegionState, RegionTable};

/// The regions whose headers say that they hold no entries.
#[derive(Default)]
pub(in crate::store) struct Vacant {
    /// All of them.
    pub free: Vec<u32>,
    /// Those that hold part of an index snapshot, of whatever epoch.
    pub snapshots: Vec<u32>,
}

/// Fills the region table from the region headers.
pub(in crate::store) async fn read_region_headers(
    device: &Device,
    superblock: &Superblock,
    regions: &RegionTable,
    clock: &Clock,
) -> Vacant {
    let mut vacant = Vacant::default();
    let all: Vec<u32> = (0..superblock.layout.region_count).collect();
    for batch in all.chunks(PARALLEL) {
        let headers = batch.iter().map(|region| read_region_header(device, superblock, *region));
        for (region, header) in batch.iter().zip(join_all(headers).await) {
            match header {
                Ok(header) => {
                    clock.anchor(header.stamp);
                    take_header(regions, *region, &header);
                    if header.region_use != RegionUse::Log {
                        vacant.free.push(*region);
                    }
                    if header.region_use == RegionUse::Snapshot {
                        vacant.snapshots.push(*region);
                    }
                }
                // Blank, damaged or unreadable: the footer will tell.
                Err(()) => {
                    regions.begin_life(*region, Sequence(0), RegionState::Unknown);
                }
            }
        }
    }
    vacant
}

/// Takes a header's word for the life that a region is in.
pub(super) fn take_header(regions: &RegionTable, region: u32, header: &RegionHeader) {
    let state = match header.region_use {
        RegionUse::Log => RegionState::Unknown,
        RegionUse::Free | RegionUse::Snapshot => RegionState::Free,
    };
    regions.begin_life(region, header.generation, state);
    // Its tombstones, carried ones too, are of its epoch or earlier ones.
    let end = Sequence::first_of(header.generation.epoch().saturating_add(1));
    regions.on_device(region).set_log(header.log, end);
    if header.touched {
        regions.on_device(region).set_touched();
    }
}

/// The header of the life that a sound trailer tells of. Whether anything was touched in it nobody knows.
pub(super) fn header_by(trailer: &Trailer) -> RegionHeader {
    RegionHeader {
        generation: trailer.generation,
        region_use: RegionUse::Log,
        stamp: trailer.stamp,
        touched: true,
        log: trailer.log,
    }
}

async fn read_region_header(
    device: &Device,
    superblock: &Superblock,
    region: u32,
) -> Result<RegionHeader, ()> {
    let start = superblock.layout.region_offset(region);
    let range = start..start + REGION_HEADER_LEN as u64;
    for _ in 0..READ_ATTEMPTS {
        if let Ok(bytes) = device.read_exact(range.clone()).await {
            let header = RegionHeader::decode(&bytes, superblock.uuid, region);
            return header.map_err(|_| ());
        }
    }
    Err(())
}
