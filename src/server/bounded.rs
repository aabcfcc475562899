//! The socket of one connection, with a send buffer as long as its client has shown to need. Whatever
//! its client leaves unread is bounded.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::counters::Ticket;
use super::presence::Presence;
use super::send_budget::{Reason, SendBudget, Shares};
use super::standing::{Ask, Standing, Watch};
use crate::device::{has_unread, unread_by_peer};

/// A client that makes room in its full buffer within this time reads fast enough for a longer one.
const READS_SOON: Duration = Duration::from_millis(100);

/// Bytes of one piece that count as waiting in memory; longer ones are counted by the cache, which
/// has a budget for them.
const UNCOUNTED_LEN: usize = 64 << 10;

/// A stream socket with a bounded send buffer.
pub(super) struct Bounded<S: AsFd> {
    stream: S,
    /// Most bytes of one write. TCP takes all of one that it begins.
    piece_len_max: Option<usize>,
    /// Length of the send buffer; the kernel may have given less.
    len: u64,
    /// What it has taken for being longer than a new one.
    shares: Shares,
    blocked_since: Option<Instant>,
    watch: Option<(u64, Arc<Watch>)>,
    budget: Arc<SendBudget>,
    standing: Arc<Standing>,
    /// Given back after the socket is closed, and while it is kept for its client, not before.
    ticket: Option<Ticket>,
}

/// Which family a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Unix,
    Tcp,
}

impl<S: AsFd + Presence> Presence for Bounded<S> {
    fn is_gone(&self) -> bool {
        self.stream.is_gone()
    }
}

impl<S: AsFd> Bounded<S> {
    pub(super) fn new(
        stream: S,
        family: Family,
        standing: Arc<Standing>,
        ticket: Ticket,
    ) -> Bounded<S> {
        let ticket = Some(ticket);
        let budget = standing.counters.send_budget().clone();
        let len = budget.first_len();
        let piece_len_max = match family {
            Family::Unix => None,
            Family::Tcp => Some(0),
        };
        let (shares, blocked_since, watch) = Default::default();
        let mut bounded = Bounded {
            stream,
            piece_len_max,
            len,
            shares,
            blocked_since,
            watch,
            budget,
            standing,
            ticket,
        };
        bounded.set_len(len);
        bounded
    }

    fn set_len(&mut self, len: u64) {
        // The kernel doubles what it is asked for, and may give less.
        let asked = usize::try_from(len / 2).unwrap_or(usize::MAX);
        let _ = setsockopt(&self.stream, sockopt::SndBuf, &asked);
        self.piece_len_max = self.piece_len_max.map(|_| asked);
        self.len = len;
    }

    fn has_long_buffer(&self) -> bool {
        self.len > self.budget.first_len()
    }

    fn watch(&mut self) -> &Arc<Watch> {
        &self.watch.get_or_insert_with(|| self.standing.watch()).1
    }

    fn grow(&mut self, reason: Reason) {
        match self.budget.grow(self.len, reason, &mut self.shares) {
            Some(len) => {
                self.set_len(len);
                let held = self.shares.held();
                self.watch().set_buffer(len, held);
            }
            None => self.standing.begin_to_look(),
        }
    }

    /// Does what the connection is asked for, before each use of the socket.
    ///
    /// # Errors
    /// The connection is cut.
    fn obey(&mut self) -> io::Result<()> {
        let Some((_, watch)) = &self.watch else { return Ok(()) };
        match watch.asked() {
            Ask::Nothing => Ok(()),
            Ask::Look => {
                let unread = unread_by_peer(&self.stream).unwrap_or(0);
                watch.answer(unread, Instant::now());
                if self.blocked_since.is_some() {
                    self.grow_for_sender();
                } else if self.has_long_buffer() && self.budget.share_of_unread(unread) == 0 {
                    let first_len = self.budget.first_len();
                    watch.set_buffer(first_len, [false; 2]);
                    self.set_len(first_len);
                    self.budget.give_back(&mut self.shares, 0);
                }
                Ok(())
            }
            Ask::Cut => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read; it is cut"))
            }
        }
    }

    fn grow_for_sender(&mut self) {
        if self.budget.grows_for_senders(self.len) && has_unread(&self.stream).unwrap_or(false) {
            self.grow(Reason::Sends);
        }
    }

    /// The socket took none of `unsent` bytes.
    fn block(&mut self, cx: &Context<'_>, unsent: u64) {
        let is_new = self.blocked_since.is_none();
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let before = self.watch().block(cx.waker(), since, unsent);
        self.budget.hold_unsent(unsent);
        self.budget.release_unsent(before);
        self.standing.begin_to_look();
        if is_new {
            self.grow_for_sender();
        }
    }

    /// The socket took bytes, or failed.
    fn unblock(&mut self, took: bool) {
        let Some(since) = self.blocked_since.take() else { return };
        let unsent = self.watch().unblock();
        self.budget.release_unsent(unsent);
        if took && since.elapsed() < READS_SOON {
            self.grow(Reason::Reads);
        }
    }

    fn wrote(
        &mut self,
        cx: &Context<'_>,
        written: Poll<io::Result<usize>>,
        unsent: impl Fn() -> u64,
    ) -> Poll<io::Result<usize>> {
        match &written {
            // A task that has had its turn waits for the next one, not for the socket.
            Poll::Pending if !has_budget_remaining() => {}
            Poll::Pending => self.block(cx, unsent()),
            Poll::Ready(taken) => {
                if self.blocked_since.is_some() {
                    self.unblock(taken.is_ok());
                }
                let needed = self.budget.first_len();
                if let Some((_, watch)) = &self.watch
                    && taken.as_ref().is_ok_and(|len| *len as u64 > needed)
                {
                    watch.use_long_buffer();
                }
            }
        }
        written
    }
}

fn counted(len: usize) -> u64 {
    len.min(UNCOUNTED_LEN) as u64
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.obey()?;
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending()
            && self.has_long_buffer()
            && let Some((_, watch)) = &self.watch
        {
            watch.rest(cx.waker());
            // It may have been asked before it could be woken.
            self.obey()?;
        }
        polled
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.obey()?;
        let piece = &buf[..buf.len().min(self.piece_len_max.unwrap_or(usize::MAX))];
        let written = Pin::new(&mut self.stream).poll_write(cx, piece);
        self.wrote(cx, written, || counted(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(len_max) = self.piece_len_max
            && bufs.iter().map(|buf| buf.len()).sum::<usize>() > len_max
        {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        self.obey()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, written, || bufs.iter().map(|buf| counted(buf.len())).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsFd> Drop for Bounded<S> {
    fn drop(&mut self) {
        if let Some((number, watch)) = self.watch.take() {
            self.standing.forget(number);
            self.budget.release_unsent(watch.unblock());
        }
        let socket = self.stream.as_fd();
        if unread_by_peer(&socket).is_ok_and(|unread| unread > 0)
            && let Ok(kept) = socket.try_clone_to_owned()
        {
            // For the client as if it were closed. It may have closed before.
            let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&kept), Shutdown::Both);
            self.standing.ended.keep(kept, std::mem::take(&mut self.shares), self.ticket.take());
            self.standing.begin_to_look();
        } else {
            self.budget.give_back(&mut self.shares, 0);
        }
    }
}
