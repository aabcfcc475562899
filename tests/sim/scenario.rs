//! What one run is like, drawn from its seed. Each seed turns features on and off ("swarm testing":
//! Groce and others, 2012), so that runs without a feature show bugs that it hides.

mod budgets;
mod prolonged;
mod purges;
mod strain;
mod themes;

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use rawcached::cache::Ack;
use rawcached::device::{Delay, FaultKind, Rates};

pub use budgets::{Budgets, RecoveryMemory, index_bytes};
pub use purges::Purges;
pub use strain::Strain;

/// Bytes before the first region and after the last.
pub const SUPERBLOCK_SPACE: u64 = 128 << 10;

/// What may go wrong with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing but crashes.
    None,
    /// Interruptions and short transfers, which no caller may notice.
    Hiccups,
    /// Operations fail and say so.
    Errors,
    /// A bit flips in one of the two copies of a footer or a superblock.
    SpareRot,
    /// Bytes are lost, changed or misplaced silently; sectors become unreadable.
    Damage,
}

/// What a run is about: some bugs need several rare things at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Nothing special.
    Any,
    /// Reclaim goes on all the time, on a small device that is sometimes very slow, while the
    /// entries that it moves are overwritten, removed and touched.
    Churn,
    /// The same few entries are touched and looked up again and again, from a RAM tier too small
    /// for them, and lives are short.
    Touches,
    /// Long bodies are read piece by piece for lack of memory, by readers that pause while the
    /// object is replaced and its region reclaimed and used again.
    SlowReaders,
    /// One region cannot be read for a life or two, and nothing else goes wrong: the promises hold
    /// for a single fault. Keys are removed and overwritten, and looked for in the next lives.
    Hidden,
    /// Objects of up to half of the device, several at a time, on a sound and full device.
    Large,
    /// The wall clock is wrong at most starts, and sometimes set right later.
    WrongClocks,
    /// Most entries are in RAM only, and there are too many of them.
    ShortLived,
    /// Large objects with short lives that updates prolong, on a full device from which what has ended goes.
    Updates,
    /// Large objects are stored for seconds and prolonged at once: among entries that live long, on a full
    /// device, or on one that keeps all.
    Prolonged,
    /// Index or recovery have too little memory, on a slow device whose keys are removed often.
    LittleMemory,
    /// Objects come part by part, on a full device or on one that keeps all.
    Parts,
    /// Many keys are purged at once, hard and soft, by tag and prefix; they are asked for all the time.
    Purges,
}

/// How a body's length is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Up to 200 bytes: many entries share a block.
    Tiny,
    /// Mostly below 2 KiB, a few of several slices.
    Mixed,
    /// Tens of kilobytes: regions fill and are reclaimed.
    Large,
    /// Up to half of the device.
    Halves,
    /// All but a few of one length.
    Equal(usize),
}

/// How often clients do each operation, as weights.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub lookup: u32,
    pub put: u32,
    pub stream: u32,
    pub touch: u32,
    pub remove: u32,
    pub purge_all: u32,
    pub pause: u32,
    pub advance: u32,
}

impl Weights {
    pub fn total(&self) -> u32 {
        self.lookup
            + self.put
            + self.stream
            + self.touch
            + self.remove
            + self.purge_all
            + self.pause
            + self.advance.max(1)
    }
}

/// Everything about a run that its seed decides in advance.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub theme: Theme,
    pub regions: u64,
    pub region_size: u64,
    pub alignment: u32,
    pub device_alignment: u32,
    pub clients: u32,
    /// Of all lives together.
    pub operations: u64,
    pub keys: u32,
    pub sizes: Sizes,
    pub ram_bytes: u64,
    pub min_to_disk: Duration,
    pub hash_mask: u64,
    /// Sequence numbers in one epoch.
    pub sequences_per_epoch: u32,
    pub flush_interval: Duration,
    pub write_buffer_bytes: u64,
    pub ack: Ack,
    pub delay_turns: u32,
    pub slow: Duration,
    pub slow_one_in: u32,
    pub trouble: Trouble,
    /// Nothing is ever evicted: every live entry must be found.
    pub roomy: bool,
    pub weights: Weights,
    /// One operation in so many is dropped half way; 0 for none.
    pub cancel_one_in: u32,
    /// One store in so many is acknowledged when flushed; 0 for none.
    pub flushed_one_in: u32,
    /// One streamed store in so many is followed; 0 for none.
    pub follow_one_in: u32,
    /// Lifetimes in seconds.
    pub ttl_secs: Range<u64>,
    pub grace: bool,
    /// The wall clock is set between lives, and the machine is suspended.
    pub clock_jumps: bool,
    /// The wall clock minus the cache's time when the run begins.
    pub wall_base: i64,
    /// About how many operations one life has.
    pub life_operations: u64,
    /// The device is all but full when the clients begin.
    pub prefilled: bool,
    /// One life in so many ends well; 0 for none.
    pub shutdown_one_in: u32,
    pub power_cuts: bool,
    pub kills: bool,
    /// Clients begin before recovery is complete.
    pub eager: bool,
    /// Other settings that make a run hard.
    pub strain: Strain,
    /// Memory that runs out.
    pub budgets: Budgets,
    /// Purges of many keys at once.
    pub purges: Purges,
}

fn one_of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Scenario {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let roomy = rng.u32(0..4) == 0;
        let trouble = match rng.u32(0..20) {
            0..8 => Trouble::None,
            8..10 => Trouble::Hiccups,
            10..14 => Trouble::Errors,
            14..17 => Trouble::SpareRot,
            _ => Trouble::Damage,
        };
        let alignment = one_of(rng, &[512, 4096, 4096, 8192]);
        let life_operations = one_of(rng, &[15, 40, 100, 1000]);
        let operations = if life_operations < 100 { rng.u64(100..250) } else { rng.u64(200..450) };
        let has_ram = rng.bool();
        let slow_one_in = one_of(rng, &[0, 0, 3, 10, 40]);
        let power_cuts = rng.u32(0..4) > 0;
        let extra = &mut Rng::with_seed(seed ^ 0x57AA_1215);
        let drawn = Scenario {
            seed,
            theme: Theme::Any,
            regions: if roomy { 64 } else { rng.u64(8..14) },
            region_size: one_of(rng, &[256 << 10, 256 << 10, 512 << 10]),
            alignment,
            device_alignment: if rng.bool() { 512 } else { alignment.min(4096) },
            clients: one_of(rng, &[1, 2, 3, 4, 6, 8]),
            operations,
            keys: one_of(rng, &[1, 2, 4, 8, 16, 40]),
            sizes: if roomy {
                one_of(rng, &[Sizes::Tiny, Sizes::Mixed])
            } else {
                one_of(rng, &[Sizes::Tiny, Sizes::Mixed, Sizes::Large, Sizes::Large])
            },
            ram_bytes: if has_ram { one_of(rng, &[16 << 10, 128 << 10, 4 << 20]) } else { 0 },
            min_to_disk: Duration::from_secs(one_of(rng, &[0, 2, 5])),
            // Not drawn, so that the other draws of a seed stay the same.
            sequences_per_epoch: if seed % 4 == 1 { 64 } else { u32::MAX },
            follow_one_in: [0, 1, 1, 3][usize::try_from(seed / 4 % 4).unwrap()],
            hash_mask: if roomy { u64::MAX } else { one_of(rng, &[u64::MAX, u64::MAX, 3, 0]) },
            flush_interval: Duration::from_millis(one_of(rng, &[5, 30, 100])),
            write_buffer_bytes: one_of(rng, &[256 << 10, 2 << 20, 16 << 20]),
            ack: one_of(rng, &[Ack::Buffered, Ack::Buffered, Ack::Buffered, Ack::Flushed]),
            delay_turns: one_of(rng, &[0, 2, 6, 20, 60]),
            slow: Duration::from_millis(one_of(rng, &[2, 10, 40])),
            slow_one_in,
            trouble,
            roomy,
            weights: weights(rng),
            cancel_one_in: one_of(rng, &[0, 0, 30, 8]),
            flushed_one_in: one_of(rng, &[0, 2, 8, 30]),
            ttl_secs: one_of(rng, &[(1, 8), (5, 60), (60, 100_000)]).into_range(),
            grace: rng.bool(),
            clock_jumps: rng.u32(0..3) == 0,
            wall_base: 0,
            life_operations,
            prefilled: !roomy && rng.u32(0..3) > 0,
            shutdown_one_in: one_of(rng, &[0, 2, 5]),
            power_cuts,
            kills: !power_cuts || rng.bool(),
            eager: rng.bool(),
            strain: Strain::draw(extra),
            budgets: Budgets::of(seed),
            purges: Purges::NONE,
        };
        let themed = match (rng.u32(0..10), extra.u32(0..10)) {
            (0, _) => drawn.churning(rng),
            (1 | 2, _) => drawn.touching(rng),
            (_, 0) => drawn.reading_slowly(extra),
            (_, 1) => drawn.short_lived(extra),
            (_, 2) => drawn.hiding(extra),
            (_, 3) => drawn.storing_halves(extra),
            (_, 4) => drawn.with_wrong_clocks(extra),
            _ => drawn.aligned(extra),
        };
        let themed = themed.with_updates(&mut Rng::with_seed(seed ^ 0x0DA7_E5EE));
        let limited = themed.with_budgets(&mut Rng::with_seed(seed ^ 0xB0D6_E755));
        let purged = limited.with_purges(&mut Rng::with_seed(seed ^ 0x7A65_0015));
        let parted = purged.with_parts(&mut Rng::with_seed(seed ^ 0x9A27_5000));
        parted.with_prolonged(&mut Rng::with_seed(seed ^ 0x9201_0460))
    }

    /// Whether more entries may share a fingerprint than a lookup looks at (slices are entries too), or a
    /// removal that was given up may hide keys with its hash until its own entry is taken out.
    pub fn may_be_crowded(&self) -> bool {
        let is_many = self.keys > 16 || !matches!(self.sizes, Sizes::Tiny);
        self.hash_mask != u64::MAX && (is_many || self.cancel_one_in > 0)
    }

    /// Whether no caller may notice faults: none, hiccups, or damage to one of two copies.
    pub fn is_sound(&self) -> bool {
        let trouble = matches!(self.trouble, Trouble::None | Trouble::Hiccups | Trouble::SpareRot);
        trouble && !self.strain.refuses_writes && !self.strain.hides_region
    }

    /// Size of the device in bytes.
    pub fn device_bytes(&self) -> u64 {
        self.regions * self.region_size + 2 * SUPERBLOCK_SPACE
    }

    /// How long operations of the device take.
    pub fn delay(&self) -> Delay {
        if self.delay_turns == 0 && self.slow_one_in == 0 {
            return Delay::None;
        }
        Delay::Anytime { turns: self.delay_turns, slow: self.slow, slow_one_in: self.slow_one_in }
    }

    /// Longest time one operation of the device takes.
    pub fn latency_max(&self) -> Duration {
        if self.slow_one_in == 0 { Duration::ZERO } else { self.slow + Duration::from_millis(1) }
    }

    /// The faults that strike at random.
    pub fn rates(&self) -> Rates {
        let rates = Rates::default()
            .sparing(0..SUPERBLOCK_SPACE)
            .sparing(self.device_bytes() - SUPERBLOCK_SPACE..self.device_bytes());
        let hiccups = |rates: Rates| {
            rates
                .with(FaultKind::Interrupted, 2000)
                .with(FaultKind::ShortRead, 2000)
                .with(FaultKind::ShortWrite, 2000)
        };
        match self.trouble {
            Trouble::None | Trouble::SpareRot => rates,
            Trouble::Hiccups => hiccups(rates),
            Trouble::Errors => hiccups(rates)
                .with(FaultKind::ReadError, 1000)
                .with(FaultKind::WriteError, 700)
                .with(FaultKind::FlushError, 1500)
                .with(FaultKind::NoSpace, 300),
            Trouble::Damage => hiccups(rates)
                .with(FaultKind::MisdirectedRead, 500)
                .with(FaultKind::CorruptRead, 1000)
                .with(FaultKind::LostWrite, 700)
                .with(FaultKind::MisdirectedWrite, 700),
        }
    }

    fn half(&self) -> usize {
        usize::try_from(self.regions * self.region_size / 2).unwrap_or(usize::MAX)
    }

    /// Draws the length of a body.
    pub fn body_len(&self, rng: &mut Rng) -> usize {
        match (self.sizes, rng.u32(0..20)) {
            (Sizes::Tiny, _) => rng.usize(0..200),
            (Sizes::Mixed, 0) => rng.usize(0..200_000),
            (Sizes::Mixed, _) => rng.usize(0..2_000),
            (Sizes::Large, 0..2) => rng.usize(60_000..300_000),
            (Sizes::Large, 2..10) => rng.usize(0..60_000),
            (Sizes::Large, _) => rng.usize(0..2_000),
            (Sizes::Halves, 0..3) => rng.usize(0..self.half()),
            (Sizes::Halves, 3..9) => rng.usize(0..self.half() / 3),
            (Sizes::Halves, _) => rng.usize(0..60_000),
            (Sizes::Equal(len), 0..17) => len,
            (Sizes::Equal(len), 17) => rng.usize(0..3 * len),
            (Sizes::Equal(_), _) => rng.usize(0..2_000),
        }
    }
}

fn weights(rng: &mut Rng) -> Weights {
    let mut of = |weight: u32| weight * one_of(rng, &[0, 1, 1, 3]);
    Weights {
        lookup: 40,
        put: of(20).max(8),
        stream: of(10),
        touch: of(12),
        remove: of(8),
        purge_all: of(1),
        pause: of(8),
        advance: of(6),
    }
}

trait IntoRange {
    fn into_range(self) -> Range<u64>;
}

impl IntoRange for (u64, u64) {
    fn into_range(self) -> Range<u64> {
        self.0..self.1
    }
}
