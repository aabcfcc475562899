//! Bytes received and not yet parsed. Holds a whole buffer only while there is work on them: those
//! that wait for more take no more memory than they are long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::buffers::{BUFFER_LEN, Buffers};
use crate::fair_memory::{Held, Short};

/// Most bytes that are kept, where `len_max` unread ones are refused by the parser.
pub(super) const fn kept_max(len_max: usize) -> usize {
    len_max + BUFFER_LEN
}

/// The unread bytes of one connection.
pub(super) struct Input {
    /// With so many unread bytes the parser does not ask for more.
    len_max: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    place: Place,
    /// Bytes that wait for more, and a buffer that has grown. It knows how long the client takes.
    kept: Option<Held>,
}

/// Where the unread bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In `buffer`, which is one of the spare ones, if there is any.
    Spare,
    /// In `kept`. `buffer` may be a spare one with the next bytes.
    Kept,
    /// In `buffer`, which is that of `kept` and has no room.
    Taken,
}

impl Input {
    /// Nothing unread yet. A parser refuses what is incomplete with `len_max` bytes.
    pub(super) const fn new(len_max: usize) -> Input {
        Input { len_max, buffer: Vec::new(), start: 0, end: 0, place: Place::Spare, kept: None }
    }

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
            if self.place == Place::Taken {
                *self = Input::new(self.len_max);
            }
        }
    }

    /// Consumes the first `len` bytes, all that the parser asked for, which the caller has copied. Gives the
    /// shared memory that they had: who asks for more and keeps that waits for itself.
    pub(super) fn take_out(&mut self, len: usize, buffers: &Buffers) -> Held {
        let Some(kept) = self.kept.take_if(|_| self.place == Place::Taken) else {
            self.consume(len);
            return buffers.memory().hold(0);
        };
        let rest = self.start + len..self.end;
        let buffer = std::mem::replace(self, Input::new(self.len_max)).buffer;
        if !rest.is_empty() {
            // No more than came with the last read.
            self.buffer = buffers.take_input();
            self.end = rest.len();
            self.buffer[..rest.len()].copy_from_slice(&buffer[rest]);
        }
        kept.keep_elsewhere();
        kept
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
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if self.place != Place::Kept {
            if self.buffer.is_empty() {
                self.buffer = buffers.take_input();
            }
            if self.place == Place::Spare && self.end == BUFFER_LEN {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.end < self.buffer.len() {
                let polled = poll_read(cx, stream, &mut self.buffer[self.end..]);
                if polled.is_pending() {
                    self.rest(cx, buffers);
                }
                let len = ready!(polled)?;
                self.end += len;
                return Poll::Ready(Ok(len));
            }
            ready!(self.poll_keep(cx, buffers)).map_err(out_of_memory)?;
        }
        self.poll_fill_kept(cx, stream, buffers)
    }

    /// Gives all memory back. Unread bytes are lost.
    pub(super) fn release(&mut self, buffers: &Buffers) {
        let buffer = std::mem::take(&mut self.buffer);
        if self.place != Place::Taken && !buffer.is_empty() {
            buffers.give_input(buffer);
        }
        *self = Input::new(self.len_max);
    }

    /// Nothing has arrived: keeps as many bytes as are unread, or stays as it is if there is no memory.
    fn rest(&mut self, cx: &mut Context<'_>, buffers: &Buffers) {
        if self.is_empty() {
            return self.release(buffers);
        }
        let unread = &self.buffer[self.start..self.end];
        let len_max = kept_max(self.len_max);
        let kept = self.kept.get_or_insert_with(|| buffers.memory().hold(len_max));
        if kept.try_keep(unread) {
            // It was kept just now, so it is not lost yet.
            let _ = kept.poll_lost(cx);
            buffers.give_input(std::mem::take(&mut self.buffer));
            (self.start, self.end, self.place) = (0, 0, Place::Kept);
        }
    }

    /// Keeps a full buffer, to have room for more.
    fn poll_keep(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<Result<(), Short>> {
        let len_max = kept_max(self.len_max);
        let kept = self.kept.get_or_insert_with(|| buffers.memory().hold(len_max));
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
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        let Input { buffer, end, kept, .. } = self;
        let kept = kept.as_mut().expect("something is kept");
        if *end == 0 {
            // Little more than the end of a command or head: see `take_out`.
            let read = ready!(kept.poll_read(cx, stream, BUFFER_LEN))?;
            if let Some(len) = read.map_err(out_of_memory)? {
                return self.take_back(len, buffers);
            }
            if buffer.is_empty() {
                *buffer = buffers.take_input();
            }
            // Few bytes go in front of the next ones.
            let start = Some(kept.len()).filter(|len| *len < BUFFER_LEN).unwrap_or(0);
            let polled = poll_read(cx, stream, &mut buffer[start..]);
            if polled.is_pending() {
                buffers.give_input(std::mem::take(buffer));
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
        self.take_back(len, buffers)
    }

    /// Takes the buffer with the `len` bytes that have just come.
    fn take_back(&mut self, len: usize, buffers: &Buffers) -> Poll<io::Result<usize>> {
        if !self.buffer.is_empty() {
            buffers.give_input(std::mem::take(&mut self.buffer));
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
