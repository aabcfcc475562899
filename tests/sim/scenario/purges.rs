//! Purges of many keys. Owns which runs have them, how often, and how many the cache remembers.

use std::time::Duration;

use fastrand::Rng;

use super::{Scenario, Sizes, Theme, Trouble, one_of};

/// Purges by tag and prefix.
#[derive(Clone, Copy, Debug)]
pub struct Purges {
    /// How often clients do them, as a weight; with 0 no version has tags.
    pub weight: u32,
    /// Records of each kind that the cache keeps at most.
    pub records_max: usize,
}

impl Purges {
    pub const NONE: Purges = Purges { weight: 0, records_max: 64 << 10 };
}

impl Scenario {
    /// Gives some runs purges of many keys; leaves the others as they were drawn.
    pub(super) fn with_purges(self, rng: &mut Rng) -> Scenario {
        if rng.u32(0..4) > 0 {
            return self;
        }
        let purges = Purges {
            weight: one_of(rng, &[2, 5, 10]),
            records_max: one_of(rng, &[64 << 10, 64 << 10, 64 << 10, 6]),
        };
        let purged = Scenario { purges, ..self };
        // Half of them are as they come, and half such that what is purged would be found.
        if matches!(purged.theme, Theme::Any) && rng.bool() { purged.purging(rng) } else { purged }
    }

    /// For few entries that are asked for, touched, moved and found again after crashes.
    fn purging(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::Purges,
            regions: rng.u64(8..12),
            region_size: 256 << 10,
            alignment: one_of(rng, &[512, 4096]),
            device_alignment: 512,
            clients: one_of(rng, &[1, 4, 8]),
            keys: one_of(rng, &[8, 16, 40]),
            sizes: one_of(rng, &[Sizes::Mixed, Sizes::Large, Sizes::Large]),
            ram_bytes: one_of(rng, &[0, 128 << 10, 4 << 20]),
            hash_mask: u64::MAX,
            slow: Duration::from_millis(10),
            trouble: one_of(
                rng,
                &[Trouble::None, Trouble::None, Trouble::Hiccups, Trouble::Errors],
            ),
            roomy: false,
            weights: super::Weights {
                lookup: 60,
                put: one_of(rng, &[10, 20]),
                stream: one_of(rng, &[0, 10]),
                touch: one_of(rng, &[0, 10]),
                remove: 1,
                purge_all: 0,
                pause: one_of(rng, &[1, 8]),
                advance: 1,
            },
            ttl_secs: 1000..100_000,
            operations: 500,
            life_operations: one_of(rng, &[60, 250]),
            prefilled: rng.u32(0..3) > 0,
            clock_jumps: false,
            ..self
        }
    }
}
