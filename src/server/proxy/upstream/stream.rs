//! The bytes of one connection to an upstream, over either kind of socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::server::proxy::options::UpstreamAddress;

/// A Unix socket whose backlog is full refuses at once: so long until the next attempt.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// A connection. Both directions can be used at one time, each by one task.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    /// Counts this one while it lives.
    open: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Socket {
    async fn connect(address: &UpstreamAddress) -> io::Result<Socket> {
        match address {
            UpstreamAddress::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        sleep(BACKLOG_PAUSE).await;
                    }
                    connected => return connected.map(Socket::Unix),
                }
            },
            UpstreamAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }
}

impl Stream {
    /// Connects, however long that takes. The connection is counted in `open` while it lives.
    pub(super) async fn connect(
        address: &UpstreamAddress,
        open: &Arc<AtomicU64>,
    ) -> io::Result<Stream> {
        let socket = Socket::connect(address).await?;
        open.fetch_add(1, Ordering::Relaxed);
        Ok(Stream { socket, open: Arc::clone(open) })
    }

    /// Appends at most `len_max` bytes that have come to `input`, which has room for them; 0 at the
    /// end.
    pub(super) fn poll_read(
        &self,
        input: &mut impl BufMut,
        len_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(match &self.socket {
                Socket::Unix(stream) => stream.poll_read_ready(cx),
                Socket::Tcp(stream) => stream.poll_read_ready(cx),
            })?;
            let mut input = (&mut *input).limit(len_max);
            let read = match &self.socket {
                Socket::Unix(stream) => stream.try_read_buf(&mut input),
                Socket::Tcp(stream) => stream.try_read_buf(&mut input),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Sends as much of `slices` as there is room for.
    pub(super) fn poll_write(
        &self,
        slices: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(match &self.socket {
                Socket::Unix(stream) => stream.poll_write_ready(cx),
                Socket::Tcp(stream) => stream.poll_write_ready(cx),
            })?;
            let written = match &self.socket {
                Socket::Unix(stream) => stream.try_write_vectored(slices),
                Socket::Tcp(stream) => stream.try_write_vectored(slices),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Sends nothing more.
    pub(super) fn end(&self) -> io::Result<()> {
        Ok(shutdown(self.fd(), Shutdown::Write)?)
    }

    /// Whether the peer is there and has sent nothing that is unread. Asks the kernel: what the
    /// runtime knows may be older.
    pub(super) fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    fn fd(&self) -> RawFd {
        match &self.socket {
            Socket::Unix(stream) => stream.as_raw_fd(),
            Socket::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}
