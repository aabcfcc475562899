//! Goal: what is stale is validated, and a 304 makes it fresh with what it says (RFC 9111, section
//! 4.3). Method: a recording origin, a clock that a test moves.

use rawcached::http_cache::settings::ClientDirectives;

use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn tagged() -> Reply {
    Reply::ok("hello").control("max-age=60").header("ETag", "\"a\"")
}

#[test]
fn a_304_makes_the_stored_response_fresh() {
    let first = tagged().header("X-A", "1").header("X-B", "1").header("Content-Type", "a/b");
    let unchanged = Reply::not_modified()
        .control("max-age=100")
        .header("ETag", "\"a\"")
        .header("X-A", "2")
        .header("X-C", "3");
    let rig = Rig::queue([first, unchanged]);
    rig.fill("/a", "");
    rig.pass(70);
    let answer = rig.get("/a").expect_body(200, "hello").expect_forwarded("stale");
    assert_eq!(answer.verdict().forwarded_status, Some(304));
    let asked = rig.origin.last();
    assert_eq!(asked.header("if-none-match"), Some("\"a\""));
    let hit = rig.settled("/a", "").expect_body(200, "hello").expect_hit();
    for answer in [&answer, &hit] {
        let found = ["x-a", "x-b", "x-c", "content-type", "content-length"];
        let found = found.map(|name| answer.header(name));
        assert_eq!(found, [Some("2"), Some("1"), Some("3"), Some("a/b"), Some("5")]);
        assert_eq!(answer.header("cache-control"), Some("max-age=100"));
    }
    assert_eq!((hit.header("age"), hit.verdict().ttl), (Some("0"), Some(100)));
    rig.pass(99);
    rig.get("/a").expect_hit();
    rig.expect_asked(2);
}

#[test]
fn a_new_version_takes_the_place_of_the_old_one() {
    let rig =
        Rig::queue([tagged(), Reply::ok("new").control("max-age=60").header("ETag", "\"b\"")]);
    rig.fill("/a", "");
    rig.pass(60);
    let answer = rig.get("/a").expect_body(200, "new").expect_forwarded("stale");
    assert_eq!(answer.header("etag"), Some("\"b\""));
    let hit = rig.settled("/a", "").expect_body(200, "new").expect_hit();
    assert_eq!(hit.header("etag"), Some("\"b\""));
}

#[test]
fn a_date_validates_where_there_is_no_tag() {
    let first = Reply::ok("hello").control("max-age=60").header("Last-Modified", MODIFIED);
    let rig = Rig::queue([first, Reply::not_modified().control("max-age=60")]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get("/a").expect_body(200, "hello");
    let asked = rig.origin.last();
    assert_eq!(asked.header("if-modified-since"), Some(MODIFIED));
    assert_eq!(asked.header("if-none-match"), None);
    rig.settled("/a", "").expect_body(200, "hello").expect_hit();
}

#[test]
fn what_cannot_be_validated_is_fetched_anew() {
    let reply = || Reply::ok("hello").control("max-age=60");
    let rig = Rig::queue([reply(), reply()]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get("/a").expect_body(200, "hello");
    let asked = rig.origin.last();
    assert_eq!((asked.header("if-none-match"), asked.header("if-modified-since")), (None, None));
}

/// RFC 9111, section 5.2.2.4.
#[test]
fn no_cache_is_validated_before_every_use() {
    let first = Reply::ok("hello").control("no-cache, max-age=60").header("ETag", "\"a\"");
    let same = || Reply::not_modified().header("ETag", "\"a\"");
    let rig = Rig::queue([first, same(), same()]);
    rig.get("/a").expect_body(200, "hello");
    for count in 2..4 {
        let answer = rig.settled("/a", "").expect_body(200, "hello");
        assert_eq!(answer.verdict().forwarded_status, Some(304));
        rig.expect_asked(count);
    }
}

#[test]
fn a_client_with_the_same_version_gets_304_after_validation() {
    let rig =
        Rig::queue([tagged(), Reply::not_modified().control("max-age=60").header("ETag", "\"a\"")]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get_with("/a", "If-None-Match: \"a\"\r\n").expect_body(304, "");
    rig.settled("/a", "").expect_body(200, "hello").expect_hit();
}

#[test]
fn a_client_with_another_version_gets_the_whole_after_validation() {
    let rig =
        Rig::queue([tagged(), Reply::not_modified().control("max-age=60").header("ETag", "\"a\"")]);
    rig.fill("/a", "");
    rig.pass(60);
    let answer = rig.get_with("/a", "If-None-Match: \"old\"\r\n").expect_body(200, "hello");
    assert_eq!(answer.verdict().forwarded_status, Some(304));
    assert_eq!(rig.origin.last().header("if-none-match"), Some("\"a\""));
}

#[test]
fn a_304_of_another_version_is_not_believed() {
    let other = Reply::not_modified().control("max-age=60").header("ETag", "\"other\"");
    let whole = Reply::ok("new").control("max-age=60").header("ETag", "\"other\"");
    let rig = Rig::queue([tagged(), other, whole]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get("/a").expect_body(200, "new");
    let asked = rig.origin.last();
    assert_eq!((asked.header("if-none-match"), asked.header("if-modified-since")), (None, None));
}

#[test]
fn a_304_nobody_asked_for_is_not_given_to_who_has_nothing() {
    let rig = Rig::start(|_| Reply::not_modified().control("max-age=60").header("ETag", "\"a\""));
    let answer = rig.get("/a");
    assert!(answer.status >= 500, "{}", answer.status);
    assert!(!rig.get("/a").verdict().hit);
}

#[test]
fn a_304_that_forbids_storing_ends_what_is_stored() {
    let private = Reply::not_modified().control("private").header("ETag", "\"a\"");
    let rig = Rig::queue([tagged(), private, Reply::ok("new").control("private")]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get("/a").expect_body(200, "hello");
    rig.settled("/a", "").expect_body(200, "new");
}

#[test]
fn clients_that_come_at_once_are_validated_for_once() {
    let latch = crate::proxy::reply::Latch::default();
    let same = Reply::not_modified().control("max-age=60").header("ETag", "\"a\"").after(&latch);
    let rig = Rig::queue([tagged(), same]);
    rig.fill("/a", "");
    rig.pass(60);
    let mut clients: Vec<_> = (0..20).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(crate::proxy::client::request("GET", "/a", "", b""));
    }
    rig.origin.wait_for(2);
    latch.open();
    for mut client in clients {
        client.answer("GET").expect_body(200, "hello");
    }
    rig.expect_asked(2);
}

/// RFC 9111, section 5.2.1.4; RFC 9211, section 2.2.
#[test]
fn clients_can_ask_for_fresher_answers_where_they_are_honored() {
    for (honors, count) in [(false, 1), (true, 2)] {
        let same = Reply::not_modified().control("max-age=60").header("ETag", "\"a\"");
        let rig = Rig::with(Origin::queue([tagged(), same]), |proxy| {
            if honors {
                proxy.settings.client_directives = ClientDirectives::Honor;
            }
        });
        rig.fill("/a", "");
        let answer = rig.get_with("/a", "Cache-Control: no-cache\r\n").expect_body(200, "hello");
        if honors {
            answer.expect_forwarded("request");
        } else {
            answer.expect_hit();
        }
        rig.expect_asked(count);
    }
}

/// A 304 that makes the response depend on a field must not leave it to everybody.
#[test]
fn a_304_with_another_vary_ends_what_is_stored() {
    let rig = Rig::start(|seen| match (seen.order, seen.header("if-none-match")) {
        (0, _) => Reply::ok("for all").control("max-age=60").header("ETag", "\"a\""),
        (_, Some(_)) => Reply::not_modified().control("max-age=60").header("Vary", "X-User"),
        (_, None) => {
            let user = seen.header("x-user").unwrap_or("nobody").to_owned();
            Reply::ok(user).control("max-age=60").header("Vary", "X-User")
        }
    });
    rig.fill("/a", "");
    rig.pass(61);
    rig.get_with("/a", "X-User: one\r\n").expect(200);
    rig.get_with("/a", "X-User: two\r\n").expect_body(200, "two");
    rig.get_with("/a", "X-User: one\r\n").expect_body(200, "one");
}
