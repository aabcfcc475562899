//! Whether the device takes writes. Owns how many failed in a row and when to try again; does no
//! I/O and decides about no entry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures in a row from which on changes are refused: a single bad block is left behind with its
/// region.
const FAILURES_MIN: u32 = 2;
/// First and longest pause between two attempts. Each attempt on a full file system gives up a
/// region, so they get rarer.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

/// What the last writes of one device came to.
#[derive(Debug, Default)]
pub(in crate::store) struct Health {
    refusing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Writes of data that failed since the last one that did not.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Health {
    /// Whether changes are refused: the device failed again and again, and was not tried since.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// Whether the last write of data failed.
    pub fn is_in_doubt(&self) -> bool {
        self.state.lock().failures > 0
    }

    /// When the device is to be tried, if changes are refused.
    pub fn retry_at(&self) -> Option<Instant> {
        self.state.lock().retry_at
    }

    /// A write or flush of data failed; gives the pause until the next attempt, if changes are
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

    /// Has the device tried at once, if it is to be tried at all.
    pub fn hurry(&self) {
        if let Some(retry_at) = &mut self.state.lock().retry_at {
            *retry_at = Instant::now();
        }
    }

    /// An attempt failed: the device is as it was.
    pub fn still_failing(&self) {
        let mut state = self.state.lock();
        state.retry_at = Some(Instant::now() + pause(FAILURES_MIN));
    }

    /// Has writes tried from now on as if nothing had failed; changes stay refused.
    pub fn end_pause(&self) {
        self.state.lock().retry_at = None;
    }

    /// An attempt succeeded: changes are accepted, and show whether data can be written too.
    pub fn accept(&self) {
        self.state.lock().retry_at = None;
        self.refusing.store(false, Ordering::Release);
    }

    /// Data was written; true if it could not be before.
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
