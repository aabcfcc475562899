//! The end of a run, with a device without faults: every key is looked up, then removed, and
//! nothing may be left of any.

use std::time::Duration;

use rawcached::cache::{Cache, StoreError};
use rawcached::device::{Delay, Rates};
use tokio::time::Instant;

use super::{End, Run, runtime};
use crate::clients::Client;
use crate::scenario::{SUPERBLOCK_SPACE, Scenario};
use crate::world::key_bytes;

/// Scheduler time after which background work must be at rest.
const REST: Duration = Duration::from_secs(10);
/// Regions that a store needs to take changes for ever: the fewest that a format makes.
const REGIONS_MIN: u64 = 8;

impl Run {
    /// Clears the faults, looks every key up and removes it; nothing may be left of any.
    pub(super) fn last_look(&mut self) {
        let device = self.world.device.clone();
        device.set_rates(Rates::default());
        device.set_delay(Delay::None);
        self.draw_memory();
        let runtime = runtime();
        let clock = self.clock();
        runtime.block_on(async {
            let born = Instant::now();
            let Some(cache) = self.open(&clock, End::Done, born).await else { return };
            cache.ready().await;
            self.world.history(born).recovered();
            self.check_age(&cache, born).await;
            let clients = Client::new(&self.world, &cache, (self.rng.u64(..), 0), born);
            for key in 0..self.world.keys_max() {
                clients.look(key).await;
            }
            cache.device_store().check_accounting();
            self.check_room(&cache, born).await;
            self.empty_out(&cache, born).await;
        });
        let broken = device.broken_rules();
        if let Some(rule) = broken.first() {
            self.world.history.lock().violate(format!("the device was misused: {rule}"));
        }
    }

    /// Regions without an unreadable sector.
    fn readable_regions(&self) -> u64 {
        let Scenario { regions, region_size, .. } = *self.scenario();
        let start = |region| SUPERBLOCK_SPACE + region * region_size;
        let is_readable =
            |region: &u64| self.world.device.is_readable(&(start(*region)..start(region + 1)));
        (0..regions).filter(is_readable).count() as u64
    }

    /// Regions that cannot be read are not used again: too few may be left.
    pub(super) fn is_cramped(&self) -> bool {
        self.readable_regions() < REGIONS_MIN
    }

    async fn empty_out(&self, cache: &Cache, born: Instant) {
        for key in 0..self.world.keys_max() {
            let removed = cache.remove(&key_bytes(key)).await;
            if matches!(removed, Err(StoreError::Busy(_))) && self.is_cramped() {
                self.world.totals.lock().cramped += 1;
                return;
            }
            if let Err(error) = removed {
                self.world.history(born).violate(format!("the last removal failed: {error}"));
            }
        }
        tokio::time::sleep(REST).await;
        for key in 0..self.world.keys_max() {
            if cache.lookup_stale(&key_bytes(key)).await.is_some() {
                self.world.history(born).violate(format!("key {key} outlived the last removal"));
            }
        }
        cache.device_store().check_accounting();
        self.check_rest("write buffer", cache.stats().write_buffer_bytes, born);
        if let Err(error) = cache.shutdown().await {
            self.world.history(born).violate(format!("the last shutdown failed: {error}"));
        }
        self.check_rest("backlog", cache.stats().store.backlog_bytes, born);
    }
}
