//! What happens to a device between two lives: bits rot, and copies of it are recovered twice.

use std::collections::BTreeMap;

use rawcached::cache::{Cache, CacheOptions};
use rawcached::device::{FaultKind, SimDevice};
use rawcached::format::{
    FOOTER_RECORD_LEN, RegionHeader, Seed, Sequence, Superblock, TOMBSTONE_LEN, Trailer, Uuid,
};

use super::{Run, runtime};
use crate::scenario::{SUPERBLOCK_SPACE, Scenario, Trouble};
use crate::world::key_bytes;

impl Run {
    /// Flips a bit of a structure that has a second copy; with [`Trouble::Damage`] also of others.
    pub(super) fn rot(&mut self) {
        let scenario = self.world.scenario.clone();
        let device = self.world.device.clone();
        if scenario.trouble == Trouble::Damage {
            for _ in 0..self.rng.u32(0..4) {
                let regions = SUPERBLOCK_SPACE..scenario.device_bytes() - SUPERBLOCK_SPACE;
                device.corrupt(self.rng.u64(regions), 1 << self.rng.u32(0..8));
                device.count_fault(FaultKind::BitRot);
            }
        }
        let copies = [0, scenario.device_bytes() - SUPERBLOCK_SPACE];
        let sound = |at: &u64| {
            let block = *at..*at + u64::from(scenario.device_alignment);
            device.is_durable(&block) && Superblock::decode(&device.contents(block)).is_ok()
        };
        // Only if both are sound: one may wait for repair, or not be durable yet.
        if self.rng.u32(0..4) == 0 && copies.iter().all(sound) {
            let copy = copies[self.rng.usize(0..2)];
            device.corrupt(copy + self.rng.u64(0..512), 1 << self.rng.u32(0..8));
            device.count_fault(FaultKind::BitRot);
        }
        let regions = 0..u32::try_from(scenario.regions).unwrap();
        let footers: Vec<_> =
            regions.filter_map(|region| footer_of(&device, &scenario, region)).collect();
        if !footers.is_empty() {
            let footer = footers[self.rng.usize(0..footers.len())].clone();
            device.corrupt(self.rng.u64(footer), 1 << self.rng.u32(0..8));
            device.count_fault(FaultKind::BitRot);
        }
    }

    /// Recovers a copy of the device twice: both starts must show the same and leave the same.
    pub(super) fn check_recovery_twice(&mut self) {
        let copy = self.world.device.duplicate();
        let first = self.visible(&copy);
        let between = self.bytes_of_regions(&copy);
        let second = self.visible(&copy);
        if first != second {
            let what = format!("recovery twice shows {first:?}, then {second:?}");
            self.world.history.lock().violate(what);
        }
        if between != self.bytes_of_regions(&copy)
            || between != self.bytes_of_regions(&self.world.device)
        {
            self.world.history.lock().violate("recovery changed the device".to_owned());
        }
    }

    /// A footer never exists without the header of its generation, which is durable before it.
    pub(super) fn check_headers(&mut self) {
        let scenario = self.scenario().clone();
        for region in 0..u32::try_from(scenario.regions).unwrap() {
            let Some(footer) = trailer_of(&self.world.device, &scenario, region) else { continue };
            let start = SUPERBLOCK_SPACE + u64::from(region) * scenario.region_size;
            let block = self.world.device.contents(start..start + 512);
            let header = RegionHeader::decode(&block, uuid_of(&scenario), region);
            if header.as_ref().map_or(Sequence(0), |header| header.generation) < footer.generation {
                let what = format!("region {region} has a footer of {footer:?}, but {header:?}");
                self.world.history.lock().violate(what);
            }
        }
    }

    fn bytes_of_regions(&self, device: &SimDevice) -> Vec<u8> {
        device.contents(SUPERBLOCK_SPACE..self.scenario().device_bytes() - SUPERBLOCK_SPACE)
    }

    /// Every key that a fresh start finds, with cas and end.
    fn visible(&self, device: &SimDevice) -> BTreeMap<u32, (u64, u32)> {
        let clock = self.clock();
        let keys = self.world.keys_max();
        runtime().block_on(async {
            let options = options!(CacheOptions { ram_bytes: 0, ..self.options() });
            let Ok(cache) = Cache::open_device(device.open(), options, clock).await else {
                return BTreeMap::new();
            };
            cache.ready().await;
            cache.device_store().check_accounting();
            let mut found = BTreeMap::new();
            for key in 0..keys {
                if let Some(hit) = cache.lookup_stale(&key_bytes(key)).await {
                    found.insert(key, (hit.cas(), hit.lifetime().keep_until.0));
                }
            }
            found
        })
    }
}

/// The range of the records in a sealed region's footer on the device; `None` if there are none.
fn footer_of(device: &SimDevice, scenario: &Scenario, region: u32) -> Option<std::ops::Range<u64>> {
    let end = SUPERBLOCK_SPACE + (u64::from(region) + 1) * scenario.region_size;
    let trailer = trailer_of(device, scenario, region)?;
    let start = end - trailer.footer_len(scenario.alignment);
    let records = trailer.record_count as usize * FOOTER_RECORD_LEN;
    let len = records + trailer.tombstone_count as usize * TOMBSTONE_LEN;
    (len > 0).then(|| start..start + len as u64)
}

/// The sound trailer at the end of a region, of any generation.
fn trailer_of(device: &SimDevice, scenario: &Scenario, region: u32) -> Option<Trailer> {
    let end = SUPERBLOCK_SPACE + (u64::from(region) + 1) * scenario.region_size;
    let tail = device.contents(end - u64::from(scenario.alignment)..end);
    let seed_of = |generation| Seed::new(uuid_of(scenario), region, generation);
    Trailer::decode(&tail, seed_of).ok()
}

pub(super) fn uuid_of(scenario: &Scenario) -> Uuid {
    Uuid(u128::from(scenario.seed).to_le_bytes())
}
