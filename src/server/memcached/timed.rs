//! A socket whose waits end: for the next command after one time, within a command or an answer after
//! another. Has a timer only while it may have to end a wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::patience::Patience;
use crate::server::presence::Presence;

/// What a connection waited for until its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The next command.
    Idle,
    /// The rest of a command, or room for more of an answer.
    Stalled,
}

/// How long a connection may wait without a byte that moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the next command; `None` is for ever.
    pub(super) idle: Option<Duration>,
    /// For the rest of a command, or for room for more of an answer.
    pub(super) stall: Duration,
}

/// A socket that fails with [`io::ErrorKind::TimedOut`] when no byte has moved for too long while
/// somebody waited for one.
pub(super) struct Timed<S> {
    stream: S,
    limits: Limits,
    is_idle: bool,
    /// For a byte that moves.
    patience: Patience,
    ended: Option<Wait>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, limits: Limits) -> Timed<S> {
        Timed { stream, limits, is_idle: false, patience: Patience::default(), ended: None }
    }

    /// Says whether the next wait is for a new command.
    pub(super) fn set_idle(&mut self, is_idle: bool) {
        self.is_idle = is_idle;
    }

    /// The wait that took too long, if one did.
    pub(super) fn ended(&self) -> Option<Wait> {
        self.ended
    }

    /// Ready when the wait that `polled` is a part of has taken too long.
    fn limited<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.patience.rest();
            return polled;
        }
        let limit = if self.is_idle { self.limits.idle } else { Some(self.limits.stall) };
        let Some(limit) = limit else { return Poll::Pending };
        ready!(self.patience.poll_end(limit, cx));
        self.ended = Some(if self.is_idle { Wait::Idle } else { Wait::Stalled });
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: Presence> Presence for Timed<S> {
    fn is_gone(&self) -> bool {
        self.stream.is_gone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.limited(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.limited(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.limited(cx, polled)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The time is not real: a wait without an end is found out at once.
    async fn bounded<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(100 * SECOND, work).await.unwrap()
    }

    fn pair(idle: Option<Duration>) -> (Timed<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(4);
        (Timed::new(near, Limits { idle, stall: 10 * SECOND }), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_no_byte_moved_for_its_time() {
        let (mut near, mut far) = pair(Some(3 * SECOND));
        near.set_idle(true);
        let start = Instant::now();
        assert_eq!(bounded(near.read_u8()).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((near.ended(), start.elapsed().as_secs()), (Some(Wait::Idle), 3));
        near.set_idle(false);
        // The wait goes on since the last byte.
        assert!(bounded(near.read_u8()).await.is_err());
        assert_eq!((near.ended(), start.elapsed().as_secs()), (Some(Wait::Stalled), 10));
        far.write_u8(1).await.unwrap();
        near.read_u8().await.unwrap();
        let start = Instant::now();
        assert!(bounded(near.write_all(b"12345")).await.is_err());
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_set_for_a_longer_wait_does_not_prolong_a_shorter_one() {
        let (mut near, mut far) = pair(Some(3 * SECOND));
        let (read, _) = tokio::join!(bounded(near.read_u8()), async {
            tokio::time::sleep(SECOND).await;
            far.write_u8(1).await
        });
        read.unwrap();
        near.set_idle(true);
        let start = Instant::now();
        assert!(bounded(near.read_u8()).await.is_err());
        assert_eq!((near.ended(), start.elapsed().as_secs()), (Some(Wait::Idle), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_that_moves_begins_the_time_anew() {
        let (mut near, mut far) = pair(None);
        let start = Instant::now();
        let slow = async {
            for _ in 0..5 {
                tokio::time::sleep(9 * SECOND).await;
                far.write_u8(1).await.unwrap();
            }
            tokio::time::sleep(60 * SECOND).await;
        };
        let reads = async {
            for _ in 0..5 {
                near.read_u8().await.unwrap();
            }
            assert!(bounded(near.read_u8()).await.is_err());
            assert_eq!(start.elapsed().as_secs(), 55);
        };
        tokio::join!(slow, reads);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_may_rest_for_ever_is_woken_once_at_most() {
        let (mut near, mut far) = pair(None);
        // A command in two pieces has set the timer.
        let (read, _) = tokio::join!(near.read_u8(), async {
            tokio::time::sleep(SECOND).await;
            far.write_u8(1).await
        });
        read.unwrap();
        near.set_idle(true);
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let resting = tokio::spawn(async move {
            let mut byte = [0];
            std::future::poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                Pin::new(&mut near).poll_read(cx, &mut ReadBuf::new(&mut byte))
            })
            .await
        });
        tokio::time::sleep(24 * 3600 * SECOND).await;
        assert!(polls.load(Ordering::Relaxed) <= 2, "{polls:?} polls");
        assert!(!resting.is_finished());
        resting.abort();
    }
}
