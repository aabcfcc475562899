//! Goal: a crowd that wants one cold object costs the origin one request, whatever becomes of it: all get it whole,
//! or all see that it was cut. Method: an origin that goes on when all have its first bytes, and what else happens
//! in between.

use rawcached::server::Options;

use super::purge::purge;
use crate::proxy::client::{Answer, Client, End, request};
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply, Step};
use crate::proxy::rig::Rig;
use crate::support::server::options;

const CLIENTS: usize = 200;
const LONG: usize = 8 << 20;

fn body(len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| (n ^ 0x5a5a).to_le_bytes()).take(len).collect()
}

fn in_chunks(body: &[u8]) -> Reply {
    let parts: Vec<&[u8]> = body.chunks(100_000).collect();
    Reply::chunked(&parts)
}

fn rig(origin: Origin) -> Rig {
    let place = origin.place.clone();
    Rig::before(origin, &place, Options { connections_max: 2 * CLIENTS, ..options() }, |_| {})
}

/// A crowd of which each has bytes of the first half of `/a`, and no more can come.
fn begun(rig: &Rig) -> Vec<(Client, Answer)> {
    let ask = |_| {
        let mut client = rig.client();
        client.send(request("GET", "/a", "", b""));
        client
    };
    let clients: Vec<Client> = (0..CLIENTS).map(ask).collect();
    let begin = |mut client: Client| {
        let mut answer = client.head("GET");
        client.read_to(&mut answer, 1);
        assert_eq!(answer.end, End::Open);
        (client, answer)
    };
    let begun = clients.into_iter().map(begin).collect();
    rig.expect_asked(1);
    begun
}

/// Reads all answers to their ends, some at a time.
fn finished(begun: Vec<(Client, Answer)>) -> Vec<Answer> {
    let mut rest = begun;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        parts.push(rest.split_off(rest.len().saturating_sub(CLIENTS / 8)));
    }
    let finish = |part: Vec<(Client, Answer)>| -> Vec<Answer> {
        part.into_iter().map(|(mut client, answer)| client.finish(answer)).collect()
    };
    let begin = |part| std::thread::spawn(move || finish(part));
    let threads: Vec<_> = parts.into_iter().map(begin).collect();
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn a_crowd_gets_one_object_whole() {
    let (latch, body) = (Latch::default(), body(LONG));
    let rig =
        rig(Origin::queue([Reply::ok(&body).control("max-age=60").waits_at(LONG / 2, &latch)]));
    let begun = begun(&rig);
    latch.open();
    let mut first = 0;
    for answer in finished(begun) {
        first += usize::from(answer.verdict().stored);
        answer.expect_body(200, &body);
    }
    assert_eq!(first, 1, "all others follow");
    rig.settled("/a", "").expect_body(200, &body).expect_hit();
    rig.expect_asked(1);
}

#[test]
fn a_crowd_sees_that_an_object_was_cut() {
    let body = body(LONG);
    for whole in [Reply::ok(&body), in_chunks(&body)] {
        let latch = Latch::default();
        let steps = vec![Step::Wait(latch.clone()), Step::Close];
        let cut = whole.clone().control("max-age=60").ends_at(LONG / 2, steps);
        let rig = rig(Origin::queue([cut, Reply::ok("new").control("max-age=60")]));
        let begun = begun(&rig);
        latch.open();
        for answer in finished(begun) {
            assert_eq!(answer.end, End::Cut);
            assert!(answer.body.len() <= LONG / 2 && body.starts_with(&answer.body));
        }
        rig.expect_asked(1);
        rig.pass(2);
        rig.fill("/a", "").expect_body(200, "new");
        rig.expect_asked(2);
    }
}

/// What each purge selects.
const SELECTED: [&str; 6] = [
    r#""type":"uri","selectors":["http://h/a"]"#,
    r#""type":"uri-prefix","selectors":["http://h/"]"#,
    r#""type":"origin","selectors":["http://h"]"#,
    r#""type":"group","selectors":["http://h"],"groups":["g"]"#,
    r#""type":"tag","selectors":["t"]"#,
    r#""type":"all""#,
];

/// A crowd in the middle of an object when it is purged, and the rig.
fn purged(selected: &str, is_hard: bool) -> Rig {
    const LEN: usize = 2 << 20;
    let (latch, body) = (Latch::default(), body(LEN));
    let reply = Reply::ok(&body)
        .control("max-age=60")
        .header("ETag", "\"old\"")
        .header("Surrogate-Key", "t")
        .header("Cache-Groups", "\"g\"")
        .waits_at(LEN / 2, &latch);
    let origin = Origin::start(move |seen| match seen.header("if-none-match") {
        Some(_) => Reply::not_modified().control("max-age=60"),
        None if seen.order == 0 => reply.clone(),
        None => Reply::ok("new").control("max-age=60"),
    });
    let rig = rig(origin);
    let begun = begun(&rig);
    assert_eq!(purge(&rig, &format!("{{{selected},\"purge\":{is_hard}}}")), 200, "{selected}");
    if is_hard {
        // Who comes after it does not follow what came before it.
        rig.get("/a").expect_body(200, "new");
    }
    latch.open();
    for answer in finished(begun) {
        answer.expect_body(200, &body);
    }
    rig
}

#[test]
fn a_crowd_gets_an_object_whole_that_is_purged_meanwhile_and_it_is_not_stored() {
    for selected in SELECTED {
        let rig = purged(selected, true);
        rig.settled("/a", "").expect_body(200, "new").expect_hit();
        rig.expect_asked(2);
        assert!(rig.origin.seen().iter().all(|seen| seen.header("if-none-match").is_none()));
    }
}

#[test]
fn a_crowd_gets_an_object_whole_that_a_soft_purge_makes_stale() {
    for selected in SELECTED {
        let rig = purged(selected, false);
        // It may take its time to be stored.
        let answer = rig.settled("/a", "").expect(200).expect_forwarded("stale");
        assert_eq!(answer.verdict().forwarded_status, Some(304), "{selected}");
        assert_eq!(rig.origin.last().header("if-none-match"), Some("\"old\""), "{selected}");
        rig.get("/a").expect_hit();
        rig.expect_asked(2);
    }
}
