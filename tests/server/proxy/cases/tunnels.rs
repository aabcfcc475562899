//! Goal: with `upgrade = "tunnel"` WebSocket goes through and nothing else does, and no tunnel stays for ever.
//! Method: an origin that sends back what it gets, and clients of bytes.

use std::io::Write as _;
use std::time::Duration;

use rawcached::server::Options;

use crate::proxy::client::{Client, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Reply, Step};
use crate::proxy::rig::{Rig, SOON};
use crate::support::server::options;

const WEBSOCKET: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: it\r\n\r\n";

fn echo(_: &Seen) -> Reply {
    Reply::steps(vec![Step::Send(format!("{SWITCHED}hello").into()), Step::Echo])
}

fn rig(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
    Rig::with(Origin::start(handler), |proxy| {
        proxy.tunnels = true;
        proxy.upstream.between_bytes_timeout = 4 * SOON;
    })
}

/// A client that has its 101, and the `hello` behind it.
fn open(rig: &Rig) -> Client {
    let mut client = rig.client();
    client.send(request("GET", "/socket", WEBSOCKET, b""));
    let head = String::from_utf8(client.raw_head()).unwrap().to_lowercase();
    for part in ["http/1.1 101 ", "\r\nupgrade: websocket\r\n", "\r\nsec-websocket-accept: it\r\n"]
    {
        assert!(head.contains(part), "{head}");
    }
    assert!(head.matches("connection: ").count() == 1 && head.contains("connection: upgrade"));
    assert_eq!(client.raw(5), b"hello");
    client
}

#[test]
fn bytes_go_both_ways_at_one_time() {
    let rig = rig(echo);
    let mut client = open(&rig);
    let asked = rig.origin.only();
    assert_eq!(asked.header("upgrade"), Some("websocket"));
    assert_eq!(asked.header("connection"), Some("upgrade"));
    assert_eq!(asked.header("sec-websocket-key"), Some("x3JJHMbDL1EzLkh9GBhXDw=="));
    client.send("ping");
    assert_eq!(client.raw(4), b"ping");
    // More than all buffers on the way take.
    let sent: Vec<u8> = (0..4u32 << 20).flat_map(u32::to_le_bytes).collect();
    let (mut writer, copy) = (client.writer(), sent.clone());
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    assert!(client.raw(sent.len()) == sent);
    writing.join().unwrap();
    assert_eq!(rig.server.snapshot().connections_current, 1, "it is a connection");
}

#[test]
fn bytes_that_come_with_the_request_go_on() {
    let rig = rig(echo);
    let mut client = rig.client();
    client.send([&request("GET", "/socket", WEBSOCKET, b"")[..], b"early"].concat());
    client.raw_head();
    assert_eq!(client.raw(10), b"helloearly");
}

#[test]
fn a_tunnel_ends_with_either_side() {
    let rig = rig(|seen| match seen.target.as_str() {
        "/socket" => echo(seen),
        _ => Reply::raw_last(SWITCHED),
    });
    drop(open(&rig));
    rig.origin.wait_for_quiet();
    let mut client = rig.client();
    client.send(request("GET", "/short", WEBSOCKET, b""));
    client.raw_head();
    assert!(client.is_over());
}

#[test]
fn a_tunnel_ends_when_nothing_moves() {
    let rig = rig(echo);
    let mut client = open(&rig);
    for _ in 0..8 {
        std::thread::sleep(SOON);
        client.send("x");
        assert_eq!(client.raw(1), b"x");
    }
    assert!(client.is_over());
    rig.origin.wait_for_quiet();
}

#[test]
fn a_tunnel_ends_with_the_daemon() {
    let origin = Origin::start(echo);
    let (place, patient) = (origin.place.clone(), Duration::from_secs(300));
    let options = Options { drain_timeout: patient, ..options() };
    let mut rig = Rig::before(origin, &place, options, |proxy| proxy.tunnels = true);
    let mut client = open(&rig);
    rig.server.begin_shutdown();
    assert!(client.is_over());
}

#[test]
fn what_is_no_websocket_is_refused() {
    let rig = rig(echo);
    let fields = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
    ];
    for fields in fields {
        rig.get_with("/a", fields).expect(501);
    }
    for method in ["POST", "HEAD"] {
        rig.ask(method, "/a", WEBSOCKET, b"").expect(501);
    }
    rig.ask("GET", "/a", WEBSOCKET, b"body").expect(501);
    let mut client = rig.client();
    client.send(format!("GET /a HTTP/1.0\r\nHost: h\r\n{WEBSOCKET}\r\n"));
    client.answer("GET").expect(501);
    rig.expect_asked(0);
    Rig::start(echo).get_with("/a", WEBSOCKET).expect(501);
}

#[test]
fn an_upstream_that_does_not_switch_gives_an_answer_that_is_not_stored() {
    let rig = rig(|seen| Reply::ok(seen.order.to_string()).control("max-age=60"));
    for count in 0..2 {
        let mut client = rig.client();
        client.send(request("GET", "/a", WEBSOCKET, b""));
        let answer = client.answer("GET").expect_body(200, count.to_string());
        assert!(!answer.expect_forwarded("bypass").verdict().stored);
        assert!(client.is_over(), "more may be of the other protocol");
    }
}
