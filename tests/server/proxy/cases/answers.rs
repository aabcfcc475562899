//! Goal: an answer that can be read in two ways is not passed on, not stored, and leaves nothing behind
//! for the next client (RFC 9112, sections 4 to 7). Method: an origin that sends bytes of a table.

use crate::proxy::client::{End, request};
use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// What may be stored, if the rest is right.
const FRESH: &str = "Cache-Control: max-age=60\r\n";

/// Each answer is followed by one that a careless reader gives to the next client.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// The origin answers `/a` with these bytes, and all else as it should.
fn rig(bytes: String) -> Rig {
    Rig::of(Origin::start(move |seen| match seen.target.as_str() {
        "/a" => Reply::raw_last(format!("{bytes}{POISON}")),
        target => Reply::ok(target),
    }))
}

#[track_caller]
fn expect_untouched(rig: &Rig, name: &str) {
    for n in 0..3 {
        let target = format!("/{n}");
        let answer = rig.get(&target).expect_body(200, &target);
        assert_eq!(answer.header("x-evil"), None, "{name}");
    }
}

#[test]
fn heads_that_are_wrong_are_502() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{FRESH}{lines}\r\n");
    let cases = [
        ("no version", "200 OK\r\n\r\n".to_owned()),
        ("HTTP/2.0", format!("HTTP/2.0 200 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("HTTP/1.10", format!("HTTP/1.10 200 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("no status", format!("HTTP/1.1 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("two digits", format!("HTTP/1.1 20 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("four digits", format!("HTTP/1.1 2000 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("plus", format!("HTTP/1.1 +20 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("two spaces", format!("HTTP/1.1  200 OK\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("status 000", format!("HTTP/1.1 000 X\r\n{FRESH}Content-Length: 1\r\n\r\na")),
        ("switches protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned()),
        ("two lengths", head("Content-Length: 1\r\nContent-Length: 2\r\n") + "ab"),
        ("list of lengths", head("Content-Length: 1, 2\r\n") + "ab"),
        ("length with plus", head("Content-Length: +1\r\n") + "a"),
        ("length with letters", head("Content-Length: 1x\r\n") + "a"),
        ("length too large", head("Content-Length: 18446744073709551617\r\n") + "a"),
        (
            "length and coding",
            head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        ),
        ("unknown coding", head("Transfer-Encoding: gzip\r\n") + "a"),
        ("two codings", head("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n"),
        ("chunked twice", head("Transfer-Encoding: chunked, chunked\r\n") + "0\r\n\r\n"),
        ("coding behind a space", head("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n"),
        ("space before the colon", head("X-A : b\r\nContent-Length: 1\r\n") + "a"),
        ("no colon", head("X-A\r\nContent-Length: 1\r\n") + "a"),
        ("NUL", head("X-A: \0\r\nContent-Length: 1\r\n") + "a"),
        ("bare CR", head("X-A: b\rX-Evil: 1\r\nContent-Length: 1\r\n") + "a"),
        ("bare LF", head("X-A: b\nX-Evil: 1\r\nContent-Length: 1\r\n") + "a"),
        ("fold", head("X-A: b\r\n X-Evil: 1\r\nContent-Length: 1\r\n") + "a"),
        ("too many lines", head(&"X-A: b\r\n".repeat(20_000))),
        ("too long", head(&format!("X-A: {}\r\n", "b".repeat(10 << 20)))),
    ];
    for (name, bytes) in cases {
        let rig = rig(bytes);
        for _ in 0..2 {
            let answer = rig.get("/a");
            assert_eq!(answer.status, 502, "{name}: {answer:?}");
            assert!(answer.verdict().detail.is_some(), "{name}");
            rig.pass(5);
        }
        expect_untouched(&rig, name);
    }
}

#[test]
fn chunks_that_are_wrong_cut_the_answer() {
    let cases = [
        ("prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("minus", "-3\r\nabc\r\n0\r\n\r\n"),
        ("empty", "\r\nabc\r\n0\r\n\r\n"),
        ("overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("LF behind the size", "3\nabc\r\n0\r\n\r\n"),
        ("LF behind the bytes", "3\r\nabc\n0\r\n\r\n"),
        ("other bytes behind the bytes", "3\r\nabcXX0\r\n\r\n"),
        ("longer than it says", "3\r\nabcd\r\n0\r\n\r\n"),
        ("LF in an extension", "3;\nabc\r\n0\r\n\r\n"),
        ("trailer with LF", "3\r\nabc\r\n0\r\nX: y\n\r\n"),
        ("trailer with a space before the colon", "3\r\nabc\r\n0\r\nX : y\r\n\r\n"),
    ];
    for (name, body) in cases {
        let rig =
            rig(format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n{body}"));
        for _ in 0..2 {
            let mut client = rig.client();
            client.send(request("GET", "/a", "", b""));
            // The head need not have been sent when the first chunk is seen to be wrong.
            if let Some(answer) = client.try_head("GET") {
                let answer = client.finish(answer);
                let is_cut = answer.status == 200 && answer.end == End::Cut;
                assert!(is_cut || answer.status == 502, "{name}: {answer:?}");
                assert!(!answer.verdict().hit, "{name}");
            }
            rig.pass(5);
        }
        expect_untouched(&rig, name);
    }
}

#[test]
fn what_follows_an_answer_is_no_answer_to_the_next_request() {
    for bytes in [
        format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 1\r\n\r\na"),
        format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        format!("HTTP/1.1 404 Not Found\r\n{FRESH}Content-Length: 1\r\n\r\na"),
        format!("HTTP/1.1 204 No Content\r\n{FRESH}\r\n"),
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{FRESH}Content-Length: 1\r\n\r\na"
        ),
    ] {
        let rig = Rig::of(Origin::start(move |seen| match seen.target.as_str() {
            // The connection stays open.
            "/a" => Reply::raw(format!("{bytes}{POISON}")),
            target => Reply::ok(target),
        }));
        let answer = rig.get("/a");
        assert!(answer.body.is_empty() || answer.body == b"a");
        expect_untouched(&rig, "more than the answer");
    }
}

#[test]
fn lengths_that_mean_the_same_are_one_or_none() {
    for lines in ["Content-Length: 1\r\nContent-Length: 1\r\n", "Content-Length: 1, 1\r\n"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{FRESH}{lines}\r\na");
        let rig = Rig::start(move |_| Reply::raw_last(&bytes));
        let answer = rig.get("/a");
        assert!(answer.status == 502 || answer.body == b"a", "{answer:?}");
    }
}

#[test]
fn an_origin_that_only_sends_interim_answers_is_given_up() {
    let rig = rig("HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000));
    let answer = rig.get("/a");
    assert!(answer.status == 502 || answer.body == b"poison", "{answer:?}");
    expect_untouched(&rig, "interim answers");
}

/// RFC 9112, section 6.3, item 8: for an origin of HTTP/1.0 too.
#[test]
fn an_origin_of_http_1_0_is_understood() {
    let length = "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na";
    let rig = Rig::start(move |_| Reply::raw_last(length));
    rig.fill("/a", "").expect_body(200, "a");
    let none = "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nabc";
    let rig = Rig::start(move |_| Reply::raw_last(none));
    rig.get("/a").expect_body(200, "abc");
    assert!(!rig.settled("/a", "").verdict().hit);
    let coded = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let rig = Rig::start(move |_| Reply::raw_last(coded));
    let answer = rig.get("/a");
    assert!(!answer.verdict().hit && answer.status == 502, "{answer:?}");
}
