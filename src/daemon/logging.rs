//! Log output. Owns the subscriber and the one setting that changes while the daemon runs. Nobody who
//! logs, or panics, waits for whoever reads standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use super::log_queue::LogQueue;
use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::metrics::{AddError, Metrics};

/// The environment variable with filter directives that outranks the configured level.
const DIRECTIVES_VARIABLE: &str = "RUST_LOG";
/// Set, and not empty, by people who want no colours: <https://no-color.org>.
const NO_COLOR_VARIABLE: &str = "NO_COLOR";
/// Set by systemd where standard error goes to the journal, which has its own timestamps.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// How long the end of the daemon waits for its last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The running log. Dropping it writes out what waits, within [`FLUSH_LIMIT`].
pub struct Logging {
    queue: LogQueue,
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Option<String>,
}

impl Logging {
    /// Sends messages of `config.level` and above to standard error, panics among them.
    pub fn start(config: &LogConfig) -> anyhow::Result<Logging> {
        let directives = std::env::var(DIRECTIVES_VARIABLE).ok().filter(|text| !text.is_empty());
        let filter = match &directives {
            Some(text) => EnvFilter::try_new(text)
                .with_context(|| format!("environment variable {DIRECTIVES_VARIABLE}: {text:?}"))?,
            None => filter_of(config.level),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let queue = LogQueue::start(std::io::stderr(), |lost| {
            tracing::error!(lost, "log lines were lost: standard error was not read");
        })
        .context("cannot start the thread that writes the log")?;
        let writer = queue.clone();
        let layer = fmt::layer().with_writer(move || writer.clone());
        let layer = match config.format {
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
            LogFormat::Text => {
                let layer = layer.with_ansi(has_colours());
                if std::env::var_os(JOURNAL_VARIABLE).is_some() {
                    layer.without_time().boxed()
                } else {
                    layer.boxed()
                }
            }
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init()?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(Logging { queue, filter: handle, directives })
    }

    /// What else goes to standard error goes here.
    pub fn queue(&self) -> &LogQueue {
        &self.queue
    }

    /// Adds the count of lost lines.
    pub fn add_to(&self, metrics: &Metrics) -> Result<(), AddError> {
        let queue = self.queue.clone();
        metrics.add(move |page| {
            page.counter(
                "rawcached_log_lost_lines_total",
                "Log lines that were lost because standard error was not read.",
                &[],
                queue.lost(),
            );
        })
    }

    /// Changes the level, unless `RUST_LOG` rules; tells whether it did.
    pub fn set_level(&self, level: LogLevel) -> bool {
        if let Some(directives) = &self.directives {
            tracing::warn!(%directives, "{DIRECTIVES_VARIABLE} outranks log.level; not changed");
            return false;
        }
        match self.filter.reload(filter_of(level)) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the log level could not be changed");
                false
            }
        }
    }
}

/// Whether lines have colours: on a terminal of somebody who has not asked for none.
fn has_colours() -> bool {
    let wants_none = std::env::var_os(NO_COLOR_VARIABLE).is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !wants_none
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_LIMIT);
    }
}

/// The default hook writes to standard error itself, and would stop a worker where nobody reads it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let (thread, reason) = (thread.name().unwrap_or("?"), panic.payload_as_str().unwrap_or("?"));
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    // Of RUST_BACKTRACE in the environment.
    let backtrace = Backtrace::capture();
    let shown = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = shown.then(|| backtrace.to_string());
    tracing::error!(thread, at, backtrace, "panicked: {reason}");
}

/// Libraries log at `info` at most: more would drown the messages of this program.
fn filter_of(level: LogLevel) -> EnvFilter {
    let libraries = level.min(LogLevel::Info);
    EnvFilter::new(format!("{libraries},rawcached={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_for_this_program_only() {
        let of = |level| {
            let text = filter_of(level).to_string();
            let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(of(LogLevel::Debug), ["info", "rawcached=debug"]);
        assert_eq!(of(LogLevel::Error), ["error", "rawcached=error"]);
    }
}
