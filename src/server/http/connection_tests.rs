use std::future::{Future as _, poll_fn};
use std::pin::pin;

use super::super::{Service, Shared};
use super::*;
use crate::cache::{Cache, Condition, StoreOptions};
use crate::clock::{Clock, Timestamp};
use crate::server::access::Access;
use crate::server::test_peer::TestPeer;
use crate::server::{Options, Server};

/// A service over an empty cache, with a clock that stands.
async fn service() -> Arc<Service> {
    let cache = Cache::simulated(Clock::manual(Timestamp(1_800_000_000))).await;
    let server = Server::new(Options::default(), cache);
    Arc::new(Service::new(&server, 0, &Shared::default()))
}

/// What is written to a peer that sends these pieces.
async fn writes(service: &Arc<Service>, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let peer = TestPeer::saying(pieces);
    let writes = peer.writes();
    serve(peer, Arc::clone(service), Arc::default(), Access::default()).await;
    let mut writes = writes.lock();
    std::mem::take(&mut writes)
}

const EVIL: &str = "DELETE /v1/objects/k HTTP/1.1\r\nHost: x\r\n\r\n";

/// Requests with bodies of all kinds and answers of all kinds, and others that end the connection. What is stored has tags of its own, so that nothing depends on what was before.
fn streams() -> Vec<String> {
    let put = |key: &str, more: &str, body: &str| {
        format!(
            "PUT /v1/objects/{key} HTTP/1.1\r\nHost: x\r\nETag: \"1\"\r\nContent-Length: {}\r\n\
             {more}\r\n{body}",
            body.len()
        )
    };
    let get =
        |headers: &str| format!("GET /v1/objects/k HTTP/1.1\r\nHost: [::1]:8080\r\n{headers}\r\n");
    let common = [
        put("k", "", "0123456789"),
        get(""),
        "\r\n".to_owned() + &get("Range: bytes=2-3\r\n"),
        put("k", "Expect: 100-continue\r\n", "abc"),
        "\r\n\r\nPUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nETag: \"2\"\r\n\
         Transfer-Encoding: chunked\r\n\r\n4;a=b\r\n01\r\n\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n"
            .to_owned(),
        get("If-None-Match: \"2\"\r\n"),
        get("Content-Length: 40\r\n") + &EVIL[..40],
        put("k", "If-None-Match: *\r\n", EVIL),
        format!("HEAD /v1/objects/k HTTP/1.1\r\nHost:x\r\nX:\r\n\r\n{}", get("")),
        get("")
            .replace("HTTP/1.1", "HTTP/1.0")
            .replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
        "GET http://x/v1/objects/k?a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    let chunked = |body: &str| {
        format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let last = [
        String::new(),
        get("Connection: close\r\n"),
        get("") + "GET",
        "\r\n\r\n\r\n".to_owned() + &get(""),
        get("").replace('G', "\x16"),
        get("").replace("1.1", "2.0"),
        get("").replace("/k", "/k#"),
        get("").replace("/k ", "/k# ").replace("HTTP/1.1", "HTTP/3.0"),
        get("").replace("\r\n\r\n", "\r\n\n"),
        get("").replace("\r\n", "\n"),
        get("X : y\r\n"),
        get(&"X: y\r\n".repeat(101)),
        get("Expect: the-moon\r\n"),
        get("Content-Length: 9\r\nTransfer-Encoding: chunked\r\n"),
        put("k", "If-None-Match: *\r\nExpect: 100-continue\r\n", EVIL),
        chunked("5\r\nabcde\r\nx"),
        chunked("5\r\nabcd"),
        chunked("5\r\nabcdef\r\n0\r\n\r\n") + &get(""),
        chunked("0\r\nT: x\r\n y\r\n\r\n") + &get(""),
        chunked("").replace("/k", "/") + &get(""),
        put("k", "", "abc").replace("Length: 3", "Length: 4"),
        put("k", "", "").replace("Content-Length: 0", "Content-Length: 99999999999") + &get(""),
    ];
    let short = last.iter().map(|last| format!("{}{last}{EVIL}", common[0]));
    short.chain([common.concat()]).collect()
}

#[tokio::test]
async fn a_stream_is_answered_alike_however_it_is_cut() {
    for stream in streams() {
        let stream = stream.as_bytes();
        let whole = writes(&service().await, &[stream]).await.concat();
        let first = whole.len().min(60);
        assert!(whole.starts_with(b"HTTP/1.1 201 "), "{}", whole[..first].escape_ascii());
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        let single = writes(&service().await, &bytes).await.concat();
        assert!(single == whole, "{}\n\n{}", whole.escape_ascii(), single.escape_ascii());
        let service = service().await;
        for at in 1..stream.len() {
            let (first, rest) = stream.split_at(at);
            let cut = writes(&service, &[first, rest]).await.concat();
            let is_same = cut == whole;
            assert!(is_same, "{at}: {}\n\n{}", whole.escape_ascii(), cut.escape_ascii());
            // As it was for the whole stream.
            service.cache.remove(b"k").await.unwrap();
        }
    }
}

#[tokio::test]
async fn head_and_body_leave_in_one_write() {
    let service = service().await;
    for len in [0, 100, 4096, 8 << 10, 64 << 10] {
        let body = vec![b'x'; len];
        let options = StoreOptions::default();
        let stored = service.cache.put(b"k", &body, Condition::Always, &options);
        stored.await.unwrap();
        let writes = writes(&service, &[b"GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n\r\n"]).await;
        assert_eq!(writes.len(), 1, "{len} B");
        let head = writes[0].strip_suffix(&body[..]).unwrap();
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n") && head.ends_with(b"\r\n\r\n"));
    }
}

#[tokio::test]
async fn a_large_body_is_read_in_few_pieces_and_a_quiet_connection_holds_no_buffer() {
    let service = service().await;
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut wire = Wire::new(server, Arc::clone(&service));
    assert_eq!(wire.buffer_len(), 0);
    tokio::io::AsyncWriteExt::write_all(&mut client, &[b'x'; 600_000]).await.unwrap();
    let (mut reads, mut read) = (0, 0);
    while read < 600_000 {
        read += wire.read().await.unwrap();
        reads += 1;
        wire.consume(wire.unread().len());
    }
    assert!(reads <= 8, "{reads} reads");
    let gate = Gate::default();
    let waited = tokio::time::timeout(Duration::from_millis(1), wire.read_head(&gate, false)).await;
    assert!(waited.is_err());
    assert_eq!(wire.buffer_len(), 0);
}

#[tokio::test]
async fn a_connection_is_small() {
    let service = service().await;
    let peer = TestPeer::saying(&[]);
    let size = std::mem::size_of_val(&serve(peer, service, Arc::default(), Access::default()));
    assert!(size <= 8 << 10, "{size} B");
}

/// How often a connection on which this comes all at once yields to other tasks before it ends.
async fn turns_of_others(says: &[u8]) -> usize {
    let peer = TestPeer::saying(&[says]);
    let mut connection = pin!(serve(peer, service().await, Arc::default(), Access::default()));
    let mut turns = 0;
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        turns += usize::from(polled.is_pending());
        polled
    })
    .await;
    turns
}

#[tokio::test]
async fn many_requests_and_many_pieces_of_a_body_give_way_to_others() {
    // A task's budget is 128 units.
    let count = 5000;
    let get = "GET /v1/objects/absent HTTP/1.1\r\nHost: x\r\n\r\n".repeat(count);
    let turns = turns_of_others(get.as_bytes()).await;
    assert!(turns >= count * REQUEST_COST as usize / 128, "{turns} turns in {count} requests");
    let head = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let put = format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(count));
    let turns = turns_of_others(put.as_bytes()).await;
    assert!(turns >= count / 128, "{turns} turns in {count} chunks");
}
