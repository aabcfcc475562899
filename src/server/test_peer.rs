//! The other end of a connection in tests beside the code. Always ready.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::presence::Presence;

/// A peer whose bytes come in pieces, and that then has no more to send. Counts the reads from it, and
/// records each write to it.
pub(super) struct TestPeer {
    says: VecDeque<Bytes>,
    reads: Arc<AtomicUsize>,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl TestPeer {
    pub(super) fn saying(pieces: &[&[u8]]) -> TestPeer {
        let says = pieces.iter().filter(|piece| !piece.is_empty());
        let says = says.map(|piece| Bytes::copy_from_slice(piece)).collect();
        TestPeer { says, reads: Arc::default(), writes: Arc::default() }
    }

    /// How often it was read from.
    pub(super) fn reads(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.reads)
    }

    /// What is written to it.
    pub(super) fn writes(&self) -> Arc<Mutex<Vec<Vec<u8>>>> {
        Arc::clone(&self.writes)
    }
}

impl Presence for TestPeer {
    fn is_gone(&self) -> bool {
        false
    }
}

impl AsyncRead for TestPeer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let Some(piece) = self.says.front_mut() else { return Poll::Ready(Ok(())) };
        let len = piece.len().min(buffer.remaining());
        buffer.put_slice(&piece.split_to(len));
        if piece.is_empty() {
            self.says.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TestPeer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let len = bytes.len();
        self.writes.lock().push(bytes);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
