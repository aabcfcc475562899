//! What makes a run hard besides its trouble: little memory, slow readers, devices that refuse,
//! wide alignments. Drawn separately, so that the other draws of a seed stay the same.

use fastrand::Rng;
use rawcached::cache::RangeOptions;

use super::{Scenario, Theme, one_of};

/// What makes a run hard besides its trouble.
#[derive(Clone, Copy, Debug)]
pub struct Strain {
    /// Bytes that bodies of more than 64 KiB share on their way to clients.
    pub range_buffer_bytes: u64,
    /// How large bodies are read.
    pub range: RangeOptions,
    /// One lookup in so many is read piece by piece while its client does other things; 0 for none.
    pub hold_one_in: u32,
    /// One lookup in so many is of the same key; 0 for none.
    pub hot_key_one_in: u32,
    /// One removal in so many is of a key that never existed; 0 for none.
    pub absent_one_in: u32,
    /// One touch in so many is an update; 0 for none.
    pub update_one_in: u32,
    /// One store in so many is of a large object for seconds, which an update prolongs; 0 for none.
    pub prolong_one_in: u32,
    /// One lookup in so many is for a lease too; 0 for none.
    pub lease_one_in: u32,
    /// One store in so many is of a part; 0 for none.
    pub parts_one_in: u32,
    /// In some lives the device refuses writes or flushes from the first moment on, for a while or
    /// to the end.
    pub refuses_writes: bool,
    /// In some lives one region, or a part of it, cannot be read.
    pub hides_region: bool,
}

impl Strain {
    pub(super) fn draw(rng: &mut Rng) -> Strain {
        let usual = RangeOptions::default();
        let parallel = options!(RangeOptions {
            threshold: one_of(rng, &[1, 100_000]),
            chunk_size: one_of(rng, &[16 << 10, 64 << 10]),
            concurrency: one_of(rng, &[1, 3]),
            ..usual
        });
        Strain {
            range_buffer_bytes: one_of(rng, &[64 << 20, 64 << 20, 300_000, 1 << 10]),
            range: one_of(rng, &[usual, usual, parallel]),
            hold_one_in: one_of(rng, &[0, 0, 2, 6]),
            hot_key_one_in: one_of(rng, &[0, 0, 3]),
            absent_one_in: one_of(rng, &[0, 0, 0, 4]),
            refuses_writes: rng.u32(0..16) == 0,
            hides_region: false,
            update_one_in: 0,
            prolong_one_in: 0,
            lease_one_in: 0,
            parts_one_in: 0,
        }
    }
}

impl Scenario {
    /// Gives some runs updates and leases; leaves the others as they were drawn.
    pub(super) fn with_updates(self, rng: &mut Rng) -> Scenario {
        if rng.u32(0..4) > 0 {
            return self;
        }
        let strain = Strain {
            update_one_in: one_of(rng, &[0, 2, 4]),
            lease_one_in: one_of(rng, &[0, 3]),
            ..self.strain
        };
        let updated = Scenario { strain, ..self };
        match updated.theme == Theme::Any && rng.bool() {
            true => updated.updating(rng),
            false => updated,
        }
    }

    /// Gives some runs objects that come part by part; leaves the others as they were drawn.
    pub(super) fn with_parts(self, rng: &mut Rng) -> Scenario {
        if rng.u32(0..6) > 0 {
            return self;
        }
        if self.theme == Theme::Any && rng.bool() {
            return self.parting(rng);
        }
        // With no more entries than fit.
        let parts_one_in = if self.roomy { 0 } else { one_of(rng, &[2, 4]) };
        Scenario { strain: Strain { parts_one_in, ..self.strain }, ..self }
    }

    /// Sometimes with a wide alignment, or a device that wants a wider one than most.
    pub(super) fn aligned(self, rng: &mut Rng) -> Scenario {
        if rng.u32(0..6) > 0 {
            return self;
        }
        // Each flush uses up a block: with the widest alignment a roomy device would fill.
        let widest = if self.roomy { 16 << 10 } else { 64 << 10 };
        let alignment = one_of(rng, &[16 << 10, 32 << 10, 64 << 10]).min(widest);
        let device_alignment = one_of(rng, &[512, 4096, alignment, alignment]);
        let region_size = if alignment > 16 << 10 { 1 << 20 } else { 512 << 10 };
        Scenario { alignment, device_alignment, region_size, ..self }
    }
}
