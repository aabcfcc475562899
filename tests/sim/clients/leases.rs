//! Leases: one client at a time fills a key that others wait for. What it stores counts from the moment at
//! which the lease was given, however long that takes.

use std::time::Duration;

use rawcached::cache::{Condition, Found, Hit, Lease};

use super::{Client, for_turns, turns_of};
use crate::history::{Lookup, Tick};
use crate::world::{World, body_of, key_bytes};

/// A lease that others wait for, as the world sees it: no two clients have that of one key.
struct Held<'a> {
    world: &'a World,
    key: u32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.world.leased.lock().remove(&self.key);
    }
}

impl Client {
    /// Looks a key up, and fills it where that falls to this client.
    pub(super) async fn lookup_or_fill(&mut self, key: u32) {
        let recovered = self.cache.is_ready();
        let lookup = self.begin_lookup(key, true);
        let wait = Duration::from_millis(self.rng.u64(0..50));
        let (turns, name, cache) = (self.patience(), key_bytes(key), self.cache.clone());
        let found = for_turns(turns, cache.lookup_or_fill(&name, wait)).await;
        let given = self.history().tick();
        match found {
            None => {}
            Some(Found::Hit(hit)) => self.read_hit(lookup, hit, recovered).await,
            Some(Found::Parts(hit)) => {
                self.read_hit(lookup, hit, recovered).await;
                if self.rng.bool() {
                    self.go_on_with_parts(key).await;
                }
            }
            Some(Found::Stale(hit, lease)) => {
                self.read_hit(lookup, hit, recovered).await;
                if let Some(lease) = lease {
                    self.fill_leased(key, (lease, given)).await;
                }
            }
            Some(Found::Follow(follower)) => self.follow_found((key, lookup.began), follower),
            Some(Found::Lease(lease)) => self.fill_leased(key, (lease, given)).await,
            Some(_) => self.history().note(format_args!("lease of {key} is held")),
        }
    }

    async fn read_hit(&mut self, lookup: Lookup, hit: Hit, recovered: bool) {
        let key = lookup.key;
        match self.take_hit(lookup, &hit) {
            Some(id) if hit.is_partial() => self.check_parts((key, id), &hit, recovered).await,
            Some(id) => self.check_body(id, hit, false).await,
            None => {}
        }
    }

    /// Stores a version with a lease that was given at `given`, or gives it up.
    async fn fill_leased(&mut self, key: u32, (lease, given): (Lease, Tick)) {
        let world = std::sync::Arc::clone(&self.world);
        let is_awaited = lease.is_awaited();
        if is_awaited && !world.leased.lock().insert(key) {
            self.history().violate(format!("the lease of key {key} was given twice"));
        }
        let held = is_awaited.then(|| Held { world: &world, key });
        self.history().note(format_args!("lease of {key}, awaited: {is_awaited}"));
        // The origin takes its time, and purges come meanwhile.
        turns_of(self.rng.u32(0..30)).await;
        match self.rng.u32(0..8) {
            0 => {
                drop(held);
                return drop(lease);
            }
            1 => return lease.refuse(Duration::from_millis(self.rng.u64(1..500))),
            _ if self.world.scenario.strain.parts_one_in > 0 && self.rng.bool() => {
                // Who waits gets the lease as soon as the object is declared.
                drop(held);
                return self.begin_parts(key, Some((lease, given))).await;
            }
            _ => {}
        }
        let (version, options) = self.new_version(key);
        self.note_change(version);
        let flushed = self.is_flushed(&options);
        let change = {
            let mut history = self.history();
            history.note(format_args!("fill {version:?} flushed {flushed}"));
            history.begin_large(version.id, given, version.len as u64);
            history.begin_store(version, Some(given))
        };
        // The store gives it back as soon as the version can be read, which may be before it ends.
        drop(held);
        let turns = self.patience();
        let body = body_of(version.id, version.len);
        let stored = for_turns(turns, lease.put(body, &options)).await;
        let condition = Condition::Always;
        self.end_store((change, version), (condition, stored), flushed);
    }
}
