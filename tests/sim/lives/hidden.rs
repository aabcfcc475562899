//! A region that cannot be read for a life or two, and can be later. Owns the choice of the region
//! and of its part, and tells the history.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rawcached::cache::Cache;
use rawcached::device::{Effect, Fault, OperationKind};
use rawcached::format::{RegionHeader, RegionUse, Sequence};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::Run;
use super::between::uuid_of;
use crate::clients::Client;
use crate::scenario::SUPERBLOCK_SPACE;
use crate::world::World;

/// Bytes of a part in the middle of a region that cannot be read.
const PART_LEN: u64 = 64 << 10;
/// Bytes of a region's header, and of the end of its footer.
const END_LEN: u64 = 512;
/// Longest time after which a region can be read again within a life.
const HIDDEN_MS_MAX: u64 = 10_000;
/// How long a life goes on after its clients: the region is tried again meanwhile.
const AFTERMATH: Duration = Duration::from_secs(60);
/// How often to check whether the cache still misses a region.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A region that cannot be read.
#[derive(Clone, Debug)]
pub struct Hidden {
    region: u64,
    /// The bytes of the device that cannot be read.
    range: Range<u64>,
}

impl Run {
    /// Makes reads of one region, or a part of it, fail in this life, sometimes not to its end.
    pub(super) fn hide_region(&mut self, runtime: &Runtime) {
        if !self.scenario().strain.hides_region {
            return;
        }
        if self.hidden.is_none() && self.extra.bool() {
            self.hidden = Some(self.draw_hidden());
        }
        let Some(hidden) = self.hidden.clone() else { return };
        let device = self.world.device.clone();
        let fault = Fault::new(Effect::Fail(libc::EIO)).on(OperationKind::Read);
        device.inject(fault.within(hidden.range.clone()).always());
        let mut history = self.world.history.lock();
        history.begin_hiding();
        history.note(format_args!("region {}: {:?} is unreadable", hidden.region, hidden.range));
        drop(history);
        self.world.totals.lock().hidden += 1;
        if self.extra.bool() {
            let time = Duration::from_millis(self.extra.u64(0..HIDDEN_MS_MAX));
            runtime.spawn(async move {
                tokio::time::sleep(time).await;
                device.clear_faults();
            });
        }
    }

    /// After a life: the region can be read again, unless it stays hidden for one more.
    pub(super) fn end_hiding(&mut self) {
        self.world.device.clear_faults();
        if self.hidden.is_some() && self.extra.bool() {
            self.hidden = None;
        }
    }

    /// Lets time pass in which the region is tried again, and looks every key up.
    pub(super) async fn see_it_again(&mut self, cache: &Cache, born: Instant) {
        if self.hidden.is_none() || self.extra.bool() {
            return;
        }
        tokio::time::sleep(AFTERMATH).await;
        let client = Client::new(&self.world, cache, (self.extra.u64(..), 0), born);
        for key in 0..self.world.keys_max() {
            client.look(key).await;
        }
    }

    fn generation_of(&self, region: u64) -> Sequence {
        let start = SUPERBLOCK_SPACE + region * self.scenario().region_size;
        let block = self.world.device.contents(start..start + END_LEN);
        let number = u32::try_from(region).unwrap();
        let header = RegionHeader::decode(&block, uuid_of(self.scenario()), number);
        let is_used = |header: &RegionHeader| header.region_use == RegionUse::Log;
        header.ok().filter(is_used).map_or(Sequence(0), |header| header.generation)
    }

    fn draw_hidden(&mut self) -> Hidden {
        let size = self.scenario().region_size;
        // The newest regions hold most of the newer versions and tombstones that others lack.
        let mut regions: Vec<u64> = (0..self.scenario().regions).collect();
        regions.sort_by_key(|region| std::cmp::Reverse(self.generation_of(*region)));
        let among = [1, 3, regions.len()][self.extra.usize(0..3)];
        let region = regions[self.extra.usize(0..among)];
        let start = SUPERBLOCK_SPACE + region * size;
        let end = start + size;
        let range = match self.extra.u32(0..6) {
            0 => start..start + END_LEN,
            1 => end - END_LEN..end,
            2 => {
                let at = start + self.extra.u64(1..size / PART_LEN) * PART_LEN;
                at..at + PART_LEN
            }
            _ => start..end,
        };
        Hidden { region, range }
    }
}

/// Tells the history as soon as the cache has read all regions, whether at its start or later.
pub async fn watch_regions(world: Arc<World>, cache: Cache, born: Instant) {
    cache.ready().await;
    while !cache.is_ready() || cache.stats().store.regions_unreadable > 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    world.history(born).end_hiding();
}
