//! How much memory the index and recovery have. Decided by the seed's number, so that the draws of all
//! seeds stay the same.

use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::CacheOptions;

use super::{Scenario, Sizes, Theme, Trouble, Weights, one_of};

/// Bytes that an index of no entries counts as; see `IndexLimit` of the store.
const SHARDS_BYTES: u64 = 160 << 12;
/// Bytes of one entry more.
const ENTRY_BYTES: u64 = 12;
/// One life in so many has an index with room for everything: what earlier ones left out is found again.
const WIDE_ONE_IN: u32 = 2;

/// Parts of memory that run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Every other life, as a rule, has an index for 20 to 60 entries.
    pub little_index: bool,
    pub recovery: RecoveryMemory,
}

/// How much memory recovery has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryMemory {
    /// For all that there is.
    Enough,
    /// It takes several passes, and remembers each key that is changed meanwhile.
    Little,
    /// Of the keys that are changed meanwhile it remembers a few, and of the rest only bits.
    Least,
}

impl Budgets {
    pub(super) fn of(seed: u64) -> Budgets {
        let recovery = match seed % 16 {
            2 | 7 | 11 => RecoveryMemory::Least,
            6 | 10 => RecoveryMemory::Little,
            _ => RecoveryMemory::Enough,
        };
        Budgets { little_index: seed % 8 == 3, recovery }
    }

    /// Bytes of memory for recovery.
    pub fn recovery_bytes(&self) -> u64 {
        match self.recovery {
            RecoveryMemory::Enough => CacheOptions::default().recovery_bytes_max,
            RecoveryMemory::Little => 16 << 10,
            RecoveryMemory::Least => 2 << 10,
        }
    }

    /// Changed keys that recovery can tell from others: an eighth of its memory, less a quarter for
    /// bits, has 24 bytes for each.
    pub fn keys_remembered(&self) -> u64 {
        self.recovery_bytes() / 8 * 3 / 4 / 24
    }

    /// Entries for which the index of a life has room; `None` for more than there can be.
    pub fn draw_index_entries(&self, rng: &mut Rng) -> Option<u64> {
        (self.little_index && rng.u32(0..WIDE_ONE_IN) > 0).then(|| rng.u64(20..=60))
    }
}

/// Bytes of an index for so many entries.
pub fn index_bytes(entries: Option<u64>) -> u64 {
    match entries {
        // A quarter is for the records of the open region.
        Some(entries) => (entries * ENTRY_BYTES + SHARDS_BYTES).div_ceil(3) * 4,
        None => CacheOptions::default().index_bytes_max,
    }
}

impl Scenario {
    /// Leaves memory to runs that count on it, and gives the others what uses it up.
    pub(super) fn with_budgets(self, rng: &mut Rng) -> Scenario {
        // A large object has as many entries as slices, and each is a key that is changed.
        let is_large = matches!(self.theme, Theme::Large | Theme::Updates);
        let drawn = self.budgets;
        let little_index = drawn.little_index && !self.roomy && !is_large;
        let recovery = if is_large { RecoveryMemory::Enough } else { drawn.recovery };
        let budgets = Budgets { little_index, recovery };
        let limited = Scenario { budgets, ..self };
        match (limited.theme, budgets) {
            (Theme::Any, Budgets { little_index: true, .. }) => limited.crowding_the_index(rng),
            (Theme::Any, Budgets { recovery: RecoveryMemory::Least, .. }) => {
                limited.changing_early(rng)
            }
            _ => limited,
        }
    }

    /// Whether it has more entries than the index of most lives.
    pub fn is_crowding_the_index(&self) -> bool {
        self.budgets.little_index && self.theme == Theme::LittleMemory
    }

    /// For more entries than the index has room for, spread over all regions. Many are removed while
    /// what they are in is left out and not freed yet.
    fn crowding_the_index(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::LittleMemory,
            // Damage would excuse what is looked for.
            trouble: if self.trouble == Trouble::Damage { Trouble::SpareRot } else { self.trouble },
            keys: 60,
            sizes: Sizes::Large,
            hash_mask: u64::MAX,
            slow_one_in: one_of(rng, &[3, 10]),
            slow: Duration::from_millis(one_of(rng, &[40, 400])),
            weights: Weights {
                lookup: 40,
                put: 30,
                stream: 0,
                touch: one_of(rng, &[0, 4]),
                remove: 20,
                purge_all: 0,
                pause: one_of(rng, &[0, 4]),
                advance: 1,
            },
            ttl_secs: 10_000..1_000_000,
            clock_jumps: false,
            operations: 500,
            life_operations: one_of(rng, &[15, 40]),
            prefilled: true,
            eager: false,
            ..self
        }
    }

    /// For changes of more keys than recovery remembers, before it is complete.
    fn changing_early(self, rng: &mut Rng) -> Scenario {
        Scenario {
            theme: Theme::LittleMemory,
            clients: 8,
            keys: one_of(rng, &[16, 40]),
            delay_turns: one_of(rng, &[6, 20, 60]),
            slow_one_in: one_of(rng, &[3, 10]),
            weights: Weights {
                lookup: 40,
                put: 30,
                stream: one_of(rng, &[0, 4]),
                touch: one_of(rng, &[0, 4]),
                remove: 20,
                purge_all: 0,
                pause: 4,
                advance: 1,
            },
            ttl_secs: 1000..100_000,
            clock_jumps: false,
            operations: 450,
            life_operations: one_of(rng, &[40, 100]),
            eager: true,
            ..self
        }
    }
}
