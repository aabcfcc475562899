//! Real time, for tests of code whose clock cannot be set.

use std::time::{Duration, Instant};

/// Longest wait for anything a test expects another process to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest wait for anything a test expects of a server in its own process.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; false if it never does.
pub fn eventually(condition: impl FnMut() -> bool) -> bool {
    eventually_within(PATIENCE, condition)
}

/// As [`eventually`], but waits no longer than `patience`.
pub fn eventually_within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = now();
    while start.elapsed() < patience {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// The time, for deadlines and for how old an acknowledgement is.
#[allow(clippy::disallowed_methods, reason = "real processes run in real time")]
pub fn now() -> Instant {
    Instant::now()
}
