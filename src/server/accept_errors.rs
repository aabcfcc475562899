//! Decides when failed accepts are logged: the first at once, then one line in ten seconds, with a count.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two log lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Accepts that failed since the last log line.
#[derive(Default)]
pub(super) struct AcceptErrors {
    told_at: Option<Instant>,
    untold: u64,
}

impl AcceptErrors {
    /// Counts a failure; returns the number of failures to log if a line is due.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told_at.is_some_and(|told_at| now.duration_since(told_at) < INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_once_in_ten_seconds_and_none_is_forgotten() {
        let start = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(async { Instant::now() });
        let mut errors = AcceptErrors::default();
        let mut told = Vec::new();
        for attempt in 0..600 {
            // The acceptor's pause between two attempts.
            told.extend(errors.count(start + attempt * Duration::from_millis(50)));
        }
        assert_eq!(told, [1, 200, 200]);
        assert_eq!(errors.count(start + Duration::from_secs(60)), Some(200));
    }
}
