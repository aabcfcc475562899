//! Clients of the cache under test: each does one random operation after the other, tells the
//! history what it did and what it was told, and gives some operations up half way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use rawcached::cache::{
    Ack, Cache, Condition, Hit, Lifetime, StoreError, StoreOptions, Stored, Writer,
};
use rawcached::clock::Clock;
use rawcached::device::{FaultKind, SimDevice};
use tokio::time::Instant;

use crate::history::{ChangeId, History, Life, Lookup, Seen, StoreEnd, Version};
use crate::report::Totals;
use crate::scenario::{Scenario, Trouble};

/// How long an operation may take on the paused clock before it counts as hung.
const HUNG: Duration = Duration::from_secs(3600);
/// Keys that fill the device before clients begin, and the length of their bodies.
const FILL_KEYS: u32 = 100;
const FILL_LEN: usize = 50_000;
/// Bytes that a streamed store sends at a time.
const STREAM_CHUNK: usize = 7_777;

/// What all clients of a run share.
pub struct World {
    pub scenario: Scenario,
    pub device: SimDevice,
    pub history: Mutex<History>,
    pub totals: Mutex<Totals>,
    /// Operations left in this run.
    pub budget: AtomicU64,
    next_id: AtomicU64,
    /// Scheduler time of the lives before.
    pub elapsed: Mutex<Duration>,
}

/// One client in one life of the cache.
pub struct Client {
    world: Arc<World>,
    cache: Cache,
    clock: Clock,
    rng: Rng,
    born: Instant,
    /// Operations it will do in this life.
    left: u64,
}

/// The bytes of a key.
pub fn key_bytes(key: u32) -> Vec<u8> {
    format!("key-{key:03}").into_bytes()
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

fn life_of(lifetime: Lifetime) -> Life {
    Life {
        stored_at: lifetime.stored_at.0,
        fresh_until: lifetime.fresh_until.0,
        keep_until: lifetime.keep_until.0,
    }
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

impl World {
    pub fn new(scenario: Scenario, device: SimDevice) -> World {
        World {
            budget: AtomicU64::new(scenario.operations),
            scenario,
            device,
            history: Mutex::default(),
            totals: Mutex::default(),
            next_id: AtomicU64::new(1),
            elapsed: Mutex::default(),
        }
    }

    /// The history, told what the device went through since.
    pub fn history(&self, born: Instant) -> parking_lot::MutexGuard<'_, History> {
        let struck = self.device.struck();
        let of = |kinds: &[FaultKind]| kinds.iter().map(|kind| struck.of(*kind)).sum::<u64>();
        let elapsed = *self.elapsed.lock() + born.elapsed();
        let mut history = self.history.lock();
        history.now = elapsed;
        history.errors = of(&[FaultKind::WriteError, FaultKind::NoSpace, FaultKind::FlushError]);
        history.flush_failed = struck.of(FaultKind::FlushError) > 0;
        history.damaged = self.scenario.trouble == Trouble::Damage && is_damaged(&struck);
        history
    }

    /// Keys of clients and of what filled the device.
    pub fn keys_max(&self) -> u32 {
        self.scenario.keys + if self.scenario.prefilled { FILL_KEYS } else { 0 }
    }

    fn take_operation(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Whether something struck that may bring an older version back.
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
        }
    }

    /// Does its operations.
    pub async fn run(mut self) {
        while self.left > 0 && self.world.take_operation() {
            self.left -= 1;
            self.world.totals.lock().operations += 1;
            let before = Instant::now();
            self.operation().await;
            if before.elapsed() > HUNG {
                self.history().violate("an operation hung".to_owned());
            }
            if self.rng.u32(0..3) == 0 {
                turns_of(self.rng.u32(0..20)).await;
            }
        }
    }

    /// Fills the device with entries of other keys, and few of the clients' in between.
    pub async fn fill(mut self) {
        for n in 0..FILL_KEYS {
            let stats = self.cache.stats().store;
            if stats.recovered && stats.regions_free <= 2 {
                return;
            }
            self.store_for_fill(self.world.scenario.keys + n, FILL_LEN).await;
            // What was hit is re-inserted when its region is reclaimed.
            for _ in 0..2 {
                let key = self.rng.u32(0..self.world.scenario.keys);
                self.store_for_fill(key, 300).await;
                self.look(key).await;
            }
        }
    }

    async fn store_for_fill(&mut self, key: u32, len: usize) {
        let (version, options) = self.new_version(key);
        let version = Version { len, ram_only: false, ..version };
        let options = StoreOptions { ack: Some(Ack::Buffered), ..options };
        // Long enough to be for the device.
        let ttl = Duration::from_secs(self.rng.u64(1_000..100_000));
        let options = StoreOptions { ttl: Some(ttl), grace: Duration::ZERO, ..options };
        let until = version.life.stored_at + u32::try_from(ttl.as_secs()).unwrap();
        let life = Life { fresh_until: until, keep_until: until, ..version.life };
        self.put_version(Version { life, ..version }, options, Condition::Always).await;
    }

    fn history(&self) -> parking_lot::MutexGuard<'_, History> {
        self.world.history(self.born)
    }

    fn now(&self) -> u32 {
        self.clock.now().0
    }

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.u32(0..n) == 0
    }

    /// Turns after which the coming operation is dropped, if it is.
    fn patience(&mut self) -> Option<u32> {
        self.one_in(self.world.scenario.cancel_one_in).then(|| self.rng.u32(0..25))
    }

    async fn operation(&mut self) {
        let weights = self.world.scenario.weights;
        let key = self.rng.u32(0..self.world.scenario.keys);
        let mut drawn = self.rng.u32(0..weights.total());
        let mut falls_in = |weight: u32| {
            let hit = drawn < weight;
            drawn = drawn.wrapping_sub(weight);
            hit
        };
        if falls_in(weights.lookup) {
            self.lookup(key).await;
        } else if falls_in(weights.put) {
            self.put(key).await;
        } else if falls_in(weights.stream) {
            self.stream(key).await;
        } else if falls_in(weights.touch) {
            self.touch(key).await;
        } else if falls_in(weights.remove) {
            self.purge(Some(key)).await;
        } else if falls_in(weights.purge_all) {
            self.purge(None).await;
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
        let now = self.now();
        self.history().note(format_args!("clock is {now}"));
    }

    // Lookups.

    async fn lookup(&mut self, key: u32) {
        let stale_ok = self.rng.bool();
        let partial = self.one_in(8);
        // What filled the device is in the regions that are reclaimed first.
        let keys = if self.one_in(4) { self.world.keys_max() } else { self.world.scenario.keys };
        let key = if self.one_in(4) { self.rng.u32(0..keys) } else { key };
        let recovered = self.cache.is_ready();
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
            None => self.take_miss(lookup, recovered),
        }
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
        if recovered {
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

    // Stores.

    fn new_version(&mut self, key: u32) -> (Version, StoreOptions) {
        let scenario = &self.world.scenario;
        let id = self.world.next_id.fetch_add(1, Ordering::Relaxed);
        let len = scenario.body_len(&mut self.rng);
        let ttl = self.rng.u64(scenario.ttl_secs.clone());
        let grace = if scenario.grace && self.rng.bool() { self.rng.u64(1..20) } else { 0 };
        let flushed_one_in = scenario.flushed_one_in;
        let ack = if self.one_in(flushed_one_in) { Some(Ack::Flushed) } else { None };
        let scenario = &self.world.scenario;
        let now = self.now();
        let life = Life {
            stored_at: now,
            fresh_until: now + u32::try_from(ttl).unwrap(),
            keep_until: now + u32::try_from(ttl + grace).unwrap(),
        };
        let ram_only = scenario.ram_bytes > 0
            && Duration::from_secs(ttl + grace) <= scenario.min_to_disk
            && ack.unwrap_or(scenario.ack) == Ack::Buffered
            && (len as u64) < scenario.ram_bytes / 8
            && len as u64 <= scenario.region_size / 4;
        let options = StoreOptions {
            ttl: Some(Duration::from_secs(ttl)),
            grace: Duration::from_secs(grace),
            metadata: Bytes::copy_from_slice(&id.to_le_bytes()),
            ack,
            ..StoreOptions::default()
        };
        (Version { id, key, len, life, ram_only }, options)
    }

    fn condition(&mut self) -> Condition {
        match self.rng.u32(0..10) {
            0 => Condition::Absent,
            1 => Condition::Present,
            _ => Condition::Always,
        }
    }

    async fn put(&mut self, key: u32) {
        let (version, options) = self.new_version(key);
        let condition = self.condition();
        self.put_version(version, options, condition).await;
    }

    async fn put_version(&mut self, version: Version, options: StoreOptions, condition: Condition) {
        let body = body_of(version.id, version.len);
        let flushed = self.is_flushed(&options);
        let sliced = version.len as u64 > self.world.scenario.region_size / 4;
        let change = {
            let mut history = self.history();
            history.note(format_args!("put {version:?} {condition:?} flushed {flushed}"));
            // A large one is streamed inside.
            let fill_began = sliced.then(|| history.tick());
            history.begin_store(version, fill_began)
        };
        let name = key_bytes(version.key);
        let turns = self.patience();
        let cache = self.cache.clone();
        let stored = for_turns(turns, cache.put(&name, body, condition, &options)).await;
        self.end_store((change, version), stored, flushed);
    }

    async fn stream(&mut self, key: u32) {
        let (version, options) = self.new_version(key);
        let condition = self.condition();
        let flushed = self.is_flushed(&options);
        let fill_began = {
            let mut history = self.history();
            history.note(format_args!("stream {version:?} {condition:?} flushed {flushed}"));
            history.tick()
        };
        let Ok(mut writer) = self.cache.store(&key_bytes(key), options) else { return };
        let abandoned = self.one_in(8);
        if !self.send(&mut writer, version, abandoned).await {
            return;
        }
        let change = {
            let mut history = self.history();
            history.note(format_args!("finalize {}", version.id));
            history.begin_store(version, Some(fill_began))
        };
        let turns = self.patience();
        let stored = for_turns(turns, writer.finalize(condition)).await;
        self.end_store((change, version), stored, flushed);
    }

    /// Sends the body in pieces, with pauses; false if the store is over.
    async fn send(&mut self, writer: &mut Writer, version: Version, abandoned: bool) -> bool {
        let body = body_of(version.id, version.len);
        let stop_at = if abandoned { self.rng.usize(0..=body.len()) } else { usize::MAX };
        let mut sent = 0;
        for chunk in body.chunks(STREAM_CHUNK) {
            if sent >= stop_at {
                return false;
            }
            // A failed piece ends the store and leaves the old version as it is.
            if writer.write_chunk(chunk).await.is_err() {
                return false;
            }
            sent += chunk.len();
            if self.one_in(4) {
                turns_of(self.rng.u32(0..30)).await;
            }
        }
        !abandoned
    }

    fn is_flushed(&self, options: &StoreOptions) -> bool {
        options.ack.unwrap_or(self.world.scenario.ack) == Ack::Flushed
    }

    fn end_store(
        &self,
        (change, version): (ChangeId, Version),
        stored: Option<Result<Stored, StoreError>>,
        flushed: bool,
    ) {
        let mut history = self.history();
        let (key, id) = (version.key, version.id);
        let how = match stored {
            None => {
                history.note(format_args!("store {id} dropped"));
                StoreEnd::Cancelled
            }
            Some(Ok(Stored::Yes(sequence))) => {
                history.note(format_args!("stored {id} as {sequence:#x}"));
                self.world.totals.lock().stores += 1;
                StoreEnd::Stored { sequence, flushed }
            }
            Some(Ok(refused)) => {
                history.note(format_args!("store {id} refused: {refused:?}"));
                if refused == Stored::Exists {
                    let began = history.began(change);
                    history.end_store(change, StoreEnd::Void);
                    return history.check_existed(key, began, "a store that wanted none");
                }
                StoreEnd::Void
            }
            Some(Err(error)) => {
                history.note(format_args!("store {id} failed: {error}"));
                self.expect_error(&mut history, &error);
                match error {
                    StoreError::Purged => StoreEnd::Void,
                    // Said to be gone; with a device that fails it may only be going.
                    _ => StoreEnd::Failed { removed: self.is_faultless(&error) },
                }
            }
        };
        history.end_store(change, how);
    }

    fn is_faultless(&self, error: &StoreError) -> bool {
        self.world.scenario.is_sound() && !matches!(error, StoreError::ShuttingDown)
    }

    /// Without faults an operation fails only for lack of room or because the store ends.
    fn expect_error(&self, history: &mut History, error: &StoreError) {
        let expected = matches!(
            error,
            StoreError::Busy(_)
                | StoreError::Evicted
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
            history.note(format_args!("purge {key:?}"));
            history.begin_purge(key)
        };
        let turns = self.patience();
        let cache = self.cache.clone();
        let purged = for_turns(turns, async {
            match key {
                Some(key) => cache.remove(&key_bytes(key)).await,
                None => cache.purge_all().await.map(|()| false),
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
        history.end_purge(change, matches!(purged, Some(Ok(_))));
        if let (Some(Ok(true)), Some(key)) = (purged, key) {
            history.check_existed(key, began, "removed");
        }
    }
}
