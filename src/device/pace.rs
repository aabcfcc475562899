//! Whether a device has become slow, judged by its own past. Owns the history and the verdict; takes
//! times as values, never measures or looks at a clock.
//!
//! Each second with enough transfers counts with its median. On a sound device too a transfer takes long
//! when many are under way, and its share of the time is long when it is alone. So a device is slow only
//! when both the time and the share are ten times what they were. Reads and writes are judged apart, and
//! short and long ones: on a hard disk a sequential transfer takes a tenth of one with a seek.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::OperationKind;

/// Shortest time of a window, and transfers that it needs.
const WINDOW: Duration = Duration::from_secs(1);
const SAMPLES_MIN: usize = 4;
/// Most transfers that count in a window: the last ones.
const SAMPLES_MAX: usize = 64;

/// Windows that make a history: before that nothing is slow.
const HISTORY_MIN: u32 = 16;
/// Weight in the history of a sound window, and of another: after hours a slow pace is the usual one.
const WEIGHT: f64 = 1.0 / 64.0;
const WEIGHT_SLOW: f64 = 1.0 / 65536.0;

/// A transfer is slow at this many times its usual time, if it takes this many microseconds at least.
const SLOW_FACTOR: f64 = 10.0;
const SLOW_US_MIN: f64 = 5_000.0;

/// How long a device is slow before it counts as degraded.
const DEGRADED_AFTER: Duration = Duration::from_secs(30);
/// How long it must be sound, or without transfers, until it no longer counts as degraded.
const SOUND_AFTER: Duration = Duration::from_secs(10);
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Longest short and longest medium transfer, in bytes.
const CLASS_LEN_MAX: [usize; 2] = [16 << 10, 256 << 10];
const CLASSES: usize = CLASS_LEN_MAX.len() + 1;

/// One in this many reads for clients is timed.
const TIMED_ONE_IN: u32 = 4;

/// What a transfer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub len: usize,
    pub elapsed: Duration,
    /// Transfers under way when it began, itself among them.
    pub under_way: u64,
}

/// The pace of one device.
#[derive(Default)]
pub(super) struct Pace {
    is_degraded: AtomicBool,
    reads_seen: AtomicU32,
    reads: Mutex<[Track; CLASSES]>,
    writes: Mutex<[Track; CLASSES]>,
}

/// The pace of its reads, or its writes, of about one length.
#[derive(Default)]
struct Track {
    window_from: Duration,
    /// Of each transfer its time and its share of the time, in microseconds.
    samples: Vec<(f64, f64)>,
    next: usize,
    usual: (f64, f64),
    windows: u32,
    slow_since: Option<Duration>,
    sound_since: Option<Duration>,
    is_degraded: bool,
    last: Duration,
}

impl Pace {
    /// Whether to time the next read for a client.
    pub fn wants_read(&self) -> bool {
        self.reads_seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIMED_ONE_IN)
    }

    /// Notes a transfer that is over; `now` is the time since any fixed moment. If that changes the
    /// verdict, returns whether the device now counts as degraded.
    pub fn record(&self, kind: OperationKind, taken: Taken, now: Duration) -> Option<bool> {
        let tracks = match kind {
            OperationKind::Read => &self.reads,
            OperationKind::Write => &self.writes,
            // A flush may have any number of bytes to write.
            OperationKind::Flush => return None,
        };
        let was_degraded = {
            let track = &mut tracks.lock()[class_of(taken.len)];
            let before = track.is_degraded;
            track.record(taken, now);
            if track.is_degraded == before {
                return None;
            }
            before
        };
        self.publish(!was_degraded, now)
    }

    /// Whether the device has been ten times slower than usual for half a minute.
    pub fn is_degraded(&self, now: impl FnOnce() -> Duration) -> bool {
        if !self.is_degraded.load(Ordering::Relaxed) {
            return false;
        }
        self.publish(false, now());
        self.is_degraded.load(Ordering::Relaxed)
    }

    fn publish(&self, is_known: bool, now: Duration) -> Option<bool> {
        let limps = |tracks: &Mutex<[Track; CLASSES]>| {
            let mut tracks = tracks.lock();
            tracks.iter_mut().for_each(|track| track.forget_if_silent(now));
            tracks.iter().any(|track| track.is_degraded)
        };
        let is_degraded = is_known || limps(&self.reads) || limps(&self.writes);
        let changed = self.is_degraded.swap(is_degraded, Ordering::Relaxed) != is_degraded;
        changed.then_some(is_degraded)
    }
}

impl Track {
    fn record(&mut self, taken: Taken, now: Duration) {
        self.forget_if_silent(now);
        self.last = now;
        let us = taken.elapsed.as_secs_f64() * 1e6;
        let sample = (us, us / approximate(taken.under_way.max(1)));
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        } else {
            self.samples[self.next % SAMPLES_MAX] = sample;
        }
        self.next += 1;
        if now.saturating_sub(self.window_from) >= WINDOW && self.samples.len() >= SAMPLES_MIN {
            self.close_window(now);
        }
    }

    fn close_window(&mut self, now: Duration) {
        let all = median(self.samples.iter().map(|sample| sample.0));
        let share = median(self.samples.iter().map(|sample| sample.1));
        let from = std::mem::replace(&mut self.window_from, now);
        self.samples.clear();
        self.next = 0;
        self.judge((all, share), from.max(now.saturating_sub(2 * WINDOW)), now);
    }

    fn judge(&mut self, median: (f64, f64), from: Duration, now: Duration) {
        let exceeds = |factor: f64| {
            median.0 >= SLOW_US_MIN
                && median.0 >= factor * self.usual.0
                && median.1 >= factor * self.usual.1
        };
        let has_history = self.windows >= HISTORY_MIN;
        let is_slow = has_history && exceeds(SLOW_FACTOR);
        let is_sound = !has_history || !exceeds(SLOW_FACTOR / 2.0);
        // In between nothing changes: one better window does not end a slow time.
        if is_slow {
            self.slow_since.get_or_insert(from);
        } else if is_sound {
            self.slow_since = None;
        }
        self.sound_since = is_sound.then(|| self.sound_since.unwrap_or(from));
        let lasts = |since: Option<Duration>, time| since.is_some_and(|since| now - since >= time);
        if lasts(self.slow_since, DEGRADED_AFTER) {
            self.is_degraded = true;
        } else if lasts(self.sound_since, SOUND_AFTER) {
            self.is_degraded = false;
        }
        self.learn(median, is_sound);
    }

    fn learn(&mut self, median: (f64, f64), is_sound: bool) {
        self.windows = self.windows.saturating_add(1);
        let weight = match (is_sound, self.windows) {
            (false, _) => WEIGHT_SLOW,
            (true, windows) => WEIGHT.max(1.0 / f64::from(windows)),
        };
        self.usual.0 += weight * (median.0 - self.usual.0);
        self.usual.1 += weight * (median.1 - self.usual.1);
    }

    /// Without transfers nobody knows whether the device is still slow: it gets another try.
    fn forget_if_silent(&mut self, now: Duration) {
        if now.saturating_sub(self.last) >= SILENT_AFTER {
            (self.slow_since, self.sound_since, self.is_degraded) = (None, None, false);
            self.samples.clear();
            (self.next, self.window_from, self.last) = (0, now, now);
        }
    }
}

fn class_of(len: usize) -> usize {
    CLASS_LEN_MAX.iter().filter(|max| len > **max).count()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[expect(clippy::cast_precision_loss, reason = "for comparing times only")]
fn approximate(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace, and the time at the device.
    struct Life {
        pace: Pace,
        now: Duration,
    }

    impl Life {
        fn new() -> Life {
            Life { pace: Pace::default(), now: Duration::from_secs(5000) }
        }

        /// Ten reads a second for `seconds`, each of `elapsed_ms` with `under_way` in all; true if the
        /// device counts as degraded at the end.
        fn reads(&mut self, seconds: u32, elapsed_ms: u64, under_way: u64) -> bool {
            for _ in 0..seconds * 10 {
                self.now += Duration::from_millis(100);
                let elapsed = Duration::from_millis(elapsed_ms);
                let taken = Taken { len: 4096, elapsed, under_way };
                self.pace.record(OperationKind::Read, taken, self.now);
            }
            self.pace.is_degraded(|| self.now)
        }
    }

    #[test]
    fn ten_times_slower_for_half_a_minute_is_degraded_until_it_is_over() {
        let mut life = Life::new();
        assert!(!life.reads(60, 2, 1));
        assert!(!life.reads(28, 30, 1), "not yet");
        assert!(life.reads(6, 30, 1));
        assert!(life.reads(300, 30, 1), "and it stays so");
        assert!(life.reads(8, 2, 1), "a few good seconds are no proof");
        assert!(!life.reads(6, 2, 1));
    }

    #[test]
    fn a_short_hiccup_is_borne() {
        let mut life = Life::new();
        life.reads(60, 2, 1);
        for _ in 0..10 {
            assert!(!life.reads(25, 100, 1));
            assert!(!life.reads(5, 2, 1));
        }
    }

    #[test]
    fn a_load_is_no_limp() {
        let mut life = Life::new();
        life.reads(60, 2, 1);
        // 64 at a time on a device that serves one after another, and then one at a time again.
        assert!(!life.reads(120, 128, 64));
        assert!(!life.reads(120, 2, 1));
        // On a device that serves them in parallel, the share of each was a 64th.
        let mut life = Life::new();
        life.reads(60, 6, 64);
        assert!(!life.reads(120, 6, 1));
    }

    #[test]
    fn long_transfers_say_nothing_of_short_ones() {
        let mut life = Life::new();
        // Sequential reads for five minutes, and then reads that a hard disk has to seek for.
        for _ in 0..3000 {
            life.now += Duration::from_millis(100);
            let elapsed = Duration::from_micros(1300);
            let taken = Taken { len: 1 << 20, elapsed, under_way: 1 };
            life.pace.record(OperationKind::Read, taken, life.now);
        }
        assert!(!life.reads(300, 14, 1));
        assert!(life.reads(40, 150, 1), "those have a past of their own");
    }

    #[test]
    fn what_is_fast_anyway_is_not_slow() {
        let mut life = Life::new();
        life.reads(60, 0, 1);
        assert!(!life.reads(120, 4, 1));
    }

    #[test]
    fn without_history_or_transfers_nothing_is_degraded() {
        let mut life = Life::new();
        assert!(!life.reads(10, 2, 1));
        assert!(!life.reads(600, 50, 1), "it may always have been so");
        let mut life = Life::new();
        life.reads(60, 2, 1);
        assert!(life.reads(40, 50, 1));
        life.now += Duration::from_secs(59);
        assert!(life.pace.is_degraded(|| life.now));
        life.now += Duration::from_secs(1);
        assert!(!life.pace.is_degraded(|| life.now), "it is to be tried again");
        assert!(!life.reads(28, 50, 1));
        assert!(life.reads(6, 50, 1), "and was judged by the same history");
    }

    #[test]
    fn after_hours_a_pace_is_the_usual_one() {
        let mut life = Life::new();
        life.reads(60, 2, 1);
        assert!(life.reads(40, 30, 1));
        assert!(!life.reads(4 * 3600, 30, 1));
    }
}
