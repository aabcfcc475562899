//! Goal: clients that want one object at one time cost the origin one request, get its bytes as they
//! come, and none of them gets a cut object for a whole one. Method: an origin that stops in the middle.

use crate::proxy::client::{Client, End, request};
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply, Step};
use crate::proxy::rig::{Rig, SOON};
use crate::support::waiting::eventually;

const LEN: usize = 1 << 20;

fn body() -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(LEN).collect()
}

/// So many clients that have asked for `/a`.
fn clients(rig: &Rig, count: usize) -> Vec<Client> {
    let ask = |_| {
        let mut client = rig.client();
        client.send(request("GET", "/a", "", b""));
        client
    };
    (0..count).map(ask).collect()
}

#[test]
fn fifty_clients_get_one_object_while_it_comes() {
    let (latch, body) = (Latch::default(), body());
    let reply = Reply::ok(&body).control("max-age=60").waits_at(LEN / 2, &latch);
    let rig = Rig::queue([reply]);
    let mut clients = clients(&rig, 50);
    let begin = |client: &mut Client| {
        let mut answer = client.head("GET");
        client.read_to(&mut answer, LEN / 2);
        assert!(answer.end == End::Open && answer.body == body[..LEN / 2]);
        answer
    };
    let answers: Vec<_> = clients.iter_mut().map(begin).collect();
    rig.expect_asked(1);
    latch.open();
    let mut collapsed = 0;
    for (mut client, answer) in clients.into_iter().zip(answers) {
        let answer = client.finish(answer).expect_body(200, &body);
        collapsed += usize::from(answer.verdict().collapsed || answer.verdict().hit);
    }
    assert_eq!(collapsed, 49);
    rig.settled("/a", "").expect_body(200, &body).expect_hit();
    rig.expect_asked(1);
}

#[test]
fn a_client_that_comes_late_gets_it_from_its_beginning() {
    let (latch, body) = (Latch::default(), body());
    let parts: Vec<Vec<u8>> = body.chunks(10_000).map(<[u8]>::to_vec).collect();
    let reply = Reply::chunked(&parts).control("max-age=60").waits_at(LEN / 2, &latch);
    let rig = Rig::queue([reply]);
    let mut first = rig.client();
    first.send(request("GET", "/a", "", b""));
    let mut begun = first.head("GET");
    first.read_to(&mut begun, LEN / 4);
    let mut late = rig.client();
    late.send(request("GET", "/a", "", b""));
    let mut late_begun = late.head("GET");
    late.read_to(&mut late_begun, LEN / 4);
    assert!(late_begun.body == body[..LEN / 4]);
    latch.open();
    first.finish(begun).expect_body(200, &body);
    late.finish(late_begun).expect_body(200, &body);
    rig.expect_asked(1);
}

#[test]
fn an_object_that_breaks_off_is_cut_for_all_and_stored_for_none() {
    let body = body();
    let half = LEN / 2;
    let parts: Vec<Vec<u8>> = body.chunks(10_000).map(<[u8]>::to_vec).collect();
    for (whole, end) in [
        (Reply::ok(&body), Step::Close),
        (Reply::ok(&body), Step::Reset),
        (Reply::chunked(&parts), Step::Close),
        (Reply::chunked(&parts), Step::Reset),
    ] {
        let latch = Latch::default();
        let steps = vec![Step::Wait(latch.clone()), end];
        let cut = whole.clone().control("max-age=60").ends_at(half, steps);
        let whole = whole.control("max-age=60");
        let rig = Rig::start(move |seen| if seen.order == 0 { cut.clone() } else { whole.clone() });
        let mut clients = clients(&rig, 10);
        let answers: Vec<_> = clients.iter_mut().map(|client| client.head("GET")).collect();
        latch.open();
        for (mut client, answer) in clients.into_iter().zip(answers) {
            let answer = client.finish(answer);
            assert_eq!(answer.end, End::Cut);
            assert!(body.starts_with(&answer.body));
        }
        rig.expect_asked(1);
        // They may share the failure for a second.
        rig.pass(2);
        rig.settled("/a", "").expect_body(200, &body);
        rig.expect_asked(2);
    }
}

#[test]
fn a_cut_object_leaves_the_one_before_it() {
    let rig = Rig::start(|seen| match seen.order {
        0 => Reply::ok("old").control("max-age=60, stale-if-error=600"),
        _ => Reply::ok("new body").control("max-age=60").ends_at(3, vec![Step::Close]),
    });
    rig.fill("/a", "");
    rig.pass(60);
    let answer = rig.get("/a");
    assert!(answer.end == End::Cut || answer.body == b"old", "{answer:?}");
    let answer = rig.settled("/a", "");
    assert!(answer.end == End::Cut || answer.body == b"old", "{answer:?}");
}

#[test]
fn the_client_that_began_may_leave() {
    let (latch, body) = (Latch::default(), body());
    let reply = Reply::ok(&body).control("max-age=60").waits_at(LEN / 2, &latch);
    let rig = Rig::queue([reply]);
    let mut first = clients(&rig, 1).remove(0);
    let mut begun = first.head("GET");
    first.read_to(&mut begun, 1000);
    let mut second = clients(&rig, 1).remove(0);
    let mut followed = second.head("GET");
    second.read_to(&mut followed, 1000);
    drop(first);
    latch.open();
    second.finish(followed).expect_body(200, &body);
    rig.settled("/a", "").expect_body(200, &body).expect_hit();
    rig.expect_asked(1);
}

#[test]
fn a_client_that_stands_still_does_not_hold_up_the_others() {
    let body: Vec<u8> = (0..2u32 << 20).flat_map(u32::to_le_bytes).collect();
    let rig = Rig::queue([Reply::ok(&body).control("max-age=60")]);
    let mut still = clients(&rig, 1).remove(0);
    let begun = still.head("GET");
    for mut client in clients(&rig, 5) {
        client.answer("GET").expect_body(200, &body);
    }
    still.finish(begun).expect_body(200, &body);
    rig.expect_asked(1);
}

#[test]
fn what_may_not_be_stored_is_not_waited_for() {
    let (count, latch) = (10, Latch::default());
    let gate = latch.clone();
    let rig = Rig::start(move |seen| {
        let reply = Reply::ok(seen.order.to_string()).control("no-store");
        if seen.order == 0 { reply } else { reply.after(&gate) }
    });
    rig.get("/a").expect_body(200, "0");
    let clients = clients(&rig, count);
    // All of them are at the origin at one time: none waits for another.
    rig.origin.wait_for(count + 1);
    latch.open();
    let bodies = clients.into_iter().map(|mut client| client.answer("GET").expect(200).body);
    let mut bodies: Vec<_> = bodies.collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), count, "each has its own");
}

#[test]
fn those_who_waited_for_what_may_not_be_stored_get_their_own() {
    let latch = Latch::default();
    let gate = latch.clone();
    let rig = Rig::start(move |seen| {
        let reply = Reply::ok(seen.order.to_string()).control("private, max-age=60");
        if seen.order == 0 { reply.after(&gate) } else { reply }
    });
    let first = clients(&rig, 1);
    rig.origin.wait_for(1);
    let others = clients(&rig, 9);
    latch.open();
    let all = first.into_iter().chain(others);
    let mut bodies: Vec<_> = all.map(|mut client| client.answer("GET").expect(200).body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 10, "nobody gets another's");
    rig.expect_asked(10);
}

#[test]
fn a_key_that_was_not_stored_once_is_stored_when_it_may_be() {
    let rig = Rig::start(|seen| match seen.order {
        0 => Reply::ok("a").control("no-store"),
        _ => Reply::ok("b").control("max-age=60"),
    });
    rig.get("/a").expect_body(200, "a");
    assert!(eventually(|| rig.get("/a").verdict().hit));
    let asked = rig.origin.count();
    rig.get("/a").expect_body(200, "b").expect_hit();
    rig.expect_asked(asked);
}

#[test]
fn nobody_waits_for_ever_for_a_fill_to_begin() {
    let latch = Latch::default();
    let gate = latch.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::ok(seen.order.to_string()).control("max-age=60");
        if seen.order == 0 { reply.after(&gate) } else { reply }
    });
    let rig = Rig::with(origin, |proxy| proxy.collapse_timeout = SOON);
    let mut first = clients(&rig, 1).remove(0);
    rig.origin.wait_for(1);
    rig.get("/a").expect_body(200, "1");
    latch.open();
    first.answer("GET").expect_body(200, "0");
}

#[test]
fn those_who_wait_share_an_error() {
    let latch = Latch::default();
    let rig = Rig::queue([Reply::of("503 Service Unavailable", "x").after(&latch)]);
    let first = clients(&rig, 1);
    rig.origin.wait_for(1);
    let others = clients(&rig, 19);
    // They have to be waiting already.
    let asked = |now: &rawcached::server::counters::Snapshot| now.connections_current >= 20;
    rig.server.wait_until(asked);
    latch.open();
    for mut client in first.into_iter().chain(others) {
        client.answer("GET").expect_body(503, "x");
    }
    rig.expect_asked(1);
}

#[test]
fn what_is_too_large_is_passed_on_whole() {
    let body = body();
    let parts: Vec<Vec<u8>> = body.chunks(10_000).map(<[u8]>::to_vec).collect();
    for reply in [Reply::ok(&body), Reply::chunked(&parts)] {
        let reply = reply.control("max-age=60");
        let origin = Origin::start(move |_| reply.clone());
        let rig = Rig::with(origin, |proxy| proxy.object_size_max = 1000);
        rig.get("/a").expect_body(200, &body);
        rig.settled("/a", "").expect_body(200, &body);
        rig.expect_asked(2);
    }
}

/// RFC 9112, section 8: nobody knows whether it is whole.
#[test]
fn what_ends_with_the_connection_is_passed_on_and_not_stored() {
    let rig = Rig::start(|_| Reply::until_close("abc").control("max-age=60"));
    for count in 1..3 {
        rig.settled("/a", "").expect_body(200, "abc");
        rig.expect_asked(count);
    }
}
