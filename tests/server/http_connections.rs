//! Goal: HTTP connections survive what clients do to them, and no client holds up another. Method:
//! bytes over a real socket: pipelined, one at a time, cut off, too many, ambiguous.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::http::{Answer, Connection, body, target};
use crate::support::server::{HttpServer, options};
use rawcached::cache::CacheOptions;
use rawcached::clock::Stopwatch;
use rawcached::server::Options;

const GET: &str = "GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n\r\n";
/// Short, but long enough for a busy machine.
const SOON: Duration = Duration::from_millis(400);

/// The status lines in what a server sent before it closed.
fn statuses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, _)| text[at + 9..at + 12].to_owned());
    starts.collect()
}

fn impatient() -> HttpServer {
    HttpServer::with(Options { http_idle_timeout: SOON, http_stall_timeout: SOON, ..options() })
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = HttpServer::start();
    let mut connection = server.open();
    let mut requests = Vec::new();
    for n in 0..50 {
        let sent = format!("value {n}");
        write!(
            requests,
            "PUT /v1/objects/{n} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{sent}\
             GET /v1/objects/{n} HTTP/1.1\r\nHost: x\r\n\r\n\
             HEAD /v1/objects/{n} HTTP/1.1\r\nHost: x\r\n\r\n",
            sent.len()
        )
        .unwrap();
    }
    connection.send(&requests);
    for n in 0..50 {
        connection.answer("PUT").expect(201);
        connection.answer("GET").expect_body(200, format!("value {n}").as_bytes());
        connection.answer("HEAD").expect(200);
    }
}

#[test]
fn requests_may_come_one_byte_at_a_time() {
    let server = HttpServer::start();
    let mut connection = server.open();
    let put = "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
               3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n";
    for byte in format!("{put}{GET}").bytes() {
        connection.send([byte]);
    }
    connection.answer("PUT").expect(201);
    connection.answer("GET").expect_body(200, b"abcde");
}

#[test]
fn bodies_of_any_chunks_are_stored_whole() {
    let server = HttpServer::start();
    let mut connection = server.open();
    let ones = vec![1; 10_000];
    let large = [1 << 20, 1, 700_000, 1 << 20, 3];
    for lens in [&[4096][..], &[4096, 1000], &[1000, 16_384], &[], &ones, &large] {
        let sent = body(lens.iter().sum());
        let mut request =
            b"PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut rest = &sent[..];
        for len in lens {
            let (chunk, behind) = rest.split_at(*len);
            write!(request, "{len:x}\r\n").unwrap();
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
            rest = behind;
        }
        request.extend_from_slice(b"0\r\n\r\n");
        connection.send(&request);
        connection.answer("PUT").expect(201);
        connection.ask("GET", &target("k"), "", b"").expect_body(200, &sent);
    }
}

#[test]
fn a_client_that_has_no_more_to_send_gets_its_answer() {
    let server = HttpServer::start();
    server.put("k", "", &body(3_000_000)).expect(201);
    let mut connection = server.open();
    connection.send(GET);
    connection.half_close();
    connection.answer("GET").expect_body(200, &body(3_000_000));
    assert!(connection.rest().is_empty());
}

#[test]
fn an_aborted_store_leaves_the_old_object() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2dc6c0\r\n";
    for framing in ["Content-Length: 3000000\r\n\r\n", chunked] {
        for half_close in [false, true] {
            let mut connection = server.open();
            connection.send(format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{framing}"));
            connection.send(body(2_500_000));
            if half_close {
                connection.half_close();
                let statuses = statuses(&connection.rest());
                assert!(statuses.is_empty() || statuses == ["400"], "{statuses:?}");
            }
            drop(connection);
            server.wait_until(|now| now.http.requests_started == now.http.requests_ended);
            server.get("k", "").expect_body(200, b"old");
        }
    }
    assert_eq!(server.cache.stats().write_buffer_bytes, 0);
}

#[test]
fn a_client_waits_for_leave_to_send() {
    let server = HttpServer::start();
    let head = |key: &str, more: &str| {
        format!(
            "PUT /v1/objects/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n{more}\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut connection = server.open();
    connection.send(head("k", ""));
    connection.answer("PUT").expect(100);
    connection.send("abc");
    connection.answer("PUT").expect(201);
    for (key, more, status) in [
        ("k", "If-None-Match: *\r\n", 412),
        ("", "", 400),
        ("k", "Cache-Control: private\r\n", 422),
    ] {
        let mut connection = server.open();
        connection.send(head(key, more));
        connection.answer("PUT").expect(status);
    }
    let mut connection = server.open();
    let huge = head("k", "").replace("Length: 3", "Length: 99999999999");
    connection.send(huge);
    connection.answer("PUT").expect(413);
    server.get("k", "").expect_body(200, b"abc");
}

#[test]
fn a_body_that_is_too_large_is_refused_when_it_is_seen_to_be() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    let limit = server.cache.object_len_max();
    let mut connection = server.open();
    connection.send("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = body(1 << 20);
    let mut sent = 0;
    while sent <= limit + (8 << 20) {
        let parts =
            [format!("{:x}\r\n", chunk.len()).into_bytes(), chunk.clone(), b"\r\n".to_vec()];
        if parts.iter().any(|part| connection.0.write_all(part).is_err()) {
            break;
        }
        sent += chunk.len() as u64;
    }
    connection.answer("PUT").expect(413);
    server.get("k", "").expect_body(200, b"old");
    assert_eq!(server.snapshot().counts.store_too_large, 1);
}

#[test]
fn requests_that_are_too_large_or_wrong_are_refused() {
    let server = HttpServer::start();
    let long = "x".repeat(400_000);
    let lines = |count| -> String { (0..count).map(|n| format!("X-{n}: y\r\n")).collect() };
    let (enough, many) = (lines(99), lines(100));
    let cases = [
        (format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), "431"),
        (format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        (format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n{enough}\r\n"), "404"),
        (format!("GET /v1/objects/{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..70_000]), "414"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET /v1/objects/k HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), "400"),
        ("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in cases {
        let mut connection = server.open();
        // The server may close before it has all.
        let _ = connection.0.write_all(request.as_bytes());
        connection.half_close();
        assert_eq!(statuses(&connection.rest()), [status], "{}", &request[..request.len().min(80)]);
    }
    server.put("k", "", b"x").expect(201);
}

#[test]
fn http_1_0_clients_are_answered_and_let_go() {
    let server = HttpServer::start();
    server.put("k", "", b"hello").expect(201);
    let mut connection = server.open();
    connection.send("GET /v1/objects/k HTTP/1.0\r\n\r\n");
    connection.answer("GET").expect_body(200, b"hello");
    assert!(connection.rest().is_empty());
}

#[test]
fn a_later_piece_that_went_bad_cuts_the_answer_short() {
    let server = HttpServer::without_ram();
    server.put("k", "X-Rawcached-Ack: flushed\r\n", &body(6 << 20)).expect(201);
    server.device.overwrite(3 << 20, &vec![0; 2 << 20]);
    let mut connection = server.open();
    connection.send(GET);
    let head = connection.head();
    assert!(head.contains("content-length: 6291456\r\n"), "{head}");
    let rest = connection.rest();
    assert!(rest.len() < 6 << 20, "{}", rest.len());
    assert!(body(6 << 20).starts_with(&rest), "what came is right");
    server.wait_until(|now| now.counts.values_truncated == 1);
}

#[test]
fn idle_and_slow_requests_are_let_go() {
    let server = impatient();
    let mut idle = server.open();
    let mut again = server.open();
    again.ask("GET", &target("k"), "", b"").expect(404);
    let mut late = server.open();
    late.send("GET /v1/objects/k HT");
    assert!(idle.rest().is_empty());
    assert!(statuses(&again.rest()).is_empty());
    let answered = statuses(&late.rest());
    assert!(answered.is_empty() || answered == ["408"], "{answered:?}");
}

#[test]
fn bodies_that_stand_still_are_let_go() {
    let server = impatient();
    server.put("k", "", &body(6 << 20)).expect(201);
    let mut reader = server.open();
    reader.send(GET);
    reader.head();
    // The second answer is all in the server's buffers, and both are more than the socket takes.
    server.put("small", "", &body(900_000)).expect(201);
    let mut small_reader = server.open();
    small_reader.send(GET.replace("/k", "/small").repeat(2));
    small_reader.head();
    let mut writer = server.open();
    writer.send("PUT /v1/objects/w HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    assert!(statuses(&writer.rest()).is_empty());
    server.wait_until(|now| now.http.connections() == 0);
    assert!(reader.rest().len() < 6 << 20);
    assert!(small_reader.rest().len() < 2 * 900_000);
    server.get("w", "").expect(404);
}

#[test]
fn a_body_that_moves_slowly_is_not_let_go() {
    let server = impatient();
    let mut writer = server.open();
    writer.send("PUT /v1/objects/w HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n");
    for byte in b"slow, but on" {
        std::thread::sleep(SOON / 4);
        writer.send([*byte]);
    }
    writer.answer("PUT").expect(201);
    server.get("w", "").expect_body(200, b"slow, but on");
}

#[test]
fn a_body_that_is_read_slowly_is_not_cut() {
    let server = impatient();
    for len in [900_000, 3_000_000] {
        let sent = body(len);
        server.put("k", "", &sent).expect(201);
        let mut reader = server.open();
        reader.send(GET);
        let head = reader.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut found = vec![0; len];
        for piece in found.chunks_mut(len / 20) {
            // A Unix socket takes more only when most of its buffer is free again.
            std::thread::sleep(SOON / 10);
            reader.0.read_exact(piece).unwrap();
        }
        assert!(found == sent);
    }
}

#[test]
fn a_drain_finishes_what_is_going_on_and_closes_the_rest() {
    let mut server = HttpServer::start();
    let mut idle = server.open();
    idle.ask("PUT", &target("k"), "", b"x").expect(201);
    let mut busy = server.open();
    busy.send("PUT /v1/objects/w HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na");
    server.wait_until(|now| (now.http.requests_started, now.http.requests_ended) == (2, 1));
    server.begin_shutdown();
    assert!(idle.rest().is_empty());
    busy.send("bc");
    busy.answer("PUT").expect(201);
    assert!(busy.rest().is_empty());
    server.join();
}

#[test]
fn a_drain_does_not_wait_for_what_nobody_needs() {
    let mut server =
        HttpServer::with(Options { drain_timeout: Duration::from_secs(60), ..options() });
    let watch = Stopwatch::start();
    // Answered; its body never comes.
    let mut unneeded = server.open();
    let request = GET.replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\nabc");
    unneeded.send(&request);
    unneeded.answer("GET").expect(404);
    // The rest of its head never comes.
    let mut late = server.open();
    late.send(&GET[..20]);
    // The rest of its head comes.
    let mut last = server.open();
    last.send(&GET[..20]);
    // They end when their workers, which take turns, begin to drain.
    let idle = [server.open(), server.open()];
    let sent = request.len() as u64 + 40;
    server.wait_until(|now| now.counts.bytes_read >= sent && now.connections_current == 5);
    server.begin_shutdown();
    assert!(idle.into_iter().all(|mut connection| connection.rest().is_empty()));
    last.send(&GET[20..]);
    let answer = last.answer("GET").expect(404);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(unneeded.rest().is_empty() && last.rest().is_empty());
    assert!(statuses(&late.rest()).is_empty());
    drop((unneeded, last, late));
    server.join();
    assert!(watch.elapsed() < Duration::from_secs(30));
}

#[test]
fn too_many_connections_are_told_so() {
    let server = HttpServer::with(Options { connections_max: 1, ..options() });
    let mut first = server.open();
    first.ask("PUT", &target("k"), "", b"x").expect(201);
    let answer: Answer = Connection::open(&server.http).answer("GET").expect(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(server.snapshot().counts.connections_rejected, 1);
}

#[test]
fn a_store_whose_memory_others_waited_for_is_503() {
    let cache_options = options!(CacheOptions {
        write_buffer_bytes: 64 << 10,
        write_buffer_wait: SOON,
        ..CacheOptions::default()
    });
    let server = HttpServer::of_cache(options(), cache_options);
    let mut slow = server.open();
    slow.send("PUT /v1/objects/s HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n");
    slow.send(vec![b'x'; 49_999]);
    let staged = || server.cache.stats().write_buffer_bytes > 49_000;
    assert!((0..20_000).any(|_| staged() || {
        std::thread::sleep(Duration::from_millis(1));
        false
    }));
    server.put("k", "", &[b'x'; 20_000]).expect(201);
    assert_eq!(server.cache.stats().write_buffer_bytes, 0);
    // At once: it does not have to send for that.
    let answer: Answer = slow.answer("PUT").expect(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(server.snapshot().counts.store_no_memory, 1);
    server.get("s", "").expect(404);
    server.put("k", "", b"x").expect(201);
}
