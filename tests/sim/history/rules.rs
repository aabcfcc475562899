//! What a lookup may give and what it must give after the changes so far. Owns the verdicts.

use super::change::{Change, Touch};
use super::{History, Life, Lookup, Seen, Tick, Version};

impl History {
    /// Every change that may end the life of a version of a key.
    pub(super) fn changes_of(&self, key: u32, id: u64) -> impl Iterator<Item = &Change> {
        let own = self.keys.get(&key).into_iter().flat_map(|key| &key.changes);
        own.chain(self.purges_of(key, id).filter(|purge| !purge.is_soft))
    }

    /// The purges of many keys that select a version.
    fn purges_of(&self, key: u32, id: u64) -> impl Iterator<Item = &Change> {
        self.purges.iter().filter(move |purge| purge.selector.selects(key, id))
    }

    /// The soft purges that made a version stale before `at`, for certain.
    fn stalers(&self, key: u32, version: &Change, at: Tick) -> impl Iterator<Item = &Change> {
        self.purges_of(key, version.version.unwrap_or_default())
            .filter(move |purge| purge.is_soft && purge.certain && purge.end < at)
            .filter(move |purge| purge.is_after(version))
    }

    /// Whether a soft purge may have made a version stale.
    fn may_be_stale(&self, key: u32, version: &Change) -> bool {
        let id = version.version.unwrap_or_default();
        // What covers an entry covers its update that is under way.
        let replaced = self.versions.get(&id).map_or(id, |version| version.replaced);
        let purges = self.purges_of(key, id).chain(self.purges_of(key, replaced));
        let mut soft = purges.filter(|purge| purge.is_soft);
        // What a store began with may be of before the purge.
        let began = version.fill_began.unwrap_or(version.begin);
        self.has_folded || soft.any(|purge| purge.end >= began || !version.is_after(purge))
    }

    /// The changes that ended the life of a version before `at`.
    fn killers(&self, key: u32, version: &Change, at: Tick) -> impl Iterator<Item = &Change> {
        self.changes_of(key, version.version.unwrap_or_default())
            .filter(move |change| change.certain && change.end < at)
            .filter(move |change| change.is_after(version))
    }

    /// Whether only a region that was unreadable at `at` may know of a change.
    fn is_hidden(&self, change: &Change, at: Tick) -> bool {
        at < self.hidden_until && change.origin.life < self.life && !change.is_doubled
    }

    pub(super) fn check_cas(&mut self, cas: u64, id: u64) {
        let before = *self.cas.entry(cas).or_insert(id);
        if before != id {
            self.violate(format!("versions {before} and {id} have the same cas {cas:#x}"));
        }
        let before = *self.cas_of.entry(id).or_insert(cas);
        // What was of unknown age becomes another version when it is known again.
        if before != cas && !self.ages_may_be_unknown {
            self.violate(format!("version {id} has cas {cas:#x}, and had {before:#x}"));
        }
    }

    /// A lookup gave a version.
    pub fn check_hit(&mut self, lookup: Lookup, seen: Seen) {
        let end = self.tick();
        let Lookup { key, stale_ok, began, now } = lookup;
        let Seen { id, cas, life, len } = seen;
        let Some(version) = self.versions.get(&id).copied() else {
            return self.violate(format!("key {key} gave version {id}, which nobody stored"));
        };
        if version.key != key {
            return self.violate(format!("key {key} gave version {id} of key {}", version.key));
        }
        if version.len as u64 != len {
            let stored = version.len;
            self.violate(format!("key {key} gave {len} bytes of version {id}, which has {stored}"));
        }
        if life.keep_until <= now || (!stale_ok && life.fresh_until <= now) {
            self.violate(format!("key {key} gave {id} at {now} with {life:?}, past its end"));
        }
        self.check_cas(cas, id);
        let Some(change) = self.keys.entry(key).or_default().of_version(id).cloned() else {
            return self
                .violate(format!("key {key} gave version {id}, whose store did not happen"));
        };
        let (hidden, known): (Vec<_>, Vec<_>) =
            self.killers(key, &change, began).partition(|killer| self.is_hidden(killer, began));
        let are_hidden = known.is_empty();
        if let Some(killer) = known.first().or(hidden.first()) {
            let what = match killer.version {
                Some(newer) => format!("version {newer}"),
                None => format!("a removal of ticks {}..{}", killer.begin, killer.end),
            };
            let what = format!("key {key} gave version {id}, dead since {what}");
            self.violate_unless(are_hidden, what);
        }
        if !stale_ok {
            let stale_since = self.stalers(key, &change, began).next();
            if let Some((begin, end)) = stale_since.map(|purge| (purge.begin, purge.end)) {
                let what =
                    format!("key {key} gave {id} as fresh, stale since ticks {begin}..{end}");
                self.violate_unless(false, what);
            }
        }
        self.check_life(lookup, &version, &change, life);
        if self.missed.get(&id).is_some_and(|missed| *missed < began) {
            self.violate(format!("key {key} gave version {id}, which it had missed before"));
        }
        self.settle(key, id, end);
    }

    fn violate_unless(&mut self, is_hidden: bool, what: String) {
        if is_hidden {
            self.doubtful += 1;
            self.note(format_args!("doubtful: {what}"));
        } else if self.damaged {
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
        // With the cache clock's lag at that time, in seconds.
        let mut given_at: Vec<(Tick, u32)> = Vec::new();
        // Stale from the moment of a soft purge, or of the lookup.
        let cut = lookup.stale_ok && self.may_be_stale(key, stored);
        let is_like = |fresh_until: u32| {
            life.fresh_until == fresh_until || (cut && life.fresh_until < fresh_until)
        };
        let as_stored = Life { fresh_until: version.life.fresh_until, ..life };
        if as_stored == version.life && is_like(version.life.fresh_until) {
            given_at.push((stored.end, stored.origin.lag));
        }
        if life.stored_at == version.life.stored_at && is_like(life.keep_until) {
            let same = |touch: &&Touch| touch.until == life.keep_until && touch.end > stored.begin;
            let touches = history.touches.iter().filter(same);
            given_at.extend(touches.map(|touch| (touch.end, touch.origin.lag)));
        }
        if given_at.is_empty() {
            let id = version.id;
            return self.violate(format!("version {id} has {life:?}, which nothing gave it"));
        }
        if given_at.iter().all(|(given, _)| self.is_replaced(*given, key, stored, began)) {
            let id = version.id;
            let is_hidden = began < self.hidden_until;
            self.violate_unless(
                is_hidden,
                format!("version {id} has {life:?}, replaced by a touch"),
            );
        }
        let really_now = lookup.now + self.lag.saturating_sub(self.believed_lag);
        if !lookup.stale_ok && given_at.iter().all(|(_, lag)| life.fresh_until + lag <= really_now)
        {
            let id = version.id;
            self.violate(format!("version {id} with {life:?} is really past its end"));
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
            && self
                .changes_of(key, version.version.unwrap_or_default())
                .filter(|other| other.version != version.version)
                .all(|other| {
                    // A void store has neither version nor certainty.
                    other.end < version.begin || other.begin > touch.end
                })
    }

    /// A lookup gave nothing: a violation if a live version must have been found, on a device where
    /// nothing is evicted. `now` is the clock when it ended.
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
    pub(super) fn is_last(&self, key: u32, version: &Change) -> bool {
        version.version.is_some()
            && self
                .changes_of(key, version.version.unwrap_or_default())
                .filter(|other| other.version != version.version || other.is_purge)
                .all(|other| {
                    version.is_after(other)
                        || (other.version.is_none() && !other.is_purge && other.end == other.begin)
                })
    }

    /// Whether nothing can have come to a key after the change that made this version.
    pub fn is_current(&self, key: u32, id: u64) -> bool {
        let change = self.keys.get(&key).and_then(|key| key.of_version(id));
        change.is_some_and(|change| self.is_last(key, change))
    }

    /// Whether every lifetime that the version may have had goes on beyond `now`.
    pub(super) fn outlives(&self, lookup: Lookup, version: &Change, now: u32) -> bool {
        let Some(facts) = version.version.and_then(|id| self.versions.get(&id)) else {
            return false;
        };
        // Lookups find it when all parts are there.
        if facts.is_partial {
            return false;
        }
        if self.has_folded || (!lookup.stale_ok && self.may_be_stale(lookup.key, version)) {
            return false;
        }
        let touches = self.keys[&lookup.key].touches.iter();
        let given = touches
            .filter(|touch| touch.end > version.begin)
            .map(|touch| (touch.end, touch.until))
            .chain([(version.end, facts.life.fresh_until)]);
        given
            .filter(|(at, _)| !self.is_replaced(*at, lookup.key, version, lookup.began))
            .all(|(_, fresh_until)| fresh_until > now)
    }

    /// A client was told that the key had a live entry at some time since `began`.
    pub fn check_existed(&mut self, key: u32, began: Tick, how: &str) {
        let end = self.tick();
        let possible = self.keys.get(&key).is_some_and(|history| {
            history.changes.iter().any(|change| {
                change.version.is_some()
                    && change.begin < end
                    && self.killers(key, change, began).all(|killer| self.is_hidden(killer, began))
            })
        });
        if !possible {
            self.violate_unless(false, format!("key {key} was said to have an entry ({how})"));
        }
    }
}
