//! Goal: no wrong byte, no resurrection, no leak. Method: a million random operations with restarts, kills and
//! power cuts on a simulated device, checked against a model of every state that the promises allow.
//!
//! A failure prints its seed; `RAWCACHED_TEST_SEED=n cargo test --test store model::` replays it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Ack, Cache, CacheOptions, Condition, StoreOptions, Stored};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::{Delay, SimDevice};
use rawcached::format::{Secret, Uuid};
use rawcached::store::{FormatOptions, Store, TestKnobs};
use tokio::runtime::Runtime;

/// What the device and the load are like in one run.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    device_bytes: u64,
    alignment: u32,
    region_bytes: u64,
    keys: u64,
    body_len_max: u64,
    ram_bytes: u64,
    hash_mask: u64,
    /// Nothing is ever evicted, so every live entry must be found.
    roomy: bool,
    operations: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Version {
    id: u64,
    len: u64,
    /// Every expiry the entry may have; the last one is the present one.
    keep_until: Vec<u32>,
    ram_only: bool,
}

/// The states a key may be in; the last one is what the last operation left.
#[derive(Clone, Debug)]
struct KeyStates {
    states: Vec<Option<Version>>,
    /// Nothing since the last crash has shown which of the states is the real one.
    uncertain: bool,
}

struct Run {
    scenario: Scenario,
    rng: fastrand::Rng,
    clock: Clock,
    device: SimDevice,
    keys: BTreeMap<u64, KeyStates>,
    next_id: u64,
    hits: u64,
    crashes: u64,
}

struct Life {
    runtime: Runtime,
    cache: Cache,
}

fn body(id: u64, len: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(id);
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    rng.fill(&mut bytes);
    Bytes::from(bytes)
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

impl Run {
    fn new(scenario: Scenario, seed: u64) -> Run {
        crate::support::log::init();
        let device = SimDevice::new(scenario.device_bytes, scenario.alignment.min(4096));
        device.set_delay(Delay::Yields(3));
        let clock = Clock::manual(Timestamp(1_000_000));
        let runtime = runtime();
        let options = options!(FormatOptions {
            size: None,
            alignment: Some(scenario.alignment),
            region_size: Some(scenario.region_bytes),
            ..FormatOptions::default()
                .with_uuid(Uuid(u128::from(seed).to_le_bytes()))
                .with_secret(Secret(u128::from(seed).to_le_bytes()))
        });
        runtime.block_on(Store::format(&device.open(), &options, &clock)).unwrap();
        Run {
            scenario,
            rng: fastrand::Rng::with_seed(seed),
            clock,
            device,
            keys: BTreeMap::new(),
            next_id: 0,
            hits: 0,
            crashes: 0,
        }
    }

    fn open(&mut self) -> Life {
        let runtime = runtime();
        let options = options!(CacheOptions {
            ram_bytes: self.scenario.ram_bytes,
            min_to_disk: Duration::from_secs(5),
            ..CacheOptions::default().with_knobs(TestKnobs {
                hash_mask: self.scenario.hash_mask,
                ..TestKnobs::default()
            })
        });
        let cache = runtime
            .block_on(Cache::open_device(self.device.open(), options, self.clock.clone()))
            .unwrap();
        if self.rng.u32(0..3) > 0 {
            runtime.block_on(cache.ready());
        }
        Life { runtime, cache }
    }

    fn run(&mut self) {
        let mut life = self.open();
        for step in 0..self.scenario.operations {
            if self.rng.u32(0..1500) == 0 {
                life = self.end_life(life);
            } else {
                self.operation(&life);
            }
            if step % 5000 == 0 {
                life.cache.device_store().check_accounting();
            }
        }
        self.empty_out(life);
    }

    fn operation(&mut self, life: &Life) {
        let number = self.rng.u64(0..self.scenario.keys);
        match self.rng.u32(0..1000) {
            0..450 => self.lookup(life, number),
            450..750 => self.put(life, number),
            750..830 => self.remove(life, number),
            830..930 => self.touch(life, number),
            930..970 => self.clock.advance(Duration::from_secs(self.rng.u64(0..4))),
            970..999 => {
                let pause = Duration::from_millis(self.rng.u64(1..400));
                life.runtime.block_on(async { tokio::time::sleep(pause).await });
            }
            _ if self.rng.u32(0..20) == 0 => self.purge_all(life),
            _ => {}
        }
    }

    fn lookup(&mut self, life: &Life, number: u64) {
        let found = life.runtime.block_on(async {
            let mut hit = life.cache.lookup(&key(number)).await?;
            let mut bytes = Vec::new();
            loop {
                match hit.next_chunk().await {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => break,
                    Err(_) => return None,
                }
            }
            Some((bytes, hit.lifetime(), hit.metadata().to_vec()))
        });
        let now = self.clock.now().0;
        let states = self.keys.entry(number).or_insert_with(KeyStates::absent);
        let Some((bytes, lifetime, metadata)) = found else {
            let certain = states.states.len() == 1;
            if let (true, Some(Some(version))) =
                (self.scenario.roomy && certain, states.states.last())
            {
                let alive = version.keep_until.iter().all(|until| *until > now);
                assert!(
                    !alive || version.ram_only || !life.cache.is_ready(),
                    "key {number}: {version:?} is lost"
                );
            }
            return;
        };
        let id = u64::from_le_bytes(metadata[..].try_into().unwrap());
        let allowed = if states.uncertain {
            &states.states[..]
        } else {
            &states.states[states.states.len() - 1..]
        };
        let version = allowed.iter().flatten().find(|version| version.id == id);
        let Some(version) = version.cloned() else {
            panic!("key {number} gave version {id}, allowed is {allowed:?}");
        };
        assert!(bytes == body(id, version.len), "wrong bytes for version {id}");
        assert!(lifetime.keep_until.0 > now, "expired entry {id} was served");
        let possible = if states.uncertain {
            &version.keep_until[..]
        } else {
            &version.keep_until[version.keep_until.len() - 1..]
        };
        assert!(
            possible.contains(&lifetime.keep_until.0),
            "key {number}: {lifetime:?} of {version:?}"
        );
        if states.uncertain {
            let settled = Version { keep_until: vec![lifetime.keep_until.0], ..version };
            *states = KeyStates { states: vec![Some(settled)], uncertain: false };
        }
        self.hits += 1;
    }

    fn random_put(&mut self) -> (Version, StoreOptions, Bytes) {
        self.next_id += 1;
        let id = self.next_id;
        let len = match self.rng.u32(0..100) {
            0..5 => self.rng.u64(0..self.scenario.body_len_max),
            5..20 => self.rng.u64(0..20_000.min(self.scenario.body_len_max)),
            _ => self.rng.u64(0..1500),
        };
        let ttl = match self.rng.u32(0..10) {
            0 => self.rng.u64(1..6),
            1..4 => self.rng.u64(6..60),
            _ => self.rng.u64(60..100_000),
        };
        let keep_until = vec![self.clock.now().0 + u32::try_from(ttl).unwrap()];
        let ack = (self.rng.u32(0..30) == 0).then_some(Ack::Flushed);
        // Large objects, and those whose store is to be durable, go to the device in any case.
        let sliced = len > (self.scenario.region_bytes / 4).min(1 << 20);
        let small = len < self.scenario.ram_bytes / 8 && !sliced;
        let ram_only = ttl <= 5 && small && ack.is_none();
        let options = options!(StoreOptions {
            ttl: Some(Duration::from_secs(ttl)),
            metadata: Bytes::copy_from_slice(&id.to_le_bytes()),
            ack,
            ..StoreOptions::default()
        });
        (Version { id, len, keep_until, ram_only }, options, body(id, len))
    }

    fn put(&mut self, life: &Life, number: u64) {
        let (version, options, bytes) = self.random_put();
        let absent_only = self.rng.u32(0..10) == 0;
        let condition = if absent_only { Condition::Absent } else { Condition::Always };
        let flushed = options.ack == Some(Ack::Flushed) && !version.ram_only;
        let streamed = self.rng.bool();
        let stored = life.runtime.block_on(async {
            if !streamed {
                return life.cache.put(&key(number), bytes, condition, &options).await;
            }
            let mut writer = life.cache.store(&key(number), options)?;
            for chunk in bytes.chunks(7_777) {
                writer.write_chunk(chunk).await?;
            }
            writer.finalize(condition).await
        });
        match stored {
            Ok(Stored::Yes(_)) => {
                self.keys.entry(number).or_insert_with(KeyStates::absent).push(Some(version));
                if flushed {
                    self.everything_flushed();
                }
            }
            Ok(Stored::Exists) => assert!(absent_only),
            Ok(Stored::Missing) => panic!("no condition wants a present entry"),
            Err(rawcached::cache::StoreError::Busy(_) | rawcached::cache::StoreError::Evicted)
                if absent_only => {}
            // Refused: the old value goes too.
            Err(rawcached::cache::StoreError::Busy(_) | rawcached::cache::StoreError::Evicted) => {
                self.keys.entry(number).or_insert_with(KeyStates::absent).push(None);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn remove(&mut self, life: &Life, number: u64) {
        let removed = life.runtime.block_on(life.cache.remove(&key(number))).unwrap();
        self.keys.entry(number).or_insert_with(KeyStates::absent).push(None);
        if removed {
            self.everything_flushed();
        }
        // A purge is durable even if there was nothing to remove.
        self.keys.get_mut(&number).unwrap().settle();
    }

    fn touch(&mut self, life: &Life, number: u64) {
        let ttl = self.rng.u64(0..200);
        let touched = life
            .runtime
            .block_on(life.cache.touch(&key(number), Duration::from_secs(ttl)))
            .unwrap();
        let Some(lifetime) = touched else { return };
        let states = self.keys.entry(number).or_insert_with(KeyStates::absent);
        if states.uncertain {
            for version in states.states.iter_mut().flatten() {
                version.keep_until.push(lifetime.keep_until.0);
            }
        } else if let Some(Some(version)) = states.states.last_mut() {
            version.keep_until.push(lifetime.keep_until.0);
            // An entry in RAM only goes to the device when it is touched.
            version.ram_only = false;
        } else {
            panic!("touched an entry that is not there");
        }
    }

    fn purge_all(&mut self, life: &Life) {
        life.runtime.block_on(life.cache.purge_all(rawcached::Purge::Hard)).unwrap();
        for states in self.keys.values_mut() {
            *states = KeyStates::absent();
        }
    }

    fn everything_flushed(&mut self) {
        for states in self.keys.values_mut().filter(|states| !states.uncertain) {
            states.settle();
        }
    }

    fn end_life(&mut self, life: Life) -> Life {
        match self.rng.u32(0..3) {
            0 => {
                life.runtime.block_on(life.cache.shutdown()).unwrap();
                life.cache.device_store().check_accounting();
                self.everything_flushed();
            }
            _ => self.crash_in_operation(&life),
        }
        drop(life);
        if self.rng.bool() {
            self.device.kill();
        } else {
            self.device.power_cut(self.rng.u64(..));
        }
        self.crashes += 1;
        for states in self.keys.values_mut() {
            states.uncertain = true;
            // Entries in RAM only are gone, and so are the entries that they replaced.
            for state in &mut states.states {
                if state.as_ref().is_some_and(|version| version.ram_only) {
                    *state = None;
                }
            }
        }
        if self.rng.u32(0..4) == 0 {
            // Crash again right after the start.
            let life = self.open();
            let turns = self.rng.u32(0..50);
            life.runtime.block_on(turns_of(turns));
            drop(life);
            self.device.power_cut(self.rng.u64(..));
        }
        self.open()
    }

    /// Begins a change, lets it run for a few turns, and drops it.
    fn crash_in_operation(&mut self, life: &Life) {
        let number = self.rng.u64(0..self.scenario.keys);
        let turns = self.rng.u32(0..30);
        let states = self.keys.entry(number).or_insert_with(KeyStates::absent).clone();
        let mut states = states;
        if self.rng.bool() {
            let (version, options, bytes) = self.random_put();
            let cache = life.cache.clone();
            let name = key(number);
            interrupted(life, turns, async move {
                let _ = cache.put(&name, bytes, Condition::Always, &options).await;
            });
            states.states.push(Some(version));
        } else {
            let cache = life.cache.clone();
            let name = key(number);
            interrupted(life, turns, async move {
                let _ = cache.remove(&name).await;
            });
            states.states.push(None);
        }
        self.keys.insert(number, states);
    }

    /// Removes every key: nothing may be left behind in index or regions.
    fn empty_out(&mut self, life: Life) {
        life.runtime.block_on(async {
            life.cache.ready().await;
            for number in 0..self.scenario.keys {
                life.cache.remove(&key(number)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            life.cache.device_store().check_accounting();
            if self.scenario.hash_mask == u64::MAX {
                let stats = life.cache.stats().store;
                let orphans = stats.entries;
                assert!(orphans == 0 || self.crashes > 0, "{orphans} words leaked");
            }
            life.cache.shutdown().await.unwrap();
        });
    }
}

impl KeyStates {
    fn absent() -> KeyStates {
        KeyStates { states: vec![None], uncertain: false }
    }

    fn push(&mut self, state: Option<Version>) {
        self.states.push(state);
        self.uncertain = false;
    }

    fn settle(&mut self) {
        let mut last = self.states.pop().unwrap();
        if let Some(version) = &mut last {
            let present = version.keep_until.pop().unwrap();
            version.keep_until = vec![present];
        }
        self.states = vec![last];
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

async fn turns_of(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

fn interrupted(life: &Life, turns: u32, operation: impl Future<Output = ()> + Send + 'static) {
    life.runtime.block_on(async {
        tokio::spawn(operation);
        turns_of(turns).await;
    });
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("RAWCACHED_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=count).collect(),
    }
}

fn check(scenario: Scenario, seed_count: u64) {
    for seed in seeds(seed_count) {
        println!("seed {seed} of {scenario:?}");
        let mut run = Run::new(scenario, seed);
        run.run();
        assert!(
            run.hits > scenario.operations / 50,
            "only {} hits: the run shows little",
            run.hits
        );
    }
}

const SMALL: Scenario = Scenario {
    device_bytes: 4 << 20,
    alignment: 4096,
    region_bytes: 256 << 10,
    keys: 400,
    body_len_max: 200_000,
    ram_bytes: 0,
    hash_mask: u64::MAX,
    roomy: false,
    operations: 50_000,
};

#[test]
fn a_full_device_never_gives_wrong_bytes() {
    check(SMALL, 6);
}

#[test]
fn a_full_device_with_a_ram_tier_never_gives_wrong_bytes() {
    check(Scenario { ram_bytes: 1 << 20, ..SMALL }, 6);
}

#[test]
fn small_sectors_never_give_wrong_bytes() {
    check(Scenario { alignment: 512, ram_bytes: 256 << 10, ..SMALL }, 3);
}

#[test]
fn colliding_hashes_never_give_wrong_bytes() {
    check(Scenario { hash_mask: 0x0000_0000_0000_00FF, ram_bytes: 256 << 10, ..SMALL }, 2);
}

#[test]
fn a_roomy_device_loses_nothing_that_was_flushed() {
    let roomy = Scenario {
        device_bytes: 512 << 20,
        region_bytes: 1 << 20,
        keys: 2000,
        roomy: true,
        operations: 50_000,
        ..SMALL
    };
    check(roomy, 2);
    check(Scenario { ram_bytes: 64 << 20, ..roomy }, 2);
}
