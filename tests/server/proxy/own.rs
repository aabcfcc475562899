//! Goal: the recording origin and the strict client can be believed. Method: one talks to the other,
//! without a cache between.

use std::time::Duration;

use super::client::{Client, End, request};
use super::origin::Origin;
use super::reply::{Latch, Reply, Step};
use super::verdict::Verdict;

#[test]
fn an_origin_keeps_what_it_is_asked_as_it_came() {
    let origin = Origin::start(|seen| Reply::ok(&seen.target).header("X-A", "1"));
    let mut client = Client::to(&origin.place);
    client.get("/a").expect_body(200, "/a");
    let sent = request("POST", "/b?c", "x-b:  2 \r\nX-b: 3\r\n", b"body");
    client.send(&sent);
    let answer = client.answer("POST").expect_body(200, "/b?c");
    assert_eq!((answer.header("x-a"), answer.header("x-b")), (Some("1"), None));
    let mut other = Client::to(&origin.place);
    other.send("PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    other.send("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n");
    other.answer("PUT").expect(200);
    let seen = origin.seen();
    let found: Vec<_> = seen.iter().map(|seen| (seen.order, seen.connection)).collect();
    assert_eq!(found, [(0, 0), (1, 0), (2, 1)]);
    assert!(sent.starts_with(&seen[1].head));
    assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("POST", "/b?c"));
    assert_eq!((seen[1].body.as_slice(), seen[2].body.as_slice()), (&b"body"[..], &b"abcd"[..]));
    assert_eq!(super::wire::values(&seen[1].fields, "X-B"), ["2", "3"]);
    assert_eq!((origin.count(), origin.connections(), origin.cut()), (3, 2, 0));
}

#[test]
fn an_origin_answers_in_turn_and_is_not_asked_more() {
    let origin = Origin::queue([Reply::ok("a"), Reply::of("404 Not Found", "b")]);
    let mut client = Client::to(&origin.place);
    client.get("/").expect_body(200, "a");
    client.get("/").expect_body(404, "b");
    client.send(request("GET", "/", "", b""));
    assert!(client.is_over());
    assert_eq!(origin.take_faults().len(), 1);
}

#[test]
fn requests_that_have_two_readings_are_faults() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\n";
    let cases = [
        "GET / HTTP/1.1\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nHost: h\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n".to_owned(),
        format!("{head}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        format!("{head}Content-Length: +1\r\n\r\na"),
        format!("{head}Transfer-Encoding: Chunked \r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1;a\r\nb\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1\nb\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nbc\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n"),
        format!("{head}Content-Length: 1\r\n\r\naGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ];
    for case in cases {
        let origin = Origin::start(|_| Reply::ok(""));
        let mut client = Client::to(&origin.place);
        client.send(&case);
        client.try_head("POST");
        assert!(client.is_over(), "{case:?}");
        assert_eq!((origin.count(), origin.take_faults().len()), (0, 1), "{case:?}");
    }
}

#[test]
fn requests_that_end_early_are_counted_apart() {
    let origin = Origin::start(|_| Reply::ok(""));
    for half in ["GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na"] {
        let mut client = Client::to(&origin.place);
        client.send(half);
        client.half_close();
        assert!(client.is_over());
    }
    origin.wait_for_quiet();
    assert_eq!((origin.cut(), origin.count()), (2, 0));
}

#[test]
fn replies_wait_where_a_test_says() {
    let (head, body) = (Latch::default(), Latch::default());
    let reply = Reply::ok("abcdef").after(&head).waits_at(3, &body);
    let origin = Origin::queue([reply, Reply::ok("next")]);
    let mut client = Client::to(&origin.place);
    client.send(request("GET", "/", "", b""));
    origin.wait_for(1);
    head.open();
    let mut answer = client.head("GET");
    client.read_to(&mut answer, 3);
    assert_eq!((answer.body.as_slice(), answer.end), (&b"abc"[..], End::Open));
    body.open();
    client.finish(answer).expect_body(200, "abcdef");
    client.get("/").expect_body(200, "next");
}

#[test]
fn a_client_tells_what_is_whole_from_what_was_cut() {
    let (cut, reset) =
        (vec![Step::Close], vec![Step::Pause(Duration::from_millis(50)), Step::Reset]);
    let cases = [
        (Reply::ok("abcdef"), "abcdef", End::Whole),
        (Reply::ok(""), "", End::Whole),
        (Reply::chunked(&["abc", "def"]), "abcdef", End::Whole),
        (Reply::chunked::<&str>(&[]), "", End::Whole),
        (Reply::until_close("abcdef"), "abcdef", End::Closed),
        (Reply::raw_last("HTTP/1.1 200 OK\r\n\r\nabc"), "abc", End::Closed),
        (Reply::ok("abcdef").ends_at(3, cut.clone()), "abc", End::Cut),
        (Reply::ok("abcdef").ends_at(3, reset), "abc", End::Cut),
        (Reply::ok("abcdef").ends_at(0, cut.clone()), "", End::Cut),
        // Behind the first of two chunks.
        (Reply::chunked(&["abc", "def"]).ends_at(8, cut.clone()), "abc", End::Cut),
        // Before the last line.
        (Reply::chunked(&["abc", "def"]).ends_at(16, cut), "abcdef", End::Cut),
    ];
    for (reply, body, end) in cases {
        let origin = Origin::queue([reply]);
        let mut client = Client::to(&origin.place);
        client.send(request("GET", "/", "", b""));
        let answer = client.answer("GET");
        assert_eq!((answer.body.as_slice(), answer.end), (body.as_bytes(), end));
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_good() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    let origin = Origin::queue([
        Reply::ok("abc"),
        Reply::not_modified().header("ETag", "\"a\""),
        Reply::empty("204 No Content"),
        Reply::raw(early),
    ]);
    let mut client = Client::to(&origin.place);
    let answer = client.ask("HEAD", "/", "", b"").expect_body(200, "");
    assert_eq!(answer.header("content-length"), Some("3"));
    client.get("/").expect_body(304, "");
    client.get("/").expect_body(204, "");
    assert_eq!(client.get("/").expect_body(200, "a").interim, [103]);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_may_say_nothing() {
    let origin = Origin::queue([Reply::close(), Reply::hold()]);
    let mut client = Client::to(&origin.place);
    client.send(request("GET", "/", "", b""));
    assert!(client.is_over());
    let mut client = Client::to(&origin.place);
    client.send(request("GET", "/", "", b""));
    origin.wait_for(2);
    drop(client);
    origin.wait_for_quiet();
}

#[test]
fn an_origin_listens_on_a_unix_socket_too() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::on_unix(directory.path(), |_| Reply::ok("a"));
    Client::to(&origin.place).get("/").expect_body(200, "a");
}

#[test]
fn what_a_cache_says_of_itself_is_read() {
    let said = Verdict::of(&["Other; fwd=miss", "A, rawcached; fwd=stale; fwd-status=304; ttl=-5"]);
    let expected = Verdict {
        forwarded: Some("stale".to_owned()),
        forwarded_status: Some(304),
        ttl: Some(-5),
        ..Verdict::default()
    };
    assert_eq!(said, expected);
    let said =
        Verdict::of(&["rawcached; fwd=uri-miss; stored; collapsed; detail=\"a; \\\"b\\\", c\""]);
    assert!(said.stored && said.collapsed && !said.hit);
    assert_eq!(said.detail.as_deref(), Some("a; \"b\", c"));
}
