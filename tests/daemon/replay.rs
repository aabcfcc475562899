//! Goal: a stock nginx stores whole responses into the daemon, and what it replays is what the origin would say.
//! Method: nginx and the recipe of docs/responses.md, word for word; an origin that counts what it is asked.

use std::path::PathBuf;
use std::thread;

use rawcached::clock::Stopwatch;

use crate::nginx::{Nginx, Origin, body, disk, recipe};
use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::http::Connection;
use crate::support::waiting::eventually;

/// Stores that are complete.
const STORED: &str =
    "rawcached_http_request_duration_seconds_count{operation=\"put\",tier=\"none\"}";
const HOST: &str = "Host: x\r\n";

/// A daemon, and nginx with the recipe between it and an origin, if all that is needed is there.
fn site() -> Option<(Daemon, Origin, Nginx, LoopDevice)> {
    let disk = disk(512 << 20, 4096)?;
    let mut daemon = Daemon::new(disk.path(), "http = [\"unix:SOCKET.http\"]");
    daemon.restart();
    let socket = PathBuf::from(format!("{}.http", daemon.socket().display()));
    let origin = Origin::start();
    let named = "/run/rawcached/http.sock";
    let (server, http) = recipe("docs/responses.md", (named, &socket), origin.port);
    let nginx = Nginx::start(&server, &http);
    Some((daemon, origin, nginx, disk))
}

#[track_caller]
fn expect(answer: &(String, Vec<u8>), status: u16, content: &[u8], nginx: &Nginx) {
    let (head, found) = answer;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{}", nginx.log());
    assert_eq!(found.len(), content.len(), "{head}\n{}", nginx.log());
    assert!(found == content, "other bytes: {head}");
}

#[test]
fn misses_are_stored_and_hits_are_replayed() {
    let Some((mut daemon, origin, nginx, _disk)) = site() else { return };
    for (stored, size) in (1..).zip([1000, 65_536, 5_000_000]) {
        let path = format!("/{size}?ETag:\"v1\"");
        expect(&nginx.ask(&path, HOST), 200, &body(size), &nginx);
        assert_eq!(origin.requests(), stored, "a miss asks the origin");
        let done = eventually(|| daemon.metric(STORED) == stored);
        assert!(done, "{path} is not stored\n{}\n{}", nginx.log(), daemon.log());
        let hit = nginx.ask(&path, HOST);
        expect(&hit, 200, &body(size), &nginx);
        assert!(
            hit.0.contains("cache-status: rawcached; hit") && hit.0.contains("age: "),
            "{}",
            hit.0
        );
        let range = nginx.ask(&path, &format!("{HOST}Range: bytes=100-199\r\n"));
        expect(&range, 206, &body(size)[100..200], &nginx);
        expect(&nginx.ask(&path, &format!("{HOST}If-None-Match: \"v1\"\r\n")), 304, b"", &nginx);
        assert_eq!(origin.requests(), stored, "a hit does not ask the origin for {path}");
    }
    // The daemon is away, then the origin is.
    daemon.kill();
    expect(&nginx.ask("/1000?ETag:\"v1\"", HOST), 200, &body(1000), &nginx);
    assert_eq!(origin.requests(), 4);
    daemon.restart();
    origin.stop();
    expect(&nginx.ask("/1000?ETag:\"v1\"", HOST), 200, &body(1000), &nginx);
    assert!(nginx.ask("/1001", HOST).0.starts_with("HTTP/1.1 504 "), "neither has it");
    assert!(daemon.stop().success());
}

#[test]
fn what_may_not_be_stored_is_asked_for_each_time_and_nobody_waits_for_it() {
    let Some((daemon, origin, nginx, _disk)) = site() else { return };
    // Asked twice, the origin is asked so often: once if it is stored, which is after the answer.
    let check = |path: &str, headers: &str, expected: u64| {
        let (asked, stored) = (origin.requests(), daemon.metric(STORED));
        nginx.ask(path, headers);
        if expected == 1 {
            assert!(eventually(|| daemon.metric(STORED) > stored), "{path} is not stored");
        }
        let watch = Stopwatch::start();
        nginx.ask(path, headers);
        assert!(watch.elapsed().as_secs() < 4, "{path} waited");
        assert_eq!(origin.requests() - asked, expected, "{path}\n{headers}\n{}", nginx.log());
    };
    for (path, asked) in [
        ("/100?Cache-Control:max-age=31536000", 1),
        ("/101?Vary:Accept-Encoding", 1),
        ("/102?Vary:Cookie", 1),
        ("/103?Set-Cookie:a=b", 2),
        ("/104?Vary:*", 2),
        ("/105?Cache-Control:private", 2),
        ("/106?Cache-Control:no-store", 2),
        ("/107?Cache-Control:max-age=0", 2),
    ] {
        check(path, HOST, asked);
    }
    for (path, cookie, asked) in [("/102?Vary:Cookie", "a=1", 1), ("/102?Vary:Cookie", "a=1", 0)] {
        check(path, &format!("{HOST}Cookie: {cookie}\r\n"), asked);
    }
    check("/108", &format!("{HOST}Authorization: Basic eDp5\r\n"), 2);
    check("/108", HOST, 1);
    // What clients send is not taken for the proxy's own word.
    check("/109?Cache-Control:no-store", &format!("{HOST}X-Rawcached-TTL: 60\r\n"), 2);
}

#[test]
fn clients_can_neither_store_nor_purge() {
    let Some((daemon, origin, nginx, _disk)) = site() else { return };
    expect(&nginx.ask("/1000", HOST), 200, &body(1000), &nginx);
    assert!(eventually(|| daemon.metric(STORED) == 1));
    let poison = "HTTP/1.1 200 OK\r\nCache-Control: max-age=9999\r\nContent-Length: 4\r\n\r\nevil";
    for method in ["PUT", "DELETE", "PURGE", "POST", "PATCH"] {
        for path in ["/1000", "/1001", "/_put?key=x&lease="] {
            let asked = origin.requests();
            let request = format!(
                "{method} {path} HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: {}\r\n\r\n{poison}",
                poison.len()
            );
            let connection = Connection::open_tcp(("127.0.0.1", nginx.port)).unwrap();
            let (head, _) = connection.ask_last(request);
            let is_internal = path.starts_with("/_put");
            let expected = if is_internal { "HTTP/1.1 404 " } else { "HTTP/1.1 200 " };
            assert!(head.starts_with(expected), "{method} {path}: {head}\n{}", nginx.log());
            assert_eq!(
                origin.requests() - asked,
                u64::from(!is_internal),
                "the origin's to answer"
            );
        }
    }
    assert_eq!(daemon.metric(STORED), 1);
    let asked = origin.requests();
    expect(&nginx.ask("/1000", HOST), 200, &body(1000), &nginx);
    assert_eq!(origin.requests(), asked, "it is stored still");
    // A dead origin does not bring them to the daemon either.
    origin.stop();
    for method in ["PUT", "DELETE", "PURGE"] {
        let request = format!(
            "{method} /1000 HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let connection = Connection::open_tcp(("127.0.0.1", nginx.port)).unwrap();
        let (head, _) = connection.ask_last(request);
        assert!(head.starts_with("HTTP/1.1 502 "), "{method}: {head}");
    }
    expect(&nginx.ask("/1000", HOST), 200, &body(1000), &nginx);
}

#[test]
fn of_many_clients_one_asks_the_origin() {
    // One process of nginx serves all of them at one time.
    let Some((_daemon, origin, nginx, _disk)) = site() else { return };
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..50).map(|_| scope.spawn(|| nginx.ask("/3000000", HOST))).collect();
        for client in clients {
            expect(&client.join().unwrap(), 200, &body(3_000_000), &nginx);
        }
    });
    assert_eq!(origin.requests(), 1);
}
