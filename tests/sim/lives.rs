//! The lives of one cache on one device: opened, used, ended by a shutdown, a kill or a power
//! cut at any moment, and opened again. Owns the run of one seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::{Cache, CacheOptions, StoreError};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::{Delay, FaultKind, Rates, SimDevice};
use rawcached::format::{FOOTER_RECORD_LEN, KILL_LEN, Seed, Superblock, Trailer, Uuid};
use rawcached::store::{FormatOptions, Store};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::clients::{Client, World, key_bytes};
use crate::history::Crash;
use crate::report::Totals;
use crate::scenario::{SUPERBLOCK_SPACE, Scenario, Trouble};

/// Where the clock begins.
const START: u32 = 1_000_000;
/// One answer of a device that fails now and then is no verdict.
const OPEN_ATTEMPTS: u32 = 4;
/// Scheduler time that background work has to come to rest.
const REST: Duration = Duration::from_secs(10);

thread_local! {
    /// Messages of the panics of this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
}

/// What one seed gave.
pub struct Outcome {
    pub totals: Totals,
    pub trace_hash: u64,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
}

/// When a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// When its clients have done their share.
    Done,
    /// When the device has done so many operations.
    Operations(u64),
    /// After so many turns of the scheduler.
    Turns(u32),
    /// After so much time.
    Time(Duration),
}

struct Run {
    world: Arc<World>,
    rng: Rng,
    /// The wall clock at the next start.
    wall: u32,
    /// Writes were under way at the end of a life: a footer may name entries that never came.
    was_torn: bool,
    was_filled: bool,
}

/// Collects panics of threads that run seeds; the others report theirs as ever.
pub fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.with_borrow(|watched| *watched) {
                PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Runs one seed from format to a last look at every key.
pub fn run(seed: u64) -> Outcome {
    watch_panics();
    WATCHED.set(true);
    PANICS.take();
    let scenario = Scenario::of(seed);
    let mut run = Run::format(scenario);
    while run.world.budget.load(Ordering::Relaxed) > 0 && run.is_well() {
        run.live();
    }
    if run.is_well() {
        run.last_look();
    }
    WATCHED.set(false);
    run.outcome()
}

impl Run {
    fn format(scenario: Scenario) -> Run {
        let device = SimDevice::new(scenario.device_bytes(), scenario.device_alignment);
        let clock = Clock::manual(Timestamp(START));
        let options = FormatOptions {
            uuid: Uuid(u128::from(scenario.seed).to_le_bytes()),
            alignment: Some(scenario.alignment),
            region_size: Some(scenario.region_size),
        };
        runtime().block_on(Store::format(&device.open(), &options, &clock)).unwrap();
        device.reseed(scenario.seed);
        device.set_delay(scenario.delay());
        device.set_rates(scenario.rates());
        device.spoil_sectors(scenario.trouble == Trouble::Damage);
        let rng = Rng::with_seed(scenario.seed ^ 0x5117);
        Run {
            world: Arc::new(World::new(scenario, device)),
            rng,
            wall: START,
            was_torn: false,
            was_filled: false,
        }
    }

    fn scenario(&self) -> &Scenario {
        &self.world.scenario
    }

    fn is_well(&self) -> bool {
        self.world.history.lock().violations().is_empty() && PANICS.with_borrow(Vec::is_empty)
    }

    fn options(&self) -> CacheOptions {
        let scenario = self.scenario();
        CacheOptions {
            ram_bytes: scenario.ram_bytes,
            min_to_disk: scenario.min_to_disk,
            hash_mask: scenario.hash_mask,
            flush_interval: scenario.flush_interval,
            staging_bytes: scenario.staging_bytes,
            ack: scenario.ack,
            ..CacheOptions::default()
        }
    }

    // One life.

    fn live(&mut self) {
        let runtime = runtime();
        let end = self.draw_end();
        let clock = Clock::manual(Timestamp(self.wall));
        let world = Arc::clone(&self.world);
        let born = runtime.block_on(async { Instant::now() });
        runtime.block_on(async {
            let mut history = world.history(born);
            let theme = self.scenario().theme;
            history.note(format_args!("{theme:?}: a life begins at {}, ends {end:?}", self.wall));
        });
        let shut_down = runtime.block_on(self.use_cache(&clock, end, born));
        let crash = self.crash(shut_down);
        let elapsed = runtime.block_on(async { born.elapsed() });
        let window = self.window(crash);
        runtime.block_on(async { world.history(born).crash(crash, window) });
        *world.elapsed.lock() += elapsed;
        drop(runtime);
        self.after_life(&clock);
    }

    fn draw_end(&mut self) -> End {
        // Long lives reach reclaim; short ones crash at the start more often.
        let long = if self.scenario().life_operations >= 100 { 6 } else { 1 };
        match self.rng.u32(0..6) {
            0 => End::Done,
            1 => End::Operations(self.rng.u64(0..12)),
            2 | 3 => End::Operations(self.rng.u64(0..150 * long)),
            4 => End::Turns(self.rng.u32(0..400) * u32::try_from(long).unwrap()),
            _ => End::Time(Duration::from_millis(self.rng.u64(0..3_000) * long)),
        }
    }

    /// Opens the cache and lets clients use it until the end; true if it was shut down well.
    async fn use_cache(&mut self, clock: &Clock, end: End, born: Instant) -> bool {
        let device = self.world.device.clone();
        let Some(cache) = self.open(clock, end, born).await else { return false };
        let used = tokio::select! {
            biased;
            () = device.frozen() => false,
            () = ended(end) => false,
            () = self.use_open_cache(&cache, born) => true,
        };
        self.look_at_counters(&cache, born);
        if !used && self.rng.bool() {
            return false;
        }
        tokio::select! {
            biased;
            () = device.frozen() => false,
            well = self.shut_down(&cache, born, used) => well,
        }
    }

    /// Opens the cache; `None` if the end came first, or it does not open.
    async fn open(&self, clock: &Clock, end: End, born: Instant) -> Option<Cache> {
        let device = self.world.device.clone();
        for _ in 0..OPEN_ATTEMPTS {
            let handle = device.open();
            if let End::Operations(operations) = end {
                device.freeze_after(operations + 1);
            }
            let opened = tokio::select! {
                biased;
                () = device.frozen() => return None,
                opened = Cache::open(handle, self.options(), clock.clone()) => opened,
            };
            match opened {
                Ok(cache) => return Some(cache),
                Err(error) => self.world.history(born).note(format_args!("open failed: {error}")),
            }
        }
        self.world.history(born).violate("the device does not open".to_owned());
        None
    }

    fn look_at_counters(&self, cache: &Cache, born: Instant) {
        let counters = cache.stats().store.counters;
        let mut totals = self.world.totals.lock();
        totals.regions_freed += counters.regions_freed;
        totals.reinserted += counters.reinserted;
        if self.scenario().is_sound() && counters.damaged > 0 && !self.was_torn {
            let what = format!("{} entries are seen as damaged", counters.damaged);
            self.world.history(born).violate(what);
        }
    }

    async fn use_open_cache(&mut self, cache: &Cache, born: Instant) {
        if !self.scenario().eager {
            cache.ready().await;
        }
        if self.scenario().prefilled && !std::mem::replace(&mut self.was_filled, true) {
            let client = Client::new(&self.world, cache, (self.rng.u64(..), 0), born);
            client.fill().await;
        }
        let clients = self.scenario().clients;
        let share = (self.scenario().life_operations / u64::from(clients)).max(3);
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let seed = self.rng.u64(..);
            tasks.push(tokio::spawn(Client::new(&self.world, cache, (seed, share), born).run()));
        }
        let watcher = tokio::spawn(watch(Arc::clone(&self.world), cache.clone(), born));
        for task in tasks {
            // A panic is among PANICS.
            let _ = task.await;
        }
        watcher.abort();
        cache.device_store().check_accounting();
    }

    /// Shuts the cache down, sometimes with clients still at work; true if it ended well.
    async fn shut_down(&mut self, cache: &Cache, born: Instant, at_rest: bool) -> bool {
        if self.rng.u32(0..100) >= 100 / self.scenario().shutdown_one_in.max(1)
            || self.scenario().shutdown_one_in == 0
        {
            return false;
        }
        if self.rng.u32(0..3) == 0 {
            // Sometimes the power goes meanwhile.
            self.world.device.freeze_after(self.rng.u64(1..8));
        }
        let result = cache.shutdown().await;
        self.world.history(born).note(format_args!("shut down: {result:?}"));
        cache.device_store().check_accounting();
        if result.is_ok() && at_rest {
            let stats = cache.stats();
            self.check_rest("staging", stats.staging_bytes, born);
            self.check_rest("backlog", stats.store.backlog_bytes, born);
        }
        result.is_ok()
    }

    fn check_rest(&self, what: &str, bytes: u64, born: Instant) {
        if bytes > 0 {
            self.world.history(born).violate(format!("{bytes} bytes of {what} are left at rest"));
        }
    }

    // Between lives.

    fn crash(&mut self, shut_down: bool) -> Crash {
        let scenario = self.scenario();
        let cut = scenario.power_cuts && (!scenario.kills || self.rng.bool());
        let how = match (shut_down, cut) {
            (true, true) => "shutdown, then power cut",
            (true, false) => "shutdown",
            (false, true) => "power cut",
            (false, false) => "kill",
        };
        self.world.totals.lock().count_end(how);
        self.world.totals.lock().lives += 1;
        if cut {
            self.world.device.power_cut(self.rng.u64(..));
        } else {
            self.world.device.kill();
        }
        self.was_torn |= !shut_down;
        match (shut_down, cut) {
            (true, _) => Crash::Shutdown,
            (false, true) => Crash::PowerCut,
            (false, false) => Crash::Kill,
        }
    }

    /// How long before the end a change must have been made to be kept for certain.
    fn window(&self, crash: Crash) -> Duration {
        let scenario = self.scenario();
        // A round of the flusher is at most two copies of the superblock with a flush each, the
        // chunks and a flush; another one may have begun just before.
        let round = 8 * scenario.latency_max() + Duration::from_millis(5);
        match crash {
            Crash::Shutdown => Duration::ZERO,
            Crash::Kill => scenario.flush_interval + 2 * round,
            Crash::PowerCut => Duration::from_secs(1) + scenario.flush_interval + 3 * round,
        }
    }

    fn after_life(&mut self, clock: &Clock) {
        self.wall = clock.now().0 + self.rng.u32(0..20);
        if self.scenario().clock_jumps {
            self.wall = match self.rng.u32(0..4) {
                0 => self.wall.saturating_sub(self.rng.u32(0..200_000)).max(START / 2),
                1 => self.wall + self.rng.u32(0..100),
                2 => self.wall + self.rng.u32(0..100_000),
                _ => self.wall,
            };
        }
        let broken = self.world.device.broken_rules();
        if let Some(rule) = broken.first() {
            self.world.history.lock().violate(format!("the device was misused: {rule}"));
        }
        if self.scenario().trouble == Trouble::SpareRot
            || self.scenario().trouble == Trouble::Damage
        {
            self.rot();
        }
        if self.rng.u32(0..4) == 0 && self.is_well() {
            self.check_recovery_twice();
        }
    }

    /// Flips a bit of what has a second copy; where anything goes, of anything.
    fn rot(&mut self) {
        let scenario = self.world.scenario.clone();
        let device = self.world.device.clone();
        if scenario.trouble == Trouble::Damage {
            for _ in 0..self.rng.u32(0..4) {
                let regions = SUPERBLOCK_SPACE..scenario.device_bytes() - SUPERBLOCK_SPACE;
                device.corrupt(self.rng.u64(regions), 1 << self.rng.u32(0..8));
                device.count_fault(FaultKind::BitRot);
            }
        }
        let copies = [0, scenario.device_bytes() - SUPERBLOCK_SPACE];
        let sound = |at: &u64| {
            let block = *at..*at + u64::from(scenario.device_alignment);
            device.is_readable(&block) && Superblock::decode(&device.contents(block)).is_ok()
        };
        // The other one may wait to be repaired.
        if self.rng.u32(0..4) == 0 && copies.iter().all(sound) {
            let copy = copies[self.rng.usize(0..2)];
            device.corrupt(copy + self.rng.u64(0..512), 1 << self.rng.u32(0..8));
            device.count_fault(FaultKind::BitRot);
        }
        let region = self.rng.u32(0..u32::try_from(scenario.regions).unwrap());
        if let Some(footer) = footer_of(&device, &scenario, region) {
            device.corrupt(self.rng.u64(footer), 1 << self.rng.u32(0..8));
            device.count_fault(FaultKind::BitRot);
        }
    }

    /// Recovers a copy of the device twice: both starts must show the same and leave the same.
    fn check_recovery_twice(&mut self) {
        let copy = self.world.device.duplicate();
        let first = self.visible(&copy);
        let between = self.bytes_of_regions(&copy);
        let second = self.visible(&copy);
        if first != second {
            let what = format!("recovery twice shows {first:?}, then {second:?}");
            self.world.history.lock().violate(what);
        }
        if between != self.bytes_of_regions(&copy)
            || between != self.bytes_of_regions(&self.world.device)
        {
            self.world.history.lock().violate("recovery changed the device".to_owned());
        }
    }

    fn bytes_of_regions(&self, device: &SimDevice) -> Vec<u8> {
        device.contents(SUPERBLOCK_SPACE..self.scenario().device_bytes() - SUPERBLOCK_SPACE)
    }

    /// Every key that a fresh start finds, with cas and end.
    fn visible(&self, device: &SimDevice) -> BTreeMap<u32, (u64, u32)> {
        let clock = Clock::manual(Timestamp(self.wall));
        let keys = self.world.keys_max();
        runtime().block_on(async {
            let options = CacheOptions { ram_bytes: 0, ..self.options() };
            let Ok(cache) = Cache::open(device.open(), options, clock).await else {
                return BTreeMap::new();
            };
            cache.ready().await;
            cache.device_store().check_accounting();
            let mut found = BTreeMap::new();
            for key in 0..keys {
                if let Some(hit) = cache.lookup_stale(&key_bytes(key)).await {
                    found.insert(key, (hit.cas(), hit.lifetime().keep_until.0));
                }
            }
            found
        })
    }

    // The end.

    /// With a device that is well again: every key, then nothing may be left of any.
    fn last_look(&mut self) {
        let device = self.world.device.clone();
        device.set_rates(Rates::default());
        device.set_delay(Delay::None);
        let runtime = runtime();
        let clock = Clock::manual(Timestamp(self.wall));
        runtime.block_on(async {
            let born = Instant::now();
            let Some(cache) = self.open(&clock, End::Done, born).await else { return };
            cache.ready().await;
            self.world.history(born).recovered();
            let clients = Client::new(&self.world, &cache, (self.rng.u64(..), 0), born);
            for key in 0..self.world.keys_max() {
                clients.look(key).await;
            }
            cache.device_store().check_accounting();
            self.empty_out(&cache, born).await;
        });
        let broken = device.broken_rules();
        if let Some(rule) = broken.first() {
            self.world.history.lock().violate(format!("the device was misused: {rule}"));
        }
    }

    async fn empty_out(&self, cache: &Cache, born: Instant) {
        for key in 0..self.world.keys_max() {
            let removed = cache.remove(&key_bytes(key)).await;
            // Regions that cannot be read are not used again: a small device may have too few left.
            let cramped = self.scenario().trouble == Trouble::Damage;
            if cramped && matches!(removed, Err(StoreError::Busy(_))) {
                return;
            }
            if let Err(error) = removed {
                self.world.history(born).violate(format!("the last removal failed: {error}"));
            }
        }
        tokio::time::sleep(REST).await;
        for key in 0..self.world.keys_max() {
            if cache.lookup_stale(&key_bytes(key)).await.is_some() {
                self.world.history(born).violate(format!("key {key} outlived the last removal"));
            }
        }
        cache.device_store().check_accounting();
        self.check_rest("staging", cache.stats().staging_bytes, born);
        if let Err(error) = cache.shutdown().await {
            self.world.history(born).violate(format!("the last shutdown failed: {error}"));
        }
        self.check_rest("backlog", cache.stats().store.backlog_bytes, born);
    }

    fn outcome(self) -> Outcome {
        let mut history = self.world.history.lock();
        for panic in PANICS.take() {
            history.violate(panic);
        }
        let mut totals = self.world.totals.lock().clone();
        totals.seeds = 1;
        totals.excused = history.excused;
        totals.violations = history.violations().len() as u64;
        totals.take_faults(&self.world.device.struck());
        Outcome {
            totals,
            trace_hash: history.trace_hash(),
            violations: history.violations().to_vec(),
            trace: history.trace().map(str::to_owned).collect(),
        }
    }
}

async fn ended(end: End) {
    match end {
        End::Done | End::Operations(_) => std::future::pending().await,
        End::Turns(turns) => {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
        End::Time(time) => tokio::time::sleep(time).await,
    }
}

/// Looks at the invariants from time to time, and tells the history when recovery is complete.
async fn watch(world: Arc<World>, cache: Cache, born: Instant) {
    cache.ready().await;
    if cache.is_ready() {
        world.history(born).recovered();
    }
    loop {
        cache.device_store().check_accounting();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The range of the records in a sealed region's footer on the device; `None` if there are none.
fn footer_of(device: &SimDevice, scenario: &Scenario, region: u32) -> Option<std::ops::Range<u64>> {
    let uuid = Uuid(u128::from(scenario.seed).to_le_bytes());
    let end = SUPERBLOCK_SPACE + (u64::from(region) + 1) * scenario.region_size;
    let tail = device.contents(end - u64::from(scenario.alignment)..end);
    let seed_of = |generation| Seed::new(uuid, region, generation);
    let trailer = Trailer::decode(&tail, seed_of).ok()?;
    let start = end - trailer.footer_len(scenario.alignment);
    let records = trailer.record_count as usize * FOOTER_RECORD_LEN;
    let len = records + trailer.kill_count as usize * KILL_LEN;
    (len > 0).then(|| start..start + len as u64)
}
