//! The wall clock at a start: right, or behind or ahead by seconds, years or ages. Owns what it
//! shows, and how far it may have misled the cache.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rawcached::cache::Cache;
use rawcached::clock::{Clock, Timestamp};
use tokio::time::Instant;

use super::{DAY, Run, START};
use crate::scenario::Theme;

/// A wall clock that is ahead by less is believed.
const BELIEVED: i64 = 366 * DAY;
/// After this time the cache has looked at a wall clock that was set right.
const LOOKED_AT: Duration = Duration::from_secs(3);
/// Seconds that rounding may put a cache ahead at each start.
const ROUNDING: i64 = 1;

/// What the wall clocks of a run may have done to cache time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Misled {
    /// Seconds that cache time may be ahead, since a clock was believed.
    ahead: i64,
    /// The device may have a pair of readings of a clock that was ahead by so many seconds: a clock
    /// ahead by less than a year more is believed.
    pair_ahead: i64,
}

impl Run {
    /// The clock of a new process.
    pub(super) fn clock(&self) -> Clock {
        let clock = Clock::manual(Timestamp(0));
        clock.set_wall(self.wall);
        clock.set_synchronised(self.is_synchronised);
        clock
    }

    /// Time passes between two lives, and the wall clock may be wrong after it.
    pub(super) fn pass_time(&mut self) {
        let mut down = self.rng.u32(0..20);
        let jump = if self.scenario().clock_jumps { self.rng.u32(0..6) } else { 6 };
        match jump {
            0 => down += self.rng.u32(0..100),
            1 => down += self.rng.u32(0..100_000),
            _ => {}
        }
        self.world.truth.fetch_add(down, Ordering::Relaxed);
        let right = self.world.right_wall();
        self.wall = match jump {
            // Before the format: no battery. More than a year ahead: a bad battery.
            2 => self.rng.i64(0..i64::from(START)),
            3 => right + self.rng.i64(366 * DAY..20_000 * DAY),
            _ => right,
        };
        self.is_synchronised = false;
        if self.scenario().theme == Theme::WrongClocks {
            self.draw_wall(right);
        }
        let behind = right - self.wall;
        let passed = i64::from(self.world.truth.load(Ordering::Relaxed)) - i64::from(START);
        if (1..=passed).contains(&behind) {
            let mut history = self.world.history.lock();
            history.believed_lag =
                history.believed_lag.saturating_add(u32::try_from(behind).unwrap());
        }
        let ahead = self.wall - right;
        if (1..=BELIEVED + self.misled.pair_ahead).contains(&ahead) {
            self.misled.ahead += ahead;
            self.misled.pair_ahead = self.misled.pair_ahead.max(ahead);
        }
        self.misled.ahead += ROUNDING;
    }

    fn draw_wall(&mut self, right: i64) {
        let rng = &mut self.extra;
        let off = match rng.u32(0..10) {
            0 => -rng.i64(1..100),
            1 => -rng.i64(DAY..800 * DAY),
            2 => rng.i64(1..100),
            3 => rng.i64(DAY..360 * DAY),
            4 => rng.i64(370 * DAY..20_000 * DAY),
            // Past 2106.
            5 => rng.i64(50_000 * DAY..1_000_000 * DAY),
            // Without a battery.
            6 => -right + rng.i64(0..DAY),
            _ => 0,
        };
        self.wall = right + off;
        self.is_synchronised = off == 0 && rng.bool();
    }

    /// Cache time is never ahead of true time, except as far as wrong clocks were believed.
    pub(super) fn check_time(&self, clock: &Clock) {
        let ahead = i64::from(clock.now().0) - i64::from(self.world.truth.load(Ordering::Relaxed));
        if ahead > self.misled.ahead {
            let misled = self.misled;
            let what = format!("cache time is {ahead} s ahead, where it may be {misled:?}");
            self.world.history.lock().violate(what);
        }
    }

    /// With a right clock every entry's age is known again, unless a wrong one was believed.
    pub(super) async fn check_age(&self, cache: &Cache, born: Instant) {
        let clock = cache.clock();
        clock.set_wall(self.world.right_wall());
        clock.set_synchronised(true);
        tokio::time::sleep(LOOKED_AT).await;
        if self.misled.pair_ahead == 0 && cache.stats().store.age_unknown {
            let what = "what is there is of unknown age for good".to_owned();
            self.world.history(born).violate(what);
        }
        self.check_time(clock);
    }
}
