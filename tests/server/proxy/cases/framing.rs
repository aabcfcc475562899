//! Goal: no bytes of a client become a request that it did not send (RFC 9112, sections 2.2, 3, 5 and 6,
//! and the published attacks on those who read them otherwise). Method: a table of byte strings, each on
//! a connection of its own; an origin that reads strictly; and after each of them a client that must get
//! its own answer.

mod chunks;
mod heads;
mod lengths;

use crate::proxy::client::request;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// What follows the body as one reader has it, and is a part of it as another one has it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\nX-Ignore: x\r\n\r\n";

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The origin sees no whole request, and the client at most a refusal.
    Refused,
    /// The origin sees one request.
    One,
    /// RFC 9112 lets a reader choose.
    OneOrRefused,
}
use Fate::{One, OneOrRefused, Refused};

/// One attack: what it is, the bytes, what becomes of them.
type Case = (&'static str, String, Fate);

/// Runs all `cases` against one listener.
fn run(cases: Vec<Case>) {
    let rig = Rig::start(|seen| {
        // Each of them is to come to the origin; what comes between them is kept.
        let control = if seen.target == "/a" { "no-store" } else { "max-age=60" };
        Reply::ok(&seen.target).control(control)
    });
    for (n, (name, bytes, fate)) in cases.into_iter().enumerate() {
        let before = rig.origin.count();
        let mut client = rig.client();
        client.try_send(&bytes);
        client.half_close();
        let mut statuses = Vec::new();
        let first = bytes.split(' ').next().unwrap_or_default();
        let method = if first == "HEAD" { "HEAD" } else { "GET" };
        while let Some(answer) = client.try_head(method) {
            statuses.push(client.finish(answer).status);
        }
        let seen = rig.origin.seen().split_off(before);
        let text = format!("{name}: {} -> {statuses:?}", bytes.escape_debug());
        let is_refused = seen.is_empty() && statuses.iter().all(|status| *status >= 400);
        let is_one = seen.len() == 1 && statuses.first() == Some(&200);
        match fate {
            Refused => assert!(is_refused && statuses.len() <= 1, "{text} {seen:?}"),
            One => assert!(is_one, "{text} {seen:?}"),
            OneOrRefused => assert!(is_one || is_refused, "{text} {seen:?}"),
        }
        let smuggled = seen.iter().any(|seen| seen.target.contains("smuggled"));
        assert!(!smuggled, "{text} {seen:?}");
        // Nothing is left on a connection to the origin, and nothing is stored under another's key.
        for target in [format!("/after-{n}"), format!("/after-{n}?"), "/smuggled-not".to_owned()] {
            rig.get(&target).expect_body(200, &target);
        }
    }
}

/// A POST with these lines, and what follows its head.
fn post(lines: &str, behind: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n{behind}")
}

/// A GET with these lines, and a request behind it that only some readers see.
fn get(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

/// What the table relies on.
#[test]
fn whole_requests_behind_each_other_are_each_seen() {
    let rig = Rig::start(|seen| Reply::ok(&seen.target));
    let mut client = rig.client();
    client.send([request("POST", "/a", "", b"x"), request("GET", "/b", "", b"")].concat());
    client.half_close();
    client.answer("POST").expect_body(200, "/a");
    client.answer("GET").expect_body(200, "/b");
    assert!(client.is_over());
    rig.expect_asked(2);
}
