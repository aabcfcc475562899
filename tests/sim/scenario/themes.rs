//! What a theme changes in a drawn scenario. Owns the numbers of each theme.

use std::time::Duration;

use fastrand::Rng;

use super::{IntoRange as _, Scenario, Sizes, Strain, Theme, Trouble, Weights, one_of};

impl Scenario {
    pub(super) fn churning(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::Churn,
            regions: rng.u64(8..10),
            region_size: 256 << 10,
            alignment: one_of(rng, &[512, 4096]),
            device_alignment: 512,
            clients: 8,
            operations: 700,
            keys: one_of(rng, &[30, 60]),
            sizes: Sizes::Large,
            ram_bytes: one_of(rng, &[0, 0, 16 << 10]),
            hash_mask: u64::MAX,
            delay_turns: one_of(rng, &[2, 20]),
            slow: Duration::from_millis(one_of(rng, &[40, 400])),
            slow_one_in: one_of(rng, &[3, 10, 20]),
            roomy: false,
            weights: Weights {
                lookup: 50,
                put: 30,
                stream: 0,
                touch: one_of(rng, &[0, 10]),
                remove: 10,
                purge_all: 0,
                pause: 0,
                advance: 1,
            },
            ttl_secs: 60..100_000,
            life_operations: 1000,
            prefilled: true,
            ..self
        }
    }

    pub(super) fn touching(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::Touches,
            regions: 64,
            region_size: 256 << 10,
            clients: 8,
            keys: one_of(rng, &[6, 24]),
            sizes: Sizes::Mixed,
            ram_bytes: one_of(rng, &[0, 16 << 10, 16 << 10]),
            hash_mask: u64::MAX,
            delay_turns: one_of(rng, &[2, 10]),
            slow: Duration::from_millis(one_of(rng, &[40, 400])),
            slow_one_in: one_of(rng, &[3, 8]),
            trouble: Trouble::None,
            roomy: true,
            weights: Weights {
                lookup: 50,
                put: 6,
                stream: 0,
                touch: 30,
                remove: 1,
                purge_all: 0,
                pause: 4,
                advance: 4,
            },
            grace: false,
            // Shorter than most touches give, and than a few lives take.
            ttl_secs: 4..20,
            cancel_one_in: 0,
            operations: 300,
            life_operations: one_of(rng, &[20, 60, 150]),
            shutdown_one_in: one_of(rng, &[1, 3]),
            clock_jumps: false,
            prefilled: false,
            ..self
        }
    }

    /// For slow readers: bodies too long to be held without a share of the read memory, of few
    /// lengths so that a later one lies where an earlier one did, on a device that is reclaimed all
    /// the time.
    pub(super) fn reading_slowly(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::SlowReaders,
            regions: 8,
            region_size: 1 << 20,
            alignment: one_of(rng, &[512, 4096]),
            device_alignment: 512,
            clients: 8,
            operations: 500,
            keys: one_of(rng, &[12, 30, 40]),
            sizes: Sizes::Equal(one_of(rng, &[100_000, 250_000])),
            ram_bytes: one_of(rng, &[0, 600_000, 2 << 20, 4 << 20]),
            hash_mask: u64::MAX,
            delay_turns: one_of(rng, &[2, 20]),
            slow: Duration::from_millis(one_of(rng, &[10, 40])),
            slow_one_in: one_of(rng, &[0, 10, 20]),
            roomy: false,
            weights: Weights {
                lookup: 60,
                put: 40,
                stream: one_of(rng, &[0, 5]),
                touch: one_of(rng, &[0, 5]),
                remove: 3,
                purge_all: 0,
                pause: 0,
                advance: 1,
            },
            ttl_secs: 60..100_000,
            life_operations: 1000,
            prefilled: rng.bool(),
            strain: Strain {
                range_buffer_bytes: one_of(rng, &[1 << 10, 1 << 10, 150_000]),
                hold_one_in: one_of(rng, &[1, 2]),
                hot_key_one_in: 2,
                ..self.strain
            },
            ..self
        }
    }

    /// For a region that cannot be read for a life or two.
    pub(super) fn hiding(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::Hidden,
            regions: rng.u64(8..14),
            clients: one_of(rng, &[1, 2, 4]),
            keys: one_of(rng, &[8, 16, 40]),
            sizes: one_of(rng, &[Sizes::Tiny, Sizes::Mixed, Sizes::Large, Sizes::Large]),
            ram_bytes: one_of(rng, &[0, 0, 16 << 10]),
            hash_mask: u64::MAX,
            trouble: one_of(rng, &[Trouble::None, Trouble::Hiccups]),
            roomy: false,
            weights: Weights {
                lookup: 40,
                put: one_of(rng, &[10, 30]),
                stream: one_of(rng, &[0, 4]),
                touch: one_of(rng, &[0, 4]),
                remove: one_of(rng, &[6, 20]),
                purge_all: one_of(rng, &[0, 0, 1]),
                pause: one_of(rng, &[4, 12]),
                advance: 2,
            },
            cancel_one_in: one_of(rng, &[0, 30]),
            flushed_one_in: 2,
            ttl_secs: 1000..100_000,
            operations: 450,
            life_operations: one_of(rng, &[20, 60, 150]),
            prefilled: rng.u32(0..3) > 0,
            clock_jumps: false,
            strain: Strain { hides_region: true, refuses_writes: false, ..self.strain },
            ..self
        }
    }

    /// For objects of up to half of the device: a store that begins succeeds, and its object is
    /// whole for a turn.
    pub(super) fn updating(self, rng: &mut Rng) -> Scenario {
        let large = self.storing_halves(rng);
        Scenario {
            theme: Theme::Updates,
            clients: one_of(rng, &[1, 2, 3]),
            keys: one_of(rng, &[3, 6]),
            weights: Weights {
                lookup: 30,
                put: 15,
                stream: 5,
                touch: 30,
                remove: 1,
                purge_all: 0,
                pause: 6,
                advance: 8,
            },
            // Shorter than updates give.
            ttl_secs: 3..20,
            prefilled: true,
            strain: Strain { update_one_in: 1, ..large.strain },
            ..large
        }
    }

    /// For objects that come part by part, from clients with different versions of few keys.
    pub(super) fn parting(self, rng: &mut Rng) -> Scenario {
        let roomy = rng.bool();
        Scenario {
            theme: Theme::Parts,
            regions: if roomy { 64 } else { rng.u64(8..12) },
            region_size: if roomy { 512 << 10 } else { 256 << 10 },
            alignment: one_of(rng, &[512, 4096]),
            device_alignment: 512,
            clients: one_of(rng, &[1, 3, 6]),
            operations: if roomy { 150 } else { 400 },
            keys: one_of(rng, &[1, 2, 4]),
            sizes: Sizes::Mixed,
            ram_bytes: one_of(rng, &[0, 0, 1 << 20]),
            hash_mask: if roomy { u64::MAX } else { one_of(rng, &[u64::MAX, u64::MAX, 15]) },
            write_buffer_bytes: 16 << 20,
            slow: Duration::from_millis(10),
            trouble: one_of(
                rng,
                &[Trouble::None, Trouble::None, Trouble::Hiccups, Trouble::Damage],
            ),
            roomy,
            weights: Weights {
                lookup: 20,
                put: 60,
                stream: 0,
                touch: one_of(rng, &[0, 4]),
                remove: one_of(rng, &[0, 2]),
                purge_all: 0,
                pause: one_of(rng, &[2, 8]),
                advance: 2,
            },
            ttl_secs: 1000..100_000,
            life_operations: one_of(rng, &[30, 100]),
            prefilled: !roomy && rng.bool(),
            clock_jumps: false,
            strain: Strain {
                parts_one_in: 1,
                update_one_in: one_of(rng, &[0, 2]),
                lease_one_in: one_of(rng, &[0, 3]),
                ..self.strain
            },
            ..self
        }
    }

    pub(super) fn storing_halves(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::Large,
            regions: one_of(rng, &[10, 14, 24, 40]),
            region_size: 256 << 10,
            alignment: one_of(rng, &[512, 4096, 16 << 10]),
            device_alignment: 512,
            clients: one_of(rng, &[1, 2, 4]),
            operations: 200,
            keys: one_of(rng, &[6, 20]),
            sizes: Sizes::Halves,
            ram_bytes: one_of(rng, &[0, 0, 1 << 20]),
            hash_mask: u64::MAX,
            write_buffer_bytes: 16 << 20,
            delay_turns: one_of(rng, &[0, 2, 20]),
            slow: Duration::from_millis(10),
            trouble: one_of(rng, &[Trouble::None, Trouble::Hiccups]),
            roomy: false,
            weights: Weights {
                lookup: 40,
                put: 25,
                stream: one_of(rng, &[5, 15]),
                touch: one_of(rng, &[0, 6]),
                remove: one_of(rng, &[1, 6]),
                purge_all: one_of(rng, &[0, 0, 1]),
                pause: one_of(rng, &[0, 8]),
                advance: 1,
            },
            ttl_secs: 1000..100_000,
            life_operations: one_of(rng, &[60, 1000]),
            prefilled: rng.u32(0..3) > 0,
            clock_jumps: false,
            strain: Strain { refuses_writes: false, ..self.strain },
            ..self
        }
    }

    /// For wall clocks that are wrong at a start: on a roomy and sound device, so that entries must
    /// be found as soon as their age is known.
    pub(super) fn with_wrong_clocks(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::WrongClocks,
            regions: 64,
            region_size: 256 << 10,
            clients: one_of(rng, &[1, 3, 6]),
            operations: 300,
            keys: one_of(rng, &[6, 24]),
            sizes: Sizes::Tiny,
            ram_bytes: one_of(rng, &[0, 16 << 10]),
            hash_mask: u64::MAX,
            trouble: Trouble::None,
            roomy: true,
            weights: Weights {
                lookup: 40,
                put: 12,
                stream: 0,
                touch: one_of(rng, &[0, 8]),
                remove: 2,
                purge_all: 0,
                pause: 10,
                advance: 10,
            },
            ttl_secs: one_of(rng, &[(20, 200), (1000, 200_000), (3_000_000, 30_000_000)])
                .into_range(),
            grace: rng.bool(),
            clock_jumps: true,
            // In 2023, and a day before all seconds of 32 bits are used up.
            wall_base: one_of(rng, &[0, 1_700_000_000, (1 << 32) - 1_100_000]),
            life_operations: one_of(rng, &[10, 30, 80]),
            shutdown_one_in: one_of(rng, &[1, 3]),
            prefilled: false,
            strain: Strain { refuses_writes: false, ..self.strain },
            ..self
        }
    }

    /// For entries that are too short-lived for the device, in a RAM tier too small for them.
    pub(super) fn short_lived(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::ShortLived,
            keys: one_of(rng, &[16, 40]),
            sizes: Sizes::Tiny,
            ram_bytes: one_of(rng, &[4 << 10, 8 << 10, 16 << 10]),
            min_to_disk: Duration::from_secs(5),
            // A third of them is for the device.
            ttl_secs: one_of(rng, &[(1, 8), (3, 9)]).into_range(),
            ack: rawcached::cache::Ack::Buffered,
            flushed_one_in: one_of(rng, &[0, 8]),
            strain: Strain { absent_one_in: 2, ..self.strain },
            ..self
        }
    }
}
