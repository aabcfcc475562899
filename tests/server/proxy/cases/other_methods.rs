//! Goal: the answer to a POST that says so answers later GETs (RFC 9110, section 9.3.3), and the answer to a HEAD says
//! of what is stored what a validation would (RFC 9111, section 4.3.5). Method: a recording origin, a clock that a
//! test moves.

use std::thread;

use super::purge::purge;
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;

/// The result of a POST that is also what a GET of its target gives.
fn own(body: &str) -> Reply {
    Reply::ok(body).control("max-age=60").header("Content-Location", "/a")
}

fn post(rig: &Rig) -> crate::proxy::client::Answer {
    rig.ask("POST", "/a", "", b"body")
}

#[test]
fn a_post_that_says_so_answers_gets() {
    let rig = Rig::queue([
        Reply::ok("before").control("max-age=60"),
        own("of post").header("X-A", "1").header("Connection", "x-b").header("X-B", "1"),
    ]);
    rig.fill("/a", "");
    let answer = post(&rig).expect_body(200, "of post").expect_forwarded("method");
    assert!(answer.verdict().stored, "{answer:?}");
    assert_eq!((answer.header("x-a"), answer.header("x-b")), (Some("1"), None));
    rig.pass(7);
    let hit = rig.get("/a").expect_body(200, "of post").expect_hit();
    assert_eq!((hit.header("age"), hit.header("x-a")), (Some("7"), Some("1")));
    rig.ask("HEAD", "/a", "", b"").expect_body(200, "").expect_hit();
    rig.expect_asked(2);
    assert_eq!(rig.origin.last().body, b"body");
}

#[test]
fn no_other_post_answers_gets() {
    let whole = |reply: Reply| reply.control("max-age=60").header("Content-Location", "/a");
    for reply in [
        Reply::ok("x").control("max-age=60"),
        Reply::ok("x").control("max-age=60").header("Content-Location", "/b"),
        Reply::ok("x")
            .header("Content-Location", "/a")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        Reply::ok("x").control("no-store").header("Content-Location", "/a"),
        whole(Reply::ok("x")).header("Vary", "X-A"),
        whole(Reply::ok("x")).header("Set-Cookie", "a=b"),
        whole(Reply::ok("x".repeat(70_000))),
        whole(Reply::chunked(&["x"])),
        whole(Reply::of("404 Not Found", "x")),
        whole(Reply::of("201 Created", "x")),
    ] {
        let rig =
            Rig::queue([Reply::ok("before").control("max-age=60"), reply, Reply::ok("after")]);
        rig.fill("/a", "");
        let answer = post(&rig);
        assert!(!answer.verdict().stored, "{answer:?}");
        // An error has changed nothing.
        let expected = if answer.status == 404 { "before" } else { "after" };
        rig.get("/a").expect_body(200, expected);
    }
}

#[test]
fn a_purge_while_a_post_is_under_way_prevails() {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(move |seen| match seen.method.as_str() {
        "POST" => own("of post").after(&held),
        _ if seen.order == 1 => Reply::ok("before").control("max-age=60"),
        _ => Reply::ok("new"),
    });
    thread::scope(|scope| {
        let answer = scope.spawn(|| post(&rig));
        rig.origin.wait_for(1);
        let purged = purge(&rig, r#"{"type":"uri","selectors":["http://h/a"]}"#);
        assert_eq!(purged, 200);
        // What comes in between is of before the POST, or may be.
        rig.fill("/a", "");
        latch.open();
        let answer = answer.join().unwrap().expect_body(200, "of post");
        assert!(!answer.verdict().stored, "{answer:?}");
    });
    rig.get("/a").expect_body(200, "new");
}

#[test]
fn what_was_under_way_before_a_post_does_not_take_its_place() {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(move |seen| match seen.method.as_str() {
        "POST" => own("of post"),
        _ => Reply::ok("before").control("max-age=60").waits_at(3, &held),
    });
    thread::scope(|scope| {
        let before = scope.spawn(|| rig.get("/a"));
        rig.origin.wait_for(1);
        assert!(post(&rig).expect_body(200, "of post").verdict().stored);
        latch.open();
        before.join().unwrap().expect_body(200, "before");
    });
    rig.get("/a").expect_body(200, "of post").expect_hit();
}

#[test]
fn what_was_said_to_one_client_is_not_for_all() {
    let no_store = |proxy: &mut rawcached::server::proxy::options::ProxyOptions| {
        proxy.settings.no_store = vec!["cookie:session".parse().unwrap()];
        proxy.ignore_query = vec!["utm".to_owned()];
    };
    let origin = crate::proxy::origin::Origin::start(|seen| match seen.method.as_str() {
        "HEAD" => tagged("\"a\"").header("X-User", "bob"),
        "POST" => own("of post").header("X-User", "bob"),
        _ => tagged("\"a\""),
    });
    let rig = Rig::with(origin, no_store);
    rig.fill("/a", "");
    rig.pass(70);
    rig.ask("HEAD", "/a", "Cookie: session=1\r\n", b"").expect_forwarded("stale");
    rig.ask("HEAD", "/a?utm=1", "", b"").expect_forwarded("stale");
    assert_eq!(rig.get("/a").expect_forwarded("stale").header("x-user"), None);
    let answer = rig.ask("POST", "/a?utm=1", "", b"body").expect_body(200, "of post");
    assert!(!answer.verdict().stored, "{answer:?}");
}

#[test]
fn a_post_that_breaks_off_leaves_nothing() {
    let rig = Rig::queue([
        Reply::ok("before").control("max-age=60"),
        own("of post").ends_at(3, vec![crate::proxy::reply::Step::Close]),
        Reply::ok("after"),
    ]);
    rig.fill("/a", "");
    post(&rig).expect(502);
    rig.get("/a").expect_body(200, "after");
}

fn tagged(tag: &str) -> Reply {
    Reply::ok("hello").control("max-age=60").header("ETag", tag)
}

#[test]
fn a_head_with_the_same_version_freshens_what_is_stored() {
    let rig = Rig::queue([
        tagged("\"a\"").header("X-A", "1").header("X-B", "1"),
        tagged("\"a\"").header("X-A", "2"),
    ]);
    rig.fill("/a", "");
    rig.pass(70);
    rig.ask("HEAD", "/a", "", b"").expect_body(200, "").expect_forwarded("stale");
    let hit = rig.get("/a").expect_body(200, "hello").expect_hit();
    assert_eq!((hit.header("x-a"), hit.header("x-b")), (Some("2"), Some("1")));
    assert_eq!((hit.header("age"), hit.verdict().ttl), (Some("0"), Some(60)));
    rig.expect_asked(2);
}

#[test]
fn a_head_with_another_version_does_not() {
    let other_len = Reply::ok("hello, world").control("max-age=60").header("ETag", "\"a\"");
    let unnamed = Reply::ok("hello").control("max-age=60");
    let failed = Reply::of("503 Busy", "hello").control("max-age=60").header("ETag", "\"a\"");
    for reply in [tagged("\"b\""), other_len, unnamed, failed] {
        let rig = Rig::queue([tagged("\"a\""), reply, tagged("\"c\"")]);
        rig.fill("/a", "");
        rig.pass(70);
        rig.ask("HEAD", "/a", "", b"").expect_forwarded("stale");
        rig.get("/a").expect_body(200, "hello").expect_forwarded("stale");
        rig.expect_asked(3);
    }
}

#[test]
fn a_head_freshens_the_variant_that_it_selects() {
    let of = |language: &str, tag: &str| {
        Reply::ok(language)
            .control("max-age=60")
            .header("Vary", "Accept-Language")
            .header("ETag", tag)
    };
    let rig =
        Rig::queue([of("de", "\"d\""), of("en", "\"e\""), of("de", "\"d\""), of("en", "\"f\"")]);
    let (german, english) = ("Accept-Language: de\r\n", "Accept-Language: en\r\n");
    rig.fill("/a", german);
    rig.fill("/a", english);
    rig.pass(70);
    rig.ask("HEAD", "/a", german, b"").expect_forwarded("stale");
    rig.get_with("/a", german).expect_body(200, "de").expect_hit();
    rig.get_with("/a", english).expect_body(200, "en").expect_forwarded("stale");
}

#[test]
fn a_purge_while_a_head_is_under_way_prevails() {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(move |seen| match seen.method.as_str() {
        "HEAD" => tagged("\"a\"").after(&held),
        _ => tagged("\"a\""),
    });
    rig.fill("/a", "");
    rig.pass(70);
    thread::scope(|scope| {
        let head = scope.spawn(|| rig.ask("HEAD", "/a", "", b""));
        rig.origin.wait_for(2);
        let purged = purge(&rig, r#"{"type":"uri","selectors":["http://h/a"],"purge":false}"#);
        assert_eq!(purged, 200);
        latch.open();
        head.join().unwrap().expect(200);
    });
    rig.get("/a").expect_body(200, "hello").expect_forwarded("stale");
}
