//! Goal: a proxy can store whole responses and gets them back as `docs/responses.md` says; one client brings what is
//! missing, and the others wait for that no longer than they said. Method: bytes over a real socket to a server on
//! a simulated device, with a clock that the test moves.

use std::time::Duration;

use crate::support::http::{Answer, Connection, body};
use crate::support::server::{HttpServer, options};
use rawcached::clock::Stopwatch;
use rawcached::server::Options;

const FRESH: &str = "Cache-Control: max-age=60\r\n";

fn path(key: &str) -> String {
    format!("/v1/responses/{key}")
}

/// A response with a length.
fn response(status: &str, lines: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n", content.len());
    [head.as_bytes(), content].concat()
}

fn put(server: &HttpServer, key: &str, headers: &str, response: &[u8]) -> Answer {
    server.ask("PUT", &path(key), headers, response)
}

fn get(server: &HttpServer, key: &str, headers: &str) -> Answer {
    server.ask("GET", &path(key), headers, b"")
}

fn why(answer: &Answer) -> String {
    answer.header("cache-status").unwrap_or_default().to_owned()
}

/// The number of the lease that an answer gives.
fn lease(answer: &Answer) -> Option<String> {
    answer.header("x-rawcached-lease").map(|number| format!("X-Rawcached-Lease: {number}\r\n"))
}

#[test]
fn a_response_comes_back_as_a_response() {
    let server = HttpServer::start();
    let lines = format!(
        "{FRESH}Content-Type: text/css\r\nETag: \"v1\"\r\nX-Of-Origin: yes\r\nConnection: x-of-hop\r\n\
         X-Of-Hop: yes\r\nAge: 5\r\n"
    );
    put(&server, "a", "", &response("200 OK", &lines, b"hello")).expect_body(201, b"");
    server.clock.advance(Duration::from_secs(7));
    let answer = get(&server, "a", "").expect_body(200, b"hello");
    for (name, value) in [
        ("content-type", Some("text/css")),
        ("etag", Some("\"v1\"")),
        ("x-of-origin", Some("yes")),
        ("x-of-hop", None),
        ("connection", None),
        ("age", Some("12")),
        ("accept-ranges", Some("bytes")),
        ("cache-status", Some("rawcached; hit; ttl=48")),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("date").is_some());
    let head = server.ask("HEAD", &path("a"), "", b"").expect_body(200, b"");
    assert_eq!(head.header("content-length"), Some("5"));
    for (status, code) in [("404 Not Found", 404), ("301 Moved", 301), ("410 Gone", 410)] {
        let lines = format!("{FRESH}Location: /b\r\n");
        put(&server, "a", "", &response(status, &lines, b"other")).expect(201);
        let answer = get(&server, "a", "").expect_body(code, b"other");
        assert_eq!(answer.header("location"), Some("/b"));
    }
    put(&server, "a", "", &response("204 No Content", FRESH, b"")).expect(201);
    get(&server, "a", "").expect_body(204, b"");
}

#[test]
fn ranges_and_conditions_are_answered_from_the_store() {
    let server = HttpServer::start();
    let content = body(300_000);
    let lines = format!("{FRESH}ETag: \"v1\"\r\nContent-Type: video/mp4\r\n");
    put(&server, "a", "", &response("200 OK", &lines, &content)).expect(201);
    let part = get(&server, "a", "Range: bytes=100000-199999\r\n");
    assert_eq!(part.header("content-range"), Some("bytes 100000-199999/300000"));
    part.expect_body(206, &content[100_000..200_000]);
    let parts = get(&server, "a", "Range: bytes=0-0,-1\r\n").expect(206);
    assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges"));
    get(&server, "a", "Range: bytes=300000-\r\n").expect(416);
    get(&server, "a", "If-None-Match: \"v1\"\r\n").expect_body(304, b"");
    get(&server, "a", "If-None-Match: \"v2\"\r\n").expect_body(200, &content);
    get(&server, "a", "Range: bytes=0-9\r\nIf-Range: \"v2\"\r\n").expect_body(200, &content);
    get(&server, "a", "Range: bytes=0-9\r\nIf-Range: \"v1\"\r\n").expect_body(206, &content[..10]);
    // The origin has to look at that one.
    assert!(why(&get(&server, "a", "If-Match: \"v1\"\r\n").expect(504)).contains("fwd=bypass"));
}

#[test]
fn variants_are_selected_by_the_fields_of_the_requests() {
    let server = HttpServer::start();
    let lines = format!("{FRESH}Vary: Accept-Language, Accept-Encoding\r\n");
    let of = |language: &str, coding: &str| {
        format!("Accept-Language: {language}\r\nAccept-Encoding: {coding}\r\n")
    };
    let all = [("de", "gzip"), ("de", "br"), ("en", "gzip")];
    for (language, coding) in all {
        let content = format!("{language} {coding}");
        let stored = put(
            &server,
            "a",
            &of(language, coding),
            &response("200 OK", &lines, content.as_bytes()),
        );
        stored.expect(201);
    }
    for (language, coding) in all {
        let content = format!("{language} {coding}");
        get(&server, "a", &of(language, coding)).expect_body(200, content.as_bytes());
    }
    // What the origin was asked with counts: it may have chosen by what a cache would think away.
    for (language, coding) in [("en", "br"), ("de", "gzip, deflate"), ("de", "")] {
        let answer = get(&server, "a", &of(language, coding)).expect(504);
        assert!(why(&answer).contains("fwd=vary-miss"), "{language} {coding}");
    }
    server.ask("DELETE", &path("a"), "", b"").expect(204);
    for (language, coding) in all {
        get(&server, "a", &of(language, coding)).expect(504);
    }
    server.ask("DELETE", &path("a"), "", b"").expect(404);
    let always = format!("{FRESH}Vary: *\r\n");
    put(&server, "a", "", &response("200 OK", &always, b"x")).expect(422);
}

#[test]
fn what_may_not_be_stored_is_refused_and_removes_what_was() {
    let server = HttpServer::start();
    let content = |lines: &str| response("200 OK", lines, b"x");
    let authorized = "Authorization: Basic eA==\r\n";
    for (headers, lines) in [
        ("", "Cache-Control: no-store\r\n"),
        ("", "Cache-Control: private\r\n"),
        ("", "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n"),
        ("", "Cache-Control: max-age=0\r\n"),
        ("", "Cache-Control: max-age=60\r\nETag: \"a\"\r\nETag: \"b\"\r\n"),
        ("X-Rawcached-No-Store: 1\r\n", FRESH),
        (authorized, FRESH),
    ] {
        put(&server, "a", "", &content(FRESH)).expect(201);
        put(&server, "a", headers, &content(lines)).expect(422);
        // What one request says is no word on what others get.
        let code = if headers.is_empty() { 504 } else { 200 };
        get(&server, "a", "").expect(code);
    }
    for status in ["206 Partial Content", "416 Range Not Satisfiable", "500 Internal Server Error"]
    {
        put(&server, "b", "", &response(status, "", b"x")).expect(422);
    }
    put(&server, "b", "", b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=9\r\n\r\n")
        .expect(422);
    put(&server, "b", authorized, &content("Cache-Control: public, max-age=60\r\n")).expect(201);
    get(&server, "b", "").expect_body(200, b"x");
}

#[test]
fn a_body_that_is_no_whole_response_is_refused_and_changes_nothing() {
    let server = HttpServer::start();
    put(&server, "a", "", &response("200 OK", FRESH, b"before")).expect(201);
    let head = format!("HTTP/1.1 200 OK\r\n{FRESH}");
    for (tail, reason) in [
        ("", "no head"),
        ("Content-Length: 5\r\n\r\n1234", "too short"),
        ("Content-Length: 5\r\n\r\n123456", "too long"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", "two lengths"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "two framings"),
        ("Transfer-Encoding: gzip\r\n\r\n12345", "a coding"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", "no last chunk"),
        ("Transfer-Encoding: chunked\r\n\r\nx\r\n", "no chunk"),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore", "more than that"),
        ("No colon\r\n\r\n", "no field"),
    ] {
        let answer = put(&server, "a", "", format!("{head}{tail}").as_bytes());
        assert_eq!(answer.status, 400, "{reason}: {}", answer.body.escape_ascii());
    }
    for text in [
        "",
        "x",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nCache-Control: max-age=9\r\n\r\nx",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        put(&server, "a", "", text.as_bytes()).expect(400);
    }
    let long = format!("{head}X: {}\r\n\r\n", "x".repeat(200 << 10));
    put(&server, "a", "", long.as_bytes()).expect(400);
    let mut connection = server.open();
    connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\n\r\n", path("a")));
    connection.answer("PUT").expect(411);
    // One that breaks off.
    let mut connection = server.open();
    begin_put(&mut connection, "a", (500, ""));
    connection.send(format!("{head}\r\nxx"));
    drop(connection);
    std::thread::sleep(Duration::from_millis(50));
    get(&server, "a", "").expect_body(200, b"before");
}

#[test]
fn a_response_is_taken_as_the_origin_sent_it() {
    let server = HttpServer::start();
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n";
    for text in [
        format!("{early}{FRESH}Content-Length: 5\r\n\r\nhello"),
        format!("{early}{FRESH}\r\nhello"),
        format!("HTTP/1.0 200 OK\r\n{FRESH}\r\nhello"),
        format!(
            "{early}{FRESH}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: x\r\n\r\n"
        ),
    ] {
        server.ask("DELETE", &path("a"), "", b"");
        put(&server, "a", "", text.as_bytes()).expect(201);
        let answer = get(&server, "a", "").expect_body(200, b"hello");
        assert_eq!((answer.header("link"), answer.header("t")), (None, None));
        // The same in chunks of one byte, which no pipe joins for certain.
        let mut connection = server.open();
        connection.send(format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            path("b")
        ));
        for byte in text.bytes() {
            connection.send([b"1\r\n", &[byte][..], b"\r\n"].concat());
        }
        connection.send("0\r\n\r\n");
        connection.answer("PUT").expect(201);
        get(&server, "b", "").expect_body(200, b"hello");
    }
    // Whoever reads along is told the length, if the PUT has one.
    let first = get(&server, "d", WAIT).expect(504);
    let mut waiting = begin_get(&server, "d", WAIT);
    std::thread::sleep(Duration::from_millis(50));
    let text = format!("HTTP/1.1 200 OK\r\n{FRESH}\r\nhello");
    put(&server, "d", &lease(&first).unwrap(), text.as_bytes()).expect(201);
    waiting.answer("GET").expect_body(200, b"hello");
    let content = body(3_500_000);
    put(&server, "c", "", &response("200 OK", FRESH, &content)).expect(201);
    get(&server, "c", "").expect_body(200, &content);
}

#[test]
fn lifetimes_tags_and_acknowledgements_can_be_given_with_it() {
    let server = HttpServer::start();
    let lines = "Cache-Control: max-age=60\r\nCache-Tag: red, blue\r\n";
    let stored = |headers: &str| put(&server, "a", headers, &response("200 OK", lines, b"x"));
    stored("X-Rawcached-TTL: 5\r\nX-Rawcached-Ack: flushed\r\n").expect(201);
    assert_eq!(why(&get(&server, "a", "").expect(200)), "rawcached; hit; ttl=5");
    server.clock.advance(Duration::from_secs(6));
    get(&server, "a", "").expect(504);
    for bad in ["X-Rawcached-TTL: soon\r\n", "X-Rawcached-Ack: soon\r\n"] {
        stored(bad).expect(400);
    }
    for (purge, code) in [
        ("{\"type\":\"tag\",\"selectors\":[\"green\"]}", 200),
        ("{\"type\":\"tag\",\"selectors\":[\"blue\"]}", 504),
        ("{\"type\":\"all\"}", 504),
    ] {
        stored("").expect(201);
        server.ask("POST", "/v1/purge", "", purge.as_bytes()).expect(200);
        get(&server, "a", "").expect(code);
    }
    let swr = "Cache-Control: max-age=60, stale-while-revalidate=60\r\n";
    put(&server, "a", "", &response("200 OK", swr, b"x")).expect(201);
    server.ask("PURGE", &path("a"), "Purge: soft\r\n", b"").expect(204);
    server.ask("PURGE", &path("a"), "Purge: now\r\n", b"").expect(400);
    server.clock.advance(Duration::from_secs(1));
    assert!(lease(&get(&server, "a", "X-Rawcached-Wait: 5\r\n").expect(504)).is_some());
    get(&server, "a", "").expect_body(200, b"x");
    server.ask("PURGE", &path("a"), "", b"").expect(204);
    get(&server, "a", "").expect(504);
}

#[test]
fn stale_responses_are_given_while_one_client_brings_a_new_one() {
    let server = HttpServer::start();
    let lines = "Cache-Control: max-age=10, stale-while-revalidate=10, stale-if-error=60\r\n";
    put(&server, "a", "", &response("200 OK", lines, b"one")).expect(201);
    server.clock.advance(Duration::from_secs(15));
    assert_eq!(why(&get(&server, "a", "").expect_body(200, b"one")), "rawcached; hit; ttl=-5");
    let first = get(&server, "a", "X-Rawcached-Wait: 5\r\n").expect(504);
    assert!(why(&first).contains("fwd=stale"), "{first:?}");
    get(&server, "a", "X-Rawcached-Wait: 5\r\n").expect_body(200, b"one");
    put(&server, "a", &lease(&first).unwrap(), &response("200 OK", lines, b"two")).expect(201);
    get(&server, "a", "X-Rawcached-Wait: 5\r\n").expect_body(200, b"two");
    // Behind that time it is for those only whose origin has failed.
    server.clock.advance(Duration::from_secs(25));
    get(&server, "a", "").expect(504);
    get(&server, "a", "Cache-Control: max-stale=20\r\n").expect_body(200, b"two");
    get(&server, "a", "Cache-Control: max-stale=9\r\n").expect(504);
    let strict = "Cache-Control: max-age=10, must-revalidate\r\nETag: \"a\"\r\n";
    put(&server, "a", "", &response("200 OK", strict, b"x")).expect(201);
    server.clock.advance(Duration::from_secs(15));
    get(&server, "a", "Cache-Control: max-stale=99\r\n").expect(504);
}

/// Asks on a connection of its own and waits for no answer.
fn begin_get(server: &HttpServer, key: &str, headers: &str) -> Connection {
    let mut connection = server.open();
    connection.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n{headers}\r\n", path(key)));
    connection
}

/// Sends the head of a PUT of so many bytes.
fn begin_put(origin: &mut Connection, key: &str, (len, headers): (usize, &str)) {
    let head = format!("PUT {} HTTP/1.1\r\nHost: x\r\n", path(key));
    origin.send(format!("{head}Content-Length: {len}\r\n{headers}\r\n"));
}

const WAIT: &str = "X-Rawcached-Wait: 20\r\n";

#[test]
fn one_client_brings_the_response_and_the_others_read_along() {
    let server = HttpServer::start();
    let content = body(1 << 20);
    let whole = response("200 OK", FRESH, &content);
    let first = get(&server, "a", WAIT).expect(504);
    assert!(why(&first).contains("fwd=uri-miss"));
    let mut waiting: Vec<_> = (0..20).map(|_| begin_get(&server, "a", WAIT)).collect();
    let mut origin = server.open();
    let (half, rest) = whole.split_at(whole.len() / 2);
    let lease = lease(&first).unwrap();
    begin_put(&mut origin, "a", (whole.len(), &lease));
    origin.send(half);
    for client in &mut waiting {
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("collapsed"), "{head}");
        let mut begun = vec![0; 1000];
        std::io::Read::read_exact(&mut client.0, &mut begun).unwrap();
        assert!(begun == content[..1000], "other bytes");
    }
    origin.send(rest);
    origin.answer("PUT").expect(201);
    for client in &mut waiting {
        let mut rest = vec![0; content.len() - 1000];
        std::io::Read::read_exact(&mut client.0, &mut rest).unwrap();
        assert!(rest == content[1000..], "other bytes");
    }
    get(&server, "a", "").expect_body(200, &content);
}

#[test]
fn who_follows_a_response_that_breaks_off_sees_it_break_off() {
    let server = HttpServer::start();
    let content = body(1 << 20);
    let whole = response("200 OK", FRESH, &content);
    let first = get(&server, "a", WAIT).expect(504);
    let mut waiting = begin_get(&server, "a", WAIT);
    let mut origin = server.open();
    let lease = lease(&first).unwrap();
    begin_put(&mut origin, "a", (whole.len(), &lease));
    origin.send(&whole[..whole.len() / 2]);
    waiting.head();
    drop(origin);
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut waiting.0, &mut got).unwrap();
    assert!(got.len() < content.len(), "{} bytes", got.len());
    get(&server, "a", "").expect(504);
}

#[test]
fn nobody_waits_longer_than_it_said_or_for_a_second_time() {
    let server = HttpServer::start();
    let first = get(&server, "a", "X-Rawcached-Wait: 1\r\n").expect(504);
    let watch = Stopwatch::start();
    // It hears of the end of that lease.
    let second = get(&server, "a", WAIT).expect(504);
    let waited = watch.elapsed();
    assert!(waited > Duration::from_millis(800) && waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(lease(&second), None, "nobody is to wait for that");
    let watch = Stopwatch::start();
    for _ in 0..5 {
        get(&server, "a", WAIT).expect(504);
    }
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    // Late, but no purge came since, and nothing newer.
    put(&server, "a", &lease(&first).unwrap(), &response("200 OK", FRESH, b"x")).expect(201);
    get(&server, "a", WAIT).expect_body(200, b"x");
    server.ask("DELETE", &path("a"), "", b"").expect(204);
    assert!(lease(&get(&server, "a", WAIT).expect(504)).is_some(), "the mark is gone");
    let watch = Stopwatch::start();
    let short = get(&server, "a", "X-Rawcached-Wait: 1\r\n").expect(504);
    assert!(why(&short).contains("waited too long"), "{short:?}");
    assert!(watch.elapsed() < Duration::from_secs(15), "{:?}", watch.elapsed());
    for bad in ["-1", "301", "x", "1.5"] {
        get(&server, "a", &format!("X-Rawcached-Wait: {bad}\r\n")).expect(400);
    }
}

#[test]
fn who_waits_is_set_free_by_a_response_that_may_not_be_stored() {
    let server = HttpServer::start();
    let first = get(&server, "a", WAIT).expect(504);
    let mut waiting = begin_get(&server, "a", WAIT);
    std::thread::sleep(Duration::from_millis(50));
    let watch = Stopwatch::start();
    let private = response("200 OK", "Cache-Control: private\r\n", b"x");
    put(&server, "a", &lease(&first).unwrap(), &private).expect(422);
    assert_eq!(lease(&waiting.answer("GET").expect(504)), None);
    assert!(watch.elapsed() < Duration::from_secs(15), "{:?}", watch.elapsed());
    // An error says nothing of the next one: the lease goes on.
    let first = get(&server, "b", WAIT).expect(504);
    let mut waiting = begin_get(&server, "b", WAIT);
    std::thread::sleep(Duration::from_millis(50));
    put(&server, "b", &lease(&first).unwrap(), &response("503 Busy", "", b"x")).expect(422);
    assert!(lease(&waiting.answer("GET").expect(504)).is_some());
}

#[test]
fn a_purge_prevails_over_what_was_asked_for_before_it() {
    let server = HttpServer::start();
    let lines = format!("{FRESH}Cache-Tag: red\r\n");
    for purge in ["{\"type\":\"tag\",\"selectors\":[\"red\"]}", "{\"type\":\"all\"}", ""] {
        let first = get(&server, "a", WAIT).expect(504);
        match purge {
            "" => drop(server.ask("DELETE", &path("a"), "", b"").expect(404)),
            purge => drop(server.ask("POST", "/v1/purge", "", purge.as_bytes()).expect(200)),
        }
        let late = put(&server, "a", &lease(&first).unwrap(), &response("200 OK", &lines, b"x"));
        assert_eq!(late.status, 409, "{late:?}");
        get(&server, "a", "").expect(504);
    }
    // A lease of one key is none of another.
    let other = get(&server, "b", WAIT).expect(504);
    server.ask("POST", "/v1/purge", "", b"{\"type\":\"all\"}").expect(200);
    put(&server, "a", &lease(&other).unwrap(), &response("200 OK", &lines, b"x")).expect(409);
    get(&server, "a", "").expect(504);
    // Nor once more: what is told 409 is not to be stored by trying again.
    put(&server, "b", &lease(&other).unwrap(), &response("200 OK", &lines, b"x")).expect(409);
    put(&server, "b", &lease(&other).unwrap(), &response("200 OK", &lines, b"x")).expect(409);
    for odd in ["x", "12345678123456789"] {
        let headers = format!("X-Rawcached-Lease: {odd}\r\n");
        put(&server, "b", &headers, &response("200 OK", &lines, b"x")).expect(409);
    }
    put(&server, "b", "X-Rawcached-Lease:\r\n", &response("200 OK", &lines, b"x")).expect(201);
    // Also where the purge came after nobody waited for it any more.
    let first = get(&server, "c", "X-Rawcached-Wait: 1\r\n").expect(504);
    get(&server, "c", WAIT).expect(504);
    server.ask("DELETE", &path("c"), "", b"").expect(404);
    put(&server, "c", &lease(&first).unwrap(), &response("200 OK", &lines, b"x")).expect(409);
    get(&server, "c", "").expect(504);
}

#[test]
fn what_comes_late_does_not_take_the_place_of_what_is_newer() {
    let server = HttpServer::start();
    let late = get(&server, "a", "X-Rawcached-Wait: 1\r\n").expect(504);
    server.clock.advance(Duration::from_secs(1));
    put(&server, "a", "", &response("200 OK", FRESH, b"new")).expect(201);
    put(&server, "a", &lease(&late).unwrap(), &response("200 OK", FRESH, b"old")).expect(409);
    get(&server, "a", "").expect_body(200, b"new");
    // A private variant is no word on the others.
    let lines = format!("{FRESH}Vary: Accept-Language\r\n");
    put(&server, "b", "Accept-Language: de\r\n", &response("200 OK", &lines, b"de")).expect(201);
    let private = "Cache-Control: private\r\nVary: Accept-Language\r\n";
    put(&server, "b", "Accept-Language: en\r\n", &response("200 OK", private, b"en")).expect(422);
    get(&server, "b", "Accept-Language: de\r\n").expect_body(200, b"de");
}

#[test]
fn variants_have_leases_of_their_own() {
    let server = HttpServer::start();
    let lines = format!("{FRESH}Vary: Accept-Language\r\n");
    let (german, english) = ("Accept-Language: de\r\n", "Accept-Language: en\r\n");
    put(&server, "a", german, &response("200 OK", &lines, b"de")).expect(201);
    let first = get(&server, "a", &format!("{WAIT}{english}")).expect(504);
    get(&server, "a", &format!("{WAIT}{german}")).expect_body(200, b"de");
    let mut waiting = begin_get(&server, "a", &format!("{WAIT}{english}"));
    let headers = format!("{english}{}", lease(&first).unwrap());
    put(&server, "a", &headers, &response("200 OK", &lines, b"en")).expect(201);
    waiting.answer("GET").expect_body(200, b"en");
    // All variants are gone: what was asked for before finds no place any more.
    let first = get(&server, "a", &format!("{WAIT}Accept-Language: fr\r\n")).expect(504);
    server.ask("DELETE", &path("a"), "", b"").expect(204);
    let headers = format!("Accept-Language: fr\r\n{}", lease(&first).unwrap());
    put(&server, "a", &headers, &response("200 OK", &lines, b"fr")).expect(409);
    get(&server, "a", "Accept-Language: fr\r\n").expect(504);
}

#[test]
fn responses_and_objects_do_not_mix() {
    let server = HttpServer::start();
    put(&server, "a", "", &response("200 OK", FRESH, b"response")).expect(201);
    server.get("a", "").expect(404);
    server.put("a", "", b"object").expect(201);
    get(&server, "a", "").expect_body(200, b"response");
    server.get("%0a%0aa", "").expect(400);
    get(&server, "%0aa", "").expect(400);
    server.ask("DELETE", &path("a"), "", b"").expect(204);
    server.get("a", "").expect_body(200, b"object");
    get(&server, "", "").expect(400);
    get(&server, &"x".repeat(5000), "").expect(414);
    let patched = server.ask("PATCH", &path("a"), "", b"").expect(405);
    assert_eq!(patched.header("allow"), Some("GET, HEAD, PUT, DELETE, PURGE"));
}

#[test]
fn who_cannot_tell_the_end_of_a_body_gets_none_that_may_be_cut() {
    let server = HttpServer::start();
    for (len, status) in [(1000, 200), (100_000, 502)] {
        let first = get(&server, "a", WAIT).expect(504);
        let mut old = server.open();
        old.send(format!("GET {} HTTP/1.0\r\n{WAIT}\r\n", path("a")));
        let content = body(len);
        let mut origin = server.open();
        let lease = lease(&first).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\n{FRESH}\r\n");
        origin.send(format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{lease}\r\n{:x}\r\n{head}\r\n",
            path("a"),
            head.len()
        ));
        std::thread::sleep(Duration::from_millis(50));
        origin.send([format!("{len:x}\r\n").as_bytes(), &content, b"\r\n0\r\n\r\n"].concat());
        origin.answer("PUT").expect(201);
        let answer = old.answer("GET").expect(status);
        if status == 200 {
            assert!(answer.body == content, "other bytes");
        }
        server.ask("DELETE", &path("a"), "", b"").expect(204);
    }
}

#[test]
fn nobody_can_hold_others_back() {
    let server = HttpServer::start();
    // What is never fresh would be brought by one after the other.
    for lines in [
        "Cache-Control: max-age=0\r\nETag: \"a\"\r\n",
        "Cache-Control: no-cache\r\nETag: \"a\"\r\n",
    ] {
        let first = get(&server, "a", WAIT).expect(504);
        put(&server, "a", &lease(&first).unwrap(), &response("200 OK", lines, b"x")).expect(422);
        assert_eq!(lease(&get(&server, "a", WAIT).expect(504)), None);
        put(&server, "a", "", &response("200 OK", FRESH, b"x")).expect(201);
        server.ask("DELETE", &path("a"), "", b"").expect(204);
    }
    // Nor do those wait whose credentials give them an answer of their own.
    let authorized = format!("{WAIT}Authorization: x\r\n");
    let first = get(&server, "b", &authorized).expect(504);
    let headers = format!("Authorization: x\r\n{}", lease(&first).unwrap());
    put(&server, "b", &headers, &response("200 OK", FRESH, b"x")).expect(422);
    let held = get(&server, "b", WAIT).expect(504);
    assert!(lease(&held).is_some(), "all others do");
    let watch = Stopwatch::start();
    assert_eq!(lease(&get(&server, "b", &authorized).expect(504)), None);
    assert!(watch.elapsed() < Duration::from_secs(10));
    // Nor who asks with a body, on which the answer may depend, or for no time.
    let asked = server.ask("GET", &path("c"), WAIT, b"body").expect(504);
    assert!(why(&asked).contains("fwd=bypass") && lease(&asked).is_none(), "{asked:?}");
    assert_eq!(lease(&get(&server, "c", "X-Rawcached-Wait: 0\r\n").expect(504)), None);
    assert!(lease(&get(&server, "c", WAIT).expect(504)).is_some());
    // What follows a whole response is not gathered.
    let mut connection = server.open();
    let whole = format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 0\r\n\r\n");
    begin_put(&mut connection, "d", (900_000_000, ""));
    connection.send(whole);
    connection.send(vec![0; 200_000]);
    connection.answer("PUT").expect(400);
}

#[test]
fn the_status_of_a_miss_can_be_chosen() {
    let status = http::StatusCode::from_u16(404).unwrap();
    let server = HttpServer::with(Options { replay_miss_status: status, ..options() });
    get(&server, "a", "").expect(404);
    get(&server, "a", WAIT).expect(404);
}
