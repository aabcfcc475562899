//! Goal: what an unsafe request changed is not answered from the store (RFC 9111, section 4.4). Method:
//! an origin that counts in its answers.

use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;

/// GETs are numbered and may be stored; other methods are answered with `reply`.
fn rig(reply: Reply) -> Rig {
    Rig::of(Origin::start(move |seen| match seen.method.as_str() {
        "GET" => Reply::ok(seen.order.to_string()).control("max-age=60").header("Vary", "X-A"),
        _ => reply.clone(),
    }))
}

#[test]
fn unsafe_methods_remove_what_is_stored() {
    let rig = rig(Reply::empty("204 No Content"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        rig.fill("/a", "");
        rig.fill("/a", "X-A: 1\r\n");
        rig.fill("/b", "");
        rig.ask(method, "/a", "", b"body").expect(204);
        rig.fill("/a", "");
        rig.fill("/a", "X-A: 1\r\n");
        rig.get("/b").expect_hit();
        rig.ask(method, "/b", "", b"").expect(204);
        rig.ask(method, "/a", "", b"").expect(204);
    }
}

#[test]
fn what_failed_and_what_only_reads_removes_nothing() {
    for (method, status) in [
        ("POST", "400 Bad Request"),
        ("POST", "404 Not Found"),
        ("DELETE", "500 Internal Server Error"),
        ("OPTIONS", "200 OK"),
        ("HEAD", "200 OK"),
    ] {
        let rig = rig(Reply::of(status, "x"));
        rig.fill("/a", "").expect_body(200, "0");
        rig.ask(method, "/a", "", b"");
        rig.get("/a").expect_body(200, "0").expect_hit();
    }
}

#[test]
fn what_the_answer_names_is_removed_too() {
    for name in ["Location", "Content-Location"] {
        for value in ["/b", "b", "http://h/b", "//h/b", "http://H:80/b"] {
            let rig = rig(Reply::of("201 Created", "").header(name, value));
            rig.fill("/b", "");
            rig.ask("POST", "/a", "", b"").expect(201);
            rig.fill("/b", "");
        }
        for value in ["http://other/b", "https://h/b", "//other/b"] {
            let rig = rig(Reply::of("201 Created", "").header(name, value));
            rig.fill("/b", "");
            rig.ask("POST", "/a", "", b"").expect(201);
            rig.get("/b").expect_hit();
        }
    }
}

/// What the origin said before the change may come after it.
#[test]
fn what_was_being_fetched_at_the_change_is_not_stored_over_it() {
    let latch = Latch::default();
    let gate = latch.clone();
    let rig = Rig::start(move |seen| match seen.order {
        0 => Reply::ok("old").control("max-age=60").waits_at(1, &gate),
        1 => Reply::empty("204 No Content"),
        _ => Reply::ok("new").control("max-age=60"),
    });
    let mut slow = rig.client();
    slow.send(crate::proxy::client::request("GET", "/a", "", b""));
    let mut begun = slow.head("GET");
    slow.read_to(&mut begun, 1);
    rig.ask("POST", "/a", "", b"").expect(204);
    rig.get("/a").expect_body(200, "new");
    latch.open();
    slow.finish(begun);
    for _ in 0..3 {
        rig.settled("/a", "").expect_body(200, "new");
    }
}
