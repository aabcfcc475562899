//! Bytes received and not yet parsed. Holds a whole buffer only while there is work on them: those
//! that wait for more take no more memory than they are long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::fair_memory::{Held, Short};
use crate::server::buffers::{BUFFER_LEN, Buffers};

use super::parse::RETRIEVAL_LEN_MAX;
use super::service::Service;

/// Most bytes that are kept: the parser refuses a longer line.
pub(in crate::server) const KEPT_LEN_MAX: usize = RETRIEVAL_LEN_MAX + BUFFER_LEN;

/// The unread bytes of one connection.
#[derive(Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    place: Place,
    /// Bytes that wait for more, and a buffer that has grown. It knows how long the client takes.
    kept: Option<Held>,
}

/// Where the unread bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In `buffer`, which is one of the spare ones, if there is any.
    #[default]
    Spare,
    /// In `kept`. `buffer` may be a spare one with the next bytes.
    Kept,
    /// In `buffer`, which is that of `kept` and has no room.
    Taken,
}

impl Input {
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether no byte waits for more.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.place != Place::Kept
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        assert!(self.start <= self.end, "consumed more than was read");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads what the peer has sent; `Ok(0)` means that it closed. While nothing arrives, the buffer is with
    /// the spare ones.
    ///
    /// # Errors
    /// `OutOfMemory` if what waits needs more than is left for all connections, or has to give way.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        service: &Service,
    ) -> Poll<io::Result<usize>> {
        if self.is_empty() && self.place == Place::Taken {
            self.release(&service.buffers);
        }
        if self.place != Place::Kept {
            if self.buffer.is_empty() {
                self.buffer = service.buffers.take_input();
            }
            if self.place == Place::Spare && self.end == BUFFER_LEN {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end < self.buffer.len() {
                let polled = poll_read(cx, stream, &mut self.buffer[self.end..]);
                if polled.is_pending() {
                    self.rest(cx, service);
                }
                let len = ready!(polled)?;
                self.end += len;
                return Poll::Ready(Ok(len));
            }
            ready!(self.poll_keep(cx, service)).map_err(out_of_memory)?;
        }
        self.poll_fill_kept(cx, stream, service)
    }

    /// Gives all memory back. Unread bytes are lost.
    pub(super) fn release(&mut self, spares: &Buffers) {
        let buffer = std::mem::take(&mut self.buffer);
        if self.place != Place::Taken && !buffer.is_empty() {
            spares.give_input(buffer);
        }
        *self = Input::default();
    }

    /// Nothing has arrived: keeps as many bytes as are unread, or stays as it is if there is no memory.
    fn rest(&mut self, cx: &mut Context<'_>, service: &Service) {
        if self.is_empty() {
            return self.release(&service.buffers);
        }
        let unread = &self.buffer[self.start..self.end];
        let kept = self.kept.get_or_insert_with(|| service.input_memory.hold(KEPT_LEN_MAX));
        if kept.try_keep(unread) {
            // It was kept just now, so it is not lost yet.
            let _ = kept.poll_lost(cx);
            service.buffers.give_input(std::mem::take(&mut self.buffer));
            (self.start, self.end, self.place) = (0, 0, Place::Kept);
        }
    }

    /// Keeps a full buffer, to have room for more.
    fn poll_keep(&mut self, cx: &mut Context<'_>, service: &Service) -> Poll<Result<(), Short>> {
        let kept = self.kept.get_or_insert_with(|| service.input_memory.hold(KEPT_LEN_MAX));
        if self.place == Place::Taken {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.drain(..self.start);
            kept.put_back(buffer);
        } else {
            // Only an incomplete line fills a buffer, and the parser refuses long ones.
            ready!(kept.poll_stage(cx, &self.buffer[self.start..self.end]))?;
        }
        (self.start, self.end, self.place) = (0, 0, Place::Kept);
        Poll::Ready(Ok(()))
    }

    /// Reads behind what is kept.
    fn poll_fill_kept<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        service: &Service,
    ) -> Poll<io::Result<usize>> {
        let Input { buffer, end, kept, .. } = self;
        let kept = kept.as_mut().expect("something is kept");
        if *end == 0 {
            let read = ready!(kept.poll_read(cx, stream, usize::MAX))?;
            if let Some(len) = read.map_err(out_of_memory)? {
                return self.take_back(len, service);
            }
            if buffer.is_empty() {
                *buffer = service.buffers.take_input();
            }
            // Few bytes go in front of the next ones.
            let start = Some(kept.len()).filter(|len| *len < BUFFER_LEN).unwrap_or(0);
            let polled = poll_read(cx, stream, &mut buffer[start..]);
            if polled.is_pending() {
                service.buffers.give_input(std::mem::take(buffer));
                if let Poll::Ready(short) = kept.poll_lost(cx) {
                    return Poll::Ready(Err(out_of_memory(short)));
                }
            }
            let len = ready!(polled)?;
            if len == 0 || start > 0 {
                let few = kept.withdraw().map_err(out_of_memory)?;
                buffer[..start].copy_from_slice(&few[..start]);
                (self.end, self.place) = (start + len, Place::Spare);
                return Poll::Ready(Ok(len));
            }
            *end = len;
        }
        let len = *end;
        ready!(kept.poll_stage(cx, &buffer[..len])).map_err(out_of_memory)?;
        self.take_back(len, service)
    }

    /// Takes the buffer with the `len` bytes that have just come.
    fn take_back(&mut self, len: usize, service: &Service) -> Poll<io::Result<usize>> {
        if !self.buffer.is_empty() {
            service.buffers.give_input(std::mem::take(&mut self.buffer));
        }
        let kept = self.kept.as_ref().expect("something is kept");
        self.buffer = kept.take().map_err(out_of_memory)?;
        (self.start, self.end, self.place) = (0, self.buffer.len(), Place::Taken);
        Poll::Ready(Ok(len))
    }
}

fn poll_read<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    target: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut target = ReadBuf::new(target);
    let polled = Pin::new(stream).poll_read(cx, &mut target);
    polled.map_ok(|()| target.filled().len())
}

fn out_of_memory(_: Short) -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}
