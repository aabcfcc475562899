//! Goal: what is one client's does not come to another (RFC 9111, sections 3, 3.5 and 7). Method: an
//! origin that counts in its answers, and tables of what they say.

use rawcached::http_cache::settings::SetCookie;

use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// An origin whose answers are numbered.
fn counting(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::start(move |seen| {
        let reply = Reply::ok(seen.order.to_string());
        fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    })
}

#[track_caller]
fn expect_not_stored(rig: &Rig, fields: &str) {
    for count in 0..3 {
        let answer = rig.settled("/a", fields).expect_body(200, count.to_string());
        assert!(!answer.verdict().hit && !answer.verdict().stored, "{answer:?}");
    }
    rig.expect_asked(3);
}

#[test]
fn what_says_so_is_not_stored() {
    let cases: &[&[(&str, &str)]] = &[
        &[("Cache-Control", "no-store")],
        &[("Cache-Control", "max-age=60, No-Store")],
        &[("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")],
        &[("Cache-Control", "private, max-age=60")],
        &[("Cache-Control", "max-age=60, private=\"x\" private")],
        &[("Cache-Control", "no-store, must-understand, max-age=60"), ("Vary", "*")],
        &[("CDN-Cache-Control", "no-store"), ("Cache-Control", "max-age=60")],
        &[("Cache-Control", "max-age=0")],
        &[],
    ];
    for case in cases {
        let case: &'static [(&str, &str)] = case;
        expect_not_stored(&Rig::of(counting(case)), "");
    }
}

#[test]
fn what_sets_cookies_is_not_stored() {
    let rig = Rig::of(counting(&[("Cache-Control", "max-age=60, public"), ("Set-Cookie", "a=b")]));
    expect_not_stored(&rig, "");
    assert_eq!(rig.get("/a").header("set-cookie"), Some("a=b"), "its own client gets it");
}

#[test]
fn an_operator_can_have_it_stored_without_or_with_the_cookies() {
    for (choice, kept) in [(SetCookie::Strip, None), (SetCookie::Store, Some("a=b"))] {
        let fields = &[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")];
        let rig = Rig::with(counting(fields), |proxy| proxy.settings.set_cookie = choice);
        rig.fill("/a", "");
        assert_eq!(rig.get("/a").expect_hit().header("set-cookie"), kept);
    }
}

/// RFC 9111, section 3.5.
#[test]
fn what_was_asked_for_with_credentials_is_not_stored() {
    let rig = Rig::of(counting(&[("Cache-Control", "max-age=60")]));
    let fields = "Authorization: Basic YTpi\r\n";
    expect_not_stored(&rig, fields);
    assert_eq!(rig.origin.last().header("authorization"), Some("Basic YTpi"));
}

#[test]
fn it_is_stored_where_the_origin_allows_it() {
    for control in ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"] {
        let rig = Rig::start(move |seen| Reply::ok(seen.order.to_string()).control(control));
        rig.fill("/a", "Authorization: Basic YTpi\r\n");
        rig.get("/a").expect_body(200, "0").expect_hit();
        rig.get_with("/a", "Authorization: Basic eDp5\r\n").expect_body(200, "0").expect_hit();
    }
}

#[test]
fn credentials_are_answered_by_what_all_may_have() {
    let rig = Rig::of(counting(&[("Cache-Control", "max-age=60")]));
    rig.fill("/a", "");
    rig.get_with("/a", "Authorization: Basic YTpi\r\n").expect_body(200, "0").expect_hit();
}

#[test]
fn clients_with_credentials_never_share_an_answer() {
    let latch = crate::proxy::reply::Latch::default();
    let gate = latch.clone();
    let rig = Rig::start(move |seen| {
        let who = seen.header("authorization").unwrap_or("nobody").to_owned();
        Reply::ok(who).control("max-age=60").after(&gate)
    });
    let ask = |n: usize| {
        let mut client = rig.client();
        let fields = format!("Authorization: {n}\r\n");
        client.send(crate::proxy::client::request("GET", "/a", &fields, b""));
        client
    };
    let clients: Vec<_> = (0..10).map(ask).collect();
    rig.origin.wait_for(1);
    latch.open();
    for (n, mut client) in clients.into_iter().enumerate() {
        client.answer("GET").expect_body(200, n.to_string());
    }
    rig.expect_asked(10);
}

/// Frameworks take the path or the method from such fields; the key has neither.
#[test]
fn requests_that_may_mean_another_target_are_passed() {
    let fields = [
        "X-Original-URL: /admin\r\n",
        "X-Rewrite-URL: /admin\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        "X-HTTP-Method: DELETE\r\n",
        "X-Method-Override: DELETE\r\n",
        "If-Match: \"a\"\r\n",
        "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "Range: bytes=0-0\r\nRange: bytes=1-1\r\n",
    ];
    for fields in fields {
        let rig = Rig::of(counting(&[("Cache-Control", "max-age=60")]));
        let answer = rig.get_with("/a", fields).expect_body(200, "0").expect_forwarded("bypass");
        assert!(!answer.verdict().stored, "{fields}");
        rig.fill("/a", "").expect_body(200, "1");
        rig.get_with("/a", fields).expect_body(200, "2").expect_forwarded("bypass");
        rig.get("/a").expect_body(200, "1").expect_hit();
    }
}

#[test]
fn a_get_with_a_body_is_passed() {
    let rig = Rig::of(counting(&[("Cache-Control", "max-age=60")]));
    let mut client = rig.client();
    for count in 0..2 {
        let answer = client.ask("GET", "/a", "", b"query").expect_body(200, count.to_string());
        answer.expect_forwarded("bypass");
        assert_eq!(rig.origin.last().body, b"query");
    }
    rig.get("/a").expect_body(200, "2").expect_forwarded("uri-miss");
}

#[test]
fn other_methods_are_passed() {
    let rig = Rig::of(counting(&[("Cache-Control", "max-age=60")]));
    let methods = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"];
    for (n, method) in methods.into_iter().enumerate() {
        let answer = rig.ask(method, "/a", "", b"").expect_body(200, n.to_string());
        answer.expect_forwarded("method");
        assert_eq!(rig.origin.last().method, method);
    }
    rig.get("/a").expect_forwarded("uri-miss");
}
