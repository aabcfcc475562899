//! Takes turns: a connection writes its answers after the other connections that are ready have
//! been read.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::presence::Presence;

/// A socket whose first write after a read waits until the tasks that are ready have run.
///
/// Answers then leave one right after the other, and a client that has several connections is
/// woken once for all of them.
#[derive(Debug)]
pub(super) struct Turns<S> {
    stream: S,
    turn: Turn,
}

/// Whether a write may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next write waits.
    Due,
    /// A write waits now. Reads meanwhile make no further turn due, or it might wait for ever.
    Awaited,
    /// Writes go on, until something is read.
    Taken,
}

/// Waits until the tasks that are ready have run. Not `yield_now`, which polls for new events first.
pub(super) async fn turn() {
    let mut is_taken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_taken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<S> Turns<S> {
    pub(super) fn new(stream: S) -> Turns<S> {
        Turns { stream, turn: Turn::Due }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Pending once after each read: the task runs again after all that are ready.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.turn != Turn::Due {
            self.turn = Turn::Taken;
            return Poll::Ready(());
        }
        self.turn = Turn::Awaited;
        // Not `yield_now`, which polls for new events first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() && self.turn == Turn::Taken {
            self.turn = Turn::Due;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

impl<S: Presence> Presence for Turns<S> {
    fn is_gone(&self) -> bool {
        self.stream.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A socket that always has a byte and takes all, and records what happens to it.
    #[derive(Debug)]
    struct Noted(Arc<Mutex<String>>);

    impl AsyncRead for Noted {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.0.lock().push('r');
            buf.put_slice(b"?");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().push('w');
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn all_that_are_ready_are_read_before_the_first_is_answered() {
        let events = Arc::new(Mutex::new(String::new()));
        let connections: Vec<_> = (0..3)
            .map(|_| {
                let mut socket = Turns::new(Noted(Arc::clone(&events)));
                tokio::spawn(async move {
                    for _ in 0..2 {
                        socket.read_u8().await.unwrap();
                        socket.write_all(b"!").await.unwrap();
                        socket.write_all(b"!").await.unwrap();
                    }
                })
            })
            .collect();
        for connection in connections {
            connection.await.unwrap();
        }
        // The first to answer asks again before the next one answers.
        assert_eq!(*events.lock(), "rrrwwrwwrwwrwwwwww");
    }

    #[tokio::test]
    async fn reading_while_a_write_waits_does_not_put_it_off() {
        let events = Arc::new(Mutex::new(String::new()));
        let mut socket = Turns::new(Noted(Arc::clone(&events)));
        let mut byte = [0];
        poll_fn(|cx| {
            assert!(Pin::new(&mut socket).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready());
            Pin::new(&mut socket).poll_write(cx, b"!").map(drop)
        })
        .await;
        assert_eq!(*events.lock(), "rrw");
    }
}
