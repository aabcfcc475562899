//! What a client's `exptime` means. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// Numbers of seconds up to this one are relative to now, larger ones are Unix times.
const RELATIVE_SECS_MAX: u64 = 30 * 24 * 60 * 60;

/// The lifetime that `exptime` asks for at `now`: zero for one that is over already, and
/// `ttl_max` for one that never ends or lasts longer.
pub(super) fn lifetime(exptime: i64, now: Timestamp, ttl_max: Duration) -> Duration {
    let secs = match u64::try_from(exptime) {
        Err(_) => 0,
        Ok(0) => return ttl_max,
        Ok(relative @ 1..=RELATIVE_SECS_MAX) => relative,
        Ok(absolute) => absolute.saturating_sub(u64::from(now.0)),
    };
    Duration::from_secs(secs).min(ttl_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_follow_the_protocol() {
        const DAY: u64 = 86_400;
        let now = Timestamp(1_700_000_000);
        let ttl_max = Duration::from_secs(365 * DAY);
        let cases = [
            (0, 365 * DAY),
            (-1, 0),
            (i64::MIN, 0),
            (1, 1),
            (2_592_000, 30 * DAY),
            (2_592_001, 0),
            (1_700_000_000, 0),
            (1_700_000_005, 5),
            (i64::MAX, 365 * DAY),
        ];
        for (exptime, secs) in cases {
            assert_eq!(lifetime(exptime, now, ttl_max).as_secs(), secs, "{exptime}");
        }
    }
}
