//! Dates as people read them. Owns the notation, which is that of RFC 3339 in UTC; knows no time zones.

use crate::clock::Timestamp;

const SECONDS_PER_DAY: u32 = 86_400;
/// Days of four years, one of them a leap year; from 1970 to 2106 only 2100 breaks the rule.
const DAYS_PER_4_YEARS: u32 = 4 * 365 + 1;
/// 1 March 2100, counted from 1 March 1968: the day that would have been 29 February 2100.
const DAY_MISSING_IN_2100: u32 = 33 * DAYS_PER_4_YEARS - 1;
/// From 1 March 1968, the first day of a four-year period, to 1 January 1970.
const DAYS_BEFORE_1970: u32 = 365 + 306;

/// A second as `2026-01-31T23:59:59Z`.
pub fn date(time: Timestamp) -> String {
    let (day, second) = (time.0 / SECONDS_PER_DAY, time.0 % SECONDS_PER_DAY);
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the month of a day since 1 January 1970. Years begin in March here, so
/// that a leap day is the last of its year.
fn civil(day: u32) -> (u32, u32, u32) {
    let mut day = day + DAYS_BEFORE_1970;
    if day >= DAY_MISSING_IN_2100 {
        day += 1;
    }
    let (period, in_period) = (day / DAYS_PER_4_YEARS, day % DAYS_PER_4_YEARS);
    let year = (in_period / 365).min(3);
    let mut in_year = in_period - year * 365;
    let mut month = 3;
    for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
        if in_year < length {
            break;
        }
        in_year -= length;
        month += 1;
    }
    let year = 1968 + period * 4 + year + u32::from(month > 12);
    (year, (month - 1) % 12 + 1, in_year + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @N +%FT%TZ` says.
        for (second, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (68_256_000, "1972-03-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_704_067_200, "2024-01-01T00:00:00Z"),
            (1_800_000_000, "2027-01-15T08:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(date(Timestamp(second)), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..=u32::MAX / SECONDS_PER_DAY {
            let next = civil(day);
            let (year, month, last) = before;
            let leap = year % 4 == 0 && year != 2100;
            let length = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (month, last == length) {
                (_, false) => (year, month, last + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
            assert_eq!(next, expected);
            before = next;
        }
    }
}
