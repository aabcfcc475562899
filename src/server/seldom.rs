//! Decides when something is logged that clients can bring about often: the first at once, then one line in
//! ten seconds, with a count.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two log lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often it happened since the last log line.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Counts one; returns the number to log if a line is due.
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
    fn what_is_frequent_is_told_once_in_ten_seconds_and_none_is_forgotten() {
        let start = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(async { Instant::now() });
        let mut seldom = Seldom::default();
        let mut told = Vec::new();
        for attempt in 0..600 {
            // The acceptor's pause between two attempts.
            told.extend(seldom.count(start + attempt * Duration::from_millis(50)));
        }
        assert_eq!(told, [1, 200, 200]);
        assert_eq!(seldom.count(start + Duration::from_secs(60)), Some(200));
    }
}
