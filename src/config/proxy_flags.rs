//! A read-through listener that flags of `serve` ask for. Owns the flags `--upstream` and `--listen`: what
//! they mean as a `[[proxy]]`, and which of them is blamed.

use super::address::ListenAddress;
use super::error::{ConfigError, Origin};
use super::upstream::UpstreamAddress;

/// Names the upstream.
const UPSTREAM: &str = "--upstream";
/// Names where to listen.
const LISTEN: &str = "--listen";

/// What the flags say.
#[derive(Clone, Debug)]
pub struct ProxyFlags {
    /// Of `--upstream`.
    pub upstream: String,
    /// Of each `--listen`.
    pub listen: Vec<String>,
}

impl ProxyFlags {
    /// The `[[proxy]]` that they ask for, with a listener at `usual` too, if there is one.
    ///
    /// # Errors
    /// One of them is not understood, or there is nowhere to listen.
    pub fn table(&self, usual: Option<String>) -> Result<toml::Table, ConfigError> {
        if let Err(error) = self.upstream.parse::<UpstreamAddress>() {
            return Err(refuse(UPSTREAM, "proxy.upstream", error.to_string()));
        }
        for address in &self.listen {
            if let Err(error) = address.parse::<ListenAddress>() {
                return Err(refuse(LISTEN, "proxy.listen", error.to_string()));
            }
        }
        let listen = usual.into_iter().chain(self.listen.iter().cloned());
        let listen: Vec<toml::Value> = listen.map(toml::Value::from).collect();
        if listen.is_empty() {
            let reason = "with a configuration file, say where to listen: add --listen \
                          tcp:127.0.0.1:PORT or --listen unix:/path/to/socket";
            return Err(refuse(UPSTREAM, "proxy.listen", reason.to_owned()));
        }
        let mut table = toml::Table::new();
        table.insert("listen".to_owned(), listen.into());
        table.insert("upstream".to_owned(), self.upstream.clone().into());
        Ok(table)
    }

    /// The error where a file has tables of its own.
    pub fn refuse_beside(&self, file: &Origin) -> ConfigError {
        let reason = format!("{file} has [[proxy]] tables: add another one there");
        refuse(UPSTREAM, "proxy", reason)
    }

    /// Whether a flag gives the setting `key`.
    pub fn gives(key: &str) -> bool {
        ["proxy.listen", "proxy.upstream"].contains(&key)
    }

    /// Which flag gave the setting `key`.
    pub fn origin(&self, key: &str) -> Origin {
        let is_listen = key == "proxy.listen" && !self.listen.is_empty();
        Origin::Flag(if is_listen { LISTEN } else { UPSTREAM }.to_owned())
    }
}

fn refuse(flag: &str, key: &str, reason: String) -> ConfigError {
    ConfigError::Setting { origin: Origin::Flag(flag.to_owned()), key: key.to_owned(), reason }
}
