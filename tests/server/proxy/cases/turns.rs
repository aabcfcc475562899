//! Goal: with `fills_max` no more requests than that fill at one time; those beyond it get what is stale, or
//! wait together for their turn, or are passed after a while. Method: an origin that holds a fill back.

use crate::proxy::client::{Answer, Client, request};
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::{Rig, SOON};

struct Held {
    rig: Rig,
    latch: Latch,
}

/// One fill may go on at a time.
fn held() -> Held {
    let latch = Latch::default();
    let gate = latch.clone();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/slow" => Reply::ok("slow").control("max-age=60").waits_at(2, &gate),
        "/refreshed" => Reply::ok("a").control("max-age=9, stale-while-revalidate=600"),
        "/graceful" => Reply::ok("a").control("max-age=9, stale-if-error=600"),
        _ => Reply::ok(seen.order.to_string()).control("max-age=9").header("ETag", "\"a\""),
    });
    let rig = Rig::with(origin, |proxy| {
        proxy.fills_max = 1;
        proxy.collapse_timeout = 4 * SOON;
    });
    Held { rig, latch }
}

impl Held {
    fn send(&self, target: &str) -> Client {
        let mut client = self.rig.client();
        client.send(request("GET", target, "", b""));
        client
    }

    /// A fill that goes on until the latch is open.
    fn begin(&self) -> (Client, Answer) {
        let mut client = self.send("/slow");
        let head = client.head("GET");
        (client, head)
    }

    fn end(&self, (mut client, head): (Client, Answer)) {
        self.latch.open();
        client.finish(head).expect_body(200, "slow");
    }
}

#[test]
fn what_may_stand_in_for_an_error_is_given_at_once() {
    let held = held();
    held.rig.fill("/refreshed", "");
    held.rig.fill("/graceful", "");
    held.rig.pass(10);
    let slow = held.begin();
    for target in ["/refreshed", "/graceful"] {
        held.rig.get(target).expect_body(200, "a").expect_hit();
    }
    held.rig.expect_asked(3);
    held.end(slow);
    held.rig.settled("/slow", "").expect_hit();
    held.rig.get("/graceful").expect_body(200, "a").expect_forwarded("stale");
    held.rig.expect_asked(4);
}

#[test]
fn those_who_want_the_same_wait_for_one_turn() {
    let held = held();
    let slow = held.begin();
    let clients = [held.send("/a"), held.send("/a"), held.send("/a")];
    std::thread::sleep(SOON);
    held.rig.expect_asked(1);
    held.end(slow);
    for mut client in clients {
        client.answer("GET").expect_body(200, "1");
    }
    held.rig.settled("/a", "").expect_body(200, "1").expect_hit();
    held.rig.expect_asked(2);
}

#[test]
fn who_has_waited_long_is_passed() {
    let held = held();
    held.rig.fill("/stale", "").expect_body(200, "0");
    held.rig.pass(10);
    let slow = held.begin();
    let answer = held.rig.get("/a").expect_body(200, "2").expect_forwarded("uri-miss");
    assert!(!answer.verdict().stored);
    let answer = held.rig.get("/stale").expect_body(200, "3").expect_forwarded("stale");
    assert!(!answer.verdict().stored);
    held.end(slow);
    held.rig.settled("/slow", "").expect_hit();
    held.rig.fill("/a", "").expect_body(200, "4");
}
