use std::time::Duration;

use futures_util::FutureExt as _;
use http::Method;
use tokio::time::{Instant, sleep, timeout};

use super::super::error::UpstreamError as E;
use super::super::test_upstream::{Request as Sent, TestUpstream, body};
use crate::server::codec::Framing;

const HOUR: Duration = Duration::from_secs(3600);

/// What it gives, and how long it took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (work.await, start.elapsed())
}

fn is_about(took: Duration, seconds: u64) -> bool {
    let due = Duration::from_secs(seconds);
    took >= due && took < due + Duration::from_millis(100)
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_is_waited_for_from_the_end_of_the_request_on() {
    let upstream = TestUpstream::new(|options| {
        options.first_byte_timeout = Duration::from_secs(7);
    });
    let (mut connection, mut peer) = upstream.ask().await;
    sleep(Duration::from_secs(3)).await;
    peer.send("HTTP/1.1 100 x\r\n\r\nHTTP").await;
    connection.read_head(&Method::GET).await.unwrap();
    let (read, took) = timed(connection.read_head(&Method::GET)).await;
    assert!(matches!(read, Err(E::FirstByteTimeout)) && read.unwrap_err().is_timeout());
    assert!(is_about(took, 4), "{took:?}");

    let (mut connection, _peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Length(5));
    connection.send_head(&request.to_upstream()).await.unwrap();
    assert!(timeout(HOUR, connection.read_head(&Method::PUT)).await.is_err());
    let (mut sender, mut receiver) = connection.split();
    let method = Method::PUT;
    let reading = timed(receiver.read_head(&method));
    let sending = async {
        sleep(HOUR).await;
        sender.send_body(b"hello").await.unwrap();
    };
    let ((read, took), ()) = tokio::join!(reading, sending);
    assert!(matches!(read, Err(E::FirstByteTimeout)));
    assert!(is_about(took, 3607), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_over() {
    let upstream = TestUpstream::new(|_| ());
    let (mut connection, _peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Chunked);
    connection.send_head(&request.to_upstream()).await.unwrap();
    let long = vec![0; 8 << 20];
    assert!(connection.send_body(&long).now_or_never().is_none());
    let error = connection.send_body(b"x").await.unwrap_err();
    assert!(matches!(error, E::NotTaken(_)), "{error}");
    let (read, took) = timed(connection.read_head(&Method::PUT)).await;
    assert!(matches!(read, Err(E::FirstByteTimeout)) && is_about(took, 60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_may_not_stand_still() {
    let upstream = TestUpstream::new(|options| {
        options.between_bytes_timeout = Duration::from_secs(7);
    });
    let (mut connection, mut peer) = upstream.ask().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await;
    connection.read_head(&Method::GET).await.unwrap();
    let sending = async {
        for _ in 0..2 {
            sleep(Duration::from_secs(6)).await;
            peer.send("x").await;
        }
    };
    let (((), read), took) = timed(async { tokio::join!(sending, body(&mut connection)) }).await;
    assert!(matches!(read, Err(E::BodyTimeout)) && read.unwrap_err().is_timeout());
    assert!(is_about(took, 19), "{took:?}");

    let (mut connection, _peer) = upstream.open().await;
    let request = Sent::new(&Method::PUT, Framing::Chunked);
    connection.send_head(&request.to_upstream()).await.unwrap();
    let long = vec![0; 8 << 20];
    let (sent, took) = timed(connection.send_body(&long)).await;
    let error = sent.unwrap_err();
    assert!(matches!(error, E::SendTimeout) && error.is_timeout(), "{error}");
    assert!(is_about(took, 7), "{took:?}");
}
