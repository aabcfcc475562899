//! Goal: cache time and wall clock are never confused. Method: clocks that stand until they are set.

use super::*;

const DAY: i64 = 86_400;
const HOUR: Duration = Duration::from_secs(3600);

fn pair(cache: u32, wall: i64) -> TimePair {
    TimePair { cache: Timestamp(cache), wall }
}

/// A process that starts with its wall clock at `wall`.
fn started(wall: i64) -> Clock {
    let clock = Clock::manual(Timestamp(0));
    clock.set_wall(wall);
    clock
}

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
fn a_system_clock_begins_with_cache_time_and_knows_the_wall_clock() {
    #[expect(clippy::disallowed_methods, reason = "the test compares with the wall clock")]
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let clock = Clock::system();
    assert!(clock.now() <= Timestamp(1));
    assert!(clock.wall().abs_diff(wall.cast_signed()) <= 1);
    assert!(clock.pair().wall.abs_diff(clock.wall()) <= 1);
}

#[test]
fn the_wall_clock_moves_nothing_while_running() {
    let clock = started(1000);
    for wall in [0, -DAY, 90 * 365 * DAY, 200 * 365 * DAY] {
        clock.set_wall(wall);
        assert_eq!((clock.now(), clock.after(HOUR)), (Timestamp(0), Timestamp(3600)));
        assert_eq!(clock.until_wall(wall + 7), Duration::from_secs(7));
        assert_eq!(clock.until_wall(wall), Duration::ZERO);
        assert_eq!(clock.until_wall(wall - 1), Duration::ZERO);
        assert_eq!(clock.wall_at(Timestamp(5)), wall + 5);
    }
    assert_eq!(clock.until_wall(i64::MIN), Duration::ZERO);
    assert!(clock.until_wall(i64::MAX) > HOUR);
    assert_eq!(clock.after(Duration::MAX), Timestamp(10 * 365 * 86_400));
    clock.anchor(Timestamp::MAX);
    assert_eq!((clock.now(), clock.after(HOUR)), (Timestamp::MAX, Timestamp::MAX));
}

#[test]
fn a_lifetime_that_ends_at_a_calendar_time_does_not_outlast_it() {
    // The seconds of the two clocks begin at different moments.
    for (cache_ms, wall_ms) in [(0, 999), (999, 0), (400, 700), (700, 400), (0, 0)] {
        let clock = Clock::manual(Timestamp(10));
        clock.of_test().0.fetch_add(cache_ms, Ordering::Relaxed);
        clock.of_test().1.store(50_000 + wall_ms, Ordering::Relaxed);
        for at in 51..55 {
            let end_ms = clock.after(clock.until_wall(at)).millis();
            let at_ms = clock.now_ms() + at * 1000 - clock.wall_ms();
            assert!(end_ms <= at_ms && end_ms > at_ms - 1000, "{cache_ms} {wall_ms} {at}");
        }
    }
}

#[test]
fn dates_do_not_change_while_the_clocks_run() {
    let clock = started(1_000_000);
    clock.of_test().1.fetch_add(499, Ordering::Relaxed);
    let date = clock.wall_at(Timestamp(3));
    for drift_ms in [1, 1, 300, -900] {
        clock.of_test().1.fetch_add(drift_ms, Ordering::Relaxed);
        assert_eq!(clock.wall_at(Timestamp(3)), date);
    }
}

#[test]
fn a_start_goes_on_after_the_time_down() {
    let clock = started(5000 + DAY);
    assert_eq!(
        clock.resume(pair(700, 5000)),
        TimeDown::Known(Duration::from_secs(DAY.unsigned_abs()))
    );
    assert_eq!(clock.now(), Timestamp(700 + 86_400));
    assert!(!clock.has_left(clock.pair()));
}

#[test]
fn an_absurd_time_down_is_unknown_until_the_wall_clock_can_be_believed() {
    for wall in [4999, -DAY, 5000 + 365 * DAY + 1] {
        let clock = started(wall);
        assert_eq!(clock.resume(pair(700, 5000)), TimeDown::Unknown);
        clock.advance(Duration::from_secs(30));
        assert_eq!((clock.now(), clock.pair()), (Timestamp(730), pair(730, 5030)));
        // A wall clock that is early stays early as time passes.
        assert_eq!(clock.resume_again(), Some(TimeDown::Unknown));
        assert!(clock.is_unknown());
        clock.set_wall(5000 + 400 * DAY);
        assert_eq!(clock.resume_again(), Some(TimeDown::Unknown));
        clock.set_synchronised(true);
        assert!(matches!(clock.resume_again(), Some(TimeDown::Known(_))));
        assert_eq!(clock.now(), Timestamp(700 + 400 * 86_400));
        assert_eq!(clock.pair(), pair(700 + 400 * 86_400, 5000 + 400 * DAY));
        assert_eq!((clock.resume_again(), clock.is_unknown()), (None, false));
    }
}

#[test]
fn a_stamp_that_is_later_than_the_wall_clock_says_makes_the_time_down_unknown() {
    let clock = started(5000 + 3600);
    assert!(matches!(clock.resume(pair(700, 5000)), TimeDown::Known(_)));
    clock.anchor(Timestamp(700 + 3600));
    assert!(!clock.is_unknown());
    clock.anchor(Timestamp(700 + 7200));
    assert!(clock.is_unknown());
    assert_eq!(clock.pair(), pair(700 + 7200, 5000 + 7200));
    clock.set_wall(5000 + 3 * 3600);
    clock.set_synchronised(true);
    assert_eq!(clock.resume_again(), Some(TimeDown::Known(HOUR)));
    assert_eq!(clock.now(), Timestamp(700 + 3 * 3600));
}

#[test]
fn a_pair_from_a_clock_that_was_ahead_says_nothing() {
    let clock = started(4000);
    clock.set_synchronised(true);
    assert_eq!(clock.resume(pair(700, 5000)), TimeDown::Lost);
    assert_eq!((clock.now(), clock.pair()), (Timestamp(700), pair(700, 4000)));
}

#[test]
fn a_wall_clock_that_was_decades_off_does_not_use_cache_time_up() {
    let clock = started(1_800_000_000);
    clock.set_synchronised(true);
    assert!(matches!(clock.resume(pair(700, 0)), TimeDown::Known(_)));
    assert_eq!(clock.now(), Timestamp(700 + 10 * 365 * 86_400));
    assert_eq!(clock.pair().wall, 1_800_000_000);
}

#[test]
fn a_start_never_goes_on_too_early() {
    // Both clocks advance equally between storing the pair and the next start.
    for (cache_ms, wall_ms) in [(999, 0), (0, 999), (400, 700), (700, 400), (500, 500)] {
        for down_ms in [0, 1, 250, 999, 1001] {
            let stored = TimePair::of_millis(10_000 + cache_ms, 50_000 + wall_ms);
            let clock = started(0);
            clock.of_test().1.store(50_000 + wall_ms + down_ms, Ordering::Relaxed);
            clock.resume(stored);
            let early_ms = clock.now_ms() - (10_000 + cache_ms + down_ms);
            assert!((0..1000).contains(&early_ms), "{cache_ms} {wall_ms} {down_ms}");
        }
    }
}

#[test]
fn a_wall_clock_that_was_set_is_noticed() {
    let clock = started(5000);
    let stored = clock.pair();
    clock.advance(HOUR);
    assert!(!clock.has_left(stored));
    for (step, left) in [(0, false), (2, false), (3, true), (-1, true), (DAY, true)] {
        clock.set_wall(5000 + 3600 + step);
        assert_eq!(clock.has_left(stored), left, "{step}");
    }
}
