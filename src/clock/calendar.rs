//! Dates in the notation of RFC 3339, always in UTC.

const SECONDS_PER_DAY: i64 = 86_400;
/// Days of four hundred years, after which the calendar repeats.
const DAYS_PER_400_YEARS: i64 = 146_097;
const DAYS_PER_100_YEARS: i64 = 36_524;
const DAYS_PER_4_YEARS: i64 = 1461;
/// From 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_1970: i64 = 719_468;

/// A second since the Unix epoch as `2026-01-31T23:59:59Z`.
pub(crate) fn date(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A millisecond since the Unix epoch as `2026-01-31T23:59:59.999Z`.
pub(crate) fn rfc3339(ms: i64) -> String {
    let mut text = date(ms.div_euclid(1000));
    text.pop();
    format!("{text}.{:03}Z", ms.rem_euclid(1000))
}

/// Year, month and day of the month of a day since 1 January 1970. Years begin in March here, so
/// that a leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_BEFORE_1970;
    let (era, day) = (day.div_euclid(DAYS_PER_400_YEARS), day.rem_euclid(DAYS_PER_400_YEARS));
    // The last day of an era, and of four years, is a leap day: it belongs to the year before.
    let century = (day / DAYS_PER_100_YEARS).min(3);
    let day = day - century * DAYS_PER_100_YEARS;
    let (period, day) = (day / DAYS_PER_4_YEARS, day % DAYS_PER_4_YEARS);
    let in_period = (day / 365).min(3);
    let mut in_year = day - in_period * 365;
    let mut month = 3;
    for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
        if in_year < length {
            break;
        }
        in_year -= length;
        month += 1;
    }
    let year = era * 400 + century * 100 + period * 4 + in_period + i64::from(month > 12);
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
            (4_294_967_295, "2106-02-07T06:28:15Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-2_203_891_200, "1900-03-01T00:00:00Z"),
            (13_569_465_600, "2400-01-01T00:00:00Z"),
        ] {
            assert_eq!(date(second), text);
        }
    }

    #[test]
    fn milliseconds_are_of_the_second_that_began() {
        for (ms, text) in [
            (1_800_000_000_007, "2027-01-15T08:00:00.007Z"),
            (999, "1970-01-01T00:00:00.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(-40_000);
        for day in -39_999..200_000 {
            let next = civil(day);
            let (year, month, last) = before;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
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
