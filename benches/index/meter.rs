//! What an index costs: CPU time, memory and the longest step. Owns the clocks; asserts nothing.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Operations between two looks at the clock. The longest such batch bounds the longest operation.
const BATCH: u64 = 64;

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).expect("Linux has this clock")
}

/// CPU time of this thread: other programs on the machine do not count.
pub fn cpu_time() -> Duration {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Memory of this process that is resident, in bytes.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}

/// What a row of operations took.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub count: u64,
    pub cpu: Duration,
    /// Upper bounds of the longest operation: CPU time and time on the wall.
    pub longest_cpu: Duration,
    pub longest_wall: Duration,
}

impl Cost {
    /// Runs `operation` for each number.
    pub fn of(numbers: std::ops::Range<u64>, mut operation: impl FnMut(u64)) -> Cost {
        let mut cost = Cost { count: numbers.end - numbers.start, ..Cost::default() };
        let started = (cpu_time(), read(ClockId::CLOCK_MONOTONIC));
        let mut before = started;
        for n in numbers.clone() {
            operation(n);
            if (n + 1 - numbers.start).is_multiple_of(BATCH) || n + 1 == numbers.end {
                let now = (cpu_time(), read(ClockId::CLOCK_MONOTONIC));
                cost.longest_cpu = cost.longest_cpu.max(now.0 - before.0);
                cost.longest_wall = cost.longest_wall.max(now.1 - before.1);
                before = now;
            }
        }
        cost.cpu = before.0 - started.0;
        cost
    }

    pub fn and(self, other: Cost) -> Cost {
        Cost {
            count: self.count + other.count,
            cpu: self.cpu + other.cpu,
            longest_cpu: self.longest_cpu.max(other.longest_cpu),
            longest_wall: self.longest_wall.max(other.longest_wall),
        }
    }

    pub fn ns(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / ratio(self.count, 1)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are below 2^53")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
