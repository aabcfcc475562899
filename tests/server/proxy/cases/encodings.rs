//! Goal: clients that take the same codings share what is stored, and none gets a coding that it refuses.
//! Method: an origin that answers with the best of what it is asked for, and says that it varies.

use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// The body is what it was asked for.
fn encoded(seen: &Seen) -> Reply {
    let asked = seen.header("accept-encoding").unwrap_or("nothing").to_owned();
    let reply = Reply::ok(&asked).control("max-age=60").header("Vary", "Accept-Encoding");
    match asked.split(", ").next() {
        Some(coding @ ("br" | "gzip" | "zstd")) => reply.header("Content-Encoding", coding),
        _ => reply,
    }
}

fn accept(line: &str) -> String {
    format!("Accept-Encoding: {line}\r\n")
}

#[test]
fn clients_that_take_the_same_share_a_variant() {
    let rig = Rig::start(encoded);
    for (first, expected, others) in [
        ("gzip, deflate, br, zstd", "br, gzip, zstd", ["*", "zstd;q=0.1, br, GZIP"]),
        ("gzip", "gzip", ["gzip;q=0.5, deflate, x", "x-gzip, br;q=0, *;q=0, identity"]),
        ("deflate", "identity", ["", "gzip;q=0"]),
        ("gzip, identity;q=0", "gzip, identity;q=0", ["gzip, *;q=0", "*;q=0, gzip;q=1"]),
    ] {
        rig.fill("/a", &accept(first)).expect_body(200, expected);
        for other in others {
            rig.get_with("/a", &accept(other)).expect_body(200, expected).expect_hit();
        }
    }
    rig.get("/a").expect_body(200, "identity").expect_hit();
    rig.expect_asked(4);
}

#[test]
fn what_is_not_looked_up_is_asked_for_as_the_client_asks() {
    let rig = Rig::start(encoded);
    let line = "deflate, gzip;q=0.5";
    rig.ask("POST", "/a", &accept(line), b"").expect_body(200, line);
    let other_target = format!("{}X-Rewrite-URL: /b\r\n", accept(line));
    rig.get_with("/a", &other_target).expect_body(200, line).expect_forwarded("bypass");
    rig.ask("HEAD", "/a", &accept(line), b"").expect(200);
    assert_eq!(rig.origin.last().header("accept-encoding"), Some("gzip"));
}

#[test]
fn an_operator_can_have_it_asked_for_as_clients_ask() {
    let rig = Rig::with(Origin::start(encoded), |proxy| {
        proxy.settings.normalizes_accept_encoding = false;
    });
    for (n, line) in ["deflate, gzip", "gzip"].into_iter().enumerate() {
        rig.fill("/a", &accept(line)).expect_body(200, line);
        rig.expect_asked(n + 1);
    }
    rig.fill("/a", "").expect_body(200, "nothing");
}
