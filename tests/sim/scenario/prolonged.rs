//! Runs in which large objects outlive the end that their slices were written with. Owns how many seeds
//! have that, and what else goes on.

use std::time::Duration;

use fastrand::Rng;

use super::{
    Budgets, Purges, RecoveryMemory, Scenario, Sizes, Strain, Theme, Trouble, Weights, one_of,
};

impl Scenario {
    /// Gives some runs objects that are prolonged; leaves the others as they were drawn.
    pub(super) fn with_prolonged(self, rng: &mut Rng) -> Scenario {
        match self.theme == Theme::Any && rng.u32(0..3) == 0 {
            true => self.prolonging(rng),
            false => self,
        }
    }

    /// For regions of slices that have ended by what is written in them, while the head of their object
    /// lives. On a full device all else lives long, so that reclaim comes to them first; on a roomy one
    /// starts do.
    fn prolonging(self, rng: &mut Rng) -> Scenario {
        let roomy = rng.bool();
        Scenario {
            theme: Theme::Prolonged,
            regions: if roomy { 64 } else { one_of(rng, &[24, 40]) },
            region_size: 256 << 10,
            alignment: one_of(rng, &[512, 4096]),
            device_alignment: 512,
            clients: one_of(rng, &[1, 2, 4]),
            operations: if roomy { 120 } else { 400 },
            // So many that few are replaced before reclaim comes to them.
            keys: 60,
            // Of less than a slice.
            sizes: if roomy { Sizes::Tiny } else { Sizes::Equal(50_000) },
            ram_bytes: one_of(rng, &[0, 0, 1 << 20]),
            hash_mask: u64::MAX,
            write_buffer_bytes: 16 << 20,
            delay_turns: one_of(rng, &[0, 2, 20]),
            slow: Duration::from_millis(10),
            trouble: one_of(rng, &[Trouble::None, Trouble::Hiccups]),
            roomy,
            weights: Weights {
                lookup: 40,
                put: 30,
                stream: 0,
                touch: one_of(rng, &[0, 6]),
                remove: one_of(rng, &[0, 2]),
                purge_all: 0,
                pause: one_of(rng, &[2, 8]),
                advance: 10,
            },
            ttl_secs: 1000..100_000,
            life_operations: if roomy { one_of(rng, &[30, 60]) } else { 1000 },
            prefilled: !roomy,
            clock_jumps: false,
            strain: Strain {
                update_one_in: 2,
                prolong_one_in: if roomy { 5 } else { 20 },
                refuses_writes: false,
                parts_one_in: 0,
                ..self.strain
            },
            budgets: Budgets { little_index: false, recovery: RecoveryMemory::Enough },
            purges: Purges::NONE,
            ..self
        }
    }
}
