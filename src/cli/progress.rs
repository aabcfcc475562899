//! The progress bar of a transfer: on standard error, and only if that is a terminal.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::http_client::Progress;

const KNOWN: &str = "{bytes}/{total_bytes} [{wide_bar}] {binary_bytes_per_sec} {eta}";
const UNKNOWN: &str = "{spinner} {bytes} {binary_bytes_per_sec}";

/// Shows how far a transfer is.
#[derive(Clone)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for `len` bytes, if that is known.
    pub fn new(len: Option<u64>) -> Bar {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = Bar(ProgressBar::with_draw_target(len, target));
        bar.style(len.is_some());
        bar
    }

    fn style(&self, is_known: bool) {
        // Both templates are valid constants; if not, the default stays.
        if let Ok(style) = ProgressStyle::with_template(if is_known { KNOWN } else { UNKNOWN }) {
            self.0.set_style(style);
        }
    }

    /// Shows this progress.
    pub fn advance(&self, progress: Progress) {
        match progress {
            Progress::Length(len) => {
                self.0.set_length(len);
                self.style(true);
            }
            Progress::Passed(len) => self.0.inc(len),
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
