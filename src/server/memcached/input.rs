//! Bytes received and not yet parsed. Holds a buffer only while there are any.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::server::buffers::Buffers;

use super::input_budget::{InputBudget, Share};
use super::parse::RETRIEVAL_LEN_MAX;
use super::service::Service;

/// The unread bytes of one connection.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The budget's share for a buffer that has grown.
    share: Option<Share>,
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

    /// Reads what the peer has sent; `Ok(0)` means that it closed. While nothing arrives and
    /// nothing is unread, the buffer goes back to the spare ones.
    ///
    /// # Errors
    /// `OutOfMemory` if a long line needs more than is left for all connections.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        service: &Service,
    ) -> Poll<io::Result<usize>> {
        self.make_room(&service.buffers, &service.input_budget)?;
        let mut target = ReadBuf::new(&mut self.buffer[self.end..]);
        let polled = Pin::new(stream).poll_read(cx, &mut target);
        let len = target.filled().len();
        if polled.is_pending() && self.end == 0 {
            self.release(&service.buffers);
        }
        ready!(polled)?;
        self.end += len;
        Poll::Ready(Ok(len))
    }

    /// Gives the buffer back. Unread bytes are lost.
    pub(super) fn release(&mut self, spares: &Buffers) {
        (self.start, self.end) = (0, 0);
        spares.give_input(std::mem::take(&mut self.buffer));
        self.share = None;
    }

    fn make_room(&mut self, spares: &Buffers, input_budget: &Arc<InputBudget>) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer = spares.take_input();
        } else if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // Only an incomplete line fills a buffer, and the parser refuses long ones.
                assert!(self.end <= RETRIEVAL_LEN_MAX, "a line outgrew its limit");
                let grown_len = 2 * self.end;
                self.share = None;
                self.share = input_budget.take(grown_len as u64);
                if self.share.is_none() {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                self.buffer.resize(grown_len, 0);
            }
        }
        Ok(())
    }
}
