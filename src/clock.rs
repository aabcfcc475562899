//! The time sources. Owns cache time, by which entries expire and which no step of the wall clock
//! moves, and all conversion between cache time and the wall clock.
//!
//! Cache time counts from the formatting of the device. Calendar times, named by clients or shown to
//! them, are converted by the wall clock at that moment and never stored. One pair of readings is in
//! the superblock: from it a start learns how long the cache was down.

#[cfg(feature = "daemon")]
mod calendar;
mod pair;
#[cfg(test)]
mod tests;
mod timestamp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

#[cfg(feature = "daemon")]
pub(crate) use calendar::{date, rfc3339};
use pair::EARLY_MS_MAX;
pub use pair::{TimeDown, TimePair};
pub use timestamp::Timestamp;

/// Longest lifetime of an entry. A longer time down counts as this long: all entries have expired by
/// then, and a wall clock that is decades off does not use up cache time.
pub const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How far the wall clock may move before the offset of shown dates follows it. Less is rounding:
/// dates that are shown twice shall be the same.
const SHOWN_OFF_MS_MAX: u64 = 1500;
/// No date was shown yet.
const NOT_SHOWN: i64 = i64::MIN;

/// The clock of one cache: `CLOCK_BOOTTIME` plus an offset, or one that only a test moves. Clones are
/// the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    /// The pair of readings that the device had at open.
    resumed: Mutex<Option<Resumed>>,
    /// Seconds added to cache time for a date that is shown.
    shown_offset: AtomicI64,
}

/// One reading of a clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    ms: i64,
}

impl Moment {
    /// The second of cache time.
    #[must_use]
    pub fn now(self) -> Timestamp {
        Timestamp::of_millis(self.ms)
    }

    /// When a lifetime of `ttl` (at most ten years) ends that begins then, rounded down to the second.
    #[must_use]
    pub fn after(self, ttl: Duration) -> Timestamp {
        Timestamp::of_millis(self.ms.saturating_add(millis(ttl.min(LIFETIME_MAX))))
    }
}

/// The pair found at open.
#[derive(Clone, Copy, Debug)]
struct Resumed {
    found: TimePair,
    /// It is unknown how long ago the pair was read.
    is_unknown: bool,
}

#[derive(Debug)]
enum Source {
    /// `now = boot time + offset`, in milliseconds; the offset only grows.
    Boot { offset_ms: AtomicI64, is_synchronised: fn() -> bool },
    /// Milliseconds of cache time and since the Unix epoch.
    Manual { now_ms: AtomicI64, wall_ms: AtomicI64, synchronised: AtomicBool },
}

impl Clock {
    /// A clock at cache time 0 that ticks with `CLOCK_BOOTTIME`; time in suspend counts.
    /// `is_synchronised` tells whether the wall clock can be relied upon.
    pub(crate) fn ticking(is_synchronised: fn() -> bool) -> Clock {
        Clock::of(Source::Boot { offset_ms: AtomicI64::new(-boot_ms()), is_synchronised })
    }

    /// A clock that stands at `start` until a test moves it. Its wall clock stands as many seconds
    /// after the Unix epoch, and is not synchronised.
    #[must_use]
    #[doc(hidden)]
    pub fn manual(start: Timestamp) -> Clock {
        Clock::of(Source::Manual {
            now_ms: AtomicI64::new(start.millis()),
            wall_ms: AtomicI64::new(start.millis()),
            synchronised: AtomicBool::new(false),
        })
    }

    fn of(source: Source) -> Clock {
        let (resumed, shown_offset) = (Mutex::default(), AtomicI64::new(NOT_SHOWN));
        Clock(Arc::new(Shared { source, resumed, shown_offset }))
    }

    /// The current second of cache time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.moment().now()
    }

    /// When a lifetime of `ttl` (at most ten years) ends that begins now, rounded down to the second.
    #[must_use]
    pub fn after(&self, ttl: Duration) -> Timestamp {
        self.moment().after(ttl)
    }

    /// One reading of the clock, for times that must agree.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { ms: self.now_ms() }
    }

    fn now_ms(&self) -> i64 {
        match &self.0.source {
            Source::Boot { offset_ms, .. } => boot_ms() + offset_ms.load(Ordering::Relaxed),
            Source::Manual { now_ms, .. } => now_ms.load(Ordering::Relaxed),
        }
    }

    /// Moves the clock forward so that `now()` is at least `stamp`; never moves it back.
    ///
    /// Called with the newest stamp found on a device: at least that much time has passed. If the wall
    /// clock said less, it was set back, and the time down is unknown.
    #[doc(hidden)]
    pub fn anchor(&self, stamp: Timestamp) {
        let behind_ms = stamp.millis().saturating_sub(self.now_ms());
        if behind_ms <= 0 {
            return;
        }
        if let (true, Some(resumed)) = (behind_ms > EARLY_MS_MAX, &mut *self.0.resumed.lock()) {
            resumed.is_unknown = true;
        }
        self.move_by(behind_ms);
    }

    fn move_by(&self, ms: i64) {
        match &self.0.source {
            Source::Boot { offset_ms: at, .. } | Source::Manual { now_ms: at, .. } => {
                at.fetch_add(ms, Ordering::Relaxed);
            }
        }
    }

    // Cache time and the wall clock.

    /// Whole seconds since the Unix epoch by the wall clock, which may be wrong and may step.
    #[must_use]
    pub fn wall(&self) -> i64 {
        self.wall_ms().div_euclid(1000)
    }

    /// The same in milliseconds.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    pub(crate) fn wall_ms(&self) -> i64 {
        match &self.0.source {
            Source::Boot { .. } => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => millis(since),
                Err(before) => -millis(before.duration()),
            },
            Source::Manual { wall_ms, .. } => wall_ms.load(Ordering::Relaxed),
        }
    }

    /// Time until the wall clock shows `at`, in seconds since the Unix epoch; zero if that is past.
    #[must_use]
    pub fn until_wall(&self, at: i64) -> Duration {
        let left_ms = at.saturating_mul(1000).saturating_sub(self.wall_ms());
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
    }

    /// The calendar time of `stamp` by the wall clock as it is set now: seconds since the Unix epoch.
    /// The same at each call, unless the wall clock was set meanwhile.
    #[must_use]
    pub fn wall_at(&self, stamp: Timestamp) -> i64 {
        let offset_ms = self.wall_ms().saturating_sub(self.now_ms());
        let shown = self.0.shown_offset.load(Ordering::Relaxed);
        let off_ms = offset_ms.abs_diff(shown.saturating_mul(1000));
        let offset = if shown == NOT_SHOWN || off_ms > SHOWN_OFF_MS_MAX {
            let rounded = (offset_ms + 500).div_euclid(1000);
            self.0.shown_offset.store(rounded, Ordering::Relaxed);
            rounded
        } else {
            shown
        };
        i64::from(stamp.0) + offset
    }

    /// Continues from the pair of readings found on a device: at the pair's cache time, plus the
    /// difference of wall clocks if that is credible.
    #[doc(hidden)]
    pub fn resume(&self, found: TimePair) -> TimeDown {
        let mut resumed = self.0.resumed.lock();
        self.move_by(found.cache.millis().saturating_sub(self.now_ms()).max(0));
        let (down, next) = self.judge(found);
        *resumed = next;
        down
    }

    /// Judges the time down once more; `None` unless it is unknown.
    pub fn resume_again(&self) -> Option<TimeDown> {
        let mut resumed = self.0.resumed.lock();
        let before = (*resumed).filter(|resumed| resumed.is_unknown)?;
        let (down, next) = self.judge(before.found);
        *resumed = next;
        Some(down)
    }

    fn judge(&self, found: TimePair) -> (TimeDown, Option<Resumed>) {
        let late_ms = found.late_ms(self.now_ms(), self.wall_ms());
        let down = TimeDown::judge(late_ms, self.is_synchronised());
        if let TimeDown::Known(down) = down {
            self.move_by(millis(down.min(LIFETIME_MAX)));
        }
        let is_unknown = down == TimeDown::Unknown;
        let next = Some(Resumed { found, is_unknown }).filter(|_| down != TimeDown::Lost);
        (down, next)
    }

    /// Whether the time down is unknown.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.0.resumed.lock().is_some_and(|resumed| resumed.is_unknown)
    }

    fn is_synchronised(&self) -> bool {
        match &self.0.source {
            Source::Boot { is_synchronised, .. } => is_synchronised(),
            Source::Manual { synchronised, .. } => synchronised.load(Ordering::Relaxed),
        }
    }

    /// The pair of readings to be stored now.
    ///
    /// While the time down is unknown, the pair keeps the difference between the clocks of the pair
    /// found, so that the next start can still learn the whole time.
    #[must_use]
    #[doc(hidden)]
    pub fn pair(&self) -> TimePair {
        match *self.0.resumed.lock() {
            Some(Resumed { found, is_unknown: true }) => found.at(self.now()),
            _ => TimePair::of_millis(self.now_ms(), self.wall_ms()),
        }
    }

    /// Whether a start that finds `stored` would continue at a wrong time, because the wall clock was
    /// set since.
    #[must_use]
    #[doc(hidden)]
    pub fn has_left(&self, stored: TimePair) -> bool {
        !self.is_unknown() && stored.is_off(self.now_ms(), self.wall_ms())
    }

    // For tests.

    /// Moves a manual clock and its wall clock forward by `duration`.
    ///
    /// # Panics
    /// Panics on a system clock: only tests move time.
    #[doc(hidden)]
    pub fn advance(&self, duration: Duration) {
        let (now_ms, wall_ms, _) = self.of_test();
        now_ms.fetch_add(millis(duration), Ordering::Relaxed);
        wall_ms.fetch_add(millis(duration), Ordering::Relaxed);
    }

    /// Sets the wall clock of a manual clock to `secs` since the Unix epoch.
    ///
    /// # Panics
    /// Panics on a system clock.
    #[doc(hidden)]
    pub fn set_wall(&self, secs: i64) {
        self.of_test().1.store(secs.saturating_mul(1000), Ordering::Relaxed);
    }

    /// Says of the wall clock of a manual clock whether it can be relied upon.
    ///
    /// # Panics
    /// Panics on a system clock.
    #[doc(hidden)]
    pub fn set_synchronised(&self, synchronised: bool) {
        self.of_test().2.store(synchronised, Ordering::Relaxed);
    }

    fn of_test(&self) -> (&AtomicI64, &AtomicI64, &AtomicBool) {
        match &self.0.source {
            Source::Manual { now_ms, wall_ms, synchronised } => (now_ms, wall_ms, synchronised),
            Source::Boot { .. } => panic!("only a manual clock can be set"),
        }
    }
}

/// A point in time for measuring how long something took; not a time of day.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the monotonic clock"
    )]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since [`Stopwatch::start`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Milliseconds, at most 2^52, so that no sum of such times overflows.
fn millis(duration: Duration) -> i64 {
    const MAX: i64 = 1 << 52;
    let secs = i64::try_from(duration.as_secs()).unwrap_or(MAX).min(MAX / 1000 - 1);
    secs * 1000 + i64::from(duration.subsec_millis())
}

fn boot_ms() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now.map(|now| now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).unwrap_or_default()
}
