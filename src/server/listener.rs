//! Where clients connect: Unix sockets and loopback TCP. Binds, accepts and cleans up
//! sockets; never reads from a connection.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::task::{Context, Poll, ready};

use super::access::Access;
use super::peers::Peers;
use super::socket_file::{SocketFile, SocketFileError};
use crate::config::ListenAddress;

pub use super::socket_file::Permissions;

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The Unix socket's file.
    #[error(transparent)]
    SocketFile(#[from] SocketFileError),
    /// The system refused.
    #[error("cannot listen on {address}")]
    System {
        /// The address asked for.
        address: ListenAddress,
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
    address: ListenAddress,
    file: Option<SocketFile>,
    protocol: Protocol,
    rules: Rules,
}

/// What holds for the clients of one listener.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Connections open at one time; `None` is [`Options::connections_max`](super::Options).
    pub connections_max: Option<usize>,
    /// Who may connect; `None` is everybody who can open the socket.
    pub peers: Option<Peers>,
    /// What they may do.
    pub access: Access,
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The text protocol of memcached.
    Memcached,
    /// HTTP/1.1: objects.
    Http,
    /// HTTP/1.1: read-through, by the options of this number in
    /// [`Options::proxies`](super::Options::proxies).
    Proxy(usize),
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
    /// [`ListenError`], for example if a live server has the same Unix socket.
    pub fn bind(
        address: &ListenAddress,
        permissions: &Permissions,
    ) -> Result<Listener, ListenError> {
        match address {
            ListenAddress::Unix(path) => {
                let (socket, file) = SocketFile::bind(path, permissions)?;
                Listener::new(Socket::Unix(socket), address.clone(), Some(file))
            }
            ListenAddress::Tcp(at) => {
                let socket = TcpListener::bind(at)
                    .map_err(|source| ListenError::System { address: address.clone(), source })?;
                Listener::from_tcp(socket)
            }
        }
    }

    /// Takes over a Unix socket that listens already. A drop leaves the socket's file.
    ///
    /// # Errors
    /// [`ListenError::System`] if the socket cannot be made non-blocking.
    pub fn from_unix(socket: UnixListener) -> Result<Listener, ListenError> {
        let path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(PathBuf::from));
        Listener::new(Socket::Unix(socket), ListenAddress::Unix(path.unwrap_or_default()), None)
    }

    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    /// [`ListenError::NotLoopback`], or [`ListenError::System`] if the socket is not usable.
    pub fn from_tcp(socket: TcpListener) -> Result<Listener, ListenError> {
        let unknown = SocketAddr::from(([0; 4], 0));
        let address = socket.local_addr().map_err(|source| ListenError::System {
            address: ListenAddress::Tcp(unknown),
            source,
        })?;
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        Listener::new(Socket::Tcp(socket), ListenAddress::Tcp(address), None)
    }

    /// The same listener, whose clients speak `protocol`; a new one speaks memcached's.
    #[must_use]
    pub fn speaking(self, protocol: Protocol) -> Listener {
        Listener { protocol, ..self }
    }

    /// The same listener with other rules for its clients.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Listener {
        Listener { rules, ..self }
    }

    /// What holds for its clients.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The protocol that its clients speak.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it listens; for TCP with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    fn new(
        socket: Socket,
        address: ListenAddress,
        file: Option<SocketFile>,
    ) -> Result<Listener, ListenError> {
        let set = match &socket {
            Socket::Unix(socket) => socket.set_nonblocking(true),
            Socket::Tcp(socket) => socket.set_nonblocking(true),
        };
        match set {
            Ok(()) => {
                let (protocol, rules) = (Protocol::Memcached, Rules::default());
                Ok(Listener { socket, address, file, protocol, rules })
            }
            Err(source) => Err(ListenError::System { address, source }),
        }
    }

    /// Registers the socket with the current runtime.
    pub(super) fn watch(self) -> Result<WatchedListener, ListenError> {
        let socket = match self.socket {
            Socket::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Watched::Unix),
            Socket::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Watched::Tcp),
        };
        match socket {
            Ok(socket) => {
                let (protocol, Rules { peers, access, .. }) = (self.protocol, self.rules);
                Ok(WatchedListener { socket, protocol, peers, access, _file: self.file })
            }
            Err(source) => Err(ListenError::System { address: self.address, source }),
        }
    }
}

/// A listener whose runtime waits for connections.
#[derive(Debug)]
pub(super) struct WatchedListener {
    socket: Watched,
    pub(super) protocol: Protocol,
    peers: Option<Peers>,
    pub(super) access: Access,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Watched {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl WatchedListener {
    /// Whether the peer of an accepted connection may connect.
    pub(super) fn admits(&self, stream: &Stream) -> bool {
        match (&self.peers, stream) {
            (None, _) => true,
            (Some(peers), Stream::Unix(stream)) => peers.admit(stream),
            // TCP does not tell who connects.
            (Some(_), Stream::Tcp(_)) => false,
        }
    }

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
    fn a_socket_that_other_hosts_reach_is_refused() {
        let open = TcpListener::bind("0.0.0.0:0").unwrap();
        assert!(matches!(Listener::from_tcp(open), Err(ListenError::NotLoopback(_))));
        let open = ListenAddress::Tcp(([0; 4], 0).into());
        let refused = Listener::bind(&open, &Permissions::default());
        assert!(matches!(refused, Err(ListenError::NotLoopback(_))));
    }
}
