//! Why a configuration was refused. Owns the wording of where a setting came from.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file, counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A command line flag, with its dashes.
    Flag(String),
    /// Nowhere: the default conflicts with another setting.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An error that belongs to no key, such as invalid TOML.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong there.
        reason: String,
    },
    /// A setting has a value it cannot have.
    #[error("{origin}: {key}: {reason}")]
    Setting {
        /// Where the value was written.
        origin: Origin,
        /// The key, as in `server.admin`.
        key: String,
        /// Why it is refused and what to write.
        reason: String,
    },
    /// An environment variable looks like a setting but is none.
    #[error("environment variable {name}: there is no such setting{hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// A guess at what was meant, or nothing.
        hint: String,
    },
}

impl ConfigError {
    /// The line of the configuration file that it is about, if it is about one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self {
            ConfigError::Setting { origin: Origin::File { line, .. }, .. }
            | ConfigError::Syntax { origin: Origin::File { line, .. }, .. } => Some(*line),
            _ => None,
        }
    }

    /// The setting that it is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            ConfigError::Setting { key, .. } => Some(key),
            _ => None,
        }
    }
}
