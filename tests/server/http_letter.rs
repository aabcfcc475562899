//! Goal: HTTP requests are taken to the letter, and what two readers could take for two things is
//! refused. Method: raw bytes over a real socket; after each, the object is as it was.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::support::http::{Answer, Connection, body, target};
use crate::support::server::{HttpServer, TestServer, options};
use rawcached::cache::CacheOptions;
use rawcached::server::listener::{Listener, Protocol};

/// A request that would show if it were executed.
const EVIL: &str = "DELETE /v1/objects/k HTTP/1.1\r\nHost: x\r\n\r\n";

/// The status lines in what a server sent before it closed.
fn statuses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, _)| text[at + 9..at + 12].to_owned());
    starts.collect()
}

fn put(headers: &str, body: &str) -> String {
    format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

fn get(headers: &str) -> String {
    format!("GET /v1/objects/k HTTP/1.1\r\n{headers}\r\n")
}

/// Each of `requests`, with [`EVIL`] behind it, is answered by `status`, says that the connection
/// ends, and ends it; the object `k` stays.
#[track_caller]
fn are_refused(status: &str, requests: &[String]) {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    for request in requests {
        let shown = request[..request.len().min(200)].escape_debug();
        let mut connection = server.open();
        // The server may close before it has all.
        let _ = connection.0.write_all(request.as_bytes());
        let _ = connection.0.write_all(EVIL.as_bytes());
        let _ = connection.0.shutdown(std::net::Shutdown::Write);
        let rest = connection.rest();
        assert_eq!(statuses(&rest), [status], "{shown}");
        let text = String::from_utf8_lossy(&rest);
        assert!(text.contains("\r\nconnection: close\r\n"), "{shown}: {text}");
        server.get("k", "").expect_body(200, b"old");
    }
    let errors = server.snapshot().counts.protocol_errors;
    assert_eq!(errors, requests.len() as u64, "each counts as a protocol error");
}

#[test]
fn a_fragment_is_refused_and_not_cut_off() {
    let targets =
        ["/v1/objects/k#1", "/v1/objects/k#", "/v1/objects/k#?a", "http://x/v1/objects/k#1"];
    let requests = targets.iter().flat_map(|target| {
        let line = |method| format!("{method} {target} HTTP/1.1\r\nHost: x\r\n");
        let put = line("PUT") + "Content-Length: 3\r\n\r\nnew";
        [
            put,
            line("DELETE") + "\r\n",
            line("GET") + "\r\n",
            line("PATCH") + "X-Rawcached-TTL: 0\r\n\r\n",
        ]
    });
    are_refused("400", &requests.collect::<Vec<_>>());
    let server = HttpServer::start();
    server.put("k%231", "", b"escaped").expect(201);
    server.get("k%231", "").expect_body(200, b"escaped");
    server.get("k", "").expect(404);
}

#[test]
fn malformed_request_lines_are_refused() {
    let lines = [
        "nonsense",
        "GET /v1/objects/k",
        "GET  /v1/objects/k HTTP/1.1",
        "GET /v1/objects/k  HTTP/1.1",
        " GET /v1/objects/k HTTP/1.1",
        "GET /v1/objects/k HTTP/1.1 ",
        "GET\t/v1/objects/k HTTP/1.1",
        "GET /v1/objects/k k HTTP/1.1",
        "GET v1/objects/k HTTP/1.1",
        "GET ?k HTTP/1.1",
        "GET  HTTP/1.1",
        "GET /v1/objects/k\tHTTP/1.1",
        "GET /v1/objects/\x01 HTTP/1.1",
        "GET /v1/objects/\0 HTTP/1.1",
        "GET /v1/objects/k\u{7f} HTTP/1.1",
        "GET /v1/objects/\u{fc} HTTP/1.1",
        "GET /v1/objects/k< HTTP/1.1",
        "G(T /v1/objects/k HTTP/1.1",
        "GET\0 /v1/objects/k HTTP/1.1",
        "\x16\x03\x01 / HTTP/1.1",
        "GET /v1/objects/k http/1.1",
        "GET /v1/objects/k HTTP/1.12",
        "GET /v1/objects/k HTTP/11",
        "GET /v1/objects/k HTTP/1.1\rX: y",
        "GET /v1/objects/k\r HTTP/1.1",
        "GET ftp://x/v1/objects/k HTTP/1.1",
        "GET http:///v1/objects/k HTTP/1.1",
        "GET http://a@x/v1/objects/k HTTP/1.1",
        "GET http://x:y/v1/objects/k HTTP/1.1",
        "CONNECT / HTTP/1.1 x",
    ];
    let requests = lines.iter().map(|line| format!("{line}\r\nHost: x\r\n\r\n"));
    let mut requests = requests.collect::<Vec<_>>();
    requests.push("\r\n\r\n\r\n".to_owned() + &get("Host: x\r\n"));
    requests.push("\n".to_owned() + &get("Host: x\r\n"));
    requests.push(get("Host: x\r\n").replacen("\r\n", "\n", 1));
    are_refused("400", &requests);
}

#[test]
fn other_versions_are_refused() {
    let lines = ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"];
    let requests = lines.iter().map(|version| get("Host: x\r\n").replace("HTTP/1.1", version));
    let mut requests = requests.collect::<Vec<_>>();
    requests.push("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned());
    are_refused("505", &requests);
}

#[test]
fn a_request_names_one_valid_host() {
    let hosts = [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHost: y\r\n",
        "Host: a/b@c:d e\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a@b\r\n",
        "Host: a:b\r\n",
        "Host: a:1:2\r\n",
        "Host: [::1\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: \u{fc}\r\n",
        "Host: x, y\r\n",
        "Host : x\r\n",
    ];
    let mut requests = hosts.iter().map(|host| get(host)).collect::<Vec<_>>();
    requests.extend(hosts.iter().map(|host| get(host).replace("/v1", "http://x/v1")));
    requests.push(get("Host: a b\r\n").replace("HTTP/1.1", "HTTP/1.0"));
    are_refused("400", &requests);
    let server = HttpServer::start();
    server.put("k", "", b"x").expect(201);
    for host in ["x", "x:", "x:80", "[::1]:80", "a_b.example", "127.0.0.1"] {
        let mut connection = server.open();
        connection.send(get(&format!("Host: {host}\r\n")));
        connection.answer("GET").expect_body(200, b"x");
        // The host of the target is the one that counts; the header's may be another, but not wrong.
        let absolute = format!("http://{host}/v1/objects/k");
        connection.send(get("Host: y\r\n").replace("/v1/objects/k", &absolute));
        connection.answer("GET").expect_body(200, b"x");
    }
}

#[test]
fn bodies_of_two_lengths_or_none_are_refused() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let mut requests = Vec::new();
    for length in [
        "+3",
        "-1",
        "0x3",
        "3, 3",
        "3, 4",
        "3;",
        "3.0",
        "3 3",
        "",
        "three",
        "3\x0b",
        "99999999999999999999",
    ] {
        requests.push(put(&format!("Content-Length: {length}\r\n"), "abc"));
        requests.push(format!("{}abc", get(&format!("Host: x\r\nContent-Length: {length}\r\n"))));
    }
    for lines in
        ["Content-Length: 3\r\nContent-Length: 4\r\n", "Content-Length: 3\r\ncontent-length: 3\r\n"]
    {
        requests.push(put(lines, "abc"));
    }
    for both in
        [format!("Content-Length: 13\r\n{chunked}"), format!("{chunked}Content-Length: 13\r\n")]
    {
        requests.push(put(&both, chunks));
        requests.push(put(&both.replace("chunked", "gzip"), chunks));
    }
    requests.push(put(chunked, chunks).replace("HTTP/1.1", "HTTP/1.0"));
    are_refused("400", &requests);
}

#[test]
fn codings_that_are_not_undone_are_refused() {
    let codings = [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "x-secret, chunked",
        "",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
        ",chunked",
        "xchunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
    ];
    let requests = codings
        .iter()
        .map(|coding| put(&format!("Transfer-Encoding: {coding}\r\n"), "3\r\nabc\r\n0\r\n\r\n"));
    are_refused("501", &requests.collect::<Vec<_>>());
    let server = HttpServer::start();
    let mut connection = server.open();
    connection.send(put("tRANSFER-eNCODING: \t ChunkeD \t\r\n", "3\r\nabc\r\n0\r\n\r\n"));
    connection.answer("PUT").expect(201);
    server.get("k", "").expect_body(200, b"abc");
}

#[test]
fn malformed_header_lines_are_refused() {
    let lines = [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        ": y",
        "X",
        "X\x0b: y",
        "X\0: y",
        "X: \0",
        "X: y\x01",
        "X: y\x7f",
        "X: y\rZ: z",
        "X: y\r",
        "X(: y",
        "\u{fc}: y",
        "X: y\r\n folded",
        "X: y\r\n\tContent-Length: 3",
        "X: y\nZ: z",
        "\nX: y",
        "Bad Name: y",
        "Content-Length : 0",
        "Transfer-Encoding\x0b: chunked",
    ];
    let requests = lines.iter().flat_map(|line| {
        [get(&format!("Host: x\r\n{line}\r\n")), get(&format!("{line}\r\nHost: x\r\n"))]
    });
    let mut requests = requests.collect::<Vec<_>>();
    requests.push(get("Host: x\r\nX: y\n"));
    requests.push(get("Host: x\n"));
    requests.push(get("Host: x\r\n").replace("\r\n\r\n", "\r\n\n"));
    are_refused("400", &requests);
}

#[test]
fn malformed_chunks_are_refused() {
    let bodies = [
        "xyz\r\n",
        "\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "-1\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "1_0\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: \0\r\n\r\n",
    ];
    let mut requests: Vec<String> =
        bodies.iter().map(|body| put("Transfer-Encoding: chunked\r\n", body)).collect();
    let long = "e".repeat(20_000);
    requests.push(put("Transfer-Encoding: chunked\r\n", &format!("3;{long}\r\nabc\r\n0\r\n\r\n")));
    requests.push(put("Transfer-Encoding: chunked\r\n", &format!("0\r\nX: {long}\r\n\r\n")));
    requests.push(put(
        "Transfer-Encoding: chunked\r\n",
        &format!("0\r\n{}\r\n", "X: y\r\n".repeat(200)),
    ));
    are_refused("400", &requests);
}

#[test]
fn other_expectations_are_refused() {
    let requests = ["the-moon", "100-continue, x", "100-continue\r\nExpect: x", ""]
        .map(|expectation| put(&format!("Expect: {expectation}\r\nContent-Length: 3\r\n"), "abc"));
    are_refused("417", &requests);
}

#[test]
fn what_is_sent_in_trailers_means_nothing() {
    let server = HttpServer::start();
    let mut connection = server.open();
    let trailers =
        "Transfer-Encoding: gzip\r\nContent-Length: 40\r\nX-Rawcached-TTL: 0\r\nHost: y\r\n";
    connection
        .send(put("Transfer-Encoding: chunked\r\n", &format!("1\r\na\r\n0\r\n{trailers}\r\n")));
    connection.send(get("Host: x\r\n"));
    connection.answer("PUT").expect(201);
    connection.answer("GET").expect_body(200, b"a");
}

#[test]
fn a_store_without_a_length_stores_nothing() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut connection = server.open();
        connection.send(put("", "new").replace("HTTP/1.1", version));
        connection.half_close();
        connection.answer("PUT").expect(411);
        server.get("k", "").expect_body(200, b"old");
    }
    let mut connection = server.open();
    connection.send(put("Content-Length: 0\r\n", ""));
    connection.answer("PUT").expect(201);
    server.get("k", "").expect_body(200, b"");
}

#[test]
fn a_body_that_nobody_reads_is_not_taken_for_a_request() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    for method in ["GET", "HEAD", "PATCH", "POST", "PURGE"] {
        let status = match method {
            "PATCH" => 400,
            "POST" => 405,
            "PURGE" => 404,
            _ => 200,
        };
        let path = if method == "PURGE" { "/v1/objects/none" } else { "/v1/objects/k" };
        for len in [EVIL.len(), 3000, 65_536] {
            let mut connection = server.open();
            connection.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n"
            ));
            let answer = connection.answer(method).expect(status);
            assert_eq!(answer.header("connection"), None);
            connection.send(&EVIL.repeat(len / EVIL.len() + 1).as_bytes()[..len]);
            connection.ask("GET", &target("k"), "", b"").expect_body(200, b"old");
        }
        for framing in ["Content-Length: 65537", "Transfer-Encoding: chunked"] {
            let mut connection = server.open();
            connection.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
            let answer = connection.answer(method).expect(status);
            assert_eq!(answer.header("connection"), Some("close"), "{method} {framing}");
            connection.send(EVIL);
            assert!(connection.rest().is_empty());
        }
    }
    server.get("k", "").expect_body(200, b"old");
}

#[test]
fn a_refused_expectation_leaves_no_doubt() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    let head =
        |more: &str| put(&format!("{more}Expect: 100-continue\r\nContent-Length: 3\r\n"), "");
    let many = "Content-Length: 99999999999\r\n";
    for (request, status) in [
        (head("If-None-Match: *\r\n"), 412),
        (head("Cache-Control: no-store\r\n"), 422),
        (head("X-Rawcached-TTL: soon\r\n"), 400),
        (head("").replace("/k", "/"), 400),
        (head("").replace("PUT", "GET"), 200),
        (head("").replace("Content-Length: 3\r\n", many), 413),
    ] {
        let mut connection = server.open();
        connection.send(&request);
        let answer: Answer = connection.answer("GET").expect(status);
        assert_eq!(answer.header("connection"), Some("close"), "{request}");
        // Whether the client sends the body or goes on, nothing of it is executed.
        connection.send(EVIL);
        assert!(connection.rest().is_empty(), "{request}");
        server.get("k", "").expect_body(200, b"old");
    }
    // Without a body there is nothing to wait for, and HTTP/1.0 does not wait.
    let mut connection = server.open();
    connection.send(put("Expect: 100-continue\r\nContent-Length: 0\r\n", ""));
    connection.answer("PUT").expect(201);
    connection
        .send(put("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc").replace("1.1", "1.0"));
    connection.answer("PUT").expect(201);
    server.get("k", "").expect_body(200, b"abc");
}

/// A server that speaks HTTP on loopback TCP too, where a reset takes the answer with it.
fn with_tcp() -> (TestServer, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from_tcp(socket).unwrap().speaking(Protocol::Http);
    (TestServer::of_cache(options(), CacheOptions::default(), vec![listener]), address)
}

#[test]
fn a_refusal_reaches_a_client_that_reads_after_it_has_sent_all() {
    let (_server, address) = with_tcp();
    let sent = body(24 << 20);
    let len = sent.len();
    let head = |more: &str| put(&format!("{more}Content-Length: {len}\r\n"), "");
    for (head, status) in [
        (head("Cache-Control: no-store\r\n"), 422),
        (head("If-Match: *\r\n"), 412),
        (head("").replace("/k", "/"), 400),
        (head("").replace("PUT", "POST"), 405),
        (head("X : y\r\n"), 400),
        (head("Expect: the-moon\r\n"), 417),
        (put("Transfer-Encoding: gzip, chunked\r\n", ""), 501),
        (put("Transfer-Encoding: chunked\r\n", "x"), 400),
        (put("Transfer-Encoding: chunked\r\n", "1\r\naa"), 400),
        (put("", ""), 411),
    ] {
        let mut connection = Connection::open_tcp(address).unwrap();
        connection.send(&head);
        connection.send(&sent);
        let answer = connection.answer("PUT").expect(status);
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        assert!(connection.rest().is_empty());
    }
}

#[test]
fn a_client_that_never_stops_sending_is_let_go() {
    let (_server, address) = with_tcp();
    let mut connection = Connection::open_tcp(address).unwrap();
    connection.send(put("Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n", ""));
    connection.answer("PUT").expect(422);
    let piece = body(1 << 20);
    let end = (0..1000).find_map(|_| connection.0.write_all(&piece).err()).unwrap();
    assert!(matches!(end.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end}");
    // One that is silent is let go sooner.
    let mut silent = Connection::open_tcp(address).unwrap();
    silent.send("nonsense\r\n\r\n");
    silent.answer("GET").expect(400);
    assert_eq!(silent.0.read(&mut [0]).unwrap(), 0);
    std::thread::sleep(Duration::from_millis(1500));
    // The first bytes after the end are answered by a reset.
    let _ = silent.0.write_all(b"x");
    std::thread::sleep(Duration::from_millis(100));
    assert!(silent.0.write_all(b"x").is_err());
}

#[test]
fn empty_lines_may_stand_before_a_request() {
    let server = HttpServer::start();
    server.put("k", "", b"x").expect(201);
    let mut connection = server.open();
    for lines in ["", "\r\n", "\r\n\r\n"] {
        for byte in lines.bytes() {
            connection.send([byte]);
            std::thread::sleep(Duration::from_millis(5));
        }
        connection.ask("GET", &target("k"), "", b"").expect_body(200, b"x");
    }
}

#[test]
fn connections_go_on_as_client_and_version_say() {
    let server = HttpServer::start();
    server.put("k", "", b"x").expect(201);
    let lines = |version: &str, connection: &str| {
        get(&format!("Host: x\r\n{connection}")).replace("HTTP/1.1", version)
    };
    for (request, goes_on, says) in [
        (lines("HTTP/1.1", ""), true, None),
        (lines("HTTP/1.1", "Connection: keep-alive\r\n"), true, None),
        (lines("HTTP/1.1", "Connection: close\r\n"), false, Some("close")),
        (lines("HTTP/1.1", "Connection: x, CLOSE ,y\r\n"), false, Some("close")),
        (lines("HTTP/1.1", "Connection: x\r\nConnection: close\r\n"), false, Some("close")),
        (lines("HTTP/1.1", "Connection: keep-alive, close\r\n"), false, Some("close")),
        (lines("HTTP/1.0", ""), false, Some("close")),
        (lines("HTTP/1.0", "Connection: Keep-Alive\r\n"), true, Some("keep-alive")),
        (lines("HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n"), true, None),
    ] {
        let mut connection = server.open();
        connection.send(&request);
        let answer = connection.answer("GET").expect_body(200, b"x");
        assert_eq!(answer.header("connection"), says, "{request}");
        if goes_on {
            connection.ask("GET", &target("k"), "", b"").expect_body(200, b"x");
        } else {
            assert!(connection.rest().is_empty(), "{request}");
        }
    }
    // What follows a CONNECT may be of another protocol.
    let mut connection = server.open();
    connection.send(format!("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n{EVIL}"));
    connection.half_close();
    assert_eq!(statuses(&connection.rest()), ["404"]);
    server.get("k", "").expect_body(200, b"x");
}

#[test]
fn answers_have_one_date_and_a_length_where_there_is_content() {
    let server = HttpServer::start();
    let mut connection = server.open();
    for (method, headers, sent, has_length) in [
        ("PUT", "", &b"abc"[..], true),
        ("GET", "", b"", true),
        ("HEAD", "", b"", true),
        ("GET", "If-None-Match: *\r\n", b"", false),
        ("HEAD", "If-None-Match: *\r\n", b"", false),
        ("GET", "Range: bytes=9-\r\n", b"", true),
        ("PUT", "If-Match: *\r\n", b"abc", false),
        ("DELETE", "", b"", false),
        ("HEAD", "", b"", true),
        ("POST", "", b"", true),
    ] {
        let answer = connection.ask(method, &target("k"), headers, sent);
        assert!(answer.header("date").is_some(), "{method}: {answer:?}");
        assert_eq!(answer.header("content-length").is_some(), has_length, "{method}: {answer:?}");
    }
}
