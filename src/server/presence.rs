//! Whether the peer of a connection is still there while something is done for it that takes long.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Time between two looks at the peer. What is done sooner is done, whether the peer is there or not.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A socket that knows whether its peer is there.
pub(super) trait Presence {
    /// Whether nothing comes from the peer any more and nothing can reach it: both directions are
    /// shut down, or the connection is broken. A peer that only sends nothing more is there. Over TCP
    /// one that closes its socket looks like that until something is sent to it.
    fn is_gone(&self) -> bool;
}

/// What `work` gives; `None` if the peer left before it was done: then it is dropped where it was.
pub(super) async fn while_there<F: Future>(
    peer: &(impl Presence + ?Sized),
    mut work: Pin<&mut F>,
) -> Option<F::Output> {
    // Most work is done at once, and needs no timer.
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return Some(done);
    }
    loop {
        match tokio::time::timeout(LOOK_EVERY, work.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if peer.is_gone() => return None,
            Err(_) => {}
        }
    }
}

macro_rules! by_readiness {
    ($($socket:ty),*) => {$(
        impl Presence for $socket {
            fn is_gone(&self) -> bool {
                let ready = self.ready(Interest::WRITABLE).now_or_never();
                ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_write_closed()))
            }
        }
    )*};
}
by_readiness!(UnixStream, TcpStream);

#[cfg(test)]
impl Presence for tokio::io::DuplexStream {
    fn is_gone(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Shutdown;
    use std::pin::pin;

    use super::*;

    /// A socket, and its peer's end of the connection.
    fn pair() -> (UnixStream, std::os::unix::net::UnixStream) {
        let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        (UnixStream::from_std(socket).unwrap(), peer)
    }

    #[tokio::test]
    async fn work_for_a_peer_that_left_is_dropped() {
        let (socket, peer) = pair();
        drop(peer);
        assert_eq!(while_there(&socket, pin!(pending::<()>())).await, None);
        let (socket, peer) = pair();
        peer.shutdown(Shutdown::Both).unwrap();
        assert_eq!(while_there(&socket, pin!(pending::<()>())).await, None);
    }

    #[tokio::test]
    async fn work_for_a_peer_that_sends_nothing_more_goes_on() {
        let (socket, peer) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        let work = tokio::time::sleep(3 * LOOK_EVERY);
        assert_eq!(while_there(&socket, pin!(work)).await, Some(()));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_there_until_it_leaves() {
        let (socket, peer) = pair();
        while socket.try_write(&[0; 4096]).is_ok() {}
        let work = tokio::time::sleep(3 * LOOK_EVERY);
        assert_eq!(while_there(&socket, pin!(work)).await, Some(()));
        drop(peer);
        assert_eq!(while_there(&socket, pin!(pending::<()>())).await, None);
    }

    #[tokio::test]
    async fn a_peer_over_tcp_is_gone_when_its_connection_is_broken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = TcpStream::from_std(socket).unwrap();
        socket.writable().await.unwrap();
        socket.try_write(b"unread").unwrap();
        // With something unread the peer's kernel resets the connection.
        drop(peer);
        assert_eq!(while_there(&socket, pin!(pending::<()>())).await, None);
    }
}
