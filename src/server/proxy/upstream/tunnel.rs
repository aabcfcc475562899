//! A connection whose upstream has changed the protocol (101): bytes both ways, whatever they mean.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// The upstream's end of a tunnel. Dropped, its connection is closed.
#[derive(Debug)]
pub(in crate::server) struct Tunnel {
    connection: Connection,
    /// Came with the head.
    input: BytesMut,
    moved: Arc<Moved>,
}

/// Bytes that went through a tunnel.
#[derive(Debug, Default)]
pub(in crate::server) struct Moved {
    pub(in crate::server) to_upstream: AtomicU64,
    pub(in crate::server) from_upstream: AtomicU64,
}

impl Moved {
    /// Bytes of both ways.
    pub(in crate::server) fn sum(&self) -> u64 {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        of(&self.to_upstream).wrapping_add(of(&self.from_upstream))
    }
}

impl Tunnel {
    /// Of a connection that has read the head of a 101.
    pub(in crate::server) fn new(mut connection: Connection) -> Tunnel {
        let input = connection.take_input();
        Tunnel { connection, input, moved: Arc::default() }
    }

    /// What goes through it.
    pub(in crate::server) fn moved(&self) -> Arc<Moved> {
        self.moved.clone()
    }

    fn wrote(&self, written: io::Result<usize>) -> io::Result<usize> {
        written.inspect(|len| {
            self.moved.to_upstream.fetch_add(*len as u64, Ordering::Relaxed);
        })
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.input.is_empty() {
            let len_max = buf.remaining();
            ready!(self.connection.stream().poll_read(buf, len_max, cx))?;
        } else {
            let len = self.input.len().min(buf.remaining());
            buf.put_slice(&self.input[..len]);
            self.input.advance(len);
        }
        let len = buf.filled().len() - before;
        self.moved.from_upstream.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.connection.stream().poll_write(&[IoSlice::new(buf)], cx));
        Poll::Ready(self.wrote(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.stream().end())
    }
}
