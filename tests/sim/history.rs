//! What clients did and what they were told, and whether it can be. Owns the rules; knows
//! neither cache nor device.
//!
//! Every operation is an interval of ticks. A change is *certain* once it was acknowledged or its
//! effect was seen, and *after* another one if it began when the other had ended, or if both have
//! sequence numbers and its own is higher. A lookup may give a version unless a certain change
//! after that version ended before the lookup began. A crash makes uncertain what was not
//! durable. Media damage excuses an older version, and nothing else.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::time::Duration;

/// A moment in the order of everything that happened.
pub type Tick = u64;
/// The end of what has not ended.
const OPEN: Tick = Tick::MAX;
/// Lines of the trace that a violation shows; `RAWCACHED_SIM_TRACE` asks for another number.
static TRACE_LINES: LazyLock<usize> = LazyLock::new(|| {
    std::env::var("RAWCACHED_SIM_TRACE").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
});

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
    /// It never goes to the device.
    pub ram_only: bool,
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

/// How a life of the cache ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// `shutdown` returned well.
    Shutdown,
    /// The process went, the device stayed.
    Kill,
    /// The power went.
    PowerCut,
}

/// A change of one key, or of all.
#[derive(Clone, Debug)]
struct Change {
    /// `None` removes.
    version: Option<u64>,
    begin: Tick,
    end: Tick,
    /// When its streamed store began: any purge since prevails.
    fill_began: Option<Tick>,
    /// A removal that streamed stores in progress must heed.
    is_purge: bool,
    certain: bool,
    durable: bool,
    /// It is in the log.
    logged: bool,
    sequence: Option<u64>,
    /// The version that the same failed operation may have stored before.
    undoes: Option<u64>,
    origin: Origin,
}

/// A change of a lifetime in place.
#[derive(Clone, Debug)]
struct Touch {
    until: u32,
    begin: Tick,
    end: Tick,
    certain: bool,
    durable: bool,
    origin: Origin,
}

/// In which circumstances a change was made.
#[derive(Clone, Copy, Debug)]
struct Origin {
    life: u32,
    /// Failed writes and flushes of the device before it.
    errors: u64,
    ended_at: Duration,
}

#[derive(Clone, Debug, Default)]
struct KeyHistory {
    changes: Vec<Change>,
    touches: Vec<Touch>,
}

/// Names a change under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeId {
    /// `None` for a purge of everything.
    key: Option<u32>,
    number: usize,
}

/// A lookup under way.
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
}

/// A run's history so far.
#[derive(Default)]
pub struct History {
    tick: Tick,
    keys: BTreeMap<u32, KeyHistory>,
    purges: Vec<Change>,
    versions: HashMap<u64, Version>,
    cas: HashMap<u64, u64>,
    life: u32,
    /// Failed writes and flushes of the device so far.
    pub errors: u64,
    /// As many when the present life began.
    born_errors: u64,
    /// A flush failed: what it left behind no later one makes durable.
    pub flush_failed: bool,
    /// Media damage struck: an older version may come back.
    pub damaged: bool,
    /// Older versions that were excused.
    pub excused: u64,
    /// Versions that this life of the cache did not find though they had not ended, and when the
    /// lookup that missed them ended.
    missed: HashMap<u64, Tick>,
    /// Time of the scheduler.
    pub now: Duration,
    violations: Vec<String>,
    trace: VecDeque<String>,
    trace_hash: u64,
}

impl Change {
    fn new(version: Option<u64>, begin: Tick, origin: Origin) -> Change {
        Change {
            version,
            begin,
            end: OPEN,
            fill_began: None,
            is_purge: false,
            certain: false,
            durable: false,
            logged: true,
            sequence: None,
            undoes: None,
            origin,
        }
    }

    /// Whether this change took effect after `other` did, as far as is known.
    fn is_after(&self, other: &Change) -> bool {
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
    fn of_version(&self, id: u64) -> Option<&Change> {
        self.changes.iter().find(|change| change.version == Some(id))
    }
}

impl History {
    // The order of things.

    /// The next moment.
    pub fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn origin(&self) -> Origin {
        Origin { life: self.life, errors: self.errors, ended_at: self.now }
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

    /// Records that something happened that may not.
    pub fn violate(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violations.push(what);
    }

    /// Everything that may not have happened.
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

    /// A removal of a key, or of all keys, begins.
    pub fn begin_purge(&mut self, key: Option<u32>) -> ChangeId {
        let begin = self.tick();
        let mut change = Change::new(None, begin, self.origin());
        change.is_purge = true;
        self.push(key, change)
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
                // It never was: nothing gives this version any more.
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
        // Sequence numbers follow the order of visibility: what ended before has a lower one.
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
            if self.changes_of(id.key.unwrap_or_default()).any(purged) {
                self.violate(format!("version {version} was published after a purge of its key"));
            }
        }
    }

    /// A removal ended; `Ok` means acknowledged and thus durable.
    pub fn end_purge(&mut self, id: ChangeId, acknowledged: bool) {
        let (end, now) = (self.tick(), self.now);
        let change = self.change(id);
        change.end = end;
        change.origin.ended_at = now;
        let begin = change.begin;
        if acknowledged {
            change.certain = true;
            change.durable = true;
            self.flushed(begin);
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
        let (end, now) = (self.tick(), self.now);
        let touches = &mut self.keys.entry(id.key.unwrap_or_default()).or_default().touches;
        let touch = &mut touches[id.number];
        touch.origin.ended_at = now;
        match touched {
            Some(true) => (touch.end, touch.certain) = (end, true),
            Some(false) => touch.end = touch.begin,
            // A write that failed may have changed the device, and may still be under way.
            None => {}
        }
    }

    /// A flush was acknowledged that began no earlier than `begin`: all that ended before is
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

    /// A life ended. Of the changes that are not durable only those older than `window` remain
    /// for certain.
    pub fn crash(&mut self, crash: Crash, window: Duration) {
        let end = self.tick();
        let (now, errors, life) = (self.now, self.errors, self.life);
        let born_errors = std::mem::replace(&mut self.born_errors, errors);
        let survives = |origin: Origin| match crash {
            Crash::Shutdown => origin.errors == errors,
            Crash::Kill | Crash::PowerCut => {
                // In a life in which a write failed, what was accepted before the flusher heard of
                // it waits for the next attempt with the rest.
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
        self.missed.clear();
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

    // Rules.

    /// Every change that concerns a key.
    fn changes_of(&self, key: u32) -> impl Iterator<Item = &Change> {
        let own = self.keys.get(&key).into_iter().flat_map(|key| &key.changes);
        own.chain(&self.purges)
    }

    /// The change that ended the life of a version before `at`.
    fn killer(&self, key: u32, version: &Change, at: Tick) -> Option<&Change> {
        self.changes_of(key)
            .filter(|change| change.certain && change.end < at)
            .find(|change| change.is_after(version))
    }

    fn check_cas(&mut self, cas: u64, id: u64) {
        let before = *self.cas.entry(cas).or_insert(id);
        if before != id {
            self.violate(format!("versions {before} and {id} have the same cas {cas:#x}"));
        }
    }

    /// A lookup gave a version.
    pub fn check_hit(&mut self, lookup: Lookup, seen: Seen) {
        let end = self.tick();
        let Lookup { key, stale_ok, began, now } = lookup;
        let Seen { id, cas, life } = seen;
        let Some(version) = self.versions.get(&id).copied() else {
            return self.violate(format!("key {key} gave version {id}, which nobody stored"));
        };
        if version.key != key {
            return self.violate(format!("key {key} gave version {id} of key {}", version.key));
        }
        if life.keep_until <= now || (!stale_ok && life.fresh_until <= now) {
            self.violate(format!("key {key} gave {id} at {now} with {life:?}, past its end"));
        }
        self.check_cas(cas, id);
        let Some(change) = self.keys.entry(key).or_default().of_version(id).cloned() else {
            return self
                .violate(format!("key {key} gave version {id}, whose store did not happen"));
        };
        if let Some(killer) = self.killer(key, &change, began) {
            let what = match killer.version {
                Some(newer) => format!("version {newer}"),
                None => format!("a removal of ticks {}..{}", killer.begin, killer.end),
            };
            self.violate_or_excuse(format!("key {key} gave version {id}, dead since {what}"));
        }
        self.check_life(lookup, &version, &change, life);
        if self.missed.get(&id).is_some_and(|missed| *missed < began) {
            self.violate(format!("key {key} gave version {id}, which it had missed before"));
        }
        self.settle(key, id, end);
    }

    fn violate_or_excuse(&mut self, what: String) {
        if self.damaged {
            self.excused += 1;
            self.note(format_args!("excused: {what}"));
        } else {
            self.violate(what);
        }
    }

    /// A version that was seen was stored for certain.
    fn settle(&mut self, key: u32, id: u64, end: Tick) {
        let (life, flush_failed) = (self.life, self.flush_failed);
        let changes = &mut self.keys.entry(key).or_default().changes;
        for change in changes.iter_mut().filter(|change| change.version == Some(id)) {
            change.certain = true;
            change.end = change.end.min(end);
            change.durable |= change.origin.life < life && !flush_failed;
        }
    }

    /// Whether a version may have this lifetime: the one it was stored with or a touch gave it, and
    /// no touch since replaced that one.
    fn check_life(&mut self, lookup: Lookup, version: &Version, stored: &Change, life: Life) {
        let Lookup { key, began, .. } = lookup;
        let history = &self.keys[&key];
        let mut given_at: Vec<Tick> = Vec::new();
        if life == version.life {
            given_at.push(stored.end);
        }
        if life.stored_at == version.life.stored_at && life.fresh_until == life.keep_until {
            let same = |touch: &&Touch| touch.until == life.keep_until && touch.end > stored.begin;
            given_at.extend(history.touches.iter().filter(same).map(|touch| touch.end));
        }
        if given_at.is_empty() {
            let id = version.id;
            return self.violate(format!("version {id} has {life:?}, which nothing gave it"));
        }
        if given_at.iter().all(|given| self.is_replaced(*given, key, stored, began)) {
            let id = version.id;
            self.violate_or_excuse(format!("version {id} has {life:?}, replaced by a touch"));
        }
    }

    /// Whether a touch that ended before `at` replaced a lifetime of this version given at `given`.
    fn is_replaced(&self, given: Tick, key: u32, version: &Change, at: Tick) -> bool {
        self.keys[&key].touches.iter().any(|touch| {
            touch.certain
                && touch.begin > given
                && touch.end < at
                && self.is_of(touch, key, version)
        })
    }

    /// Whether a touch was of this version for certain.
    fn is_of(&self, touch: &Touch, key: u32, version: &Change) -> bool {
        version.end < touch.begin
            && self.changes_of(key).filter(|other| other.version != version.version).all(|other| {
                // A store that came to nothing has neither version nor certainty.
                other.end < version.begin || other.begin > touch.end
            })
    }

    /// A lookup gave nothing: on a device where nothing is evicted, was there something?
    /// `now` is the clock when it ended.
    pub fn check_miss(&mut self, lookup: Lookup, recovered: bool, now: u32) {
        self.tick();
        let life = self.life;
        let Some(history) = self.keys.get(&lookup.key) else { return };
        let lost = history.changes.iter().find(|change| {
            change.certain
                && change.logged
                && change.end < lookup.began
                && (recovered || change.origin.life == life)
                && self.is_last(lookup.key, change)
                && self.outlives(lookup, change, now)
        });
        if let Some(id) = lost.and_then(|change| change.version) {
            self.violate(format!("key {}: version {id} is lost", lookup.key));
        }
    }

    /// A lookup of a recovered cache without faults gave nothing: what it could have given is gone
    /// for the rest of this life, evicted or replaced. An entry that moves is found all the same.
    pub fn miss_is_final(&mut self, lookup: Lookup, now: u32) {
        let end = self.tick();
        let Some(history) = self.keys.get(&lookup.key) else { return };
        let gone = history.changes.iter().filter(|change| {
            change.certain
                && change.logged
                && change.end < lookup.began
                && self.outlives(lookup, change, now)
        });
        let gone: Vec<u64> = gone.filter_map(|change| change.version).collect();
        for id in gone {
            self.missed.entry(id).or_insert(end);
        }
    }

    /// Whether nothing else can have happened to the key since.
    fn is_last(&self, key: u32, version: &Change) -> bool {
        version.version.is_some()
            && self
                .changes_of(key)
                .filter(|other| other.version != version.version || other.is_purge)
                .all(|other| {
                    version.is_after(other)
                        || (other.version.is_none() && !other.is_purge && other.end == other.begin)
                })
    }

    /// Whether every lifetime that the version may have had goes on beyond `now`.
    fn outlives(&self, lookup: Lookup, version: &Change, now: u32) -> bool {
        let Some(facts) = version.version.and_then(|id| self.versions.get(&id)) else {
            return false;
        };
        let touches = self.keys[&lookup.key].touches.iter();
        let given = touches
            .filter(|touch| touch.end > version.begin)
            .map(|touch| (touch.end, touch.until))
            .chain([(version.end, facts.life.fresh_until)]);
        given
            .filter(|(at, _)| !self.is_replaced(*at, lookup.key, version, lookup.began))
            .all(|(_, fresh_until)| fresh_until > now)
    }

    /// Somebody was told that the key had a live entry at some time since `began`.
    pub fn check_existed(&mut self, key: u32, began: Tick, how: &str) {
        let end = self.tick();
        let possible = self.keys.get(&key).is_some_and(|history| {
            history.changes.iter().any(|change| {
                change.version.is_some()
                    && change.begin < end
                    && self.killer(key, change, began).is_none()
            })
        });
        if !possible {
            self.violate_or_excuse(format!("key {key} was said to have an entry ({how})"));
        }
    }
}
