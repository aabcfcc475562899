//! Readings of cache time and wall clock at the same moment, and how much time has passed at a later
//! reading. Pure.

use std::time::Duration;

use super::timestamp::Timestamp;

/// Longest time down that is credible from a wall clock that is not synchronised.
const DOWN_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The stored pair is not written again while a start from it would be late by at most this.
const LATE_MS_MAX: i64 = 2000;
/// The same for early, where entries would live too long. Reading the two clocks one after the other
/// may cause this much.
pub(super) const EARLY_MS_MAX: i64 = 100;

/// Cache time and wall clock at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimePair {
    /// The cache's clock.
    pub cache: Timestamp,
    /// The wall clock in seconds since the Unix epoch, rounded down: a start from it is never early in
    /// cache time.
    pub wall: i64,
}

/// How long a cache was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeDown {
    /// This long, by the wall clock.
    Known(Duration),
    /// The wall clock shows an implausible time, but is not synchronised: it may be right later.
    Unknown,
    /// The wall clock is synchronised but earlier than in the stored pair: it was wrong then, and the
    /// time down can never be known.
    Lost,
}

impl TimeDown {
    pub(super) fn judge(down_ms: i64, synchronised: bool) -> TimeDown {
        let down_ms = if down_ms >= -EARLY_MS_MAX { down_ms.max(0) } else { down_ms };
        match u64::try_from(down_ms).map(Duration::from_millis) {
            Ok(down) if down <= DOWN_MAX || synchronised => TimeDown::Known(down),
            Err(_) if synchronised => TimeDown::Lost,
            Ok(_) | Err(_) => TimeDown::Unknown,
        }
    }
}

impl TimePair {
    pub(super) fn of_millis(cache_ms: i64, wall_ms: i64) -> TimePair {
        let cache = Timestamp::of_millis(cache_ms);
        let since_second = cache_ms - cache.millis();
        TimePair { cache, wall: (wall_ms - since_second).div_euclid(1000) }
    }

    /// The pair at another cache time, if the wall clock was not set in between.
    #[must_use]
    pub fn at(self, cache: Timestamp) -> TimePair {
        TimePair { cache, wall: self.wall_at(cache) }
    }

    /// What the wall clock showed, or will show, at `stamp`, if it was not set in between: seconds
    /// since the Unix epoch.
    #[must_use]
    pub fn wall_at(self, stamp: Timestamp) -> i64 {
        self.wall.saturating_add(i64::from(stamp.0) - i64::from(self.cache.0))
    }

    /// How much later it is by the wall clock than by the cache's clock, both counted from this pair,
    /// in milliseconds.
    pub(super) fn late_ms(self, cache_ms: i64, wall_ms: i64) -> i64 {
        let by_wall = wall_ms.saturating_sub(self.wall.saturating_mul(1000));
        by_wall.saturating_sub(cache_ms.saturating_sub(self.cache.millis()))
    }

    pub(super) fn is_off(self, cache_ms: i64, wall_ms: i64) -> bool {
        !(-EARLY_MS_MAX..=LATE_MS_MAX).contains(&self.late_ms(cache_ms, wall_ms))
    }
}
