use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use tokio::time::sleep;

use super::super::error::UpstreamError as E;
use super::super::pool::Reuse;
use super::super::test_upstream::{Request as Sent, TestUpstream, body, get};
use super::*;
use crate::server::codec::Framing;
use crate::server::codec::fault::Fault;

fn upstream() -> TestUpstream {
    TestUpstream::new(|_| ())
}

/// Whether the connection waits for another request once it is dropped.
fn is_kept(upstream: &TestUpstream, connection: Connection) -> bool {
    let before = upstream.upstream.idle();
    connection.give_back();
    upstream.upstream.idle() > before
}

#[tokio::test]
async fn bodies_end_where_their_framing_says() {
    let long = "x".repeat(300_000);
    let of_length = format!("Content-Length: 300000\r\n\r\n{long}");
    let of_chunks = format!(
        "Transfer-Encoding: chunked\r\n\r\n493e0\r\n{long}\r\n1;a\r\ny\r\n0\r\nT: x\r\n\r\n"
    );
    let in_chunks = format!("{long}y");
    let until_close = format!("\r\n{long}");
    let to_1_0 = "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx";
    let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
    for (response, content, len, keeps) in [
        (ok("Content-Length: 3\r\n\r\nabc"), "abc", Some(3), true),
        (ok("Content-Length: 0\r\n\r\n"), "", Some(0), true),
        (ok(&of_length), &*long, Some(300_000), true),
        (ok(&of_chunks), &*in_chunks, None, true),
        (ok("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "", None, true),
        (ok(&until_close), &*long, None, false),
        (ok("\r\n"), "", None, false),
        (ok("Content-Length: 3\r\nConnection: close\r\n\r\nabc"), "abc", Some(3), false),
        ("HTTP/1.1 204 x\r\n\r\n".to_owned(), "", Some(0), true),
        ("HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n".to_owned(), "", Some(0), true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned(), "x", Some(1), false),
        (to_1_0.to_owned(), "x", Some(1), true),
    ] {
        let upstream = upstream();
        let (mut connection, mut peer) = upstream.ask().await;
        let ends = len.is_none() && !response.contains("chunked");
        let sending = tokio::spawn(async move {
            peer.send(response).await;
            (!ends).then_some(peer)
        });
        connection.read_head(&Method::GET).await.unwrap();
        assert_eq!(connection.body_len(), len);
        assert!(body(&mut connection).await.unwrap() == content.as_bytes());
        // The end stays the end.
        assert_eq!(connection.next_chunk().await.unwrap(), None);
        let _peer = sending.await.unwrap();
        assert_eq!(is_kept(&upstream, connection), keeps, "{len:?}");
    }
}

#[tokio::test]
async fn the_response_to_a_head_request_has_no_body() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.open().await;
    let request = Sent::new(&Method::HEAD, Framing::None);
    connection.send_head(&request.to_upstream()).await.unwrap();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let head = connection.read_head(&Method::HEAD).await.unwrap();
    assert_eq!((head.announced_len, connection.body_len()), (Some(5), Some(0)));
    assert!(is_kept(&upstream, connection));
}

#[tokio::test]
async fn a_body_that_is_cut_short_never_ends() {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for rest in [
        "Content-Length: 3\r\n\r\nab".to_owned(),
        "Content-Length: 3\r\n\r\n".to_owned(),
        chunked.to_owned(),
        format!("{chunked}3"),
        format!("{chunked}3\r\nab"),
        format!("{chunked}3\r\nabc"),
        format!("{chunked}3\r\nabc\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\nT: x\r\n"),
    ] {
        let upstream = upstream();
        let (mut connection, mut peer) = upstream.ask().await;
        peer.send(format!("HTTP/1.1 200 OK\r\n{rest}")).await;
        drop(peer);
        connection.read_head(&Method::GET).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(body(&mut connection).await, Err(E::Cut)), "{rest}");
        }
        assert!(!is_kept(&upstream, connection));
    }
}

/// The only end of such a body is that of the connection: one that is reset is none.
#[tokio::test]
async fn a_body_until_the_close_is_cut_by_a_reset() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.open().await;
    get(&mut connection).await.unwrap();
    peer.send("HTTP/1.1 200 OK\r\n\r\nabc").await;
    connection.read_head(&Method::GET).await.unwrap();
    assert_eq!(connection.next_chunk().await.unwrap().unwrap(), "abc");
    // The request is unread.
    drop(peer);
    assert!(matches!(connection.next_chunk().await, Err(E::Cut)));
    assert!(!is_kept(&upstream, connection));
}

#[tokio::test]
async fn malformed_responses_are_refused() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (response, text) in [
        ("hello".to_owned(), "the response is malformed: the status line is malformed"),
        (format!("{chunked}x"), "the response is malformed: a chunk of the body is malformed"),
    ] {
        let upstream = upstream();
        let (mut connection, mut peer) = upstream.ask().await;
        peer.send(response).await;
        let read = async {
            connection.read_head(&Method::GET).await?;
            body(&mut connection).await
        };
        let error = read.await.unwrap_err();
        assert!(matches!(error, E::Malformed(_)) && error.to_string() == text, "{error}");
        assert!(matches!(connection.next_chunk().await, Err(E::Cut)));
        assert!(!error.is_timeout() && !is_kept(&upstream, connection));
    }
}

#[tokio::test]
async fn bodies_of_requests_are_sent_as_announced() {
    let pieces = [&b"hello"[..], b"", b" ", b"0123456789"];
    for (framing, expected) in [
        (Framing::Length(16), "hello 0123456789"),
        (Framing::Chunked, "5\r\nhello\r\n1\r\n \r\na\r\n0123456789\r\n0\r\n\r\n"),
    ] {
        let upstream = upstream();
        let (mut connection, mut peer) = upstream.open().await;
        let request = Sent::new(&Method::PUT, framing);
        connection.send_head(&request.to_upstream()).await.unwrap();
        assert!(peer.read_head().await.starts_with("PUT / HTTP/1.1\r\nhost: x\r\n"));
        for piece in pieces {
            connection.send_body(piece).await.unwrap();
        }
        connection.end_body().await.unwrap();
        connection.end_body().await.unwrap();
        assert_eq!(peer.read(expected.len()).await, expected.as_bytes());
        peer.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
        connection.read_head(&Method::PUT).await.unwrap();
        assert!(is_kept(&upstream, connection));
        assert!(peer.0.try_read(&mut [0]).is_err(), "nothing more is sent");
    }
}

#[tokio::test]
async fn a_body_of_another_length_is_an_error() {
    for (framing, sent) in [
        (Framing::Length(3), &b"abcd"[..]),
        (Framing::Length(3), b"ab"),
        (Framing::Length(3), b""),
        (Framing::None, b"a"),
    ] {
        let upstream = upstream();
        let (mut connection, _peer) = upstream.open().await;
        let request = Sent::new(&Method::PUT, framing);
        connection.send_head(&request.to_upstream()).await.unwrap();
        let send = async {
            connection.send_body(sent).await?;
            connection.end_body().await
        };
        assert!(matches!(send.await, Err(E::BodyLength)), "{framing:?}");
        assert!(!is_kept(&upstream, connection));
    }
}

#[tokio::test]
async fn a_response_may_come_before_the_request_was_sent_whole() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Chunked);
    let long = vec![b'x'; 8 << 20];
    {
        let (mut sender, mut receiver) = connection.split();
        let mut sending = pin!(async {
            sender.send_head(&request.to_upstream()).await?;
            sender.send_body(&long).await
        });
        let answering = async {
            peer.read_head().await;
            peer.send("HTTP/1.1 413 x\r\nContent-Length: 3\r\n\r\nabc").await;
        };
        let reading = async {
            let head = receiver.read_head(&Method::PUT).await.unwrap();
            (head.status, receiver.next_chunk().await.unwrap().unwrap())
        };
        let (status, content) = tokio::select! {
            ((), answer) = async { tokio::join!(answering, reading) } => answer,
            sent = &mut sending => panic!("nobody reads it: {sent:?}"),
        };
        assert_eq!((status, &*content), (StatusCode::PAYLOAD_TOO_LARGE, &b"abc"[..]));
    }
    // Part of the body was sent.
    assert!(!is_kept(&upstream, connection));
    assert!(!peer.is_closed().await, "what was sent is read first");
}

#[tokio::test]
async fn a_whole_request_may_follow_its_response() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Length(5));
    connection.send_head(&request.to_upstream()).await.unwrap();
    peer.send("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n").await;
    connection.read_head(&Method::PUT).await.unwrap();
    connection.send_body(b"hello").await.unwrap();
    assert!(is_kept(&upstream, connection));
}

#[tokio::test]
async fn an_upstream_that_closes_early_may_have_answered() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Chunked);
    connection.send_head(&request.to_upstream()).await.unwrap();
    peer.read_head().await;
    peer.send("HTTP/1.1 413 x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc").await;
    drop(peer);
    for _ in 0..2 {
        let error = connection.send_body(b"hello").await.unwrap_err();
        assert!(error.may_have_answered() && !error.is_stale_reuse(), "{error}");
    }
    let head = connection.read_head(&Method::PUT).await.unwrap();
    assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(&mut connection).await.unwrap(), b"abc");
    assert!(!is_kept(&upstream, connection));
}

#[tokio::test]
async fn interim_heads_come_before_the_final_one() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.ask().await;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\n";
    peer.send(interim.repeat(16) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    for _ in 0..16 {
        let head = connection.read_head(&Method::GET).await.unwrap();
        assert_eq!((head.status, head.headers.len()), (StatusCode::EARLY_HINTS, 1));
    }
    assert_eq!(connection.read_head(&Method::GET).await.unwrap().status, StatusCode::OK);
    assert!(is_kept(&upstream, connection));

    let (mut connection, mut peer) = upstream.ask().await;
    peer.send(interim.repeat(17)).await;
    for _ in 0..16 {
        connection.read_head(&Method::GET).await.unwrap();
    }
    let error = connection.read_head(&Method::GET).await.unwrap_err();
    assert!(matches!(error, E::Malformed(Fault::INTERIMS)), "{error}");

    let (mut connection, mut peer) = upstream.ask().await;
    peer.send("HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: Upgrade\r\n\r\n").await;
    let error = connection.read_head(&Method::GET).await.unwrap_err();
    assert!(matches!(error, E::Malformed(Fault::UPGRADE)), "{error}");
    assert_eq!(error.to_string(), "the response is malformed: nobody asked for another protocol");

    let (mut connection, mut peer) = upstream.ask().await;
    peer.send(interim).await;
    drop(peer);
    connection.read_head(&Method::GET).await.unwrap();
    assert!(matches!(connection.read_head(&Method::GET).await, Err(E::Cut)));
}

#[tokio::test]
async fn a_connection_that_ends_before_its_response_is_known_as_such() {
    let upstream = upstream();
    for is_read in [true, false] {
        let (mut connection, mut peer) = upstream.open().await;
        get(&mut connection).await.unwrap();
        if is_read {
            peer.read_head().await;
        }
        drop(peer);
        let error = connection.read_head(&Method::GET).await.unwrap_err();
        assert!(matches!(error, E::Closed { is_reused: false }), "{error}");
        assert!(!error.is_stale_reuse() && !error.is_timeout());
    }
    let (mut connection, mut peer) = upstream.ask().await;
    peer.send("HTTP/1.1 2").await;
    drop(peer);
    assert!(matches!(connection.read_head(&Method::GET).await, Err(E::Cut)));
    assert_eq!(upstream.upstream.idle(), 0);
}

#[tokio::test]
async fn a_connection_may_be_closed_as_it_is_used_again() {
    for is_sent in [true, false] {
        let upstream = upstream();
        let (connection, mut peer) = upstream.open().await;
        connection.give_back();
        let mut connection = upstream.upstream.connect(Reuse::Allowed).await.unwrap();
        assert!(connection.is_reused());
        let sent = if is_sent {
            let sent = get(&mut connection).await;
            peer.read_head().await;
            drop(peer);
            sent
        } else {
            drop(peer);
            get(&mut connection).await
        };
        assert!(sent.is_ok() || sent.is_err_and(|error| error.may_have_answered()));
        let error = connection.read_head(&Method::GET).await.unwrap_err();
        assert!(error.is_stale_reuse(), "{error}");
        assert!(!is_kept(&upstream, connection));
    }
}

#[tokio::test]
async fn what_is_behind_a_response_makes_its_connection_useless() {
    let upstream = upstream();
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
        "HTTP/1.1 304 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (mut connection, mut peer) = upstream.ask().await;
        peer.send(response).await;
        connection.read_head(&Method::GET).await.unwrap();
        body(&mut connection).await.unwrap();
        assert!(!is_kept(&upstream, connection), "{response}");
        assert!(peer.is_closed().await);
    }
    // It comes before the connection is given back, or after that.
    for is_late in [false, true] {
        let (mut connection, mut peer) = upstream.ask().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        connection.read_head(&Method::GET).await.unwrap();
        if !is_late {
            peer.send("x").await;
        }
        assert_eq!(is_kept(&upstream, connection), is_late);
        if is_late {
            peer.send("x").await;
        }
        let connection = upstream.upstream.connect(Reuse::Allowed).await.unwrap();
        assert!(!connection.is_reused());
        upstream.accept().await;
    }
}

#[tokio::test]
async fn a_body_that_was_not_read_whole_ends_its_connection() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.ask().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").await;
    connection.read_head(&Method::GET).await.unwrap();
    connection.next_chunk().await.unwrap().unwrap();
    assert_eq!(connection.body_len(), Some(2));
    assert!(!is_kept(&upstream, connection));

    let (mut connection, mut peer) = upstream.open().await;
    let mut request = Sent::new(&Method::GET, Framing::None);
    request.closes = true;
    connection.send_head(&request.to_upstream()).await.unwrap();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    connection.read_head(&Method::GET).await.unwrap();
    assert!(!is_kept(&upstream, connection));
}

/// Drops each read that is not ready at once, and asks again.
async fn again_and_again<T>(mut read: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(read) = read().await {
            return read;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn reads_that_are_given_up_lose_nothing() {
    let upstream = upstream();
    let (mut connection, mut peer) = upstream.ask().await;
    let sending = tokio::spawn(async move {
        let response = "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        5\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n";
        for byte in response.as_bytes() {
            peer.send([*byte]).await;
            sleep(Duration::from_micros(100)).await;
        }
        peer
    });
    for status in [100, 200] {
        let head = again_and_again(async || connection.read_head(&Method::GET).now_or_never());
        assert_eq!(head.await.unwrap().status.as_u16(), status);
    }
    let mut content = Vec::new();
    let mut next = async || again_and_again(async || connection.next_chunk().now_or_never()).await;
    while let Some(piece) = next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    assert_eq!(content, b"hello!");
    let _peer = sending.await.unwrap();
    assert!(is_kept(&upstream, connection));
}

/// Tasks on several threads may hold these.
#[test]
fn connections_can_be_sent_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync>() {}
    fn is_send(_: &impl Send) {}
    is_send_and_sync::<Connection>();
    is_send_and_sync::<super::super::pool::Upstream>();
    is_send_and_sync::<UpstreamError>();
    let _ = |upstream: super::super::pool::Upstream| {
        is_send(&async move {
            let mut connection = upstream.connect(Reuse::Allowed).await?;
            get(&mut connection).await?;
            connection.read_head(&Method::GET).await?;
            body(&mut connection).await
        });
    };
}
