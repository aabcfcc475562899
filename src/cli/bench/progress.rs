//! The progress bar of a measurement: on standard error, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::load::Phase;

const TEMPLATE: &str = "{prefix} {wide_bar} {msg} {eta}";

/// Shows how far a measurement is.
pub(super) struct Bar {
    bar: ProgressBar,
    is_timed: bool,
}

impl Bar {
    /// A bar for a phase; it draws nothing where standard error is no terminal.
    pub(super) fn new(name: &str, phase: &Phase) -> Bar {
        let millis = phase.duration.map(millis);
        let bar = Bar::of(name, millis.or(phase.operations));
        Bar { is_timed: millis.is_some(), ..bar }
    }

    /// A bar for so many steps.
    pub(super) fn of(name: &str, len: Option<u64>) -> Bar {
        let bar = ProgressBar::new(len.unwrap_or(0)).with_prefix(name.to_owned());
        // The template is a valid constant; if not, the default stays.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Bar { bar, is_timed: false }
    }

    /// Shows the time since the beginning and the requests answered.
    pub(super) fn advance(&self, elapsed: Duration, answered: u64) {
        self.bar.set_position(if self.is_timed { millis(elapsed) } else { answered });
        let per_second = u128::from(answered) * 1000 / elapsed.as_millis().max(1);
        self.bar.set_message(format!("{per_second}/s"));
    }

    /// One step is done.
    pub(super) fn step(&self) {
        self.bar.inc(1);
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
