//! Goal: connections to the origin are used again where that is safe, and a request is sent twice only
//! where that does no harm (RFC 9110, section 9.2.2). Method: an origin that ends connections.

use crate::proxy::client::request;
use crate::proxy::reply::{Reply, Step};
use crate::proxy::rig::Rig;

#[test]
fn connections_are_used_again() {
    let rig = Rig::start(|seen| match seen.order % 3 {
        0 => Reply::ok("a"),
        1 => Reply::chunked(&["a"]),
        _ => Reply::not_modified(),
    });
    let mut client = rig.client();
    for n in 0..12 {
        client.ask("OPTIONS", &format!("/{n}"), "", b"");
    }
    assert_eq!((rig.origin.count(), rig.origin.connections()), (12, 1));
}

#[test]
fn what_is_not_safe_has_a_connection_of_its_own() {
    let rig = Rig::start(|_| Reply::ok("a"));
    let mut client = rig.client();
    for n in 0..3 {
        client.ask("POST", &format!("/{n}"), "", b"body");
    }
    assert_eq!((rig.origin.count(), rig.origin.connections()), (3, 3));
}

#[test]
fn connections_that_end_are_not() {
    let rig = Rig::start(|seen| match seen.order % 2 {
        0 => Reply::ok("a").header("Connection", "close"),
        _ => Reply::until_close("a"),
    });
    let mut client = rig.client();
    for n in 0..6 {
        client.get(&format!("/{n}")).expect_body(200, "a");
    }
    assert_eq!((rig.origin.count(), rig.origin.connections()), (6, 6));
}

#[test]
fn a_client_does_not_see_that_an_idle_connection_ended() {
    let rig = Rig::start(|_| {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec();
        Reply::steps(vec![Step::Send(bytes), Step::Close])
    });
    let mut client = rig.client();
    for n in 0..20 {
        client.get(&format!("/{n}")).expect_body(200, "a");
        client.ask("DELETE", &format!("/{n}"), "", b"").expect_body(200, "a");
    }
}

/// The origin may have done it before the connection ended.
#[test]
fn a_request_that_changes_something_is_not_sent_twice() {
    let rig = Rig::start(|seen| match seen.method.as_str() {
        "POST" | "PATCH" => Reply::close(),
        _ => Reply::ok("a"),
    });
    for (count, method) in [(2, "POST"), (4, "PATCH")] {
        let mut client = rig.client();
        client.get("/b").expect(200);
        client.ask(method, "/a", "", b"body").expect(502);
        rig.expect_asked(count);
    }
}

#[test]
fn a_connection_with_more_than_the_answer_on_it_is_not_used_again() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let rig = Rig::start(move |seen| match seen.order {
        0 => Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na{poison}")),
        _ => Reply::ok("b"),
    });
    let mut client = rig.client();
    client.get("/a").expect_body(200, "a");
    for n in 0..5 {
        client.get(&format!("/{n}")).expect_body(200, "b");
    }
}

#[test]
fn a_body_to_a_head_or_a_304_is_not_taken_for_the_next_answer() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for status in ["200 OK", "304 Not Modified", "204 No Content"] {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", poison.len());
        let rig = Rig::start(move |seen| match seen.method.as_str() {
            "HEAD" => Reply::raw(format!("{head}{poison}")),
            _ => Reply::ok("b"),
        });
        let mut client = rig.client();
        client.ask("HEAD", "/a", "", b"");
        for n in 0..5 {
            client.get(&format!("/{n}")).expect_body(200, "b");
        }
    }
}

#[test]
fn a_client_that_leaves_ends_what_only_it_waits_for() {
    let rig = Rig::start(|_| Reply::hold());
    let mut client = rig.client();
    client.send(request("POST", "/a", "", b"body"));
    rig.origin.wait_for(1);
    drop(client);
    rig.origin.wait_for_quiet();
}

#[test]
fn a_request_whose_body_breaks_off_is_not_whole_at_the_origin() {
    for framing in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
        let rig = Rig::start(|_| Reply::ok("a"));
        let mut client = rig.client();
        client.send(format!("POST /a HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"));
        client.send("4\r\nab");
        client.half_close();
        if let Some(answer) = client.try_head("POST") {
            assert!(answer.status >= 400, "{}", answer.status);
        }
        rig.expect_asked(0);
    }
}
