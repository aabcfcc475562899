//! Goal: `bypass` and `no_store` keep requests away from what is stored, or what comes for them out of it,
//! and others wait for none of them. Method: an origin that numbers its answers and can be held back.

use rawcached::http_cache::condition::Condition;

use crate::proxy::client::{Client, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;

const SESSION: &str = "Cookie: a=b; session=1\r\n";
const PREVIEW: &str = "X-Preview: 1\r\n";

fn rules(text: &str) -> Vec<Condition> {
    vec![text.parse().unwrap()]
}

fn numbered(seen: &Seen) -> Reply {
    Reply::ok(seen.order.to_string()).control("max-age=60").header("ETag", "\"a\"")
}

fn rig(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
    Rig::with(Origin::start(handler), |proxy| {
        proxy.settings.bypass = rules("cookie:session");
        proxy.settings.no_store = rules("header:x-preview=1");
    })
}

fn send(rig: &Rig, fields: &str) -> Client {
    let mut client = rig.client();
    client.send(request("GET", "/a", fields, b""));
    client
}

#[test]
fn bypass_neither_answers_from_the_store_nor_stores() {
    let rig = rig(numbered);
    rig.get_with("/a", SESSION).expect_body(200, "0").expect_forwarded("bypass");
    rig.fill("/a", "").expect_body(200, "1");
    let answer = rig.get_with("/a", SESSION).expect_body(200, "2").expect_forwarded("bypass");
    assert!(!answer.verdict().stored);
    assert_eq!(rig.origin.last().header("cookie"), Some("a=b; session=1"));
    rig.ask("HEAD", "/a", SESSION, b"").expect_forwarded("bypass");
    for fields in ["", "Cookie: a=session\r\n", "Cookie: sessions=1\r\n"] {
        rig.get_with("/a", fields).expect_body(200, "1").expect_hit();
    }
}

#[test]
fn a_request_of_no_store_gets_what_is_stored_and_stores_nothing() {
    let rig = rig(numbered);
    for count in 0..2 {
        let answer = rig.get_with("/a", PREVIEW).expect_body(200, count.to_string());
        assert!(!answer.expect_forwarded("uri-miss").verdict().stored);
    }
    rig.fill("/a", "").expect_body(200, "2");
    rig.get_with("/a", PREVIEW).expect_body(200, "2").expect_hit();
    rig.pass(61);
    let answer = rig.get_with("/a", PREVIEW).expect_body(200, "3").expect_forwarded("stale");
    assert!(!answer.verdict().stored);
    rig.get("/a").expect_body(200, "4").expect_forwarded("stale");
}

#[test]
fn nobody_waits_for_a_request_of_no_store() {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = rig(move |seen| match seen.header("x-preview") {
        Some(_) => numbered(seen).after(&held),
        None => numbered(seen),
    });
    let clients = [send(&rig, PREVIEW), send(&rig, PREVIEW)];
    rig.origin.wait_for(2);
    rig.fill("/a", "").expect_body(200, "2");
    latch.open();
    for mut client in clients {
        assert!(!client.answer("GET").expect(200).verdict().collapsed);
    }
    rig.get("/a").expect_body(200, "2").expect_hit();
}

#[test]
fn a_request_of_no_store_does_not_end_that_others_wait_for_each_other() {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = rig(move |seen| match seen.header("x-preview") {
        Some(_) => Reply::ok("mine").control("no-store"),
        None => numbered(seen).waits_at(0, &held),
    });
    rig.get_with("/a", PREVIEW).expect_body(200, "mine");
    let clients = [send(&rig, ""), send(&rig, ""), send(&rig, "")];
    let clients = clients.map(|mut client| (client.head("GET"), client));
    rig.expect_asked(2);
    latch.open();
    for (answer, mut client) in clients {
        client.finish(answer).expect_body(200, "1");
    }
}
