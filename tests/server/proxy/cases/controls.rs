//! Goal: control headers are heard where they are trusted, and go no further in any case. Method: both sides
//! send all of them, with and without `trusted_headers`.

use crate::proxy::client::Answer;
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

const ALL: [&str; 5] = ["Key", "Bypass", "No-Store", "TTL", "Grace"];

fn trusting(names: &[&str], handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
    let names: Vec<_> = names.iter().map(|name| format!("X-Rawcached-{name}")).collect();
    Rig::with(Origin::start(handler), move |proxy| {
        proxy.settings.trusted = names.iter().map(|name| name.parse().unwrap()).collect();
    })
}

fn numbered(seen: &Seen) -> Reply {
    Reply::ok(seen.order.to_string())
}

fn field(name: &str, value: &str) -> String {
    format!("X-Rawcached-{name}: {value}\r\n")
}

fn has_controls(head: &[u8]) -> bool {
    String::from_utf8_lossy(head).to_lowercase().contains("x-rawcached")
}

#[test]
fn no_control_header_goes_on_whether_it_is_trusted_or_not() {
    let said = |reply: Reply| {
        ["TTL", "Whatever"]
            .iter()
            .fold(reply, |reply, name| reply.header(&format!("X-Rawcached-{name}"), "60"))
    };
    for trusted in [&[][..], &ALL] {
        let rig = trusting(trusted, move |seen| match seen.target.as_str() {
            "/error" => said(Reply::of("500 Internal Server Error", "x")),
            _ => said(Reply::ok("a").control("max-age=60")),
        });
        let fields: String = ["TTL", "Whatever"].map(|name| field(name, "60")).concat();
        let answers: [Answer; 4] = [
            rig.fill("/a", &fields),
            rig.get_with("/a", &fields).expect_hit(),
            rig.ask("POST", "/a", &fields, b""),
            rig.get_with("/error", &fields).expect(500),
        ];
        for answer in answers {
            assert!(!has_controls(&answer.head), "{answer:?}");
        }
        for seen in rig.origin.seen() {
            assert!(!has_controls(&seen.head), "{seen:?}");
        }
    }
}

#[test]
fn a_lifetime_that_the_proxy_sets_stores_no_error() {
    let rig = trusting(&["TTL"], |seen| match seen.target.as_str() {
        "/401" => Reply::of("401 Unauthorized", "who").header("WWW-Authenticate", "Basic"),
        "/503" => Reply::of("503 Service Unavailable", "later"),
        "/own" => Reply::of("401 Unauthorized", "who").header("X-Rawcached-TTL", "60"),
        _ => Reply::ok("x"),
    });
    for (target, is_stored) in [("/401", false), ("/503", false), ("/own", true), ("/", true)] {
        rig.get_with(target, &field("TTL", "60"));
        rig.pass(3);
        let again = rig.settled(target, &field("TTL", "60"));
        assert_eq!(again.verdict().hit, is_stored, "{target}: {again:?}");
    }
}

#[test]
fn clients_can_use_none_that_is_not_trusted() {
    let rig = Rig::start(|seen| numbered(seen).control("max-age=60").header("ETag", "\"a\""));
    rig.fill("/a", &field("No-Store", "1")).expect_body(200, "0");
    rig.get_with("/a", &field("Bypass", "1")).expect_body(200, "0").expect_hit();
    rig.get_with("/a", &field("Key", "h/b")).expect_body(200, "0").expect_hit();
    rig.pass(59);
    rig.get_with("/a", &field("TTL", "1")).expect_body(200, "0").expect_hit();
    rig.pass(1);
    rig.get("/a").expect_forwarded("stale");
}

#[test]
fn a_trusted_front_names_the_key() {
    let rig = trusting(&["Key"], |seen| numbered(seen).control("max-age=60"));
    rig.fill("/a?session=1", &field("Key", "h/a")).expect_body(200, "0");
    rig.get_with("/other", &field("Key", "h/a")).expect_body(200, "0").expect_hit();
    rig.get("/a").expect_body(200, "0").expect_hit();
    rig.get("/a?session=1").expect_body(200, "1").expect_forwarded("uri-miss");
    rig.ask("POST", "/a?session=2", &field("Key", "h/a"), b"").expect(200);
    rig.get("/a").expect_forwarded("uri-miss");
}

#[test]
fn a_trusted_front_passes_requests_and_has_nothing_stored() {
    let rig = trusting(&["Bypass", "No-Store"], |seen| numbered(seen).control("max-age=60"));
    let answer = rig.get_with("/a", &field("No-Store", "1")).expect_body(200, "0");
    assert!(!answer.expect_forwarded("uri-miss").verdict().stored);
    rig.fill("/a", &field("Bypass", "0")).expect_body(200, "1");
    rig.get_with("/a", &field("Bypass", "1")).expect_body(200, "2").expect_forwarded("bypass");
    rig.get_with("/a", &field("No-Store", "1")).expect_body(200, "1").expect_hit();
}

#[test]
fn lifetimes_come_from_the_front_or_the_upstream() {
    let rig = trusting(&["TTL", "Grace"], |seen| match seen.target.as_str() {
        "/said" => numbered(seen).control("max-age=1").header("X-Rawcached-TTL", "30"),
        _ if seen.order > 1 => Reply::close(),
        _ => numbered(seen),
    });
    rig.fill("/said", &field("TTL", "10")).expect_body(200, "0");
    rig.fill("/front", &[field("TTL", "20"), field("Grace", "50")].concat()).expect_body(200, "1");
    rig.pass(19);
    rig.get("/said").expect_body(200, "0").expect_hit();
    rig.get("/front").expect_body(200, "1").expect_hit();
    rig.pass(1);
    let stale = rig.get("/front").expect_body(200, "1");
    assert!(!stale.verdict().hit, "it stands in for an error");
    rig.pass(51);
    rig.get("/front").expect(502);
}

#[test]
fn an_upstream_has_nothing_stored() {
    let rig = trusting(&["No-Store"], |seen| {
        let reply = numbered(seen).control("max-age=60");
        if seen.target == "/no" { reply.header("X-Rawcached-No-Store", "1") } else { reply }
    });
    for count in 0..2 {
        let answer = rig.get("/no").expect_body(200, count.to_string());
        assert!(!answer.verdict().stored);
    }
    rig.fill("/yes", "");
}
