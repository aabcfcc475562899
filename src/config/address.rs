//! The address of a listener. Owns the notation `unix:/path` and `tcp:127.0.0.1:11211`; never opens a
//! socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// Longest path of a Unix socket in bytes: `sun_path` has 108, the last is NUL (unix(7)).
pub const UNIX_PATH_LEN_MAX: usize = 107;

/// The address of a data listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum ListenAddress {
    /// A stream socket in the file system, written `unix:/path`.
    Unix(PathBuf),
    /// A TCP port on the loopback interface, written `tcp:127.0.0.1:11211` or `tcp:[::1]:11211`.
    Tcp(SocketAddr),
}

/// A listener address that was not understood or not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// The text has neither of the two known prefixes.
    #[error("{0:?} is not an address: write unix:/path/to/socket or tcp:127.0.0.1:PORT")]
    Unknown(String),
    /// The part after `tcp:` is not an IP address with a port.
    #[error("{0:?} is not an IP address and port: write tcp:127.0.0.1:PORT or tcp:[::1]:PORT")]
    Tcp(String),
    /// The address is reachable from other hosts.
    #[error("{0} is not a loopback address: cached data is served on this host only")]
    NotLoopback(SocketAddr),
    /// The part after `unix:` is empty or names an abstract socket.
    #[error("{0:?} is not a socket path: write unix:/path/to/socket (no abstract sockets)")]
    Path(String),
    /// The path does not fit into a socket address.
    #[error(
        "the socket path has {0} bytes; at most {UNIX_PATH_LEN_MAX} can be used: use a shorter one"
    )]
    PathLen(usize),
}

impl FromStr for ListenAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_path(path).map(ListenAddress::Unix);
        }
        let Some(address) = text.strip_prefix("tcp:") else {
            return Err(ParseAddressError::Unknown(text.to_owned()));
        };
        let address: SocketAddr =
            address.parse().map_err(|_| ParseAddressError::Tcp(address.to_owned()))?;
        if !address.ip().is_loopback() {
            return Err(ParseAddressError::NotLoopback(address));
        }
        Ok(ListenAddress::Tcp(address))
    }
}

/// The path of a Unix socket, what stands after `unix:`.
pub(super) fn parse_path(path: &str) -> Result<PathBuf, ParseAddressError> {
    if path.is_empty() || path.starts_with('@') || path.contains('\0') {
        return Err(ParseAddressError::Path(path.to_owned()));
    }
    if path.len() > UNIX_PATH_LEN_MAX {
        return Err(ParseAddressError::PathLen(path.len()));
    }
    Ok(PathBuf::from(path))
}

impl TryFrom<String> for ListenAddress {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print_back() {
        for text in ["unix:/run/cache.sock", "unix:cache.sock", "tcp:127.0.0.1:1", "tcp:[::1]:2"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn addresses_that_other_hosts_can_reach_are_refused() {
        for text in ["tcp:0.0.0.0:11211", "tcp:192.0.2.1:11211", "tcp:[::]:11211"] {
            assert!(matches!(
                text.parse::<ListenAddress>(),
                Err(ParseAddressError::NotLoopback(_))
            ));
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_LEN_MAX));
        for text in
            ["", "/run/x.sock", "unix:", "unix:@x", "tcp:localhost:1", "tcp:127.0.0.1", &long]
        {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
