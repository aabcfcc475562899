//! Goal: what was fetched once is answered from the store for as long as it is fresh, and every answer
//! says how it came about. Method: a recording origin, a clock that a test moves.

use crate::proxy::client::request;
use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// RFC 9111, sections 4 and 5.1; RFC 9211.
#[test]
fn what_is_fresh_is_asked_for_once() {
    let reply = Reply::ok("hello").control("max-age=60").header("X-A", "1");
    let rig = Rig::queue([reply, Reply::ok("again").control("max-age=60")]);
    let miss = rig.get("/a").expect_body(200, "hello").expect_forwarded("uri-miss");
    assert!(miss.verdict().stored);
    assert_eq!((miss.header("x-a"), miss.header("content-length")), (Some("1"), Some("5")));
    let hit = rig.settled("/a", "").expect_body(200, "hello").expect_hit();
    assert_eq!((hit.header("age"), hit.verdict().ttl), (Some("0"), Some(60)));
    assert_eq!((hit.header("x-a"), hit.header("content-length")), (Some("1"), Some("5")));
    assert!(hit.header("date").is_some());
    rig.pass(10);
    let hit = rig.get("/a").expect_body(200, "hello").expect_hit();
    assert_eq!((hit.header("age"), hit.verdict().ttl), (Some("10"), Some(50)));
    rig.pass(50);
    // Nothing could validate it, so it was not kept.
    rig.get("/a").expect_body(200, "again").expect_forwarded("uri-miss");
    rig.expect_asked(2);
}

#[test]
fn the_age_that_a_response_came_with_counts() {
    let rig = Rig::queue([
        Reply::ok("a").control("max-age=60").header("Age", "50"),
        Reply::ok("b").control("max-age=60"),
    ]);
    let miss = rig.fill("/a", "").expect_body(200, "a");
    assert!(matches!(miss.header("age"), Some("50")), "{miss:?}");
    rig.pass(9);
    let hit = rig.get("/a").expect_body(200, "a").expect_hit();
    assert_eq!((hit.header("age"), hit.verdict().ttl), (Some("59"), Some(1)));
    rig.pass(1);
    rig.get("/a").expect_body(200, "b");
}

#[test]
fn statuses_other_than_200_are_stored_as_they_are() {
    for status in ["203 Other", "204 No Content", "301 Moved", "404 Not Found", "410 Gone", "418 I"]
    {
        let reply = match status.starts_with("204") {
            true => Reply::empty(status),
            false => Reply::of(status, "x"),
        };
        let rig = Rig::queue([reply.control("max-age=60").header("Location", "/b")]);
        let body = if status.starts_with("204") { "" } else { "x" };
        let number = status[..3].parse().unwrap();
        rig.fill("/a", "").expect_body(number, body);
        let hit = rig.get("/a").expect_body(number, body).expect_hit();
        assert_eq!(hit.header("location"), Some("/b"));
    }
}

#[test]
fn a_response_in_chunks_is_stored_with_its_length() {
    let rig = Rig::queue([Reply::chunked(&["abc", "def"]).control("max-age=60")]);
    rig.fill("/a", "").expect_body(200, "abcdef");
    let hit = rig.get("/a").expect_body(200, "abcdef").expect_hit();
    assert_eq!(hit.header("content-length"), Some("6"));
    assert_eq!(hit.header("transfer-encoding"), None);
}

#[test]
fn bodies_of_many_megabytes_come_back_as_they_were() {
    let body: Vec<u8> = (0..6u32 << 18).flat_map(u32::to_le_bytes).collect();
    let parts: Vec<Vec<u8>> = body.chunks(70_001).map(<[u8]>::to_vec).collect();
    let whole = body.clone();
    let rig = Rig::start(move |seen| match seen.target.as_str() {
        "/chunked" => Reply::chunked(&parts).control("max-age=60"),
        _ => Reply::ok(&whole).control("max-age=60"),
    });
    for target in ["/length", "/chunked"] {
        rig.fill(target, "").expect_body(200, &body);
        rig.get(target).expect_body(200, &body).expect_hit();
    }
}

/// RFC 9110, section 9.3.2.
#[test]
fn head_is_answered_by_what_a_get_stored() {
    let rig = Rig::queue([Reply::ok("hello").control("max-age=60").header("X-A", "1")]);
    rig.fill("/a", "");
    let head = rig.ask("HEAD", "/a", "", b"").expect_body(200, "").expect_hit();
    assert_eq!((head.header("content-length"), head.header("x-a")), (Some("5"), Some("1")));
    rig.expect_asked(1);
}

#[test]
fn head_that_misses_stores_nothing() {
    let rig = Rig::start(|_| Reply::ok("hello").control("max-age=60"));
    for _ in 0..2 {
        let head = rig.ask("HEAD", "/a", "", b"").expect_body(200, "");
        assert!(!head.verdict().hit);
        assert_eq!(head.header("content-length"), Some("5"));
        assert_eq!(rig.origin.last().method, "HEAD");
    }
    rig.get("/a").expect_body(200, "hello").expect_forwarded("uri-miss");
    rig.expect_asked(3);
}

#[test]
fn one_connection_serves_many_requests() {
    let rig = Rig::start(|seen| Reply::ok(&seen.target).control("max-age=60"));
    let mut client = rig.client();
    for round in 0..3 {
        for target in ["/a", "/b", "/a"] {
            client.get(target).expect_body(200, target);
            client.ask("HEAD", target, "", b"").expect_body(200, "");
        }
        client.ask("POST", "/c", "", b"body").expect_body(200, "/c");
        assert!(rig.origin.count() >= 3 + round);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::start(|seen| Reply::ok(&seen.target).control("max-age=60"));
    let mut client = rig.client();
    let targets: Vec<String> = (0..30).map(|n| format!("/{}", n % 7)).collect();
    client.send(
        targets.iter().flat_map(|target| request("GET", target, "", b"")).collect::<Vec<u8>>(),
    );
    for target in &targets {
        client.answer("GET").expect_body(200, target);
    }
}

#[test]
fn clients_of_http_1_0_get_whole_bodies_and_an_end() {
    let rig = Rig::start(|_| Reply::chunked(&["abc", "def"]).control("max-age=60"));
    for _ in 0..2 {
        let mut client = rig.client();
        client.send("GET /a HTTP/1.0\r\nHost: h\r\n\r\n");
        let answer = client.answer("GET").expect_body(200, "abcdef");
        assert_eq!(answer.header("transfer-encoding"), None);
        assert!(client.is_over());
    }
}

#[test]
fn a_client_that_asks_for_the_end_gets_it() {
    let rig = Rig::start(|_| Reply::ok("a").control("max-age=60"));
    for _ in 0..2 {
        let mut client = rig.client();
        client.ask("GET", "/a", "Connection: close\r\n", b"").expect_body(200, "a");
        assert!(client.is_over());
    }
    // It means its own connection, and not that to the origin.
    let seen = rig.origin.only();
    assert!(!seen.head.escape_ascii().to_string().to_lowercase().contains("close"));
}

#[test]
fn an_origin_on_a_unix_socket_is_asked_too() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::on_unix(directory.path(), |_| Reply::ok("a").control("max-age=60"));
    let rig = Rig::of(origin);
    rig.fill("/a", "").expect_body(200, "a");
    assert_eq!(rig.origin.only().header("host"), Some("h"));
}

/// RFC 9111, section 5.2.1.7.
#[test]
fn who_wants_what_is_stored_or_nothing_sends_nothing_to_the_origin() {
    let rig = Rig::start(|_| Reply::ok("a").control("max-age=60"));
    let only = "Cache-Control: only-if-cached\r\n";
    rig.get_with("/a", only).expect(504);
    rig.expect_asked(0);
    rig.fill("/a", "");
    rig.get_with("/a", only).expect_body(200, "a").expect_hit();
    rig.pass(60);
    rig.get_with("/a", only).expect(504);
    rig.expect_asked(1);
}
