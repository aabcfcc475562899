use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::{Service, Shared};
use super::*;
use crate::cache::{Cache, Condition, StoreOptions};
use crate::clock::{Clock, Timestamp};
use crate::server::access::Access;
use crate::server::test_peer::TestPeer;
use crate::server::{Options, Server};

/// A service over an empty cache, with a clock that stands.
async fn service() -> Arc<Service> {
    service_on(16 << 20).await
}

/// As [`service`], with a device of `size` bytes.
async fn service_on(size: u64) -> Arc<Service> {
    let cache = Cache::simulated_on(size, Clock::manual(Timestamp(1_800_000_000))).await;
    let server = Server::new(Options::default(), cache);
    Arc::new(Service::new(&server, 0, &Shared::default()))
}

/// What is written to a peer that sends these pieces.
async fn writes(service: &Arc<Service>, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let peer = TestPeer::saying(pieces);
    let writes = peer.writes();
    serve(peer, Arc::clone(service), Arc::default(), Objects(Access::default())).await;
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
async fn a_large_body_is_read_in_few_pieces() {
    let body = "x".repeat(600_000);
    let by_length = format!("Content-Length: 600000\r\n\r\n{body}");
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n927c0\r\n{body}\r\n0\r\n\r\n");
    for rest in [by_length, chunked] {
        // Pieces of 1 MiB, as on any device of this size and more.
        let service = service_on(256 << 20).await;
        let head = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let peer = TestPeer::saying(&[format!("{head}{rest}").as_bytes()]);
        let (reads, writes) = (peer.reads(), peer.writes());
        serve(peer, Arc::clone(&service), Arc::default(), Objects(Access::default())).await;
        assert!(writes.lock().concat().starts_with(b"HTTP/1.1 201 "));
        assert!(stored(&service).await == body.as_bytes());
        let reads = reads.load(Ordering::Relaxed);
        assert!(reads <= 8, "{reads} reads");
    }
}

/// The body of the object `k`.
async fn stored(service: &Service) -> Vec<u8> {
    let mut hit = service.cache.lookup(b"k").await.unwrap();
    let mut body = Vec::new();
    while let Some(piece) = hit.next_chunk().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    body
}

#[tokio::test]
async fn a_large_body_is_stored_alike_however_it_is_cut() {
    let body: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let put = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n";
    let by_length = [format!("{put}Content-Length: 300000\r\n\r\n").as_bytes(), &body].concat();
    let mut chunked = format!("{put}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let mut rest = &body[..];
    for len in [20_000, 16_384, 5, 16_383, 70_000, 0] {
        let (chunk, more) = rest.split_at(if len > 0 { len } else { rest.len() });
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
        chunked.extend(b"\r\n");
        rest = more;
    }
    chunked.extend(b"0\r\n\r\n");
    for stream in [by_length, chunked] {
        let stream =
            [&stream, "GET /v1/objects/none HTTP/1.1\r\nHost: x\r\n\r\n".as_bytes()].concat();
        for piece in [1000, 16_384, 16_385, 50_000, stream.len()] {
            let service = service().await;
            let answers = writes(&service, &stream.chunks(piece).collect::<Vec<_>>()).await;
            let answers = String::from_utf8(answers.concat()).unwrap();
            let statuses =
                answers.matches("HTTP/1.1 201 ").count() + answers.matches(" 404 ").count();
            assert_eq!(statuses, 2, "{piece}: {answers}");
            assert!(stored(&service).await == body, "{piece}");
            assert_eq!(service.shard.bytes_read.get(), stream.len() as u64);
        }
        // One that ends too early is not stored.
        let service = service().await;
        let answers = writes(&service, &[&stream[..250_000]]).await.concat();
        assert!(answers.starts_with(b"HTTP/1.1 400 "), "{}", answers.escape_ascii());
        assert!(service.cache.lookup(b"k").await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_long_head_gives_way_and_its_client_is_told() {
    let cache = Cache::simulated(Clock::manual(Timestamp(1_800_000_000))).await;
    let options = Options { input_bytes_max: 250_000, ..Options::default() };
    let service = Arc::new(Service::new(&Server::new(options, cache), 0, &Shared::default()));
    let open = || {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (service, gate) = (Arc::clone(&service), Arc::default());
        tokio::spawn(serve(server, service, gate, Objects(Access::default())));
        client
    };
    let filler = format!("X-Other: {}\r\n", "o".repeat(100_000));
    let head = format!("DELETE /v1/objects/k HTTP/1.1\r\nHost: x\r\n{filler}\r\n");
    let mut slow = open();
    slow.write_all(&head.as_bytes()[..90_000]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut answer = [0; 13];
    let mut honest = open();
    honest.write_all(head.as_bytes()).await.unwrap();
    honest.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404 ");
    // What it goes on to send is dropped, so that it can read its answer.
    slow.write_all(&head.as_bytes()[90_000..]).await.unwrap();
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503 ");
    tokio::time::sleep(Duration::from_millis(500)).await;
    slow.write_all(b"more").await.unwrap();
    assert_eq!(service.shard.bytes_read.get(), 2 * head.len() as u64);
    assert_eq!(service.buffers.memory().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_as_long_as_bytes_come_and_holds_no_buffer_while_it_waits() {
    let service = service().await;
    let head = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n";
    for framing in ["Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30d40\r\n"]
    {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(
            server,
            Arc::clone(&service),
            Arc::default(),
            Objects(Access::default()),
        ));
        client.write_all(format!("{head}{framing}").as_bytes()).await.unwrap();
        let mut answer = [0; 25];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        for _ in 0..5 {
            client.write_all(&[b'x'; 30_000]).await.unwrap();
            tokio::time::sleep(service.stall_timeout * 2 / 3).await;
            let buffers = service.shard.input_bytes.load(Ordering::Relaxed);
            assert_eq!((buffers, service.buffers.memory().used()), (0, 0));
        }
        let wait = timeout(service.stall_timeout / 4, client.read(&mut answer));
        assert!(wait.await.is_err(), "it has stood still for less than the timeout");
        let wait = timeout(service.stall_timeout / 4, client.read(&mut answer));
        assert_eq!(wait.await.unwrap().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_quiet_connection_holds_no_buffer() {
    let service = service().await;
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let mut wire = Wire::new(server, Arc::clone(&service));
    let held = || {
        let buffers = service.shard.input_bytes.load(Ordering::Relaxed);
        (buffers, service.buffers.memory().used())
    };
    assert_eq!(held(), (0, 0));
    let gate = Gate::default();
    for len in [1, 100, 10_000, 100_000] {
        client.write_all(&vec![b'x'; len]).await.unwrap();
        let mut read = 0;
        while read < len {
            read += wire.read().await.unwrap();
        }
        assert_eq!(wire.unread().len(), len);
        let wait = timeout(Duration::from_millis(1), wire.read_head(&gate, true));
        assert!(wait.await.is_err());
        let (buffers, kept) = held();
        assert_eq!(buffers, 0, "{len} unread bytes are kept");
        assert!((len as u64..=2 * len as u64 + (64 << 10)).contains(&kept), "{len}: {kept}");
        client.write_all(b"y").await.unwrap();
        wire.read().await.unwrap();
        assert_eq!(wire.unread().len(), len + 1);
        wire.consume(len + 1);
        let wait = timeout(Duration::from_millis(1), wire.read_head(&gate, false));
        assert!(wait.await.is_err());
        assert_eq!(held(), (0, 0));
    }
}

#[tokio::test]
async fn a_connection_is_small() {
    let service = service().await;
    let peer = TestPeer::saying(&[]);
    let size =
        std::mem::size_of_val(&serve(peer, service, Arc::default(), Objects(Access::default())));
    assert!(size <= 8 << 10, "{size} B");
}

/// How often a connection on which this comes all at once yields to other tasks before it ends.
async fn turns_of_others(says: &[u8]) -> usize {
    let peer = TestPeer::saying(&[says]);
    let mut connection =
        pin!(serve(peer, service().await, Arc::default(), Objects(Access::default())));
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

#[tokio::test]
async fn leave_to_send_that_is_given_up_half_way_ends_the_connection() {
    for (room, ends) in [(10, true), (1000, false)] {
        // A client that reads nothing.
        let (_client, stream) = tokio::io::duplex(room);
        let mut wire = Wire::new(stream, service().await);
        let head = b"PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
                     Expect: 100-continue\r\n\r\n";
        let Ok(Found::Head(head, _)) = HeadReader::default().find(head) else { panic!() };
        let mut body = RequestBody::new(&mut wire, &head, None);
        let given_up = timeout(Duration::from_millis(50), body.next()).await;
        assert!(given_up.is_err(), "no body comes");
        let Ok(Remainder::Unknown) = body.end() else {
            assert!(!ends, "what follows {room} bytes of the leave is no answer");
            continue;
        };
        assert!(ends);
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_its_answer_keeps_nothing_of_a_long_head_with_more_behind_it() {
    let service = service_on(256 << 20).await;
    let body = vec![b'x'; 600_000];
    service.cache.put(b"k", &body, Condition::Always, &StoreOptions::default()).await.unwrap();
    for more in ["", "G"] {
        let (mut client, server) = tokio::io::duplex(4 << 10);
        let task = tokio::spawn(serve(
            server,
            Arc::clone(&service),
            Arc::default(),
            Objects(Access::default()),
        ));
        let filler = format!("X-Other: {}\r\n", "o".repeat(100_000));
        let head = format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n{filler}\r\n{more}");
        client.write_all(head.as_bytes()).await.unwrap();
        // It takes a byte from time to time.
        let mut answer = [0; 1];
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            client.read_exact(&mut answer).await.unwrap();
        }
        assert_eq!(service.buffers.memory().used(), 0, "with {more:?} behind the head");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn honest_clients_with_long_heads_at_once_are_all_served_without_delay() {
    let cache = Cache::simulated(Clock::manual(Timestamp(1_800_000_000))).await;
    for (input_bytes_max, head_len) in [(3 << 20, 120_000), (8 << 20, 120_000), (4 << 20, 20_000)] {
        let options = Options { input_bytes_max, ..Options::default() };
        let server = Server::new(options, cache.clone());
        let service = Arc::new(Service::new(&server, 0, &Shared::default()));
        let filler = format!("X-Other: {}\r\n", "o".repeat(head_len));
        let head = format!(
            "DELETE /v1/objects/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{filler}\r\n"
        );
        let clients = (0..100).map(|_| {
            let (mut client, stream) = tokio::io::duplex(4 << 10);
            let (service, head) = (Arc::clone(&service), head.clone());
            tokio::spawn(serve(stream, service, Arc::default(), Objects(Access::default())));
            tokio::spawn(async move {
                for piece in head.as_bytes().chunks(8 << 10) {
                    client.write_all(piece).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut answer = [0; 12];
                client.read_exact(&mut answer).await.unwrap();
                answer
            })
        });
        let (clients, begun): (Vec<_>, _) = (clients.collect(), Instant::now());
        for client in clients {
            let answer = client.await.unwrap();
            let after = begun.elapsed();
            assert_eq!(&answer, b"HTTP/1.1 404", "with {input_bytes_max} after {after:?}");
        }
        // Before anybody has to give way.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(service.buffers.memory().used(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_long_head_is_given_up_before_its_answer_is_taken() {
    let service = service_on(256 << 20).await;
    let (mut client, server) = tokio::io::duplex(64);
    tokio::spawn(serve(server, Arc::clone(&service), Arc::default(), Objects(Access::default())));
    let head = format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\nX-Other: {}", "o".repeat(140_000));
    let _ = timeout(Duration::from_secs(1), client.write_all(head.as_bytes())).await;
    tokio::time::sleep(service.stall_timeout / 2).await;
    assert_eq!(service.buffers.memory().used(), 0);
}
