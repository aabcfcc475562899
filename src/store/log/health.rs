//! Whether the device takes writes. Owns the count of failures in a row and the time of the next
//! attempt; does no I/O and decides nothing about entries.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures in a row from which on changes are refused. One is tolerated: a bad block is left behind
/// with its region.
const FAILURES_MIN: u32 = 2;
/// First and longest pause between attempts. Each attempt on a full file system gives up a region, so
/// they become rarer.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// Results of the last writes to a device.
#[derive(Debug, Default)]
pub(in crate::store) struct Health {
    refusing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failed data writes since the last successful one.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Health {
    /// Whether changes are refused: the device failed repeatedly and no attempt has succeeded since.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// Whether the last write of data failed.
    pub fn is_in_doubt(&self) -> bool {
        self.state.lock().failures > 0
    }

    /// When to try the device again, if changes are refused.
    pub fn retry_at(&self) -> Option<Instant> {
        self.state.lock().retry_at
    }

    /// Counts a failed write or flush of data. Gives the pause until the next attempt, if changes are
    /// refused from now on.
    pub fn failed(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES_MIN {
            return None;
        }
        let pause = pause(state.failures);
        state.retry_at = Some(Instant::now() + pause);
        self.refusing.store(true, Ordering::Release);
        Some(pause)
    }

    /// Makes the next attempt due at once, if changes are refused.
    pub fn hurry(&self) {
        if let Some(retry_at) = &mut self.state.lock().retry_at {
            *retry_at = Instant::now();
        }
    }

    /// An attempt failed: the next is due after the shortest pause.
    pub fn still_failing(&self) {
        let mut state = self.state.lock();
        state.retry_at = Some(Instant::now() + pause(FAILURES_MIN));
    }

    /// Ends the pause: writes go to the device again, but changes stay refused.
    pub fn end_pause(&self) {
        self.state.lock().retry_at = None;
    }

    /// An attempt succeeded: changes are accepted again, and will show whether data can be written too.
    pub fn accept(&self) {
        self.state.lock().retry_at = None;
        self.refusing.store(false, Ordering::Release);
    }

    /// Data was written; true if earlier writes had failed.
    pub fn succeeded(&self) -> bool {
        let mut state = self.state.lock();
        let failed = state.failures >= FAILURES_MIN;
        *state = State::default();
        self.refusing.store(false, Ordering::Release);
        failed
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FAILURES_MIN).min(16);
    PAUSES[0].saturating_mul(1 << doublings).min(PAUSES[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_failure_is_borne_and_more_are_refused_for_longer_and_longer() {
        let health = Health::default();
        assert_eq!(health.failed(), None);
        assert!(!health.is_refusing() && health.is_in_doubt());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.extend(health.failed());
            assert!(health.is_refusing());
            health.accept();
            assert!(!health.is_refusing() && health.retry_at().is_none());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16].map(Duration::from_secs));
        assert!(health.succeeded());
        assert!(!health.is_in_doubt() && !health.succeeded());
        assert_eq!(health.failed(), None);
    }
}
