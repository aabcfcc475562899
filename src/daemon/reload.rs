//! What SIGHUP does. Owns the list of settings that change while the daemon runs.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::logging::Logging;
use crate::config::{Config, ConfigError, LogLevel};

/// Reads the configuration again, for SIGHUP.
pub type Reload = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

type Loaded = anyhow::Result<Config>;

/// A reading of the configuration under way, if there is one: a file may take its time.
#[derive(Default)]
pub struct Reading(Option<JoinHandle<Loaded>>);

impl Reading {
    /// Begins to read, unless a reading is under way.
    pub fn begin(&mut self, reload: &Reload) {
        if self.0.is_some() {
            tracing::warn!("SIGHUP: the configuration is still being read");
            return;
        }
        let reload = Arc::clone(reload);
        self.0 = Some(spawn_blocking(move || Ok(reload()?)));
    }

    /// Waits for the end of the reading under way; for ever if there is none.
    pub async fn ended(&mut self) -> Loaded {
        let Some(reading) = &mut self.0 else { return std::future::pending().await };
        let loaded = reading.await;
        self.0 = None;
        loaded.map_err(anyhow::Error::from)?
    }
}

/// Settings that take effect without a restart.
const LIVE: [&str; 1] = ["log.level"];

/// What differs between two configurations.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    live: Vec<String>,
    needs_restart: Vec<String>,
}

/// Applies what can change of the configuration that was read and names what cannot. One that is
/// refused changes nothing.
pub fn apply(config: &mut Config, loaded: Loaded, logging: &Logging) {
    let new = match loaded {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("SIGHUP: nothing is changed: {error:#}");
            return;
        }
    };
    let difference = difference(config, &new);
    if !difference.needs_restart.is_empty() {
        let settings = difference.needs_restart.join(", ");
        tracing::warn!(settings, "SIGHUP: these settings have changed and need a restart");
    }
    if difference.live.is_empty() {
        tracing::info!(can_change = LIVE.join(", "), "SIGHUP: nothing to change while running");
        return;
    }
    set_level(config, new.log.level, logging);
}

fn set_level(config: &mut Config, level: LogLevel, logging: &Logging) {
    if logging.set_level(level) {
        config.log.level = level;
        tracing::info!(%level, "SIGHUP: log.level is changed");
    }
}

fn difference(old: &Config, new: &Config) -> Difference {
    let mut difference = Difference { live: Vec::new(), needs_restart: Vec::new() };
    for ((key, old), (_, new)) in old.entries().into_iter().zip(new.entries()) {
        let path = key.path();
        if old == new {
            continue;
        }
        if LIVE.contains(&path.as_str()) {
            difference.live.push(path);
        } else {
            difference.needs_restart.push(path);
        }
    }
    if old.proxies.len() == new.proxies.len() {
        let entries = old.proxy_entries().into_iter().zip(new.proxy_entries());
        let changed = entries.filter(|(old, new)| old != new).map(|((path, _), _)| path);
        difference.needs_restart.extend(changed);
    } else {
        difference.needs_restart.push("proxy".to_owned());
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AutoSize;
    use crate::units::ByteSize;

    #[test]
    fn the_log_level_is_live_and_sizes_need_a_restart() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = LogLevel::Debug;
        new.ram.size = AutoSize::Fixed(ByteSize(0));
        let found = difference(&old, &new);
        assert_eq!(found.live, ["log.level"]);
        assert_eq!(found.needs_restart, ["ram.size"]);
        assert_eq!(difference(&old, &old).live.len(), 0);
    }

    #[test]
    fn proxies_need_a_restart() {
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        let one = read("[[proxy]]\nupstream = \"unix:/a\"\n[[proxy]]\nerror_ttl = \"1s\"");
        let other = read("[[proxy]]\nupstream = \"unix:/b\"\n[[proxy]]\nerror_ttl = \"2s\"");
        let found = difference(&one, &other);
        assert_eq!(found.needs_restart, ["proxy.upstream", "proxy[1].error_ttl"]);
        assert_eq!(difference(&one, &Config::default()).needs_restart, ["proxy"]);
    }
}
