//! Goal: a client gets the variant that its own request selects, and no other (RFC 9111, section 4.1).
//! Method: an origin that says in the body what it was asked with.

use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// An origin whose answers depend on `names`.
fn varying(names: &'static str) -> Rig {
    Rig::start(move |seen| {
        let had: Vec<_> = names.split(", ").map(|name| seen.header(name).unwrap_or("-")).collect();
        Reply::ok(had.join("|")).control("max-age=60").header("Vary", names)
    })
}

#[test]
fn variants_are_kept_side_by_side() {
    let rig = varying("X-A");
    rig.fill("/a", "X-A: 1\r\n").expect_body(200, "1").expect_forwarded("uri-miss");
    rig.fill("/a", "X-A: 2\r\n").expect_body(200, "2").expect_forwarded("vary-miss");
    rig.fill("/a", "").expect_body(200, "-").expect_forwarded("vary-miss");
    rig.fill("/a", "X-A:\r\n").expect_forwarded("vary-miss");
    for (fields, body) in [("X-A: 1\r\n", "1"), ("X-A: 2\r\n", "2"), ("", "-")] {
        rig.get_with("/a", fields).expect_body(200, body).expect_hit();
    }
    rig.expect_asked(4);
}

#[test]
fn white_space_and_lines_make_no_variant() {
    let rig = varying("X-A");
    rig.fill("/a", "X-A: 1, 2\r\n");
    for fields in ["X-A: 1,2\r\n", "x-a:   1 ,\t2  \r\n", "X-A: 1\r\nX-A: 2\r\n"] {
        rig.get_with("/a", fields).expect_body(200, "1, 2").expect_hit();
    }
    for fields in ["X-A: 2, 1\r\n", "X-A: 1 2\r\n", "X-A: 12\r\n"] {
        rig.get_with("/a", fields).expect(200).expect_forwarded("vary-miss");
    }
}

#[test]
fn case_makes_no_variant_where_it_means_nothing() {
    let rig = varying("Accept-Encoding, Accept-Language");
    rig.fill("/a", "Accept-Encoding: gzip, br\r\nAccept-Language: en, de\r\n");
    let same = "Accept-Encoding: GZIP,br\r\nAccept-Language: EN,  De\r\n";
    rig.get_with("/a", same).expect_body(200, "br, gzip|en, de").expect_hit();
    let other = "Accept-Encoding: br\r\nAccept-Language: en, de\r\n";
    rig.get_with("/a", other).expect_forwarded("vary-miss");
    let rig = varying("X-A");
    rig.fill("/a", "X-A: a\r\n");
    rig.get_with("/a", "X-A: A\r\n").expect_body(200, "A").expect_forwarded("vary-miss");
}

#[test]
fn all_fields_that_are_named_count() {
    let rig = varying("X-A, X-B");
    rig.fill("/a", "X-A: 1\r\nX-B: 1\r\n");
    rig.fill("/a", "X-A: 1\r\nX-B: 2\r\n").expect_body(200, "1|2");
    rig.fill("/a", "X-A: 2\r\nX-B: 1\r\n").expect_body(200, "2|1");
    rig.get_with("/a", "X-B: 1\r\nX-A: 1\r\nX-C: 9\r\n").expect_body(200, "1|1").expect_hit();
}

#[test]
fn lines_of_vary_are_one_list() {
    let reply = |seen: &crate::proxy::origin::Seen| {
        let body = format!("{:?}{:?}", seen.header("x-a"), seen.header("x-b"));
        Reply::ok(body).control("max-age=60").header("Vary", "x-a").header("vary", " , X-B,")
    };
    let rig = Rig::start(reply);
    rig.fill("/a", "X-A: 1\r\nX-B: 1\r\n");
    rig.fill("/a", "X-A: 1\r\nX-B: 2\r\n").expect_forwarded("vary-miss");
    rig.fill("/a", "X-A: 2\r\nX-B: 2\r\n").expect_forwarded("vary-miss");
}

#[test]
fn what_varies_with_everything_is_not_stored() {
    for vary in ["*", "X-A, *", "*, *", "(", "X A"] {
        let reply = move |_: &_| Reply::ok("a").control("max-age=60").header("Vary", vary);
        let rig = Rig::start(reply);
        for count in 1..4 {
            rig.get("/a").expect_body(200, "a");
            rig.expect_asked(count);
        }
    }
}

/// What is not sent to the origin can select nothing.
#[test]
fn fields_of_the_connection_select_no_variant() {
    let rig = varying("X-A");
    rig.fill("/a", "Connection: X-A\r\nX-A: 1\r\n").expect_body(200, "-");
    rig.get("/a").expect_body(200, "-").expect_hit();
    rig.get_with("/a", "X-A: 1\r\n").expect_body(200, "1").expect_forwarded("vary-miss");
}

#[test]
fn waiting_clients_of_another_variant_get_their_own() {
    let latch = crate::proxy::reply::Latch::default();
    let gate = latch.clone();
    let rig = Rig::start(move |seen| {
        let body = seen.header("x-a").unwrap_or("-").to_owned();
        Reply::ok(body).control("max-age=60").header("Vary", "X-A").after(&gate)
    });
    let ask = |n: usize| {
        let mut client = rig.client();
        let fields = format!("X-A: {}\r\n", n % 3);
        client.send(crate::proxy::client::request("GET", "/a", &fields, b""));
        client
    };
    let clients: Vec<_> = (0..12).map(ask).collect();
    rig.origin.wait_for(1);
    latch.open();
    for (n, mut client) in clients.into_iter().enumerate() {
        client.answer("GET").expect_body(200, (n % 3).to_string());
    }
}
