//! The bytes of one connection: reads and writes them, counts them, and bounds how long it waits.
//! Knows nothing of requests. Holds no buffer while it waits.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::service::Service;
use crate::cache::{StoreError, Writer};
use crate::fair_memory::Held;
use crate::server::codec::head_reader::HEAD_LEN_MAX;
use crate::server::gate::Gate;
use crate::server::input::Input;
use crate::server::patience::Patience;
use crate::server::presence::Presence;
use crate::server::turns;

/// How long a request may take to come whole, once the server drains.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A stream socket.
pub(in crate::server) trait Socket:
    AsyncRead + AsyncWrite + Presence + Unpin + Send + Sync
{
}
impl<S: AsyncRead + AsyncWrite + Presence + Unpin + Send + Sync> Socket for S {}

pub(in crate::server) struct Wire<S> {
    stream: S,
    pub(in crate::server) service: Arc<Service>,
    input: Input,
    /// Other tasks that are ready run before the next write.
    is_turn_due: bool,
    patience: Patience,
}

impl<S: Socket> Presence for Wire<S> {
    fn is_gone(&self) -> bool {
        self.stream.is_gone()
    }
}

impl<S: Socket> Wire<S> {
    pub(in crate::server) fn new(stream: S, service: Arc<Service>) -> Wire<S> {
        Wire {
            stream,
            service,
            input: Input::new(HEAD_LEN_MAX),
            is_turn_due: true,
            patience: Patience::default(),
        }
    }

    /// The socket, for another protocol. Its bytes are not counted here, and come behind those that are unread.
    pub(in crate::server) fn socket(&mut self) -> &mut S {
        self.release();
        &mut self.stream
    }

    pub(in crate::server) fn unread(&self) -> &[u8] {
        self.input.unread()
    }

    /// Whether no byte waits to be used.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    pub(in crate::server) fn consume(&mut self, len: usize) {
        self.input.consume(len);
    }

    /// Consumes a head that was copied; gives the memory that it had.
    pub(in crate::server) fn take_out(&mut self, len: usize) -> Held {
        self.input.take_out(len, &self.service.buffers)
    }

    /// The wait for a head begins.
    pub(in crate::server) fn begin_head(&mut self) {
        self.patience.rest();
    }

    /// Reads more of a head, for which the client has the idle timeout since [`Wire::begin_head`]; 0
    /// at its end, [`io::ErrorKind::OutOfMemory`] if it has to give way to others. A closed gate
    /// ends the wait at once if nothing `is_begun`, else soon.
    pub(in crate::server) async fn read_head(
        &mut self,
        gate: &Gate,
        is_begun: bool,
    ) -> io::Result<usize> {
        let mut limit = self.service.idle_timeout;
        let mut is_last = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_read(cx) {
                return Poll::Ready(read);
            }
            if !is_last && gate.poll_closed(cx).is_ready() {
                if !is_begun {
                    return Poll::Ready(Ok(0));
                }
                is_last = true;
                limit = limit.min(self.patience.waited() + LAST_WAIT);
            }
            self.poll_timeout(limit, cx)
        })
        .await
    }

    /// Reads more of what was asked for, within the stall timeout; 0 at its end.
    pub(in crate::server) async fn read(&mut self) -> io::Result<usize> {
        self.read_within(self.service.stall_timeout).await
    }

    /// Reads more of what is not needed, as [`Wire::read`] does; 0 also when the gate is closed.
    pub(in crate::server) async fn read_unneeded(&mut self, gate: &Gate) -> io::Result<usize> {
        let limit = self.service.stall_timeout;
        self.patience.rest();
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_read(cx) {
                return Poll::Ready(read);
            }
            if gate.poll_closed(cx).is_ready() {
                return Poll::Ready(Ok(0));
            }
            self.poll_timeout(limit, cx)
        })
        .await
    }

    /// Reads more within `limit`; 0 at the end.
    pub(in crate::server) async fn read_within(&mut self, limit: Duration) -> io::Result<usize> {
        self.patience.rest();
        poll_fn(|cx| match self.poll_read(cx) {
            Poll::Pending => self.poll_timeout(limit, cx),
            read => read,
        })
        .await
    }

    /// As [`Wire::read`], but at most `len_max` bytes and straight into `writer`; nothing may be unread. See
    /// [`Writer::read_from`].
    pub(in crate::server) async fn read_into(
        &mut self,
        writer: &mut Writer,
        len_max: u64,
    ) -> io::Result<Result<Option<usize>, StoreError>> {
        assert!(self.is_empty(), "what is unread comes first");
        self.release();
        self.patience.rest();
        let (limit, Wire { stream, patience, .. }) = (self.service.stall_timeout, &mut *self);
        let read = {
            let mut reading = pin!(writer.read_from(stream, len_max));
            let within_limit = poll_fn(|cx| match reading.as_mut().poll(cx) {
                Poll::Pending => {
                    patience.poll_end(limit, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
                }
                read => read,
            });
            within_limit.await?
        };
        if let Ok(Some(len)) = read {
            self.count_read(len);
        }
        Ok(read)
    }

    fn poll_timeout(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.patience.poll_end(limit, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = self.input.poll_fill(cx, &mut self.stream, &self.service.buffers);
        let read = ready!(polled);
        match &read {
            Ok(len) => self.count_read(*len),
            // What had come is lost. What still comes can be dropped.
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => self.release(),
            Err(_) => {}
        }
        Poll::Ready(read)
    }

    fn count_read(&mut self, len: usize) {
        self.is_turn_due = true;
        self.service.shard.bytes_read.add(len as u64);
    }

    /// Gives all memory back. Unread bytes are lost.
    pub(in crate::server) fn release(&mut self) {
        self.input.release(&self.service.buffers);
    }

    /// Writes `first` and `second`, in one system call if the peer has room, and waits at most for
    /// the stall timeout while it takes nothing.
    pub(in crate::server) async fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.is_turn_due) {
            turns::turn().await;
        }
        let limit = self.service.stall_timeout;
        let mut slices = [IoSlice::new(first), IoSlice::new(second)];
        let mut slices = if second.is_empty() { &mut slices[..1] } else { &mut slices[..] };
        while !slices.is_empty() {
            self.patience.rest();
            let (stream, patience) = (&mut self.stream, &mut self.patience);
            let written = poll_fn(|cx| {
                let mut stream = Pin::new(&mut *stream);
                let polled = match &*slices {
                    [slice] => stream.as_mut().poll_write(cx, slice),
                    slices => stream.as_mut().poll_write_vectored(cx, slices),
                };
                if polled.is_ready() {
                    return polled;
                }
                patience.poll_end(limit, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.service.shard.bytes_written.add(written as u64);
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Sends nothing more.
    pub(in crate::server) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
