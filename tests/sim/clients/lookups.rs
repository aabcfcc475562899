//! Lookups: what a client asks, and comparing what it is given with what was stored.

use rawcached::cache::{Hit, Lifetime};

use super::{Client, for_turns};
use crate::history::{Life, Lookup, Seen};
use crate::world::{body_of, key_bytes};

fn life_of(lifetime: Lifetime) -> Life {
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
        // What filled the device is in the regions that are reclaimed first.
        let keys = if self.one_in(4) { self.world.keys_max() } else { self.world.scenario.keys };
        let key = if self.one_in(4) { self.rng.u32(0..keys) } else { key };
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
        self.world.totals.lock().lookups += 1;
        match found {
            Some(hit) => self.take_hit(lookup, hit, partial).await,
            // An entry of unknown age is for those only who ask for stale ones.
            None if !stale_ok && (unknown_before || self.is_age_unknown()) => {
                self.history().note(format_args!("get {key} miss, of unknown age"));
            }
            None => self.take_miss(lookup, recovered),
        }
    }

    fn is_age_unknown(&self) -> bool {
        self.cache.stats().store.age_unknown
    }

    fn begin_lookup(&self, key: u32, stale_ok: bool) -> Lookup {
        Lookup { key, stale_ok, began: self.history().tick(), now: self.now() }
    }

    /// Looks a key up to the end, stale or not.
    pub async fn look(&self, key: u32) {
        let lookup = self.begin_lookup(key, true);
        self.world.totals.lock().lookups += 1;
        match self.cache.lookup_stale(&key_bytes(key)).await {
            Some(hit) => self.take_hit(lookup, hit, false).await,
            None => self.take_miss(lookup, true),
        }
    }

    fn take_miss(&self, lookup: Lookup, recovered: bool) {
        let mut history = self.history();
        history.note(format_args!("get {} miss", lookup.key));
        let scenario = &self.world.scenario;
        if !scenario.is_sound() {
            return;
        }
        if scenario.roomy {
            history.check_miss(lookup, recovered, self.now());
        }
        // What is not looked at for too many others may be found when those have gone.
        if recovered && !scenario.may_be_crowded() {
            history.miss_is_final(lookup, self.now());
        }
    }

    async fn take_hit(&self, lookup: Lookup, hit: Hit, partial: bool) {
        self.world.totals.lock().hits += 1;
        let life = life_of(hit.lifetime());
        let Ok(id) = hit.metadata().try_into().map(u64::from_le_bytes) else {
            return self.history().violate(format!("key {}: foreign metadata", lookup.key));
        };
        let seen = Seen { id, cas: hit.cas(), life };
        {
            let mut history = self.history();
            history.note(format_args!("get {} -> {id} {:?} {life:?}", lookup.key, hit.tier()));
            history.check_hit(lookup, seen);
        }
        self.check_body(id, hit, partial).await;
    }

    /// Reads the body, or its beginning, and compares each piece as it comes.
    async fn check_body(&self, id: u64, mut hit: Hit, partial: bool) {
        let len = usize::try_from(hit.len()).unwrap();
        let expected = body_of(id, len);
        let mut at = 0;
        loop {
            match hit.next_chunk().await {
                Ok(Some(chunk)) => {
                    if expected.get(at..at + chunk.len()) != Some(&chunk[..]) {
                        let what = format!("version {id} has wrong bytes from {at}");
                        return self.history().violate(what);
                    }
                    at += chunk.len();
                }
                Ok(None) if at == len => return,
                Ok(None) => {
                    return self.history().violate(format!("version {id} ended at {at} of {len}"));
                }
                // Cut short and said so: evicted or damaged meanwhile.
                Err(_) => return,
            }
            if partial {
                return;
            }
        }
    }
}
