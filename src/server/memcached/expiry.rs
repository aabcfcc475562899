//! What a client's `exptime` means.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Clock;

/// Numbers of seconds up to this one are relative to now, larger ones are Unix times.
const RELATIVE_SECS_MAX: u64 = 30 * 24 * 60 * 60;
/// Numbers that memcached reads as negative, in 32 bits; clients with unsigned times send them so.
const NEGATIVE: RangeInclusive<u64> = 1 << 31..=u32::MAX as u64;

/// Lifetimes that the operator has set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    /// Of entries stored without one.
    pub(super) default: Duration,
    /// The longest.
    pub(super) max: Duration,
}

/// The lifetime that `exptime` asks for now: zero if it is over already, the default if it asks for
/// none. Unix times are compared with the wall clock.
pub(super) fn lifetime(exptime: i64, clock: &Clock, lifetimes: Lifetimes) -> Duration {
    let asked = match u64::try_from(exptime) {
        Err(_) => Duration::ZERO,
        Ok(0) => lifetimes.default,
        Ok(relative @ 1..=RELATIVE_SECS_MAX) => Duration::from_secs(relative),
        Ok(absolute) if NEGATIVE.contains(&absolute) => Duration::ZERO,
        Ok(_) => clock.until_wall(exptime),
    };
    asked.min(lifetimes.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn lifetimes_follow_the_protocol() {
        const DAY: u64 = 86_400;
        // The cache's own clock does not matter.
        let clock = Clock::manual(Timestamp(5));
        clock.set_wall(1_700_000_000);
        let (default, max) = (Duration::from_secs(3600), Duration::from_secs(365 * DAY));
        let lifetimes = Lifetimes { default, max };
        let cases = [
            (0, 3600),
            (-1, 0),
            (i64::MIN, 0),
            (1, 1),
            (2_592_000, 30 * DAY),
            (2_592_001, 0),
            (1_700_000_000, 0),
            (1_700_000_005, 5),
            ((1 << 31) - 1, 365 * DAY),
            (1 << 31, 0),
            ((1 << 32) - 1, 0),
            (1 << 32, 365 * DAY),
            (i64::MAX, 365 * DAY),
        ];
        for (exptime, secs) in cases {
            assert_eq!(lifetime(exptime, &clock, lifetimes).as_secs(), secs, "{exptime}");
        }
    }
}
