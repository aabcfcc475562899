//! Goal: the origin gets the client's request, and the client the origin's answer, without what is for
//! one connection only (RFC 9110, section 7.6). Method: a recording origin, fields of all kinds.

use crate::proxy::client::request;
use crate::proxy::reply::{Reply, Step};
use crate::proxy::rig::{Rig, SOON};

#[test]
fn targets_go_on_as_they_came() {
    let rig = Rig::start(|_| Reply::ok("a"));
    let targets = ["/", "/a%2Fb/../c//d/", "/?", "/a?b=%20&c[]=d|e", "//x/y", "/%00", "/a;b=c"];
    for target in targets {
        rig.get(target).expect_body(200, "a");
        assert_eq!(rig.origin.last().target, target);
        assert_eq!(rig.origin.last().header("host"), Some("h"));
    }
}

#[test]
fn fields_go_on_both_ways() {
    let reply = Reply::ok("a")
        .header("X-B", "1, 2")
        .header("X-b", "3")
        .header("Set-Cookie", "a=b, c")
        .header("Set-Cookie", "d=e")
        .header("Server", "it");
    let rig = Rig::queue([reply]);
    let fields = "X-A: 1,  2\r\nx-a: 3\r\nCookie: a=b; c=d\r\nUser-Agent: it\r\nX-Empty:\r\n";
    let answer = rig.get_with("/a", fields);
    let asked = rig.origin.only();
    assert_eq!(crate::proxy::wire::values(&asked.fields, "x-a"), ["1,  2", "3"]);
    assert_eq!(asked.header("cookie"), Some("a=b; c=d"));
    assert_eq!((asked.header("user-agent"), asked.header("x-empty")), (Some("it"), Some("")));
    assert_eq!(answer.all("x-b"), ["1, 2", "3"]);
    assert_eq!(answer.all("set-cookie"), ["a=b, c", "d=e"]);
    assert_eq!(answer.header("server"), Some("it"));
}

#[test]
fn fields_of_the_connection_go_no_further() {
    let reply = Reply::ok("a")
        .header("Connection", "X-Hop, keep-alive")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authenticate", "Basic")
        .header("Proxy-Connection", "x")
        .header("Upgrade", "h2c")
        .header("Trailer", "X-T")
        .header("X-End", "1")
        .control("max-age=60");
    let rig = Rig::queue([reply]);
    let fields = "Connection: X-Hop, keep-alive, TE\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Authorization: x\r\nProxy-Connection: close\r\nTE: trailers\r\nX-End: 1\r\n";
    let answer = rig.fill("/a", fields);
    let asked = rig.origin.only();
    let hit = rig.get("/a").expect_hit();
    let names = [
        "x-hop",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "upgrade",
        "trailer",
    ];
    for name in names {
        assert_eq!(asked.header(name), None, "{name}");
        assert_eq!((answer.header(name), hit.header(name)), (None, None), "{name}");
    }
    assert_eq!(asked.header("x-end"), Some("1"));
    assert_eq!((answer.header("x-end"), hit.header("x-end")), (Some("1"), Some("1")));
}

/// RFC 9110, section 7.6.1: `Connection` cannot name what is for all.
#[test]
fn connection_takes_away_nothing_that_matters() {
    let rig = Rig::start(|_| Reply::ok("a").control("max-age=60"));
    let named = "Connection: Host, Content-Length, Authorization, Cookie, Cache-Control\r\n\
                 Authorization: x\r\nCookie: a=b\r\n";
    rig.ask("POST", "/a", named, b"body").expect(200);
    let asked = rig.origin.last();
    let found =
        ["host", "content-length", "authorization", "cookie"].map(|name| asked.header(name));
    assert_eq!(found, [Some("h"), Some("4"), Some("x"), Some("a=b")]);
    assert_eq!(asked.body, b"body");
    // It cannot hide credentials from the cache either.
    rig.get_with("/b", "Connection: Authorization\r\nAuthorization: x\r\n").expect(200);
    assert!(!rig.get("/b").verdict().hit);
}

#[test]
fn the_upgrade_of_a_connection_is_refused() {
    let rig = Rig::start(|_| Reply::ok("a").control("max-age=60"));
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n";
    rig.get_with("/a", fields).expect(501);
    rig.expect_asked(0);
}

/// RFC 9110, section 7.6.3.
#[test]
fn each_message_says_who_passed_it_on() {
    let rig = Rig::queue([Reply::ok("a").control("max-age=60").header("Via", "1.1 further")]);
    let answer = rig.fill("/a", "Via: 1.0 nearer\r\n");
    let via = |values: Vec<&str>| values.join(", ");
    let asked = rig.origin.only();
    let asked = via(crate::proxy::wire::values(&asked.fields, "via"));
    assert!(asked.starts_with("1.0 nearer, 1.1 ") && asked.matches(',').count() == 1, "{asked}");
    for answer in [answer, rig.get("/a")] {
        let said = via(answer.all("via"));
        assert!(said.starts_with("1.1 further, 1.1 ") && said.matches(',').count() == 1, "{said}");
    }
}

/// RFC 5842, section 7.2.
#[test]
fn a_request_that_came_round_is_refused() {
    let rig = Rig::start(|_| Reply::ok("a"));
    rig.get("/a").expect(200);
    let asked = rig.origin.last();
    let own = crate::proxy::wire::values(&asked.fields, "via").join(", ");
    assert!(!own.is_empty());
    for fields in [format!("Via: {own}\r\n"), format!("Via: 1.1 a, {own}, 1.0 b\r\n")] {
        rig.get_with("/b", &fields).expect(508);
        rig.ask("POST", "/b", &fields, b"body").expect(508);
    }
    rig.expect_asked(1);
}

#[test]
fn bodies_of_requests_go_on_as_they_came() {
    let rig = Rig::start(|seen| Reply::ok(seen.body.len().to_string()));
    let body: Vec<u8> = (0..1u32 << 20).flat_map(u32::to_le_bytes).collect();
    rig.ask("POST", "/a", "", &body).expect_body(200, body.len().to_string());
    assert!(rig.origin.last().body == body);
    rig.ask("PUT", "/a", "", b"").expect_body(200, "0");
    assert_eq!(rig.origin.last().header("content-length"), Some("0"));
    let mut client = rig.client();
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(100_000) {
        client.send(format!("{:X};x=\"y\"\r\n", piece.len()));
        client.send(piece);
        client.send("\r\n");
    }
    client.send("000\r\nX-Trailer: 1\r\n\r\n");
    client.answer("POST").expect_body(200, body.len().to_string());
    assert!(rig.origin.last().body == body);
    client.get("/b").expect_body(200, "0");
    assert_eq!(rig.origin.last().header("content-length"), None);
}

#[test]
fn a_client_may_wait_for_leave_to_send() {
    let rig = Rig::start(|seen| Reply::ok(&seen.body));
    let mut client = rig.client();
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    // Whoever gives it, the body goes on as soon as it comes.
    let mut other = rig.client();
    other.get("/b").expect(200);
    client.send("body");
    client.answer("POST").expect_body(200, "body");
}

const WAITS: &str = "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn the_upstream_gives_leave_to_send() {
    let rig = Rig::start(|seen| Reply::ok(&seen.body));
    let mut client = rig.client();
    client.send(format!("POST /a HTTP/1.1\r\nHost: h\r\n{WAITS}"));
    let leave = client.raw_head();
    assert!(leave.starts_with(b"HTTP/1.1 100 "), "{}", leave.escape_ascii());
    client.send("body");
    client.answer("POST").expect_body(200, "body");
    assert_eq!(rig.origin.only().header("expect"), Some("100-continue"));
    client.get("/b").expect(200);
}

#[test]
fn a_body_that_the_upstream_does_not_want_is_not_asked_for() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    let steps = vec![Step::Pause(SOON / 2), Step::Send(refusal.into()), Step::Close];
    let rig = Rig::queue([Reply::steps(steps)]);
    let mut client = rig.client();
    client.send(format!("POST /unread HTTP/1.1\r\nHost: h\r\n{WAITS}"));
    let answer = client.answer("POST").expect_body(403, "no");
    assert!(answer.interim.is_empty(), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "the body may come or not");
    assert!(client.is_over());
}

#[test]
fn a_client_is_not_left_to_wait_by_an_upstream_that_says_nothing() {
    let rig = Rig::start(|seen| Reply::ok(&seen.body));
    let mut client = rig.client();
    client.send(format!("POST /silent HTTP/1.1\r\nHost: h\r\n{WAITS}"));
    let leave = client.raw_head();
    assert!(leave.starts_with(b"HTTP/1.1 100 "), "{}", leave.escape_ascii());
    client.send("body");
    client.answer("POST").expect_body(200, "body");
}

#[test]
fn interim_answers_do_not_take_the_place_of_the_answer() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na";
    let bytes = format!("HTTP/1.1 100 Continue\r\n\r\n{early}{early}{last}");
    let rig = Rig::queue([Reply::raw(bytes)]);
    rig.fill("/a", "").expect_body(200, "a");
    let hit = rig.get("/a").expect_body(200, "a").expect_hit();
    assert_eq!((hit.interim.len(), hit.header("link")), (0, None));
}

#[test]
fn an_early_answer_ends_a_request_that_nobody_reads() {
    let rig = Rig::start(|_| Reply::of("413 Content Too Large", "x").header("Connection", "close"));
    let mut client = rig.client();
    client.try_send(request("POST", "/a", "", &vec![0; 1 << 20]));
    client.answer("POST").expect_body(413, "x");
}
