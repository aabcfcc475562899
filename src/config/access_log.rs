//! Where an access log goes. Owns the notation `/path` and `unix:/path`; never opens anything.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::address::{ParseAddressError, parse_path};

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Lines are appended to a file, written `/path`.
    File(PathBuf),
    /// Lines are sent to a stream socket, written `unix:/path`.
    Unix(PathBuf),
}

/// A target that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAccessLogError {
    /// It looks like an address of another kind.
    #[error("{0:?} is no place for a log: write /path/to/file or unix:/path/to/socket")]
    Unknown(String),
    /// The part after `unix:`.
    #[error(transparent)]
    Unix(#[from] ParseAddressError),
}

impl FromStr for AccessLogTarget {
    type Err = ParseAccessLogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(AccessLogTarget::Unix(parse_path(path)?));
        }
        let first = text.split('/').next().unwrap_or_default();
        match text.is_empty() || first.contains(':') || text.ends_with('/') {
            true => Err(ParseAccessLogError::Unknown(text.to_owned())),
            false => Ok(AccessLogTarget::File(text.into())),
        }
    }
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogTarget::File(path) => path.display().fmt(f),
            AccessLogTarget::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_sockets_read_back_as_they_are_written() {
        for text in ["/var/log/a", "a.log", "a/b:c", "unix:/run/a"] {
            assert_eq!(text.parse::<AccessLogTarget>().unwrap().to_string(), text);
        }
        for text in ["", "/var/log/", "syslog:server=unix:/dev/log", "tcp:127.0.0.1:1", "unix:"] {
            text.parse::<AccessLogTarget>().unwrap_err();
        }
    }
}
