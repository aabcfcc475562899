//! What clients did, what they were answered, and whether that is allowed. Owns the rules; knows
//! neither cache nor device.
//!
//! Every operation is an interval of ticks. A change is *certain* once it was acknowledged or its
//! effect was seen, and *after* another one if it began when the other had ended, or if both have
//! sequence numbers and its own is higher. A lookup may give a version unless a certain change
//! after that version ended before the lookup began. A crash makes changes that were not durable
//! uncertain. Media damage excuses an older version, and nothing else.

mod change;
mod rules;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::time::Duration;

use change::{Change, KeyHistory, Origin, Touch};
pub use change::{Crash, Life, PurgeEnd, Selector, StoreEnd, Version};
pub use turn::Stored;
use turn::Turn;

/// A moment in the order of everything that happened.
pub type Tick = u64;
/// The end of an operation that has not ended.
const OPEN: Tick = Tick::MAX;
/// Lines of the trace that a violation shows; `RAWCACHED_SIM_TRACE` asks for another number.
static TRACE_LINES: LazyLock<usize> = LazyLock::new(|| {
    std::env::var("RAWCACHED_SIM_TRACE").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
});

/// Names a change in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeId {
    /// `None` for a purge of everything.
    key: Option<u32>,
    number: usize,
}

/// A lookup in progress.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    pub key: u32,
    pub stale_ok: bool,
    pub began: Tick,
    /// The clock when it began.
    pub now: u32,
}

/// What a lookup gave.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub id: u64,
    pub cas: u64,
    pub life: Life,
    pub len: u64,
}

/// A run's history so far.
#[derive(Default)]
pub struct History {
    tick: Tick,
    keys: BTreeMap<u32, KeyHistory>,
    purges: Vec<Change>,
    versions: HashMap<u64, Version>,
    cas: HashMap<u64, u64>,
    /// The CAS value of each version that was seen.
    cas_of: HashMap<u64, u64>,
    life: u32,
    /// Failed writes and flushes of the device so far.
    pub errors: u64,
    /// The same count when the present life began.
    born_errors: u64,
    /// Seconds that the cache's clock is behind the time that has really passed.
    pub lag: u32,
    /// At most so many of the seconds of `lag` may come from wall clocks that were behind by less
    /// than the downtime: a start cannot tell them from right ones.
    pub believed_lag: u32,
    /// A flush failed: later flushes do not make its writes durable.
    pub flush_failed: bool,
    /// Wall clocks may be wrong at a start.
    pub ages_may_be_unknown: bool,
    /// The cache may have purged more than it was asked to.
    pub has_folded: bool,
    /// Media damage struck: an older version may come back.
    pub damaged: bool,
    /// Until when a region stays unreadable that was so at the start of this life; 0 for none.
    hidden_until: Tick,
    /// Older versions that were excused.
    pub excused: u64,
    /// Older versions that were given while a region could not be read.
    pub doubtful: u64,
    /// Versions that this life of the cache did not find though they had not ended, and when the
    /// lookup that missed them ended.
    missed: HashMap<u64, Tick>,
    /// Time of the scheduler.
    pub now: Duration,
    turn: Turn,
    violations: Vec<String>,
    trace: VecDeque<String>,
    trace_hash: u64,
}

impl History {
    // The order of things.

    /// The next moment.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn origin(&self) -> Origin {
        Origin { life: self.life, errors: self.errors, ended_at: self.now, lag: self.lag }
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        let mut text = String::new();
        let _ = write!(text, "{:>6} {:>7}ms {line}", self.tick, self.now.as_millis());
        for byte in text.bytes() {
            self.trace_hash = (self.trace_hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace.len() == *TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(text);
    }

    /// Hash of all lines of the trace.
    pub fn trace_hash(&self) -> u64 {
        self.trace_hash
    }

    /// The last lines of the trace.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().map(String::as_str)
    }

    /// Records a violation.
    pub fn violate(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violations.push(what);
    }

    /// All violations.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    // Changes.

    /// A store begins; a streamed one may publish from now on, having begun at `fill_began`.
    pub fn begin_store(&mut self, version: Version, fill_began: Option<Tick>) -> ChangeId {
        let begin = self.tick();
        self.versions.insert(version.id, version);
        let mut change = Change::new(Some(version.id), begin, self.origin());
        change.fill_began = fill_began;
        change.logged = !version.ram_only;
        self.push(Some(version.key), change)
    }

    /// The version that brought the body of this one.
    pub fn body(&self, id: u64) -> u64 {
        self.versions.get(&id).map_or(id, |version| version.body)
    }

    /// Whether a version comes part by part.
    pub fn is_partial(&self, id: u64) -> bool {
        self.versions.get(&id).is_some_and(|version| version.is_partial)
    }

    /// The version with a CAS value, if it was seen or stored.
    pub fn of_cas(&self, cas: u64) -> Option<u64> {
        self.cas.get(&cas).copied()
    }

    /// A removal of a key, or of all keys, begins.
    pub fn begin_purge(&mut self, key: Option<u32>) -> ChangeId {
        let begin = self.tick();
        let mut change = Change::new(None, begin, self.origin());
        change.is_purge = true;
        self.push(key, change)
    }

    /// A purge of many keys begins.
    pub fn begin_purge_of(&mut self, selector: Selector, is_soft: bool) -> ChangeId {
        let purge = self.begin_purge(None);
        let change = self.change(purge);
        (change.selector, change.is_soft) = (selector, is_soft);
        purge
    }

    fn push(&mut self, key: Option<u32>, change: Change) -> ChangeId {
        let changes = match key {
            Some(key) => &mut self.keys.entry(key).or_default().changes,
            None => &mut self.purges,
        };
        changes.push(change);
        ChangeId { key, number: changes.len() - 1 }
    }

    fn change(&mut self, id: ChangeId) -> &mut Change {
        match id.key {
            Some(key) => &mut self.keys.entry(key).or_default().changes[id.number],
            None => &mut self.purges[id.number],
        }
    }

    /// When a change began.
    pub fn began(&mut self, id: ChangeId) -> Tick {
        self.change(id).begin
    }

    /// A store ended.
    pub fn end_store(&mut self, id: ChangeId, how: StoreEnd) {
        let (end, now) = (self.tick(), self.now);
        let change = self.change(id);
        change.end = end;
        change.origin.ended_at = now;
        let (begin, version, origin) = (change.begin, change.version, change.origin);
        match how {
            StoreEnd::Cancelled => {}
            StoreEnd::Void => {
                // As if never begun: no lookup may give this version.
                change.version = None;
                change.end = begin;
                change.logged = false;
            }
            StoreEnd::Failed { removed } => {
                let mut removal = Change::new(None, begin, origin);
                removal.end = end;
                removal.certain = removed;
                removal.logged = false;
                removal.undoes = version;
                self.push(id.key, removal);
            }
            StoreEnd::Stored { sequence, flushed } => {
                change.certain = true;
                change.sequence = Some(sequence);
                change.durable = flushed;
                if flushed {
                    self.flushed(begin);
                }
                self.check_stored(id, sequence);
            }
        }
    }

    fn check_stored(&mut self, id: ChangeId, sequence: u64) {
        let change = self.change(id).clone();
        let version = change.version.unwrap_or_default();
        self.check_cas(sequence, version);
        // Sequence numbers follow the order of visibility: an earlier store has a lower one.
        let rank = self
            .keys
            .values()
            .flat_map(|key| &key.changes)
            .filter(|other| other.end < change.begin)
            .filter_map(|other| other.sequence)
            .max()
            .unwrap_or(0);
        if sequence <= rank {
            self.violate(format!(
                "version {version} has sequence {sequence:#x}, not above {rank:#x}"
            ));
        }
        if let Some(began) = change.fill_began {
            let purged = |purge: &Change| {
                purge.is_purge && purge.certain && purge.begin > began && purge.end < change.begin
            };
            if self.changes_of(id.key.unwrap_or_default(), version).any(purged) {
                self.violate(format!("version {version} was published after a purge of its key"));
            }
        }
    }

    /// Somebody began at `attached` to follow a version whose store began at `began`.
    pub fn check_attached(&mut self, (id, key): (u64, u32), (began, attached): (Tick, Tick)) {
        let purged = |purge: &Change| {
            purge.is_purge && purge.certain && purge.begin > began && purge.end < attached
        };
        if self.changes_of(key, id).any(purged) {
            self.violate(format!("version {id} is followed after a purge of its key"));
        }
    }

    /// Whether a purge of everything began after `began`.
    pub fn was_all_purged_since(&self, began: Tick) -> bool {
        self.purges.iter().any(|purge| purge.begin > began)
    }

    /// A removal ended.
    pub fn end_purge(&mut self, id: ChangeId, how: PurgeEnd) {
        let (end, now) = (self.tick(), self.now);
        let change = self.change(id);
        change.end = end;
        change.origin.ended_at = now;
        let begin = change.begin;
        match how {
            PurgeEnd::Acknowledged | PurgeEnd::Absent => {
                change.certain = true;
                change.durable = true;
                // A purge of everything is in the superblock.
                change.is_doubled = id.key.is_none() || how == PurgeEnd::Acknowledged;
                self.flushed(begin);
            }
            PurgeEnd::Refused => {
                change.certain = true;
                change.logged = false;
            }
            PurgeEnd::Unknown => {}
        }
    }

    /// A touch begins; ends with [`History::end_touch`], or has no known end.
    pub fn begin_touch(&mut self, key: u32, until: u32) -> ChangeId {
        let begin = self.tick();
        let origin = self.origin();
        let touches = &mut self.keys.entry(key).or_default().touches;
        touches.push(Touch { until, begin, end: OPEN, certain: false, durable: false, origin });
        ChangeId { key: Some(key), number: touches.len() - 1 }
    }

    /// A touch ended; `touched` if it found a live entry, `None` if it failed.
    pub fn end_touch(&mut self, id: ChangeId, touched: Option<bool>) {
        let (end, now, hidden_until) = (self.tick(), self.now, self.hidden_until);
        let touches = &mut self.keys.entry(id.key.unwrap_or_default()).or_default().touches;
        let touch = &mut touches[id.number];
        touch.origin.ended_at = now;
        match touched {
            // While a region is unreadable, the touch may have found an older version.
            Some(true) => (touch.end, touch.certain) = (end, hidden_until < end),
            Some(false) => touch.end = touch.begin,
            // A write that failed may have changed the device, and may still be under way.
            None => {}
        }
    }

    /// A flush that began no earlier than `begin` was acknowledged: changes that ended before are
    /// durable, unless a write failed since.
    fn flushed(&mut self, begin: Tick) {
        let errors = self.errors;
        let changes = self.keys.values_mut().flat_map(|key| &mut key.changes);
        for change in changes.chain(&mut self.purges) {
            let covered = change.end < begin && change.origin.errors == errors;
            change.durable |= covered && change.certain && change.logged;
        }
        for touch in self.keys.values_mut().flat_map(|key| &mut key.touches) {
            let covered = touch.end < begin && touch.origin.errors == errors;
            touch.durable |= covered && touch.certain;
        }
    }

    // Lives.

    /// A region cannot be read at the start of this life: changes of earlier lives may not count
    /// for now, except purges.
    pub fn begin_hiding(&mut self) {
        self.hidden_until = OPEN;
    }

    /// The region was read, so from here on all changes count.
    pub fn end_hiding(&mut self) {
        self.hidden_until = self.tick();
        self.note(format_args!("all regions are read"));
    }

    /// A life ended. Of the changes that are not durable only those older than `window` remain
    /// for certain.
    pub fn crash(&mut self, crash: Crash, window: Duration) {
        let end = self.tick();
        let (now, errors, life) = (self.now, self.errors, self.life);
        let born_errors = std::mem::replace(&mut self.born_errors, errors);
        let survives = |origin: Origin| match crash {
            Crash::Shutdown => origin.errors == errors,
            Crash::Kill | Crash::PowerCut => {
                // If a write failed in this life, changes accepted before the flusher knew wait for
                // its next attempt.
                let in_time = origin.life < life || born_errors == errors;
                let old_enough = now.saturating_sub(origin.ended_at) > window;
                origin.errors == errors && in_time && old_enough
            }
        };
        let changes = self.keys.values_mut().flat_map(|key| &mut key.changes);
        for change in changes.chain(&mut self.purges) {
            change.certain &= change.durable || (change.logged && survives(change.origin));
            change.durable |= change.certain && crash == Crash::Shutdown;
            change.end = change.end.min(end);
        }
        for touch in self.keys.values_mut().flat_map(|key| &mut key.touches) {
            touch.certain &= touch.durable || survives(touch.origin);
            touch.durable |= touch.certain && crash == Crash::Shutdown;
            touch.end = touch.end.min(end);
        }
        self.life += 1;
        self.hidden_until = 0;
        self.missed.clear();
        self.turn = Turn::default();
        self.note(format_args!("{crash:?}"));
    }

    /// Recovery is complete: it flushed what it relied on.
    pub fn recovered(&mut self) {
        if self.flush_failed {
            return;
        }
        let life = self.life;
        let changes = self.keys.values_mut().flat_map(|key| &mut key.changes);
        for change in changes.chain(&mut self.purges) {
            change.durable |= change.certain && change.origin.life < life;
        }
        for touch in self.keys.values_mut().flat_map(|key| &mut key.touches) {
            touch.durable |= touch.certain && touch.origin.life < life;
        }
    }
}
