//! A device in memory that loses, tears, delays and fails operations as it is told. Owns which
//! handles are alive; deterministic, given the same calls and seeds.

mod engine;
mod fault;
mod page_cache;
mod random;
mod rates;
mod state;
mod storage;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use fault::{Delay, Effect, Fault};
pub use rates::{FAULT_KINDS, FaultKind, Rates, Struck};
pub use state::SimCounts;

use super::adaptive::Adaptive;
use super::engine::Engine;
use super::{AdaptiveOptions, Device, DeviceInfo, DeviceKind, Geometry};
use engine::SimEngine;
use random::SplitMix;
use state::State;

/// A simulated device, with its storage. Clones share it.
///
/// Writes are volatile until a flush that was submitted after they completed. A failed flush
/// leaves the writes before it volatile for good, as on Linux, where a later flush
/// that succeeds says nothing about them.
#[derive(Clone)]
pub struct SimDevice {
    state: Arc<Mutex<State>>,
    geometry: Geometry,
}

impl SimDevice {
    /// A zeroed device of `size` bytes that wants offsets, lengths and addresses to be multiples
    /// of `alignment`.
    #[must_use]
    pub fn new(size: u64, alignment: u32) -> SimDevice {
        let geometry = Geometry::new(size, alignment, alignment);
        SimDevice { state: Arc::new(Mutex::new(State::new(geometry))), geometry }
    }

    /// Opens the storage, as a restarted process would. Every earlier [`Device`] is dead from
    /// now on: its operations fail with `ENODEV` and change nothing.
    ///
    /// Writes still under way are settled as by [`SimDevice::kill`].
    #[must_use]
    pub fn open(&self) -> Device {
        self.open_as(None)
    }

    /// As [`SimDevice::open`], with an empty page cache for adaptive reads, the worst allowed: no write
    /// reaches it, and it drops no page.
    #[must_use]
    pub fn open_adaptive(&self, options: AdaptiveOptions) -> Device {
        self.open_as(Some(Adaptive::new(options)))
    }

    fn open_as(&self, adaptive: Option<Adaptive>) -> Device {
        let generation = self.state.lock().next_generation();
        let engine = SimEngine::new(Arc::clone(&self.state), generation);
        let info = DeviceInfo {
            path: PathBuf::from("simulated"),
            kind: DeviceKind::Simulated,
            engine: engine.name(),
            direct: true,
            engine_fallback: None,
            fallback: None,
            adaptive: adaptive.is_some(),
            adaptive_fallback: None,
            direct_writes_buffered: false,
            read_only: false,
            size: self.geometry.size,
            alignment: self.geometry.alignment,
            memory_alignment: self.geometry.memory_alignment,
        };
        let deadline = self.state.lock().read_deadline;
        Device::new(Box::new(engine), self.geometry, info, (adaptive, deadline))
    }

    /// Kills the process that has the device open: completed writes stay, each write under way
    /// happens or does not. Handles die.
    pub fn kill(&self) {
        self.state.lock().next_generation();
    }

    /// Cuts the power: of the writes that no flush made durable, completed or under way, each 512-byte
    /// sector is kept or lost independently, so an older unflushed version may be left. How many
    /// survive varies with `seed` from none to all. Handles die.
    pub fn power_cut(&self, seed: u64) {
        self.state.lock().power_cut(seed);
    }

    /// Arms a fault. Of several that match an operation, the one armed first takes effect.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Delays every operation submitted from now on.
    pub fn set_delay(&self, delay: Delay) {
        self.state.lock().delay = delay;
    }

    /// How long reads for clients may last on devices opened from now on; for ever at first.
    pub fn set_read_deadline(&self, deadline: Duration) {
        self.state.lock().read_deadline = Some(deadline);
    }

    /// Lets faults strike at random from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.state.lock().rates = rates;
    }

    /// Lets a power cut make sectors unreadable that were being written.
    pub fn spoil_sectors(&self, spoil: bool) {
        self.state.lock().spoils_sectors = spoil;
    }

    /// How often each kind of random fault struck since the device was made.
    #[must_use]
    pub fn struck(&self) -> Struck {
        self.state.lock().struck
    }

    /// Counts a fault that a test made by itself.
    pub fn count_fault(&self, kind: FaultKind) {
        self.state.lock().struck.count(kind);
    }

    /// Begins the sequence of random delays and faults anew.
    pub fn reseed(&self, seed: u64) {
        self.state.lock().random = SplitMix::new(seed);
    }

    /// Freezes the device after this many more operations: requests submitted or under way then never
    /// complete. Ends with the next [`SimDevice::kill`], [`SimDevice::power_cut`] or
    /// [`SimDevice::open`].
    pub fn freeze_after(&self, operations: u64) {
        self.state.lock().freeze_after(operations);
    }

    /// Waits until the device freezes.
    pub async fn frozen(&self) {
        let freezing = Arc::clone(&self.state.lock().freezing);
        while !self.state.lock().is_frozen() {
            freezing.notified().await;
        }
    }

    /// Another device with the same bytes, durable and volatile, and no faults.
    #[must_use]
    pub fn duplicate(&self) -> SimDevice {
        let state = self.state.lock().duplicate();
        SimDevice { state: Arc::new(Mutex::new(state)), geometry: self.geometry }
    }

    /// Whether every sector of the range can be read, and a power cut would change none of them.
    #[must_use]
    pub fn is_durable(&self, range: &Range<u64>) -> bool {
        self.state.lock().storage.is_durable(range)
    }

    /// Whether no sector of the range is one that a power cut left unreadable.
    #[must_use]
    pub fn is_readable(&self, range: &Range<u64>) -> bool {
        !self.state.lock().storage.is_spoilt(range)
    }

    /// Rules that users of the device broke: transfers that were not aligned, writes that overlapped
    /// while both were under way.
    #[must_use]
    pub fn broken_rules(&self) -> Vec<String> {
        self.state.lock().broken_rules.clone()
    }

    /// Flips the bits of `mask` in the stored byte at `offset`, durably.
    pub fn corrupt(&self, offset: u64, mask: u8) {
        let mut byte = [self.contents(offset..offset + 1)[0]];
        byte[0] ^= mask;
        self.overwrite(offset, &byte);
    }

    /// Puts `bytes` on the medium at `offset`, durably and behind the back of every handle.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        self.state.lock().storage.overwrite(offset, bytes);
    }

    /// Has the page cache take in the whole device as it is now, as if someone had read it.
    pub fn fill_page_cache(&self) {
        let state = &mut *self.state.lock();
        state.page_cache.fill(self.geometry.size, &state.storage);
    }

    /// The bytes a read of `range` gives now.
    #[must_use]
    pub fn contents(&self, range: Range<u64>) -> Vec<u8> {
        self.state.lock().storage.contents(range)
    }

    /// Sectors written and not yet durable.
    #[must_use]
    pub fn volatile_sectors(&self) -> usize {
        self.state.lock().storage.volatile_sectors()
    }

    /// Writes submitted and not yet completed, those that met a frozen device left out.
    #[must_use]
    pub fn writes_under_way(&self) -> usize {
        self.state.lock().writes_under_way()
    }

    /// Operations and bytes since the device was made.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        self.state.lock().counts
    }
}

#[cfg(test)]
mod tests;
