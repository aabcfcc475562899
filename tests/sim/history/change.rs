//! Changes of keys and of lifetimes. Owns which of two changes came after the other; decides
//! nothing else.

use std::time::Duration;

use super::{OPEN, Tick};

/// A lifetime in seconds of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub stored_at: u32,
    pub fresh_until: u32,
    pub keep_until: u32,
}

/// One version of a key.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    pub id: u64,
    pub key: u32,
    pub len: usize,
    pub life: Life,
    /// The version that brought its body: an update keeps that of another one.
    pub body: u64,
    /// The version that an update took it from; else it is its own.
    pub replaced: u64,
    /// It never goes to the device.
    pub ram_only: bool,
    /// It comes part by part: only its head must be found.
    pub is_partial: bool,
}

/// What a purge of many keys selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    All,
    /// Ten keys whose names begin alike.
    Keys(u32),
    /// By a tag that all versions of some keys have.
    KeyTag(u32),
    /// By a tag that some versions of each key have.
    IdTag(u64),
}

impl Selector {
    pub const KEY_TAGS: u32 = 5;
    pub const ID_TAGS: u64 = 3;

    /// Whether it selects a version of a key.
    pub fn selects(self, key: u32, id: u64) -> bool {
        match self {
            Selector::All => true,
            Selector::Keys(tens) => key / 10 == tens,
            Selector::KeyTag(tag) => key % Selector::KEY_TAGS == tag,
            Selector::IdTag(tag) => id % Selector::ID_TAGS == tag,
        }
    }
}

/// How a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEnd {
    /// Published under this sequence number, durable or not.
    Stored { sequence: u64, flushed: bool },
    /// Nothing happened: a condition did not hold, a purge came, the writer was dropped.
    Void,
    /// An error: the old version is removed for certain, or perhaps.
    Failed { removed: bool },
    /// Nobody knows.
    Cancelled,
}

/// How a removal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeEnd {
    /// It is durable, and there was something to remove.
    Acknowledged,
    /// The key had no entry, so that nothing is written.
    Absent,
    /// An error: the removal still holds until the life ends, and may outlive it.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How a life of the cache ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// `shutdown` returned without an error.
    Shutdown,
    /// The process was killed, the device stayed.
    Kill,
    /// The power failed.
    PowerCut,
}

/// A change of one key, or of all.
#[derive(Clone, Debug)]
pub struct Change {
    /// `None` removes.
    pub version: Option<u64>,
    pub begin: Tick,
    pub end: Tick,
    /// When its streamed store began: any purge since prevails.
    pub fill_began: Option<Tick>,
    /// A removal that streamed stores in progress must heed.
    pub is_purge: bool,
    /// What a purge of many keys selects; of other changes everything.
    pub selector: Selector,
    /// A purge that makes stale and does not remove.
    pub is_soft: bool,
    /// It is recorded in two regions or in the superblock.
    pub is_doubled: bool,
    pub certain: bool,
    pub durable: bool,
    /// It is in the log.
    pub logged: bool,
    pub sequence: Option<u64>,
    /// The version that the same failed operation may have stored before.
    pub undoes: Option<u64>,
    pub origin: Origin,
}

/// A change of a lifetime in place.
#[derive(Clone, Debug)]
pub struct Touch {
    pub until: u32,
    pub begin: Tick,
    pub end: Tick,
    pub certain: bool,
    pub durable: bool,
    pub origin: Origin,
}

/// The circumstances of a change.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub life: u32,
    /// Failed writes and flushes of the device before it.
    pub errors: u64,
    pub ended_at: Duration,
    /// Seconds that the cache's clock was behind.
    pub lag: u32,
}

#[derive(Clone, Debug, Default)]
pub struct KeyHistory {
    pub changes: Vec<Change>,
    pub touches: Vec<Touch>,
}

impl Change {
    pub fn new(version: Option<u64>, begin: Tick, origin: Origin) -> Change {
        Change {
            version,
            begin,
            end: OPEN,
            fill_began: None,
            is_purge: false,
            selector: Selector::All,
            is_soft: false,
            is_doubled: false,
            certain: false,
            durable: false,
            logged: true,
            sequence: None,
            undoes: None,
            origin,
        }
    }

    /// Whether this change took effect after `other` did, as far as is known.
    pub fn is_after(&self, other: &Change) -> bool {
        if self.undoes.is_some() && self.undoes == other.version {
            return true;
        }
        if let (Some(own), Some(others)) = (self.sequence, other.sequence) {
            return own > others;
        }
        let other_end = match other.fill_began {
            Some(began) if self.is_purge => began,
            _ => other.end,
        };
        self.begin > other_end
    }
}

impl KeyHistory {
    pub fn of_version(&self, id: u64) -> Option<&Change> {
        self.changes.iter().find(|change| change.version == Some(id))
    }
}
