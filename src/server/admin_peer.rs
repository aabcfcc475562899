//! One connection of the admin listener: when bytes last moved on it, and whether a request on it is
//! meant for this host.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::Request;
use hyper::Version;
use hyper::header::HOST;
use hyper::http::uri::Authority;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// When bytes last moved on a connection.
#[derive(Debug)]
pub(super) struct LastMoved(Mutex<Instant>);

impl LastMoved {
    pub(super) fn now() -> LastMoved {
        LastMoved(Mutex::new(Instant::now()))
    }

    pub(super) fn get(&self) -> Instant {
        *self.0.lock()
    }
}

/// A socket that remembers when bytes last moved.
pub(super) struct AdminSocket {
    pub(super) stream: TcpStream,
    pub(super) last_moved: Arc<LastMoved>,
}

impl AdminSocket {
    fn moved(&self) {
        *self.last_moved.0.lock() = Instant::now();
    }
}

impl AsyncRead for AdminSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.moved();
        Poll::Ready(read)
    }
}

impl AsyncWrite for AdminSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.moved();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether the request names this host and `port`, as everyone does who knows where it goes. The page
/// of another site, whose name its server made resolve to 127.0.0.1 later, does not.
pub(super) fn is_for_this_host<B>(request: &Request<B>, port: u16) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(|host| is_loopback(host, port)),
        // Only what is no browser speaks HTTP/1.0.
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    let target = request.uri().authority();
    named && target.is_none_or(|target| is_loopback(target.as_str(), port))
}

fn is_loopback(authority: &str, port: u16) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') || authority.port_u16().unwrap_or(80) != port {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_and_addresses_with_the_port_are_this_host() {
        for host in ["localhost:9180", "LocalHost:9180", "127.0.0.1:9180", "127.1.2.3:9180"] {
            assert!(is_loopback(host, 9180), "{host}");
        }
        assert!(is_loopback("[::1]:9180", 9180));
        assert!(is_loopback("localhost", 80));
    }

    #[test]
    fn everything_else_is_another_host() {
        for host in [
            "",
            "localhost",
            "localhost:80",
            "attacker.example:9180",
            "localhost.attacker.example:9180",
            "127.0.0.1.attacker.example:9180",
            "x@localhost:9180",
            "192.0.2.1:9180",
            "0.0.0.0:9180",
            "[::]:9180",
            "localhost:9180, localhost:9180",
        ] {
            assert!(!is_loopback(host, 9180), "{host}");
        }
    }
}
