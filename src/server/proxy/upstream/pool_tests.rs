use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::super::error::UpstreamError as E;
use super::super::test_upstream::{Peer, TestUpstream, get};
use super::*;
use crate::server::proxy::options::UpstreamAddress;

fn upstream(connections_max: usize) -> TestUpstream {
    TestUpstream::new(|options| options.connections_max = connections_max)
}

/// Asks and answers once on a connection.
async fn serve(connection: &mut Connection, peer: &mut Peer) {
    get(connection).await.unwrap();
    peer.read_head().await;
    peer.send("HTTP/1.1 204 x\r\n\r\n").await;
    connection.read_head(&Method::GET).await.unwrap();
}

async fn reused(upstream: &TestUpstream) -> bool {
    upstream.upstream.connect(Reuse::Allowed).await.unwrap().is_reused()
}

#[tokio::test]
async fn the_connection_that_was_used_last_is_used_next() {
    let upstream = upstream(8);
    let (mut first, mut first_peer) = upstream.open().await;
    let (mut second, mut second_peer) = upstream.open().await;
    serve(&mut first, &mut first_peer).await;
    serve(&mut second, &mut second_peer).await;
    assert_eq!((upstream.upstream.in_use(), upstream.upstream.idle()), (2, 0));
    second.give_back();
    drop(first);
    assert_eq!((upstream.upstream.in_use(), upstream.upstream.idle()), (0, 2));
    for peer in [&mut first_peer, &mut second_peer] {
        let mut connection = upstream.upstream.connect(Reuse::Allowed).await.unwrap();
        assert!(connection.is_reused());
        for _ in 0..2 {
            serve(&mut connection, peer).await;
            drop(connection);
            connection = upstream.upstream.connect(Reuse::Allowed).await.unwrap();
        }
        std::mem::forget(connection);
    }
}

#[tokio::test]
async fn fresh_connections_take_the_place_of_idle_ones() {
    let upstream = upstream(2);
    let (old, mut old_peer) = upstream.open().await;
    let (young, mut young_peer) = upstream.open().await;
    drop((old, young));
    let (_fresh, _) = upstream.open().await;
    assert!(old_peer.is_closed().await);
    assert_eq!((upstream.upstream.in_use(), upstream.upstream.idle()), (1, 1));
    let mut again = upstream.upstream.connect(Reuse::Allowed).await.unwrap();
    assert!(again.is_reused());
    serve(&mut again, &mut young_peer).await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded() {
    let upstream = upstream(2);
    let (first, _peer) = upstream.open().await;
    let (_second, _second_peer) = upstream.open().await;
    for reuse in [Reuse::Fresh, Reuse::Allowed] {
        let error = upstream.upstream.connect(reuse).await.unwrap_err();
        assert!(matches!(error, E::NoFreeConnection) && error.is_timeout(), "{error}");
    }
    let give_back = async {
        sleep(Duration::from_secs(4)).await;
        drop(first);
    };
    let (third, ()) = tokio::join!(upstream.upstream.connect(Reuse::Allowed), give_back);
    assert!(third.unwrap().is_reused());
}

#[tokio::test(start_paused = true)]
async fn old_connections_are_closed() {
    let upstream = upstream(8);
    let (connection, mut peer) = upstream.open().await;
    drop(connection);
    sleep(Duration::from_secs(29)).await;
    assert!(reused(&upstream).await);
    sleep(Duration::from_secs(31)).await;
    assert!(!reused(&upstream).await);
    assert!(peer.is_closed().await);
    // Nobody asks for this one.
    let _peer = upstream.accept().await;
    assert_eq!(upstream.upstream.idle(), 1);
    sleep(Duration::from_secs(36)).await;
    assert_eq!(upstream.upstream.idle(), 0);
}

#[tokio::test(start_paused = true)]
async fn connections_that_the_upstream_closed_are_not_used_again() {
    let upstream = upstream(8);
    let (connection, peer) = upstream.open().await;
    drop(connection);
    drop(peer);
    assert!(!reused(&upstream).await);
    drop(upstream.accept().await);
    // They go even if nobody asks.
    assert_eq!(upstream.upstream.idle(), 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(upstream.upstream.idle(), 0);
}

#[tokio::test]
async fn an_upstream_that_is_away_is_known_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let address = UpstreamAddress::Unix(directory.path().join("none"));
    let upstream = Upstream::new(&UpstreamOptions::new(address), &Arc::default());
    let error = upstream.connect(Reuse::Allowed).await.unwrap_err();
    assert!(matches!(error, E::Connect(_)) && !error.is_timeout(), "{error}");
    assert_eq!(upstream.in_use(), 0);
}

/// A Unix socket refuses at once when its backlog is full, which is no reason to give up.
#[tokio::test]
async fn an_upstream_may_be_slow_to_accept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut options = UpstreamOptions::new(UpstreamAddress::Unix(path));
    options.connect_timeout = Duration::from_millis(50);
    let upstream = Upstream::new(&options, &Arc::default());
    let mut connections = Vec::new();
    let error = loop {
        match upstream.connect(Reuse::Allowed).await {
            Ok(connection) => connections.push(connection),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, E::ConnectTimeout) && error.is_timeout(), "{error}");
    let (connected, accepted) = tokio::join!(upstream.connect(Reuse::Allowed), listener.accept());
    assert!(accepted.is_ok() && connected.is_ok());
}

#[tokio::test]
async fn an_upstream_may_listen_on_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = UpstreamAddress::Tcp(listener.local_addr().unwrap());
    let upstream = Upstream::new(&UpstreamOptions::new(address), &Arc::default());
    let mut connection = upstream.connect(Reuse::Allowed).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    for is_reused in [false, true] {
        assert_eq!(connection.is_reused(), is_reused);
        get(&mut connection).await.unwrap();
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").await.unwrap();
        connection.read_head(&Method::GET).await.unwrap();
        assert_eq!(connection.next_chunk().await.unwrap().unwrap(), "ab");
        drop(connection);
        connection = upstream.connect(Reuse::Allowed).await.unwrap();
    }
}
