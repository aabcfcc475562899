//! The progress of recovery, reported to the service manager and on a terminal. Owns the wording.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::time::{Interval, interval};

use super::log_queue::LogQueue;
use crate::cache::{Cache, RecoveryStats};

/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(1);
const BAR_LEN: usize = 30;

/// Reports the progress of recovery, once a second.
pub struct RecoveryProgress {
    ticks: Interval,
    /// Where the bar is drawn: a terminal may be stopped.
    output: LogQueue,
    shows_bar: bool,
    is_shown: bool,
}

impl RecoveryProgress {
    pub fn new(output: &LogQueue) -> RecoveryProgress {
        let mut ticks = interval(INTERVAL);
        ticks.reset();
        let (output, shows_bar) = (output.clone(), io::stderr().is_terminal());
        RecoveryProgress { ticks, output, shows_bar, is_shown: false }
    }

    /// Waits until the next report is due.
    pub async fn next(&mut self, cache: &Cache) -> RecoveryStats {
        self.ticks.tick().await;
        cache.stats().store.recovery
    }

    /// Draws the bar if there is a terminal; returns the text for the service manager.
    pub fn show(&mut self, stats: &RecoveryStats) -> String {
        if self.shows_bar {
            self.output.push(format!("\r{}", bar(stats)).as_bytes());
            self.is_shown = true;
        }
        let percent = stats.ratio() * 100.0;
        format!("recovering, {percent:.0} % done; already serving")
    }

    /// Completes the bar and ends its line.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            self.output.push(format!("\r{}\n", bar(&RecoveryStats::complete())).as_bytes());
        }
    }
}

fn bar(stats: &RecoveryStats) -> String {
    let full = (1..=BAR_LEN).filter(|n| *n as f64 <= stats.ratio() * BAR_LEN as f64).count();
    let (full, empty) = ("#".repeat(full), "-".repeat(BAR_LEN - full));
    format!("recovering [{full}{empty}] {:3.0} %", stats.ratio() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_what_is_done() {
        assert_eq!(
            bar(&RecoveryStats::default()),
            format!("recovering [{}]   0 %", "-".repeat(30))
        );
        let (headers, regions) = (12, 9);
        let half = RecoveryStats {
            headers_total: headers,
            headers_done: headers,
            regions_total: regions,
            regions_done: regions,
            ..RecoveryStats::default()
        };
        let drawn = format!("recovering [{}{}]  50 %", "#".repeat(15), "-".repeat(15));
        assert_eq!(bar(&half), drawn);
        assert!(bar(&RecoveryStats::complete()).ends_with("100 %"));
    }
}
