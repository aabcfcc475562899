//! Bytes received and not yet understood. Holds a buffer only while there are any.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::server::buffers::Buffers;

use super::parse::RETRIEVAL_LEN_MAX;

#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.start += len;
        assert!(self.start <= self.end, "consumed more than was read");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads what the peer has sent; `Ok(0)` is its end. While nothing arrives and nothing
    /// is unread, the buffer goes back to the spare ones.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        spares: &Buffers,
    ) -> Poll<io::Result<usize>> {
        self.make_room(spares);
        let mut target = ReadBuf::new(&mut self.buffer[self.end..]);
        let polled = Pin::new(stream).poll_read(cx, &mut target);
        let len = target.filled().len();
        if polled.is_pending() && self.end == 0 {
            self.release(spares);
        }
        ready!(polled)?;
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Gives the buffer back. What is unread is lost.
    pub(super) fn release(&mut self, spares: &Buffers) {
        (self.start, self.end) = (0, 0);
        spares.give_input(std::mem::take(&mut self.buffer));
    }

    fn make_room(&mut self, spares: &Buffers) {
        if self.buffer.is_empty() {
            self.buffer = spares.take_input();
        } else if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // Only a line can fill a buffer, and the parser gives up long ones.
                assert!(self.end <= RETRIEVAL_LEN_MAX, "a line outgrew its limit");
                self.buffer.resize(2 * self.end, 0);
            }
        }
    }
}
