//! The time source. Owns "what second is it" for expiry and stamps; never goes
//! backwards and never follows a step of the wall clock while running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Whole seconds since the Unix epoch, up to the year 2106.
///
/// This is the resolution of every stamp on the device. An entry with a lifetime of
/// `n` seconds lives between `n - 1` and `n` seconds: a cache may forget, it may not
/// serve what has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u32);

impl Timestamp {
    /// The latest representable time; used for "not known to end".
    pub const MAX: Timestamp = Timestamp(u32::MAX);

    /// This time plus whole seconds of `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)))
    }

    /// Seconds from `earlier` to this time, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }
}

/// A shared source of [`Timestamp`]s: `CLOCK_BOOTTIME` anchored to the wall clock once,
/// or a clock that only a test moves. Clones share the anchor.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    /// `now = boot time + offset`, in milliseconds; the offset only grows.
    Boot { offset_ms: AtomicU64 },
    /// Milliseconds since the Unix epoch, moved by [`Clock::advance`].
    Manual { now_ms: AtomicU64 },
}

impl Clock {
    /// A clock that ticks with `CLOCK_BOOTTIME`, anchored to the wall clock now.
    ///
    /// Later steps of the wall clock do not move it; time in suspend counts.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    pub fn system() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset_ms = AtomicU64::new(millis(wall).saturating_sub(boot_ms()));
        Clock(Arc::new(Source::Boot { offset_ms }))
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Clock {
        Clock(Arc::new(Source::Manual { now_ms: AtomicU64::new(u64::from(start.0) * 1000) }))
    }

    /// The current second.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(u32::try_from(self.now_ms() / 1000).unwrap_or(u32::MAX))
    }

    fn now_ms(&self) -> u64 {
        match &*self.0 {
            Source::Boot { offset_ms } => boot_ms() + offset_ms.load(Ordering::Relaxed),
            Source::Manual { now_ms } => now_ms.load(Ordering::Relaxed),
        }
    }

    /// Moves the clock forward so that `now()` is at least `stamp`; never moves it back.
    ///
    /// Called with the newest stamp found on a device, so that a machine whose wall clock
    /// was reset does not bring expired entries back to life.
    pub fn anchor(&self, stamp: Timestamp) {
        let target_ms = u64::from(stamp.0) * 1000;
        let behind = target_ms.saturating_sub(self.now_ms());
        match &*self.0 {
            Source::Boot { offset_ms: at } | Source::Manual { now_ms: at } => {
                at.fetch_add(behind, Ordering::Relaxed);
            }
        }
    }

    /// Moves a manual clock forward by `duration`.
    ///
    /// # Panics
    /// Panics on a system clock: only tests move time.
    pub fn advance(&self, duration: Duration) {
        match &*self.0 {
            Source::Manual { now_ms } => {
                now_ms.fetch_add(millis(duration), Ordering::Relaxed);
            }
            Source::Boot { .. } => panic!("only a manual clock can be advanced"),
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn boot_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(|now| millis(now.into())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchoring_moves_forward_and_never_back() {
        let clock = Clock::manual(Timestamp(1000));
        clock.anchor(Timestamp(5000));
        assert_eq!(clock.now(), Timestamp(5000));
        clock.anchor(Timestamp(10));
        assert_eq!(clock.now(), Timestamp(5000));
        let clock = Clock::system();
        let ahead = clock.now().plus(Duration::from_secs(86_400));
        clock.anchor(ahead);
        assert!(clock.now() >= ahead);
    }

    #[test]
    fn the_system_clock_starts_at_the_wall_clock() {
        #[expect(clippy::disallowed_methods, reason = "the test compares with the wall clock")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::from(Clock::system().now().0).abs_diff(wall) <= 1);
    }
}
