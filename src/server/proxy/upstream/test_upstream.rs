//! An upstream that does what a test says, for the tests of this module.

use std::sync::Arc;

use http::{HeaderMap, Method};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::connection::Connection;
use super::error::UpstreamError;
use super::pool::{Reuse, Upstream};
use crate::server::codec::head::RequestHead;
use crate::server::codec::head_reader::{Found, HeadReader};
use crate::server::codec::{Framing, RequestToUpstream};
use crate::server::proxy::options::{UpstreamAddress, UpstreamOptions};

/// An upstream, and the socket behind it.
pub(super) struct TestUpstream {
    pub(super) upstream: Upstream,
    listener: UnixListener,
    _directory: TempDir,
}

impl TestUpstream {
    pub(super) fn new(change: impl FnOnce(&mut UpstreamOptions)) -> TestUpstream {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut options = UpstreamOptions::new(UpstreamAddress::Unix(path));
        change(&mut options);
        TestUpstream {
            upstream: Upstream::new(&options, &Arc::default()),
            listener,
            _directory: directory,
        }
    }

    /// A new connection, and the upstream's end of it.
    pub(super) async fn open(&self) -> (Connection, Peer) {
        let connection = self.upstream.connect(Reuse::Fresh).await.unwrap();
        assert!(!connection.is_reused());
        (connection, self.accept().await)
    }

    pub(super) async fn accept(&self) -> Peer {
        Peer(self.listener.accept().await.unwrap().0)
    }

    /// A connection on which a GET was sent.
    pub(super) async fn ask(&self) -> (Connection, Peer) {
        let (mut connection, mut peer) = self.open().await;
        get(&mut connection).await.unwrap();
        peer.read_head().await;
        (connection, peer)
    }
}

/// The upstream's end of a connection.
pub(super) struct Peer(pub(super) UnixStream);

impl Peer {
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads up to an empty line.
    pub(super) async fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    pub(super) async fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whether the other end is closed.
    pub(super) async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

/// A request for the root.
pub(super) struct Request {
    head: RequestHead,
    headers: HeaderMap,
    framing: Framing,
    pub(super) closes: bool,
}

impl Request {
    pub(super) fn new(method: &Method, framing: Framing) -> Request {
        let text = format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
        let found = HeadReader::default().find(text.as_bytes()).unwrap();
        let Found::Head(head, _) = found else { panic!("{text}") };
        Request { head, headers: HeaderMap::new(), framing, closes: false }
    }

    pub(super) fn to_upstream(&self) -> RequestToUpstream<'_> {
        RequestToUpstream {
            method: &self.head.method,
            target: &self.head.target,
            host: "x",
            headers: &self.headers,
            framing: self.framing,
            closes: self.closes,
        }
    }
}

pub(super) async fn get(connection: &mut Connection) -> Result<(), UpstreamError> {
    let request = Request::new(&Method::GET, Framing::None);
    connection.send_head(&request.to_upstream()).await
}

/// The rest of a body.
pub(super) async fn body(connection: &mut Connection) -> Result<Vec<u8>, UpstreamError> {
    let mut body = Vec::new();
    while let Some(piece) = connection.next_chunk().await? {
        assert!(!piece.is_empty() && piece.len() <= 64 << 10);
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
