//! What all clients of a run share: the device, the history of what they did, the counts. Owns the
//! bytes of keys and bodies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rawcached::cache::Cache;
use rawcached::device::{FaultKind, SimDevice};
use tokio::time::Instant;

use crate::clients::Acknowledged;
use crate::history::{History, Selector, Tick};
use crate::report::Totals;
use crate::scenario::{Scenario, Theme, Trouble};

/// Keys that fill the device before clients begin.
pub const FILL_KEYS: u32 = 100;

/// What all clients of a run share.
pub struct World {
    pub scenario: Scenario,
    pub device: SimDevice,
    pub history: Mutex<History>,
    pub totals: Mutex<Totals>,
    /// Operations left in this run.
    pub budget: AtomicU64,
    pub next_id: AtomicU64,
    /// By version.
    pub streams: Mutex<BTreeMap<u64, Stream>>,
    /// Parts that clients stored.
    pub acknowledged: Mutex<Acknowledged>,
    /// Seconds that have really passed, counted from where the wall clock began.
    pub truth: AtomicU32,
    /// A right wall clock minus `truth`, in seconds.
    pub wall_base: i64,
    /// Keys that were changed in this life before recovery was complete, at most.
    pub early_changes: AtomicU64,
    /// Keys whose leases are held in this life, by whom others wait for.
    pub leased: Mutex<BTreeSet<u32>>,
    /// The cache has put purge records into a floor: then more is purged than what was asked for.
    pub has_folded: AtomicBool,
    /// Scheduler time of the lives before.
    pub elapsed: Mutex<Duration>,
}

/// One streamed store that may be followed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub key: u32,
    /// Bytes of the whole body.
    pub len: usize,
    pub began: Tick,
    /// When its life of the cache began.
    pub born: Instant,
    pub end: StreamEnd,
}

/// How far a streamed store has come.
#[derive(Clone, Copy, Debug)]
pub enum StreamEnd {
    UnderWay,
    /// All bytes were sent, and the writer is being finalized.
    Finalizing,
    /// It was over at this moment; whether its body had come whole for certain.
    Over {
        at: Tick,
        is_whole: bool,
    },
}

/// The bytes of a key.
pub fn key_bytes(key: u32) -> Vec<u8> {
    format!("key-{key:03}").into_bytes()
}

/// What the names of ten keys begin with.
pub fn prefix_bytes(tens: u32) -> Vec<u8> {
    format!("key-{tens:02}").into_bytes()
}

/// The name of the tag that a selector is of.
pub fn tag_bytes(what: Selector) -> Vec<u8> {
    format!("{what:?}").into_bytes()
}

/// The body of a version.
pub fn body_of(id: u64, len: usize) -> Bytes {
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

impl World {
    pub fn new(scenario: Scenario, device: SimDevice, start: u32) -> World {
        World {
            truth: AtomicU32::new(start),
            wall_base: scenario.wall_base,
            budget: AtomicU64::new(scenario.operations),
            scenario,
            device,
            history: Mutex::default(),
            totals: Mutex::default(),
            next_id: AtomicU64::new(1),
            streams: Mutex::default(),
            acknowledged: Mutex::default(),
            early_changes: AtomicU64::new(0),
            leased: Mutex::default(),
            has_folded: AtomicBool::new(false),
            elapsed: Mutex::default(),
        }
    }

    /// The tags of a version.
    pub fn tags_of(&self, key: u32, id: u64) -> Vec<Bytes> {
        if self.scenario.purges.weight == 0 {
            return Vec::new();
        }
        let tags =
            [Selector::KeyTag(key % Selector::KEY_TAGS), Selector::IdTag(id % Selector::ID_TAGS)];
        tags.map(|tag| Bytes::from(tag_bytes(tag))).to_vec()
    }

    /// What a right wall clock shows.
    pub fn right_wall(&self) -> i64 {
        self.wall_base + i64::from(self.truth.load(Ordering::Relaxed))
    }

    /// The history, brought up to date with the time and the faults of the device.
    pub fn history(&self, born: Instant) -> parking_lot::MutexGuard<'_, History> {
        let struck = self.device.struck();
        let of = |kinds: &[FaultKind]| kinds.iter().map(|kind| struck.of(*kind)).sum::<u64>();
        let elapsed = *self.elapsed.lock() + born.elapsed();
        let mut history = self.history.lock();
        history.now = elapsed;
        history.errors = of(&[FaultKind::WriteError, FaultKind::NoSpace, FaultKind::FlushError]);
        history.flush_failed = struck.of(FaultKind::FlushError) > 0;
        history.ages_may_be_unknown =
            self.scenario.clock_jumps || self.scenario.theme == Theme::WrongClocks;
        history.damaged = self.scenario.trouble == Trouble::Damage && is_damaged(&struck);
        history
    }

    /// Keys of clients and of the entries that filled the device.
    pub fn keys_max(&self) -> u32 {
        self.scenario.keys + if self.scenario.prefilled { FILL_KEYS } else { 0 }
    }

    /// So many keys are about to be changed.
    pub fn note_change(&self, cache: &Cache, keys: u64) {
        if !cache.is_ready() {
            self.early_changes.fetch_add(keys, Ordering::Relaxed);
        }
    }

    /// Whether recovery may have left entries out as it could not tell whether they were changed. The
    /// cache tells of such.
    pub fn may_have_forgotten(&self, cache: &Cache) -> bool {
        self.early_changes.load(Ordering::Relaxed) > self.scenario.budgets.keys_remembered()
            && cache.stats().store.regions_unindexed > 0
    }

    pub fn take_operation(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Whether a fault struck that may bring an older version back.
fn is_damaged(struck: &rawcached::device::Struck) -> bool {
    [
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::MisdirectedRead,
        FaultKind::CorruptRead,
        FaultKind::BitRot,
        FaultKind::UnreadableSector,
    ]
    .into_iter()
    .any(|kind| struck.of(kind) > 0)
}
