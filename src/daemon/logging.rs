//! Log output. Owns the subscriber and the one setting that changes while the daemon runs.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// The environment variable with filter directives that outranks the configured level.
const DIRECTIVES_VARIABLE: &str = "RUST_LOG";
/// Set by systemd where standard error goes to the journal, which has its own timestamps.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// The running log.
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Option<String>,
}

impl Logging {
    /// Sends messages of `config.level` and above to standard error.
    pub fn start(config: &LogConfig) -> anyhow::Result<Logging> {
        let directives = std::env::var(DIRECTIVES_VARIABLE).ok().filter(|text| !text.is_empty());
        let filter = match &directives {
            Some(text) => EnvFilter::try_new(text)
                .with_context(|| format!("environment variable {DIRECTIVES_VARIABLE}: {text:?}"))?,
            None => filter_of(config.level),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let layer = fmt::layer().with_writer(std::io::stderr);
        let layer = match config.format {
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
            LogFormat::Text => {
                let layer = layer.with_ansi(std::io::stderr().is_terminal());
                if std::env::var_os(JOURNAL_VARIABLE).is_some() {
                    layer.without_time().boxed()
                } else {
                    layer.boxed()
                }
            }
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init()?;
        Ok(Logging { filter: handle, directives })
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
