//! The lives of one cache on one device: opened, used, ended by a shutdown, a kill or a power
//! cut at any moment, and opened again. Owns the run of one seed.

mod between;
mod clocks;
mod hidden;
mod last;
mod memory;
mod rest;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt as _;
use rawcached::cache::{Cache, CacheOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::device::SimDevice;
use rawcached::format::{Secret, Uuid};
use rawcached::store::{FormatOptions, Store, TestKnobs};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::clients::Client;
use crate::history::Crash;
use crate::report::Totals;
use crate::scenario::{Scenario, Theme, Trouble, index_bytes};
use crate::world::World;
use clocks::Misled;
use hidden::Hidden;

/// Where the clock begins.
const START: u32 = 1_000_000;
const DAY: i64 = 86_400;
/// A device that fails now and then may fail one attempt.
const OPEN_ATTEMPTS: u32 = 4;

thread_local! {
    /// Messages of the panics of this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static WATCHED: RefCell<bool> = const { RefCell::new(false) };
}

/// The result of one seed.
pub struct Outcome {
    pub totals: Totals,
    pub trace_hash: u64,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
}

/// When a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// When its clients have done all their operations.
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
    /// The wall clock at the next start, and whether it is known to be right.
    wall: i64,
    is_synchronised: bool,
    misled: Misled,
    /// Writes were under way at the end of a life: a footer may name entries that never came.
    was_torn: bool,
    /// The epoch on the device when the life began.
    born_epoch: u64,
    was_filled: bool,
    /// A region that cannot be read at the next start.
    hidden: Option<Hidden>,
    /// Draws of later additions, so that the older draws of a seed stay the same.
    extra: Rng,
    /// Entries for which the index of this life has room, if they are few.
    index_entries: Option<u64>,
    /// Draws it.
    index_rng: Rng,
    refills: u32,
}

/// Collects panics of threads that run seeds; other threads report theirs as usual.
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
        let wall = scenario.wall_base + i64::from(START);
        clock.set_wall(wall);
        let options = options!(FormatOptions {
            size: None,
            alignment: Some(scenario.alignment),
            region_size: Some(scenario.region_size),
            ..FormatOptions::default()
                .with_uuid(Uuid(u128::from(scenario.seed).to_le_bytes()))
                .with_secret(Secret(u128::from(scenario.seed).to_le_bytes()))
        });
        runtime().block_on(Store::format(&device.open(), &options, &clock)).unwrap();
        device.reseed(scenario.seed);
        device.set_delay(scenario.delay());
        device.set_rates(scenario.rates());
        device.spoil_sectors(scenario.trouble == Trouble::Damage);
        let rng = Rng::with_seed(scenario.seed ^ 0x5117);
        let extra = Rng::with_seed(scenario.seed ^ 0xE87A);
        let index_rng = Rng::with_seed(scenario.seed ^ 0x1DE7);
        Run {
            world: Arc::new(World::new(scenario, device, START)),
            rng,
            wall,
            is_synchronised: false,
            misled: Misled::default(),
            was_torn: false,
            born_epoch: 0,
            was_filled: false,
            hidden: None,
            extra,
            index_entries: None,
            index_rng,
            refills: 0,
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
        options!(CacheOptions {
            ram_bytes: scenario.ram_bytes,
            min_to_disk: scenario.min_to_disk,
            flush_interval: scenario.flush_interval,
            write_buffer_bytes: scenario.write_buffer_bytes,
            ack: scenario.ack,
            range: scenario.strain.range,
            range_buffer_bytes: scenario.strain.range_buffer_bytes,
            index_bytes_max: index_bytes(self.index_entries),
            recovery_bytes_max: scenario.budgets.recovery_bytes(),
            ..CacheOptions::default().with_knobs(TestKnobs {
                hash_mask: scenario.hash_mask,
                sequences_per_epoch: scenario.sequences_per_epoch,
                purge_records_max: scenario.purges.records_max,
            })
        })
    }

    // One life.

    fn live(&mut self) {
        let runtime = runtime();
        let end = self.draw_end();
        let clock = self.clock();
        let world = Arc::clone(&self.world);
        let born = runtime.block_on(async { Instant::now() });
        runtime.block_on(async {
            let mut history = world.history(born);
            let theme = self.scenario().theme;
            history.note(format_args!("{theme:?}: a life begins at {}, ends {end:?}", self.wall));
        });
        self.draw_memory();
        self.born_epoch = self.epoch();
        self.begin_refusing(&runtime);
        self.hide_region(&runtime);
        let shut_down = runtime.block_on(self.use_cache(&clock, end, born));
        let crash = self.crash(shut_down);
        self.world.device.set_rates(self.scenario().rates());
        self.check_epoch(self.born_epoch);
        self.end_hiding();
        let elapsed = runtime.block_on(async { born.elapsed() });
        let window = self.window(crash);
        runtime.block_on(async { world.history(born).crash(crash, window) });
        *world.elapsed.lock() += elapsed;
        world.acknowledged.lock().end_life();
        drop(runtime);
        self.check_time(&clock);
        self.after_life();
    }

    fn draw_end(&mut self) -> End {
        // Lets a reader outlive the region that it reads from.
        if matches!(self.scenario().theme, Theme::SlowReaders | Theme::Large | Theme::Prolonged)
            && self.extra.u32(0..3) > 0
        {
            return End::Done;
        }
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
                opened = Cache::open_device(handle, self.options(), clock.clone()) => opened,
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
        let counters = cache.device_store().counters();
        if counters.purge_folds > 0 {
            self.world.has_folded.store(true, Ordering::Relaxed);
            self.world.history.lock().has_folded = true;
        }
        let mut totals = self.world.totals.lock();
        totals.regions_freed += counters.regions_freed;
        totals.reinserted += counters.reinserted;
        totals.regions_left_out += counters.regions_left_out;
        totals.later_passes += counters.recovery_passes.saturating_sub(1);
        if self.scenario().is_sound() && counters.damaged > 0 && !self.was_torn {
            let what = format!("{} entries are seen as damaged", counters.damaged);
            self.world.history(born).violate(what);
        }
        if self.scenario().is_sound() && !self.was_torn {
            totals.lives_without_damage += 1;
        }
    }

    async fn use_open_cache(&mut self, cache: &Cache, born: Instant) {
        if self.hidden.is_some() {
            let world = Arc::clone(&self.world);
            tokio::spawn(hidden::watch_regions(world, cache.clone(), born));
        }
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
        let entries_max = self.entries_max();
        let watched = watch(Arc::clone(&self.world), cache.clone(), entries_max, born);
        let watcher = tokio::spawn(watched);
        for task in tasks {
            // A panic is among PANICS.
            let _ = task.await;
        }
        self.see_it_again(cache, born).await;
        self.look_for_the_prolonged(cache, born).await;
        watcher.abort();
        cache.device_store().check_accounting();
        self.check_absent(cache, born).await;
    }

    /// Shuts the cache down, sometimes with clients still at work; true if it ended well.
    async fn shut_down(&mut self, cache: &Cache, born: Instant, at_rest: bool) -> bool {
        if self.rng.u32(0..100) >= 100 / self.scenario().shutdown_one_in.max(1)
            || self.scenario().shutdown_one_in == 0
        {
            return false;
        }
        if self.rng.u32(0..3) == 0 {
            // Sometimes the power fails meanwhile.
            self.world.device.freeze_after(self.rng.u64(1..8));
        }
        let result = cache.shutdown().await;
        self.world.history(born).note(format_args!("shut down: {result:?}"));
        cache.device_store().check_accounting();
        if result.is_ok() && at_rest {
            let stats = cache.stats();
            self.check_rest("write buffer", stats.write_buffer_bytes, born);
            self.check_rest("backlog", stats.store.backlog_bytes, born);
            self.check_snapshot(cache, born);
        }
        result.is_ok()
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
        self.was_torn |= !shut_down && self.is_torn(cut);
        if cut {
            self.world.device.power_cut(self.rng.u64(..));
        } else {
            self.world.device.kill();
        }
        match (shut_down, cut) {
            (true, _) => Crash::Shutdown,
            (false, true) => Crash::PowerCut,
            (false, false) => Crash::Kill,
        }
    }

    /// Whether the end of a life may leave partial writes.
    fn is_torn(&self, cut: bool) -> bool {
        let device = &self.world.device;
        device.frozen().now_or_never().is_some()
            || device.writes_under_way() > 0
            || (cut && device.volatile_sectors() > 0)
    }

    /// How long before the end a change must have been made to be kept for certain.
    fn window(&self, crash: Crash) -> Duration {
        let scenario = self.scenario();
        // A round of the flusher is at most two copies of the superblock with a flush each, the
        // chunks, a flush, footers and a flush; another one may have begun just before.
        let round = 10 * scenario.latency_max() + Duration::from_millis(5);
        match crash {
            Crash::Shutdown => Duration::ZERO,
            Crash::Kill => scenario.flush_interval + 2 * round,
            Crash::PowerCut => Duration::from_secs(1) + scenario.flush_interval + 3 * round,
        }
    }

    fn after_life(&mut self) {
        self.pass_time();
        let broken = self.world.device.broken_rules();
        if let Some(rule) = broken.first() {
            self.world.history.lock().violate(format!("the device was misused: {rule}"));
        }
        if self.scenario().is_sound() {
            self.check_headers();
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

    fn outcome(self) -> Outcome {
        let mut history = self.world.history.lock();
        for panic in PANICS.take() {
            history.violate(panic);
        }
        let mut totals = self.world.totals.lock().clone();
        totals.seeds = 1;
        totals.excused = history.excused;
        totals.doubtful = history.doubtful;
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
async fn watch(world: Arc<World>, cache: Cache, entries_max: Option<u64>, born: Instant) {
    cache.ready().await;
    if cache.is_ready() {
        world.history(born).recovered();
    }
    loop {
        cache.device_store().check_accounting();
        memory::check_index(&world, &cache, entries_max, born);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
