//! When requests are to be made: as soon as there is room, or at even intervals whatever the
//! server does. Pure; never reads a clock.

use std::time::Duration;

/// How long a phase lasts and how fast it goes, over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phase {
    /// Makes no request later than this after the beginning.
    pub duration: Option<Duration>,
    /// Makes at most so many requests.
    pub operations: Option<u64>,
    /// Open loop: requests a second, made when they are due and not when there is room.
    pub rate: Option<f64>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Make a request that was due at this time.
    Now(Duration),
    /// The next one is due at this time.
    Later(Duration),
    /// Make no more.
    Never,
}

/// The part of one thread in a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    until: Duration,
    operations: u64,
    /// When the first request is due and the seconds to each next one; `None` in a closed loop.
    schedule: Option<(f64, f64)>,
    made: u64,
}

impl Pace {
    /// The part of thread `number` of `threads`.
    pub(super) fn new(phase: &Phase, number: u64, threads: u64) -> Pace {
        let share = |all: u64| all / threads + u64::from(number < all % threads);
        Pace {
            until: phase.duration.unwrap_or(Duration::MAX),
            operations: phase.operations.map_or(u64::MAX, share),
            schedule: phase.rate.map(|rate| (fraction(number, rate), fraction(threads, rate))),
            made: 0,
        }
    }

    pub(super) fn turn(&self, now: Duration) -> Turn {
        if self.made >= self.operations {
            return Turn::Never;
        }
        let Some((first, gap)) = self.schedule else {
            return if now < self.until { Turn::Now(now) } else { Turn::Never };
        };
        let due = Duration::from_secs_f64(first + gap * fraction(self.made, 1.0));
        if due >= self.until {
            Turn::Never
        } else if due <= now {
            Turn::Now(due)
        } else {
            Turn::Later(due)
        }
    }

    /// A request was made.
    pub(super) fn advance(&mut self) {
        self.made += 1;
    }

    /// There are no more requests.
    pub(super) fn end(&mut self) {
        self.operations = self.made;
    }

    pub(super) fn is_open_loop(&self) -> bool {
        self.schedule.is_some()
    }

    /// True if an open loop has taken twice its planned time and 5 s: the server is too far behind.
    pub(super) fn gives_up(&self, now: Duration) -> bool {
        let Some((_, gap)) = self.schedule else { return false };
        let planned = gap * fraction(self.operations, 1.0);
        let planned = planned.min(self.until.as_secs_f64());
        now.as_secs_f64() > 2.0 * planned + 5.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
fn fraction(part: u64, whole: f64) -> f64 {
    part as f64 / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn an_open_loop_is_due_at_its_rate_whatever_the_time() {
        let phase = Phase { duration: Some(MS(1000)), operations: None, rate: Some(200.0) };
        let mut pace = Pace::new(&phase, 1, 2);
        assert_eq!(pace.turn(MS(0)), Turn::Later(MS(5)));
        assert_eq!(pace.turn(MS(900)), Turn::Now(MS(5)));
        pace.advance();
        assert_eq!(pace.turn(MS(900)), Turn::Now(MS(15)));
        for _ in 0..98 {
            pace.advance();
        }
        assert_eq!(pace.turn(MS(2000)), Turn::Now(MS(995)));
        pace.advance();
        assert_eq!(pace.turn(MS(2000)), Turn::Never);
    }

    #[test]
    fn a_closed_loop_is_due_now_until_time_or_operations_end() {
        let phase = Phase { duration: Some(MS(1000)), operations: Some(5), rate: None };
        let mut pace = Pace::new(&phase, 0, 2);
        for _ in 0..3 {
            assert_eq!(pace.turn(MS(999)), Turn::Now(MS(999)));
            assert_eq!(pace.turn(MS(1000)), Turn::Never);
            pace.advance();
        }
        assert_eq!(pace.turn(MS(1)), Turn::Never);
        assert!(!pace.gives_up(MS(1_000_000)));
    }

    #[test]
    fn an_open_loop_gives_up_on_a_server_far_behind() {
        let phase = Phase { duration: None, operations: Some(100), rate: Some(100.0) };
        let pace = Pace::new(&phase, 0, 1);
        assert!(!pace.gives_up(MS(6900)));
        assert!(pace.gives_up(MS(7100)));
    }
}
