//! Where clients connect: Unix sockets and loopback TCP. Binds, accepts and cleans up
//! sockets; never reads from a connection.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use super::socket_file::{SocketFile, SocketFileError};

pub use super::socket_file::Permissions;

/// An address to listen on, written `unix:/run/cache.sock` or `tcp:127.0.0.1:11211`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A loopback address and port: data is never served beyond this host.
    Tcp(SocketAddr),
}

/// Text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Neither of the two notations.
    #[error("{0:?} is not an address: write unix:/path or tcp:127.0.0.1:port")]
    Notation(String),
    /// A TCP address that other hosts can reach.
    #[error("{0} is not a loopback address: only clients on this host are served")]
    NotLoopback(SocketAddr),
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Address, ParseAddressError> {
        let notation = || ParseAddressError::Notation(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') && !path.contains('\0') {
                Ok(Address::Unix(path.into()))
            } else {
                Err(notation())
            };
        }
        let address = text.strip_prefix("tcp:").ok_or_else(notation)?;
        let address: SocketAddr = address.parse().map_err(|_| notation())?;
        if address.ip().is_loopback() {
            Ok(Address::Tcp(address))
        } else {
            Err(ParseAddressError::NotLoopback(address))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The Unix socket's file.
    #[error(transparent)]
    SocketFile(#[from] SocketFileError),
    /// The system refused.
    #[error("cannot listen on {address}")]
    System {
        /// The address asked for.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket that was passed in listens on an address that other hosts can reach.
    #[error("the socket passed in listens on {0}, which is not a loopback address")]
    NotLoopback(SocketAddr),
}

/// A socket that clients connect to. Dropping it closes it and removes the socket file that
/// [`Listener::bind`] made.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// An accepted connection; does not block.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Binds `address`; `permissions` are for the file of a Unix socket.
    ///
    /// # Errors
    /// [`ListenError`]; among them a live server on the same Unix socket.
    pub fn bind(address: &Address, permissions: &Permissions) -> Result<Listener, ListenError> {
        match address {
            Address::Unix(path) => {
                let (socket, file) = SocketFile::bind(path, permissions)?;
                Listener::new(Socket::Unix(socket), address.clone(), Some(file))
            }
            Address::Tcp(at) => {
                let socket = TcpListener::bind(at)
                    .map_err(|source| ListenError::System { address: address.clone(), source })?;
                Listener::from_tcp(socket)
            }
        }
    }

    /// Takes over a Unix socket that listens already. Its file stays when it is dropped.
    ///
    /// # Errors
    /// [`ListenError::System`] if the socket cannot be made non-blocking.
    pub fn from_unix(socket: UnixListener) -> Result<Listener, ListenError> {
        let path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(PathBuf::from));
        Listener::new(Socket::Unix(socket), Address::Unix(path.unwrap_or_default()), None)
    }

    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    /// [`ListenError::NotLoopback`], or [`ListenError::System`] if the socket is not usable.
    pub fn from_tcp(socket: TcpListener) -> Result<Listener, ListenError> {
        let unknown = SocketAddr::from(([0; 4], 0));
        let address = socket
            .local_addr()
            .map_err(|source| ListenError::System { address: Address::Tcp(unknown), source })?;
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        Listener::new(Socket::Tcp(socket), Address::Tcp(address), None)
    }

    /// Where it listens; for TCP with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn new(
        socket: Socket,
        address: Address,
        file: Option<SocketFile>,
    ) -> Result<Listener, ListenError> {
        let set = match &socket {
            Socket::Unix(socket) => socket.set_nonblocking(true),
            Socket::Tcp(socket) => socket.set_nonblocking(true),
        };
        match set {
            Ok(()) => Ok(Listener { socket, address, file }),
            Err(source) => Err(ListenError::System { address, source }),
        }
    }

    /// Puts the socket into the runtime that this is called in.
    pub(super) fn watch(self) -> Result<WatchedListener, ListenError> {
        let socket = match self.socket {
            Socket::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Watched::Unix),
            Socket::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Watched::Tcp),
        };
        match socket {
            Ok(socket) => Ok(WatchedListener { socket, _file: self.file }),
            Err(source) => Err(ListenError::System { address: self.address, source }),
        }
    }
}

/// A listener whose runtime waits for connections.
#[derive(Debug)]
pub(super) struct WatchedListener {
    socket: Watched,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Watched {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl WatchedListener {
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match &self.socket {
            Watched::Unix(socket) => {
                let (stream, _) = ready!(socket.poll_accept(cx))?;
                Poll::Ready(stream.into_std().map(Stream::Unix))
            }
            Watched::Tcp(socket) => {
                let (stream, _) = ready!(socket.poll_accept(cx))?;
                stream.set_nodelay(true)?;
                Poll::Ready(stream.into_std().map(Stream::Tcp))
            }
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
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
    fn addresses_parse_and_print_back() {
        for text in ["unix:/run/cache.sock", "tcp:127.0.0.1:11211", "tcp:[::1]:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "unix:relative", "/run/x", "tcp:localhost:1", "tcp:127.0.0.1"] {
            let refused = text.parse::<Address>();
            assert!(matches!(refused, Err(ParseAddressError::Notation(_))), "{text:?}");
        }
    }

    #[test]
    fn addresses_that_other_hosts_reach_are_refused() {
        for text in ["tcp:0.0.0.0:11211", "tcp:[::]:11211", "tcp:192.0.2.1:11211"] {
            let refused = text.parse::<Address>();
            assert!(matches!(refused, Err(ParseAddressError::NotLoopback(_))), "{text}");
        }
        let open = TcpListener::bind("0.0.0.0:0").unwrap();
        assert!(matches!(Listener::from_tcp(open), Err(ListenError::NotLoopback(_))));
    }
}
