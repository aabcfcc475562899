//! Giving a live entry a new lifetime where it is: in memory, or by a read-modify-write of its
//! header on the device. Owns the pin that keeps the region from being reused meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::format::{ENTRY_HEADER_LEN, Kind, REGION_HEADER_LEN, RegionHeader};
use crate::planted::{self, Bug};
use crate::store::counters::count;
use crate::store::entries::Tier;
use crate::store::large::object::LargeObject;
use crate::store::log::slot::Slot;
use crate::store::log::touches::{Replaced, Rewritten, TouchPlace, rewrite_lifetime};
use crate::store::lookup::load::{Extent, Loaded};
use crate::store::mutation::find::{Deadline, Match, NO_ANSWER};
use crate::store::mutation::request::{Condition, Lifetime, StoreError, Stored};
use crate::store::place::Place;
use crate::store::purges::table::Since;
use crate::store::shared::{ROOM_WAIT_MAX, Store};

impl Store {
    /// Gives a live entry a new lifetime without moving it, where it is on the device. One whose
    /// end is not after now is removed. What a soft purge covers stays stale: the lifetime that is given back
    /// says so.
    ///
    /// # Errors
    /// The device failed, or does not answer: then the lifetime may change all the same.
    pub fn touch(
        &self,
        key: &[u8],
        fresh_until: Timestamp,
        keep_until: Timestamp,
    ) -> impl Future<Output = Result<Option<Lifetime>, StoreError>> {
        self.touch_version(key, None, fresh_until, keep_until)
    }

    /// As [`Store::touch`], but of the entry with this CAS value only, if one is given.
    ///
    /// # Errors
    /// As those of [`Store::touch`].
    pub async fn touch_version(
        &self,
        key: &[u8],
        cas: Option<u64>,
        fresh_until: Timestamp,
        keep_until: Timestamp,
    ) -> Result<Option<Lifetime>, StoreError> {
        let key_hash = self.key_hash(key);
        if keep_until <= self.shared.clock.now() {
            let Some(ended) = self.end_life(key, cas).await? else { return Ok(None) };
            count(&self.shared.counters.touched);
            return Ok(Some(Lifetime { fresh_until, keep_until, ..ended }));
        }
        self.begin_store().await?;
        let mut held: Option<LargeObject> = None;
        loop {
            self.check_open(None)?;
            let found = self.find_by(key, key_hash, &mut Deadline::after(ROOM_WAIT_MAX)).await;
            if found.is_unknown() {
                return Err(NO_ANSWER);
            }
            // How much longer the entry may live nobody can say without knowing how old it is.
            let is_asked_for = |version: u64| cas.is_none_or(|cas| cas == version);
            let touched = |matched: &Match| {
                matched.live && matched.age_known && is_asked_for(matched.version.0)
            };
            let Some(matched) = found.matched.filter(touched) else {
                return Ok(None);
            };
            if !self.is_held(&matched, &mut held) {
                continue;
            }
            // A head of parts answers for those that are there.
            if matched.validator.is_none() && !self.is_whole(&matched).await {
                return Ok(None);
            }
            // What a soft purge covers only an update makes fresh.
            let fresh_until = match matched.is_stale {
                true => fresh_until.min(matched.lifetime.fresh_until).min(self.shared.clock.now()),
                false => fresh_until,
            };
            let lifetime = Lifetime { fresh_until, keep_until, ..matched.lifetime };
            if self.touch_at((key, key_hash), &matched, lifetime).await? {
                count(&self.shared.counters.touched);
                return Ok(Some(lifetime));
            }
        }
    }

    /// Whether slices of a large object stay while its head is changed: if they are not held yet, they are
    /// from here on, and the head is to be looked at once more. Its life may have ended just before.
    pub(in crate::store) fn is_held(
        &self,
        matched: &Match,
        held: &mut Option<LargeObject>,
    ) -> bool {
        let Some(head) = matched.head else { return true };
        if held.as_ref().is_some_and(|held| held.name() == head.object) {
            return true;
        }
        *held = Some(self.large_object(head));
        false
    }

    /// False if the entry moved, is being copied or is on its way to the device: find it again.
    pub(in crate::store) async fn touch_at(
        &self,
        (key, key_hash): (&[u8], u64),
        matched: &Match,
        lifetime: Lifetime,
    ) -> Result<bool, StoreError> {
        let place = matched.place;
        let (generation, offset) = place.split(&self.shared.layout);
        let region = generation.region();
        if self.shared.catalog.regions.get(region).is_none() {
            return self.store_again(key, matched, lifetime).await;
        }
        let Some(pin) = self.pin(key_hash, place) else { return Ok(false) };
        let changed = self.shared.signals.changes.notified();
        let touched = {
            let mut log = self.shared.log.lock();
            self.check_open(None)?;
            log.touch(region, offset, Replaced { old: matched.lifetime, new: lifetime })
        };
        match touched {
            TouchPlace::Memory => {}
            TouchPlace::Changed => return Ok(false),
            TouchPlace::InUse => {
                drop(pin);
                tokio::task::yield_now().await;
                return Ok(false);
            }
            TouchPlace::InFlight => {
                drop(pin);
                self.shared.signals.wake_flusher.notify_one();
                timeout(ROOM_WAIT_MAX, changed).await.map_err(|_| NO_ANSWER)?;
                return Ok(false);
            }
            TouchPlace::Device { mark_region } => {
                let (store, old) = (self.clone(), matched.lifetime);
                // Once begun it must end before the pin does, even if the caller goes away.
                let work = self.shared.background.runtime.spawn(async move {
                    let done = store
                        .touch_on_device(place, Replaced { old, new: lifetime }, mark_region)
                        .await;
                    // Even a failed write may have changed the device.
                    store.shared.log.lock().note_modified();
                    match done {
                        Ok(Rewritten::Yes) => store.after_touch(place, lifetime),
                        // Another one may be on its way to the copy in RAM.
                        Ok(Rewritten::Changed) | Err(_) => store.after_failed_touch(place),
                        Ok(Rewritten::Damaged) => {}
                    }
                    if done.is_err() {
                        store.drop_if_torn(key_hash, place).await;
                    }
                    drop(pin);
                    store.shared.signals.wake_flusher.notify_one();
                    done
                });
                let done = timeout(ROOM_WAIT_MAX, work).await.map_err(|_| NO_ANSWER)?;
                let done = done.map_err(|_| StoreError::ShuttingDown)??;
                if done == Rewritten::Damaged {
                    // The copy in the RAM tier may be whole, but it cannot be kept as it should.
                    if let Some(candidate) = self.candidate_at(key_hash, place) {
                        self.drop_damaged(key_hash, candidate);
                    }
                }
                return Ok(done == Rewritten::Yes);
            }
        }
        self.after_touch(place, lifetime);
        drop(pin);
        Ok(true)
    }

    /// An entry kept in RAM only is stored anew: with its new lifetime it may belong on the device.
    async fn store_again(
        &self,
        key: &[u8],
        matched: &Match,
        lifetime: Lifetime,
    ) -> Result<bool, StoreError> {
        let Some(entry) = self.resident_version(matched.place, matched.sequence) else {
            return Ok(false);
        };
        let parts = (entry.metadata(), entry.body());
        let slot = Slot::new(Kind::Object, key, parts, lifetime);
        let slot = slot.with_records(&entry.kept_records());
        let condition = Condition::Unchanged(matched.version.0);
        // With its new sequence no record of a purge will cover it.
        let how = (None, Some(Since::Sequence(matched.sequence)), Tier::Log);
        match Box::pin(self.publish_since(key, &slot, condition, how)).await {
            Ok((stored, _)) => Ok(matches!(stored, Stored::Yes(_))),
            // It is found dead next.
            Err(StoreError::Purged) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn pin(&self, key_hash: u64, place: Place) -> Option<Pin> {
        let bucket = self.shared.catalog.lock(key_hash);
        if !bucket.contains(place.location()) || !self.is_present(place) {
            return None;
        }
        let region = place.region(&self.shared.layout);
        let row = self.shared.catalog.regions.on_device(region);
        row.pin();
        // From here on a copy read earlier is not re-inserted: it lacks the touch.
        row.count_touch();
        Some(Pin { store: self.clone(), region })
    }

    /// Rewrites the entry's header where it is, and its region's where that has to tell of it. The
    /// region is pinned, so it stays in the generation of the place.
    async fn touch_on_device(
        &self,
        place: Place,
        lifetime: Replaced,
        mark_region: bool,
    ) -> Result<Rewritten, StoreError> {
        let shared = &*self.shared;
        let (generation, offset) = place.split(&shared.layout);
        let region = generation.region();
        let start = shared.layout.region_offset(region);
        let row = shared.catalog.regions.on_device(region);
        if mark_region {
            let (uuid, range) = (shared.uuid, start..start + REGION_HEADER_LEN as u64);
            let mark = move |bytes: &mut [u8]| {
                let Ok(mut header) = RegionHeader::decode(bytes, uuid, region) else {
                    return false;
                };
                if header.generation != generation.sequence() {
                    return false;
                }
                header.touched = true;
                bytes.copy_from_slice(&header.encode(uuid, region));
                true
            };
            if shared.device.modify(range, mark).await? {
                row.set_touched();
            }
        }
        let at = start + offset;
        let seed = shared.catalog.regions.seed_of(generation);
        let is_changed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&is_changed);
        let rewrite = move |bytes: &mut [u8]| {
            let rewritten = rewrite_lifetime(bytes, seed, offset, lifetime);
            noted.store(rewritten == Rewritten::Changed, Ordering::Release);
            rewritten == Rewritten::Yes
        };
        let is_done = shared.device.modify(at..at + ENTRY_HEADER_LEN as u64, rewrite).await?;
        Ok(match (is_done, is_changed.load(Ordering::Acquire)) {
            (true, _) => Rewritten::Yes,
            (false, true) => Rewritten::Changed,
            (false, false) => Rewritten::Damaged,
        })
    }

    fn after_touch(&self, place: Place, lifetime: Lifetime) {
        let row = self.shared.catalog.regions.on_device(place.region(&self.shared.layout));
        row.raise_keep_until(lifetime.keep_until);
        let filling = self.shared.fill_lock(place).lock();
        let lost = match self.shared.catalog.resident.get(place) {
            Some(entry) => {
                let mut touched = entry.with_lifetime(lifetime);
                if planted::is(Bug::ReviveByTouch) {
                    touched = touched.with_memory(u64::MAX);
                }
                self.shared.catalog.resident.insert(touched)
            }
            None => Vec::new(),
        };
        // Behind the copy: who counts it does not find the one before.
        row.count_touch();
        drop(filling);
        self.drop_lost(&lost);
    }

    /// Which end the entry has, only the device knows now: a copy with the earlier one would have it
    /// taken out of the index, and a purge would not find what the next start finds.
    fn after_failed_touch(&self, place: Place) {
        let row = self.shared.catalog.regions.on_device(place.region(&self.shared.layout));
        let _filling = self.shared.fill_lock(place).lock();
        self.shared.catalog.resident.remove(place);
        row.count_touch();
    }

    /// Looks whether a write that failed has torn the slot, and takes the entry out then, with a tombstone. As
    /// long as no footer tells of it, a start would take the version before it for the newest.
    async fn drop_if_torn(&self, key_hash: u64, place: Place) {
        let Some(candidate) = self.candidate_at(key_hash, place) else { return };
        let loaded = self.peek_elsewhere(candidate, Extent::Key { key_len: 0 }).await;
        if matches!(loaded, Loaded::Damaged) {
            self.drop_damaged(key_hash, candidate);
        }
    }
}

/// Holds off reuse of a region.
struct Pin {
    store: Store,
    region: u32,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.shared.catalog.regions.on_device(self.region).unpin();
        self.store.shared.signals.unpinned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::{Clock, Timestamp};
    use crate::device::{Effect, Fault, OperationKind, SimDevice};
    use crate::store::lookup::sought::Stale;
    use crate::store::mutation::request::{Condition, Value};
    use crate::store::testing;

    /// Its region has no footer that tells of the version, so what is in the slot decides at the next start.
    #[tokio::test(start_paused = true)]
    async fn a_version_that_a_failed_touch_tore_hides_the_one_before() {
        let (sim, clock) = (SimDevice::new(4 << 20, 4096), Clock::manual(Timestamp(1000)));
        let store = testing::create(&sim, &clock).await;
        for body in [b"old", b"new"] {
            let lifetime = testing::lifetime();
            let value = Value { metadata: b"", body, lifetime, tags: &[], ram_only: false };
            let (_, ticket) = store.put(b"key", &value, Condition::Always, None).await.unwrap();
            store.flush_through(ticket).await.unwrap();
        }
        let layout = store.shared.layout;
        let (generation, offset) =
            store.candidates(store.key_hash(b"key"))[0].place().split(&layout);
        let at = layout.region_offset(generation.region()) + offset;
        // The new checksum is on the device, the times that it is of are not.
        let torn = usize::try_from(at % 4096).unwrap() + 4;
        let fault = Fault::new(Effect::FailAfter(torn, libc::EIO)).on(OperationKind::Write);
        sim.inject(fault.within(at..at + 48));
        let end = Timestamp(60_000);
        store.touch(b"key", end, end).await.unwrap_err();
        assert_eq!(sim.counts().faults, 1);
        let ticket = store.shared.log.lock().appended();
        store.flush_through(ticket).await.unwrap();
        sim.power_cut(1);
        let store = testing::open(&sim, &clock).await;
        store.recovered().await;
        assert!(store.lookup(b"key", Stale::Accept).await.is_none(), "the new one is lost");
    }
}
