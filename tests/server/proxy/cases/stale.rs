//! Goal: what is stale is used where its origin allows it, and not longer (RFC 9111, section 4.2.4; RFC
//! 5861). Method: an origin that fails when a test says so, a clock that a test moves.

use crate::proxy::client::request;
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply, Step};
use crate::proxy::rig::Rig;

const SIE: &str = "max-age=60, stale-if-error=30";
const SWR: &str = "max-age=60, stale-while-revalidate=30";

fn first(control: &str) -> Reply {
    Reply::ok("old").control(control).header("ETag", "\"a\"")
}

fn failures() -> Vec<Reply> {
    vec![
        Reply::of("500 Internal Server Error", "x"),
        Reply::of("502 Bad Gateway", "x"),
        Reply::of("503 Service Unavailable", "x"),
        Reply::of("504 Gateway Timeout", "x"),
        Reply::close(),
        Reply::steps(vec![Step::Reset]),
        Reply::raw_last("HTTP/1.1 200"),
        Reply::raw_last("nonsense\r\n\r\n"),
    ]
}

#[test]
fn what_is_stale_stands_in_for_an_error() {
    for failure in failures() {
        // A connection that broke may have been an old one: the same may be asked again.
        let rig =
            Rig::start(move |seen| if seen.order == 0 { first(SIE) } else { failure.clone() });
        rig.fill("/a", "");
        rig.pass(89);
        let answer = rig.get("/a").expect_body(200, "old");
        assert_eq!(answer.header("age"), Some("89"));
        assert_eq!(answer.verdict().ttl, Some(-29));
        assert_eq!(rig.origin.last().header("if-none-match"), Some("\"a\""));
    }
}

#[test]
fn it_does_not_stand_in_for_longer_than_is_said() {
    for failure in failures() {
        let rig =
            Rig::start(move |seen| if seen.order == 0 { first(SIE) } else { failure.clone() });
        rig.fill("/a", "");
        rig.pass(91);
        let answer = rig.get("/a");
        assert!(matches!(answer.status, 500..=504), "{}", answer.status);
        assert!(!answer.verdict().hit);
    }
}

#[test]
fn errors_that_are_the_clients_own_are_passed_on() {
    for status in ["404 Not Found", "410 Gone", "501 Not Implemented"] {
        let rig = Rig::queue([first(SIE), Reply::of(status, "x")]);
        rig.fill("/a", "");
        rig.pass(70);
        rig.get("/a").expect_body(status[..3].parse().unwrap(), "x");
    }
}

/// RFC 9111, section 5.2.2.2.
#[test]
fn what_must_be_validated_never_stands_in() {
    for control in ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"] {
        let control = format!("{SIE}, {control}");
        let rig = Rig::start(move |seen| match seen.order {
            0 => first(&control),
            _ => Reply::close(),
        });
        rig.get("/a").expect_body(200, "old");
        rig.pass(70);
        let answer = rig.settled("/a", "");
        assert!(matches!(answer.status, 502 | 504), "{}", answer.status);
    }
}

#[test]
fn an_error_leaves_what_is_stored() {
    let rig = Rig::queue([
        first("max-age=60"),
        Reply::of("503 Service Unavailable", "x"),
        Reply::not_modified().control("max-age=60").header("ETag", "\"a\""),
    ]);
    rig.fill("/a", "");
    rig.pass(60);
    rig.get("/a").expect_body(503, "x");
    rig.pass(5);
    let answer = rig.get("/a").expect_body(200, "old");
    assert_eq!(answer.verdict().forwarded_status, Some(304));
}

#[test]
fn an_operator_can_allow_grace() {
    let origin = Origin::start(|seen| match seen.order {
        0 => first("max-age=60"),
        _ => Reply::of("503 Service Unavailable", "x"),
    });
    let rig = Rig::with(origin, |proxy| {
        proxy.settings.grace_default = std::time::Duration::from_secs(30);
    });
    rig.fill("/a", "");
    rig.pass(80);
    rig.get("/a").expect_body(200, "old");
    rig.pass(20);
    rig.get("/a").expect_body(503, "x");
}

#[test]
fn what_is_stale_is_used_while_it_is_refreshed_once() {
    let latch = Latch::default();
    let new = Reply::ok("new").control(SWR).header("ETag", "\"b\"").after(&latch);
    let rig = Rig::queue([first(SWR), new]);
    rig.fill("/a", "");
    rig.pass(70);
    // The refresh hangs; nobody waits for it.
    for _ in 0..20 {
        let answer = rig.get("/a").expect_body(200, "old").expect_hit();
        assert_eq!((answer.header("age"), answer.verdict().ttl), (Some("70"), Some(-10)));
    }
    rig.origin.wait_for(2);
    assert_eq!(rig.origin.last().header("if-none-match"), Some("\"a\""));
    latch.open();
    assert!(crate::support::waiting::eventually(|| rig.get("/a").body == b"new"));
    rig.get("/a").expect_body(200, "new").expect_hit();
    rig.expect_asked(2);
}

#[test]
fn a_refresh_by_304_makes_it_fresh() {
    let same = Reply::not_modified().control(SWR).header("ETag", "\"a\"");
    let rig = Rig::queue([first(SWR), same]);
    rig.fill("/a", "");
    rig.pass(70);
    rig.get("/a").expect_body(200, "old").expect_hit();
    let is_fresh = || rig.get("/a").verdict().ttl == Some(60);
    assert!(crate::support::waiting::eventually(is_fresh));
    rig.expect_asked(2);
}

#[test]
fn it_is_not_used_for_longer_while_it_is_refreshed() {
    let rig = Rig::queue([first(SWR), Reply::ok("new").control(SWR)]);
    rig.fill("/a", "");
    rig.pass(91);
    rig.get("/a").expect_body(200, "new").expect_forwarded("stale");
}

#[test]
fn a_refresh_that_fails_leaves_what_is_stored() {
    let rig = Rig::start(|seen| match seen.order {
        0 => first(SWR),
        _ => Reply::of("503 Service Unavailable", "x"),
    });
    rig.fill("/a", "");
    rig.pass(70);
    rig.get("/a").expect_body(200, "old").expect_hit();
    rig.origin.wait_for(2);
    rig.pass(2);
    rig.get("/a").expect_body(200, "old").expect_hit();
    rig.pass(30);
    rig.get("/a").expect_body(503, "x");
}

#[test]
fn a_refresh_that_breaks_off_leaves_what_is_stored() {
    let rig = Rig::start(|seen| match seen.order {
        0 => first(SWR),
        _ => Reply::ok("new").control(SWR).ends_at(1, vec![Step::Close]),
    });
    rig.fill("/a", "");
    rig.pass(70);
    let mut client = rig.client();
    client.send(request("GET", "/a", "", b""));
    client.answer("GET").expect_body(200, "old").expect_hit();
    rig.origin.wait_for(2);
    for _ in 0..20 {
        rig.get("/a").expect_body(200, "old").expect_hit();
    }
}

/// Nobody waits for a refresh; it is finished all the same, however long the body is.
#[test]
fn a_refresh_brings_a_long_body_of_unknown_length() {
    let parts: Vec<Vec<u8>> = (0..60u8).map(|n| vec![n; 64 << 10]).collect();
    let whole = parts.concat();
    let rig = Rig::start(move |seen| match seen.order {
        0 => first(SWR),
        _ => Reply::chunked(&parts).control(SWR),
    });
    rig.fill("/a", "");
    rig.pass(61);
    rig.get("/a").expect_body(200, "old").expect_hit();
    assert!(crate::support::waiting::eventually(|| rig.get("/a").body == whole));
    rig.get("/a").expect_hit();
    rig.expect_asked(2);
}
