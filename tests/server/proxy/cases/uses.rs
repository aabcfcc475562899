//! Goal: with `min_uses` nothing is stored of what is asked for rarely, and nobody waits for such a request.
//! Method: an origin that numbers its answers and can be held back.

use crate::proxy::client::request;
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;

fn rig(latch: &Latch, min_uses: u16) -> Rig {
    let latch = latch.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::ok(seen.order.to_string()).control("max-age=60");
        if seen.target == "/held" { reply.after(&latch) } else { reply }
    });
    Rig::with(origin, |proxy| proxy.min_uses = min_uses)
}

#[test]
fn a_target_is_stored_from_its_third_request_on() {
    let rig = rig(&Latch::default(), 3);
    for count in 0..2 {
        let answer = rig.get("/a").expect_body(200, count.to_string());
        let verdict = answer.expect_forwarded("uri-miss").verdict();
        assert!(!verdict.stored && !verdict.collapsed);
    }
    for _ in 0..2 {
        // Others are counted on their own, and requests that store nothing are not.
        assert!(!rig.get("/b").expect_forwarded("uri-miss").verdict().stored);
        rig.ask("HEAD", "/a", "", b"").expect_forwarded("uri-miss");
    }
    let asked = rig.origin.count();
    rig.fill("/a", "").expect_body(200, asked.to_string());
    rig.pass(61);
    let answer = rig.settled("/a", "").expect_body(200, (asked + 1).to_string());
    assert!(answer.verdict().hit || answer.verdict().stored, "it is known");
}

#[test]
fn nobody_waits_for_what_is_rare() {
    let latch = Latch::default();
    let rig = rig(&latch, 3);
    let clients = [(); 2].map(|()| {
        let mut client = rig.client();
        client.send(request("GET", "/held", "", b""));
        client
    });
    rig.origin.wait_for(2);
    latch.open();
    for mut client in clients {
        client.answer("GET").expect(200).expect_forwarded("uri-miss");
    }
    rig.fill("/held", "").expect_body(200, "2");
}
