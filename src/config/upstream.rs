//! The address of an upstream. Owns the notation `unix:/path` and `http://127.0.0.1:8080`; never
//! connects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::address::{ParseAddressError, parse_path};

/// Where an upstream listens: on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// A stream socket in the file system, written `unix:/path`.
    Unix(PathBuf),
    /// A TCP port on the loopback interface, written `http://127.0.0.1:8080` or `http://[::1]:8080`.
    Tcp(SocketAddr),
}

/// An upstream's address that was not understood or not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseUpstreamError {
    /// The text has neither of the two known prefixes.
    #[error("{0:?} is not an upstream: write http://127.0.0.1:PORT or unix:/path/to/socket")]
    Unknown(String),
    /// It asks for TLS.
    #[error(
        "{0:?}: there is no TLS to an upstream, which is on this host: write http://127.0.0.1:PORT"
    )]
    Tls(String),
    /// Something follows the port.
    #[error(
        "{0:?} has something behind the port: requests keep their own path; write \
         http://127.0.0.1:PORT"
    )]
    Path(String),
    /// An IP address without a port that can be connected to.
    #[error("{0:?} has no port from 1 to 65535: write http://127.0.0.1:PORT")]
    Port(String),
    /// What stands before the port is no IP address.
    #[error(
        "{0:?} has a name in place of an IP address: names are not looked up; write \
         http://127.0.0.1:PORT"
    )]
    Name(String),
    /// The address is on another host.
    #[error("{0} is not a loopback address: an upstream is on this host; write 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The part after `unix:`.
    #[error(transparent)]
    Unix(#[from] ParseAddressError),
}

impl FromStr for UpstreamAddress {
    type Err = ParseUpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(UpstreamAddress::Unix(parse_path(path)?));
        }
        let refuse = |why: fn(String) -> ParseUpstreamError| Err(why(text.to_owned()));
        if text.starts_with("https:") {
            return refuse(ParseUpstreamError::Tls);
        }
        let Some(authority) = text.strip_prefix("http://").filter(|rest| !rest.is_empty()) else {
            return refuse(ParseUpstreamError::Unknown);
        };
        if authority.contains(['/', '?', '#']) {
            return refuse(ParseUpstreamError::Path);
        }
        let Ok(address) = authority.parse::<SocketAddr>() else {
            // Without what may be meant for a port.
            let host = match authority.rsplit_once(':') {
                Some((host, _)) if !authority.ends_with(']') => host,
                _ => authority,
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            return match host.parse::<IpAddr>() {
                Ok(_) => refuse(ParseUpstreamError::Port),
                Err(_) => refuse(ParseUpstreamError::Name),
            };
        };
        if !address.ip().is_loopback() {
            return Err(ParseUpstreamError::NotLoopback(address));
        }
        match address.port() {
            0 => refuse(ParseUpstreamError::Port),
            _ => Ok(UpstreamAddress::Tcp(address)),
        }
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            UpstreamAddress::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print_back() {
        for text in ["unix:/run/app.sock", "http://127.0.0.1:8080", "http://[::1]:80"] {
            assert_eq!(text.parse::<UpstreamAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_is_told_apart() {
        for (text, expected) in [
            ("", "is not an upstream"),
            ("127.0.0.1:8080", "is not an upstream"),
            ("tcp:127.0.0.1:8080", "is not an upstream"),
            ("http://", "is not an upstream"),
            ("https://127.0.0.1:8080", "no TLS"),
            ("http://127.0.0.1:8080/", "behind the port"),
            ("http://127.0.0.1:8080/app", "behind the port"),
            ("http://127.0.0.1:8080?x", "behind the port"),
            ("http://127.0.0.1", "has no port"),
            ("http://[::1]", "has no port"),
            ("http://127.0.0.1:0", "has no port"),
            ("http://localhost:8080", "names are not looked up"),
            ("http://127.0.0.1:99999", "has no port"),
            ("http://user@127.0.0.1:80", "names are not looked up"),
            ("http://192.0.2.1:80", "is not a loopback address"),
            ("unix:", "is not a socket path"),
            ("unix:@x", "is not a socket path"),
        ] {
            let message = text.parse::<UpstreamAddress>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
