//! Decides which reads of a device opened adaptively go through the page cache. Owns the measuring and
//! the choice; takes times as values, never reads the device or a clock.
//!
//! Each length class compares the two ways. Most reads take the preferred way; those of a fixed 1/64
//! of the *places* take the other, so that the page cache gets as warm for them as it would for all.
//! Times are compared window by window. To be preferred, the other way must win several windows in a
//! row by a margin. After a short stay with the page cache this number doubles: the sampled places may
//! fit a page cache that is too small for all.
//!
//! A page cache may keep bytes that a direct write has replaced. Its use is safe nevertheless:
//!
//! - Opening the device verifies that none of it is in the page cache, or turns the mode off.
//! - Only lookups read this way, and only slots. The checksum of a slot's header is seeded with place
//!   and generation of the region and covers the body's checksums, so bytes from before the slot was
//!   written fail it. On failure the slot is read again direct before it counts as damaged.
//! - Within a generation a slot is written once, except that a touch rewrites its header. A region
//!   with a touched entry is read direct until its next generation: the store counts a touch before it
//!   begins.

use std::time::Duration;

use parking_lot::Mutex;

use super::stats::AdaptiveSnapshot;
use crate::device::stats::SIZE_CLASSES;
use crate::device::way::Way;

/// Longest read of each class but the last, in bytes.
const CLASS_LEN_MAX: [usize; SIZE_CLASSES - 1] = [16 << 10, 256 << 10];

/// The weight of a read is its length plus this many bytes.
const READ_WEIGHT: u64 = 64 << 10;

/// At most one in this many reads goes the other way, however popular the sampled places are.
const SAMPLE_COST: u32 = 16;
const CREDIT_MAX: u32 = 16 * SAMPLE_COST;

/// The time of a read is capped at this many times the mean of the window before: a few stalled reads
/// shall not decide.
const CLIP: u64 = 4;

/// Windows in a row that the other way has to win, at first and at most.
const PATIENCE_MIN: u32 = 2;
const PATIENCE_MAX: u32 = 64;

/// A stay with the page cache of fewer windows counts as a mistake.
const STAY_MIN: u32 = 8;

/// How adaptive reads are measured and switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveOptions {
    /// The way preferred at the start.
    pub first: Way,
    /// One in this many places is read the other way. At least 1.
    pub sample_one_in: u32,
    /// How much faster the other way must be to win a window, in percent. Less than 100.
    pub margin_percent: u32,
    /// Reads of each way that a window needs.
    pub samples_min: u32,
    /// Shortest time of a window.
    pub window: Duration,
}

impl Default for AdaptiveOptions {
    fn default() -> Self {
        AdaptiveOptions {
            first: Way::Main,
            sample_one_in: 64,
            margin_percent: 20,
            samples_min: 512,
            window: Duration::from_secs(20),
        }
    }
}

/// The choice for all reads of one device.
pub(super) struct Adaptive {
    options: AdaptiveOptions,
    contests: [Mutex<Contest>; SIZE_CLASSES],
}

impl Adaptive {
    pub fn new(options: AdaptiveOptions) -> Adaptive {
        assert!(options.sample_one_in > 0 && options.margin_percent < 100, "{options:?}");
        let contests = std::array::from_fn(|_| Mutex::new(Contest::new(options.first)));
        Adaptive { options, contests }
    }

    /// The way for a read of `len` bytes at `offset`.
    pub fn choose(&self, offset: u64, len: usize) -> Way {
        self.contest(len).lock().choose(&self.options, offset)
    }

    /// Notes that a read of `len` bytes took `elapsed`; `now` is the time since any fixed moment.
    pub fn record(&self, way: Way, len: usize, elapsed: Duration, now: Duration) {
        self.contest(len).lock().record(&self.options, way, (len, elapsed), now);
    }

    pub fn snapshot(&self) -> AdaptiveSnapshot {
        let mut snapshot = AdaptiveSnapshot::default();
        for (buffered, contest) in snapshot.prefers_buffered.iter_mut().zip(&self.contests) {
            let contest = contest.lock();
            *buffered = contest.preferred == Way::PageCache;
            snapshot.switches += contest.switches;
        }
        snapshot
    }

    fn contest(&self, len: usize) -> &Mutex<Contest> {
        &self.contests[CLASS_LEN_MAX.iter().filter(|len_max| len > **len_max).count()]
    }
}

/// What the reads of one way cost in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    reads: u32,
    nanos: u64,
    weight: u64,
}

impl Tally {
    /// Adds a read, with its time capped at `nanos_max` for each [`READ_WEIGHT`].
    fn add(&mut self, len: usize, elapsed: Duration, nanos_max: u64) {
        self.reads = self.reads.saturating_add(1);
        let weight = len as u64 + READ_WEIGHT;
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let nanos = nanos.min(nanos_max.saturating_mul(weight) / READ_WEIGHT);
        self.nanos = self.nanos.saturating_add(nanos);
        self.weight = self.weight.saturating_add(weight);
    }

    /// Whether it is cheaper than `than` by `percent`.
    fn beats(&self, than: &Tally, percent: u32) -> bool {
        let left = u128::from(self.nanos) * u128::from(than.weight) * 100;
        let right = u128::from(than.nanos) * u128::from(self.weight);
        left < right.saturating_mul(u128::from(100 - percent))
    }
}

/// The contest between the ways for one class of lengths.
#[derive(Debug)]
struct Contest {
    preferred: Way,
    /// Earned by reads, spent on those of the other way.
    credit: u32,
    /// Costs of the preferred and of the other way in this window.
    tallies: [Tally; 2],
    /// Longest time that counts, for [`READ_WEIGHT`], in nanoseconds.
    nanos_max: u64,
    window_start: Option<Duration>,
    /// Windows that the other way won in a row.
    wins: u32,
    /// Windows since the last switch.
    stayed: u32,
    /// Wins in a row needed to leave the direct way.
    patience: u32,
    switches: u64,
}

impl Contest {
    fn new(preferred: Way) -> Contest {
        Contest {
            preferred,
            credit: 0,
            tallies: [Tally::default(); 2],
            nanos_max: u64::MAX,
            window_start: None,
            wins: 0,
            stayed: 0,
            patience: PATIENCE_MIN,
            switches: 0,
        }
    }

    fn choose(&mut self, options: &AdaptiveOptions, offset: u64) -> Way {
        self.credit = (self.credit + 1).min(CREDIT_MAX);
        let is_sample = scattered(offset).is_multiple_of(u64::from(options.sample_one_in));
        if !is_sample || self.credit < SAMPLE_COST {
            return self.preferred;
        }
        self.credit -= SAMPLE_COST;
        self.preferred.other()
    }

    fn record(
        &mut self,
        options: &AdaptiveOptions,
        way: Way,
        (len, elapsed): (usize, Duration),
        now: Duration,
    ) {
        self.tallies[usize::from(way != self.preferred)].add(len, elapsed, self.nanos_max);
        let start = *self.window_start.get_or_insert(now);
        let is_full = self.tallies.iter().all(|tally| tally.reads >= options.samples_min);
        if is_full && now.saturating_sub(start) >= options.window {
            self.judge(options);
            let [one, other] = self.tallies;
            let weight = one.weight.saturating_add(other.weight) / READ_WEIGHT;
            let mean = one.nanos.saturating_add(other.nanos) / weight.max(1);
            self.nanos_max = mean.max(1).saturating_mul(CLIP);
            self.tallies = [Tally::default(); 2];
            self.window_start = Some(now);
        }
    }

    /// Ends a window; changes the preferred way if the other has won often enough.
    fn judge(&mut self, options: &AdaptiveOptions) {
        let [preferred, other] = &self.tallies;
        let won = other.beats(preferred, options.margin_percent);
        self.wins = if won { self.wins + 1 } else { 0 };
        self.stayed = self.stayed.saturating_add(1);
        let needed = match self.preferred {
            Way::Main => self.patience,
            // Its first window tells little: the page cache was cold.
            Way::PageCache => PATIENCE_MIN,
        };
        if self.wins < needed {
            return;
        }
        if self.preferred == Way::PageCache {
            let was_mistake = self.stayed < STAY_MIN;
            let doubled = (self.patience * 2).min(PATIENCE_MAX);
            self.patience = if was_mistake { doubled } else { PATIENCE_MIN };
        }
        self.preferred = self.preferred.other();
        (self.wins, self.stayed) = (0, 0);
        self.switches += 1;
    }
}

/// A hash of a place, so that samples are spread over the device (the finalizer of SplitMix64).
fn scattered(offset: u64) -> u64 {
    let mut hash = offset.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 4096;

    /// Reads of random places through the real choice, with made-up times.
    struct Reads {
        adaptive: Adaptive,
        random: fastrand::Rng,
        now: Duration,
        ways: [u64; 2],
    }

    impl Reads {
        fn new(first: Way) -> Reads {
            let options = AdaptiveOptions { first, ..AdaptiveOptions::default() };
            let random = fastrand::Rng::with_seed(7);
            Reads { adaptive: Adaptive::new(options), random, now: Duration::ZERO, ways: [0; 2] }
        }

        /// A read each millisecond; `micros` tells how long one takes.
        fn run(
            &mut self,
            seconds: u64,
            micros: impl Fn(Way, bool, &mut fastrand::Rng) -> u64,
        ) -> AdaptiveSnapshot {
            self.run_of(SMALL, seconds, micros)
        }

        fn run_of(
            &mut self,
            len: usize,
            seconds: u64,
            micros: impl Fn(Way, bool, &mut fastrand::Rng) -> u64,
        ) -> AdaptiveSnapshot {
            for _ in 0..seconds * 1000 {
                let offset = self.random.u64(..1 << 20) * 4096;
                let way = self.adaptive.choose(offset, len);
                self.ways[usize::from(way == Way::PageCache)] += 1;
                let prefers_cache = self.adaptive.snapshot().prefers_buffered[0];
                let elapsed = Duration::from_micros(micros(way, prefers_cache, &mut self.random));
                self.now += Duration::from_millis(1);
                self.adaptive.record(way, len, elapsed, self.now);
            }
            self.adaptive.snapshot()
        }
    }

    fn with_noise(mean: u64, random: &mut fastrand::Rng) -> u64 {
        // Mostly near half the mean, one in 64 thirty times as long.
        if random.u32(..64) == 0 { mean * 16 } else { mean / 2 + random.u64(..mean / 2) }
    }

    #[test]
    fn it_goes_to_the_faster_way_and_comes_back_when_that_changes() {
        let mut reads = Reads::new(Way::Main);
        let cached_wins = |way, _, random: &mut fastrand::Rng| {
            with_noise(if way == Way::PageCache { 20 } else { 100 }, random)
        };
        let snapshot = reads.run(120, cached_wins);
        assert_eq!((snapshot.prefers_buffered, snapshot.switches), ([true, false, false], 1));
        let direct_wins = |way, _, random: &mut fastrand::Rng| {
            with_noise(if way == Way::Main { 20 } else { 100 }, random)
        };
        let snapshot = reads.run(120, direct_wins);
        assert_eq!((snapshot.prefers_buffered, snapshot.switches), ([false; 3], 2));
        assert_eq!(reads.run(240, cached_wins).switches, 3, "and there again");
    }

    #[test]
    fn a_small_or_noisy_difference_switches_nothing() {
        for (direct, cached) in [(100, 100), (100, 90), (90, 100)] {
            for first in [Way::Main, Way::PageCache] {
                let mut reads = Reads::new(first);
                let snapshot = reads.run(3600, |way, _, random| {
                    with_noise(if way == Way::Main { direct } else { cached }, random)
                });
                assert_eq!(snapshot.switches, 0, "{direct} and {cached} from {first:?}");
            }
        }
    }

    #[test]
    fn a_page_cache_that_is_good_for_the_sample_only_is_tried_less_and_less() {
        let mut reads = Reads::new(Way::Main);
        let micros = |way, prefers_cache, random: &mut fastrand::Rng| match (way, prefers_cache) {
            (Way::Main, _) => with_noise(100, random),
            (Way::PageCache, false) => with_noise(10, random),
            (Way::PageCache, true) => with_noise(150, random),
        };
        let first_hour = reads.run(3600, micros).switches;
        let second_hour = reads.run(3600, micros).switches;
        reads.ways = [0; 2];
        let third_hour = reads.run(3600, micros).switches - second_hour;
        assert!((6..=12).contains(&first_hour), "{first_hour}");
        assert!((1..=4).contains(&third_hour), "{third_hour}");
        assert!(reads.ways[1] * 10 < reads.ways[0], "little is lost by trying: {:?}", reads.ways);
    }

    #[test]
    fn the_share_of_samples_is_bounded_whatever_is_popular() {
        let mut reads = Reads::new(Way::Main);
        reads.run(60, |_, _, _| 100);
        let [direct, cached] = reads.ways;
        assert!(cached * 50 < direct && cached * 80 > direct, "{:?}", reads.ways);
        let adaptive = Adaptive::new(AdaptiveOptions::default());
        let sampled =
            (0..).map(|n| n * 4096).find(|place| scattered(*place).is_multiple_of(64)).unwrap();
        let choices = (0..16_000).map(|_| adaptive.choose(sampled, SMALL));
        let cached = choices.filter(|way| *way == Way::PageCache).count();
        assert_eq!(cached, 16_000 / SAMPLE_COST as usize, "one place that all want");
    }

    #[test]
    fn classes_of_lengths_decide_for_themselves() {
        let mut reads = Reads::new(Way::Main);
        for (index, len) in [16 << 10, 256 << 10, (256 << 10) + 1].into_iter().enumerate() {
            let snapshot =
                reads.run_of(len, 120, |way, _, _| 20 + 80 * u64::from(way == Way::Main));
            let expected: [bool; 3] = std::array::from_fn(|class| class <= index);
            assert_eq!(snapshot.prefers_buffered, expected);
        }
    }

    #[test]
    fn without_enough_samples_nothing_is_decided() {
        let mut reads = Reads::new(Way::Main);
        let snapshot = reads.run(20, |way, _, _| 20 + 80 * u64::from(way == Way::Main));
        assert_eq!(snapshot.switches, 0, "about 300 samples");
    }
}
