//! Clients of the cache under test: each does one random operation after the other, records it and
//! its answer in the history, and drops some operations half way.

mod follow;
mod held;
mod leases;
mod lookups;
mod parts;
mod purges;
mod stores;
mod updates;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::{Cache, StoreError};
use rawcached::clock::Clock;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::history::{History, PurgeEnd, Stored};
use crate::scenario::Scenario;
use crate::world::{World, key_bytes};
use held::Held;
pub use parts::Acknowledged;
use parts::Filled;

/// How long an operation may take on the paused clock before it counts as hung.
const HUNG: Duration = Duration::from_secs(3600);

/// One client in one life of the cache.
pub struct Client {
    world: Arc<World>,
    cache: Cache,
    clock: Clock,
    rng: Rng,
    born: Instant,
    /// Operations it will do in this life.
    left: u64,
    /// Answers that it has not read to their end.
    held: Vec<Held>,
    /// Objects that it fills.
    filled: Vec<Filled>,
    /// Draws what is followed, so that the other draws of a seed stay the same.
    following: Rng,
    /// Followers that it began.
    chases: Vec<JoinHandle<()>>,
}

/// Runs `future` for at most so many turns of the scheduler; `None` lets it end.
async fn for_turns<T>(turns: Option<u32>, future: impl Future<Output = T>) -> Option<T> {
    let Some(turns) = turns else { return Some(future.await) };
    tokio::select! {
        biased;
        done = future => Some(done),
        () = turns_of(turns) => None,
    }
}

async fn turns_of(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

impl Client {
    pub fn new(
        world: &Arc<World>,
        cache: &Cache,
        (seed, left): (u64, u64),
        born: Instant,
    ) -> Client {
        Client {
            world: Arc::clone(world),
            cache: cache.clone(),
            clock: cache.clock().clone(),
            rng: Rng::with_seed(seed),
            born,
            left,
            held: Vec::new(),
            filled: Vec::new(),
            following: Rng::with_seed(seed ^ 0xF0_1105),
            chases: Vec::new(),
        }
    }

    /// Does its operations.
    pub async fn run(mut self) {
        while self.left > 0 && self.world.take_operation() {
            self.left -= 1;
            self.world.totals.lock().operations += 1;
            let before = Instant::now();
            self.follow_sometimes();
            self.operation().await;
            self.go_on_reading().await;
            if before.elapsed() > HUNG {
                self.history().violate("an operation hung".to_owned());
            }
            if self.rng.u32(0..3) == 0 {
                turns_of(self.rng.u32(0..20)).await;
            }
        }
        self.read_to_the_end().await;
        self.end_chases().await;
    }

    fn history(&self) -> parking_lot::MutexGuard<'_, History> {
        let mut history = self.world.history(self.born);
        history.lag = self.truth().saturating_sub(self.now());
        history.has_folded = self.world.has_folded.load(Ordering::Relaxed);
        history
    }

    /// What clients have stored so far.
    fn stored_so_far(&self) -> Stored {
        let Scenario { regions, region_size, .. } = self.world.scenario;
        let bytes = self.cache.device_store().counters().body_bytes;
        let room = self.cache.device_store().layout().object_len_max();
        Stored { bytes, device: regions * region_size, room }
    }

    fn truth(&self) -> u32 {
        self.world.truth.load(Ordering::Relaxed)
    }

    fn now(&self) -> u32 {
        self.clock.now().0
    }

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.u32(0..n) == 0
    }

    /// Turns after which the next operation is dropped, if it is to be dropped.
    fn patience(&mut self) -> Option<u32> {
        self.one_in(self.world.scenario.cancel_one_in).then(|| self.rng.u32(0..25))
    }

    async fn operation(&mut self) {
        let weights = self.world.scenario.weights;
        let key = self.rng.u32(0..self.world.scenario.keys);
        let purges = self.world.scenario.purges;
        let mut drawn = self.rng.u32(0..weights.total() + purges.weight);
        let mut falls_in = |weight: u32| {
            let hit = drawn < weight;
            drawn = drawn.wrapping_sub(weight);
            hit
        };
        if falls_in(weights.lookup) {
            let leases_one_in = self.world.scenario.strain.lease_one_in;
            match self.one_in(leases_one_in) {
                true => self.lookup_or_fill(key).await,
                false => self.lookup(key).await,
            }
        } else if falls_in(weights.put) {
            let strain = self.world.scenario.strain;
            if self.one_in(strain.parts_one_in) {
                self.do_parts(key).await;
            } else if self.one_in(strain.prolong_one_in) {
                self.store_and_prolong(key).await;
            } else {
                self.put(key).await;
            }
        } else if falls_in(weights.stream) {
            self.stream(key).await;
        } else if falls_in(weights.touch) {
            let updates_one_in = self.world.scenario.strain.update_one_in;
            match self.one_in(updates_one_in) {
                true => self.update(key).await,
                false => self.touch(key).await,
            }
        } else if falls_in(weights.remove) {
            let is_absent = self.one_in(self.world.scenario.strain.absent_one_in);
            let absent = self.world.keys_max() + key;
            self.purge(Some(if is_absent { absent } else { key })).await;
        } else if falls_in(weights.purge_all) {
            self.purge(None).await;
        } else if falls_in(purges.weight) {
            self.purge_many().await;
        } else if falls_in(weights.pause) {
            tokio::time::sleep(Duration::from_millis(self.rng.u64(1..400))).await;
        } else {
            self.advance();
        }
    }

    fn advance(&mut self) {
        let secs = match self.rng.u32(0..20) {
            // The machine was suspended: CLOCK_BOOTTIME went on.
            0 if self.world.scenario.clock_jumps => self.rng.u64(3_600..90_000),
            _ => self.rng.u64(0..4),
        };
        self.clock.advance(Duration::from_secs(secs));
        let passed = u32::try_from(secs).unwrap();
        self.world.truth.fetch_add(passed, Ordering::Relaxed);
        if self.clock.wall() != self.world.right_wall() && self.one_in(3) {
            self.clock.set_wall(self.world.right_wall());
            self.clock.set_synchronised(true);
        }
        let (now, wall) = (self.now(), self.clock.wall());
        self.history().note(format_args!("clock is {now}, wall clock {wall}"));
    }

    fn is_faultless(&self, error: &StoreError) -> bool {
        self.world.scenario.is_sound() && !matches!(error, StoreError::ShuttingDown)
    }

    /// Without faults an operation fails only for lack of room or because the store ends.
    fn expect_error(&self, history: &mut History, error: &StoreError) {
        let expected = matches!(
            error,
            StoreError::Busy(_)
                | StoreError::Crowded { .. }
                | StoreError::Incomplete
                | StoreError::Purged
                | StoreError::TooLarge { .. }
                | StoreError::ShuttingDown
        );
        if !expected && self.is_faultless(error) {
            history.violate(format!("failed without a fault: {error}"));
        }
    }

    // Other changes.

    async fn touch(&mut self, key: u32) {
        let usual = self.world.scenario.ttl_secs.end.min(5_000);
        let ttl = if self.one_in(3) { self.rng.u64(0..5_000) } else { self.rng.u64(0..usual) };
        let until = self.now() + u32::try_from(ttl).unwrap();
        let (touch, began) = {
            let mut history = self.history();
            history.note(format_args!("touch {key} until {until}"));
            let touch = history.begin_touch(key, until);
            (touch, history.tick())
        };
        let turns = self.patience();
        let name = key_bytes(key);
        let touched = for_turns(turns, self.cache.touch(&name, Duration::from_secs(ttl))).await;
        let mut history = self.history();
        match touched {
            None => history.note(format_args!("touch {key} dropped")),
            Some(Ok(lifetime)) => {
                history.note(format_args!("touched {key}: {lifetime:?}"));
                history.end_touch(touch, Some(lifetime.is_some()));
                if lifetime.is_some() {
                    history.check_existed(key, began, "touched");
                }
            }
            Some(Err(error)) => {
                history.note(format_args!("touch {key} failed: {error}"));
                self.expect_error(&mut history, &error);
                history.end_touch(touch, None);
            }
        }
    }

    async fn purge(&mut self, key: Option<u32>) {
        let change = {
            let mut history = self.history();
            self.world.note_change(&self.cache, 1);
            history.note(format_args!("purge {key:?}"));
            history.begin_purge(key)
        };
        let turns = self.patience();
        let cache = self.cache.clone();
        let purged = for_turns(turns, async {
            match key {
                Some(key) => cache.remove(&key_bytes(key)).await,
                None => cache.purge_all(rawcached::Purge::Hard).await.map(|()| false),
            }
        });
        let purged = purged.await;
        self.world.totals.lock().purges += 1;
        let mut history = self.history();
        history.note(format_args!("purged {key:?}: {purged:?}"));
        let began = history.began(change);
        if let Some(Err(error)) = &purged {
            self.expect_error(&mut history, error);
        }
        let how = match purged {
            Some(Ok(true)) => PurgeEnd::Acknowledged,
            Some(Ok(false)) => PurgeEnd::Absent,
            // Dropped half way, or refused by the shutdown.
            None | Some(Err(StoreError::ShuttingDown)) => PurgeEnd::Unknown,
            Some(Err(_)) => PurgeEnd::Refused,
        };
        history.end_purge(change, how);
        if let (Some(Ok(true)), Some(key)) = (purged, key) {
            history.check_existed(key, began, "removed");
        }
    }
}
