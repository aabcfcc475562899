//! Which server is driven, and over which protocol. Owns the notation of addresses; opens
//! connections to them.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The protocol of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The text commands `get` and `set`.
    Memcached,
    /// `GET` and `PUT` of HTTP/1.1.
    Http,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket, written `unix:PATH` or as a path with a slash in it.
    Unix(PathBuf),
    /// A port, written `HOST:PORT` or `tcp:HOST:PORT`.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(path.into()));
        }
        if text.contains('/') {
            return Ok(Address::Unix(text.into()));
        }
        let text = text.strip_prefix("tcp:").unwrap_or(text);
        let found = text.to_socket_addrs().map(|mut found| found.next());
        let expected = || format!("{text:?} is no address: write unix:PATH or HOST:PORT");
        found
            .map_err(|error| format!("{}: {error}", expected()))?
            .map(Address::Tcp)
            .ok_or_else(expected)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&self) -> anyhow::Result<Stream> {
        let connected = match self {
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Address::Tcp(address) => TcpStream::connect(address).and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }),
        };
        connected.with_context(|| format!("cannot connect to {self}"))
    }

    /// The process that listens there, which the kernel tells for Unix sockets alone.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        let Ok(Stream::Unix(stream)) = self.connect() else { return None };
        let credentials = getsockopt(&stream, PeerCredentials).ok()?;
        u32::try_from(credentials.pid()).ok().filter(|pid| *pid > 0)
    }
}

/// A connection.
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Stream {
    /// Makes reads and writes return at once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(true),
            Stream::Tcp(stream) => stream.set_nonblocking(true),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write_vectored(parts),
            Stream::Tcp(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("unix:a", "unix:a"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("127.0.0.1:11211", "127.0.0.1:11211"),
            ("tcp:[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
        }
        for text in ["", "nowhere", "127.0.0.1", "tcp:127.0.0.1:x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
