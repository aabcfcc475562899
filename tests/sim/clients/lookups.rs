//! Lookups: what a client asks, and comparing what it is given with what was stored.

use rawcached::cache::{Hit, Lifetime};

use super::held::Held;
use super::{Client, for_turns};
use crate::history::{Life, Lookup, Seen};
use crate::world::key_bytes;

pub(super) fn life_of(lifetime: Lifetime) -> Life {
    Life {
        stored_at: lifetime.stored_at.0,
        fresh_until: lifetime.fresh_until.0,
        keep_until: lifetime.keep_until.0,
    }
}

impl Client {
    pub(super) async fn lookup(&mut self, key: u32) {
        let stale_ok = self.rng.bool();
        let partial = self.one_in(8);
        // The entries that filled the device are in the regions that are reclaimed first.
        let keys = if self.one_in(4) { self.world.keys_max() } else { self.world.scenario.keys };
        let key = if self.one_in(4) { self.rng.u32(0..keys) } else { key };
        let is_hot = self.one_in(self.world.scenario.strain.hot_key_one_in);
        let key = if is_hot { 0 } else { key };
        let recovered = self.cache.is_ready();
        let unknown_before = self.is_age_unknown();
        let lookup = self.begin_lookup(key, stale_ok);
        let name = key_bytes(key);
        let turns = self.patience();
        let found = for_turns(turns, async {
            match stale_ok {
                true => self.cache.lookup_stale(&name).await,
                false => self.cache.lookup(&name).await,
            }
        });
        let Some(found) = found.await else { return };
        self.note_folds();
        self.world.totals.lock().lookups += 1;
        match found {
            Some(hit) => {
                let Some(id) = self.take_hit(lookup, &hit) else { return };
                if self.one_in(self.world.scenario.strain.hold_one_in) {
                    return self.hold(id, hit).await;
                }
                self.check_body(id, hit, partial).await;
            }
            // Only lookups that allow stale entries find one of unknown age.
            None if !stale_ok && (unknown_before || self.is_age_unknown()) => {
                self.history().note(format_args!("get {key} miss, of unknown age"));
            }
            None => self.take_miss(lookup, recovered),
        }
    }

    fn is_age_unknown(&self) -> bool {
        self.cache.device_store().is_age_unknown()
    }

    pub(super) fn begin_lookup(&self, key: u32, stale_ok: bool) -> Lookup {
        Lookup { key, stale_ok, began: self.history().tick(), now: self.now() }
    }

    /// Looks up the head of a key, stale or not; gives the version and the hit.
    pub(super) async fn lookup_head(&self, key: u32) -> Option<(u64, Hit)> {
        let lookup = self.begin_lookup(key, true);
        let found = self.cache.lookup_stale_head(&key_bytes(key)).await;
        self.note_folds();
        let hit = found?;
        // A head alone is found though its slices are gone, and a lookup of the whole has missed it.
        if !hit.is_partial() && !hit.is_complete().await {
            return None;
        }
        let id = self.take_hit(lookup, &hit)?;
        Some((id, hit))
    }

    /// Looks a key up to the end, stale or not.
    pub async fn look(&self, key: u32) {
        let lookup = self.begin_lookup(key, true);
        self.world.totals.lock().lookups += 1;
        self.note_folds();
        match self.cache.lookup_stale(&key_bytes(key)).await {
            Some(hit) => {
                if let Some(id) = self.take_hit(lookup, &hit) {
                    self.check_body(id, hit, false).await;
                }
            }
            None => self.take_miss(lookup, true),
        }
    }

    fn take_miss(&self, lookup: Lookup, recovered: bool) {
        let so_far = self.stored_so_far();
        let mut history = self.history();
        history.note(format_args!("get {} miss", lookup.key));
        let scenario = &self.world.scenario;
        if !scenario.is_sound() {
            return;
        }
        if scenario.roomy {
            let has_all = recovered && !self.world.may_have_forgotten(&self.cache);
            history.check_miss(lookup, has_all, self.now());
        }
        history.check_turn(lookup, self.now(), so_far);
        // A lookup may skip an entry behind too many with its fingerprint, and find it later.
        if recovered && !scenario.may_be_crowded() {
            history.miss_is_final(lookup, self.now());
        }
    }

    /// Judges what a lookup gave, but for its body; gives the version.
    pub(super) fn take_hit(&self, lookup: Lookup, hit: &Hit) -> Option<u64> {
        self.world.totals.lock().hits += 1;
        let life = life_of(hit.lifetime());
        let mut history = self.history();
        let Ok(id) = hit.metadata().try_into().map(u64::from_le_bytes) else {
            history.violate(format!("key {}: foreign metadata", lookup.key));
            return None;
        };
        let seen = Seen { id, cas: hit.cas(), life, len: hit.len() };
        history.note(format_args!("get {} -> {id} {:?} {life:?}", lookup.key, hit.tier()));
        history.check_hit(lookup, seen);
        Some(id)
    }

    /// Reads the body, or its beginning, and compares each piece as it comes.
    pub(super) async fn check_body(&self, id: u64, hit: Hit, partial: bool) {
        let body = self.history().body(id);
        let mut held = Held::whole((id, body), hit);
        while self.take_piece(&mut held).await {
            if partial {
                return;
            }
        }
    }
}
