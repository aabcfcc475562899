//! Goal: what clients can multiply costs bounded work: a change that makes a new value of the old one
//! copies at most so much, one at a time for each key, and stops with its client. Method: bytes over
//! real sockets, bytes written to a simulated device that can be made slow.

use std::time::Duration;

use crate::support::http::{body, target};
use crate::support::server::{HttpServer, options};
use rawcached::cache::{Ack, CacheOptions};
use rawcached::device::Delay;
use rawcached::server::Options;

/// Longer than the server waits between two looks at a client, and than a command takes to arrive.
const A_LOOK: Duration = Duration::from_millis(250);
/// In a few slices.
const LARGE: usize = 3_900_000;

/// A copy of a large value takes several times as long as a client's leaving is noticed in.
const SLOW: Delay = Delay::Sleep(Duration::from_secs(3));

/// Nothing large is in memory.
fn slow_server() -> HttpServer {
    let without_ram = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
    HttpServer::of_cache(options(), without_ram)
}

/// Stores a large object under `k` that is on the device only.
fn store_large(server: &HttpServer, old: &[u8]) {
    server.put("k", "X-Rawcached-Ack: flushed\r\n", old).expect(201);
    // The open region is read from memory: fill it up.
    server.put("filler", "", &body(LARGE)).expect(201);
    server.put("filler", "X-Rawcached-Ack: flushed\r\n", &body(LARGE)).expect(201);
}

fn bodies_written(server: &HttpServer) -> u64 {
    server.cache.stats().store.counters.body_bytes
}

#[test]
fn nothing_large_is_copied() {
    let server = HttpServer::with(Options { copied_len_max: 1000, ..options() });
    let mut client = server.connect();
    for len in [1001, 50_000, LARGE] {
        let old = body(len);
        assert_eq!(client.set("k", &old), "STORED");
        let written = bodies_written(&server);
        let refused = "SERVER_ERROR object too large for cache\r\n";
        for verb in ["append", "prepend"] {
            client.ask(format!("{verb} k 0 0 1\r\nx\r\n"), refused);
            client.ask(format!("{verb} k 0 0 1 noreply\r\nx\r\nmn_is_no_command\r\n"), "ERROR\r\n");
        }
        assert_eq!(bodies_written(&server), written);
        assert_eq!(client.get("k").unwrap(), old, "the old value stays");
    }
    assert_eq!(server.snapshot().counts.store_too_large, 3 * 4);
    assert_eq!(client.set("k", &body(999)), "STORED");
    client.ask("append k 0 0 2\r\nxy\r\n", "STORED\r\n");
    client.ask("append k 0 0 1\r\nz\r\n", "SERVER_ERROR object too large for cache\r\n");
    client.ask("incr k 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
}

#[test]
fn many_changes_of_one_key_write_it_once_each() {
    const CLIENTS: usize = 16;
    let server = slow_server();
    let old = body(500_000);
    store_large(&server, &old);
    let written = bodies_written(&server);
    // All that do not wait read the old value at once.
    server.device.set_delay(Delay::Sleep(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| server.connect().ask("append k 0 0 1\r\nx\r\n", "STORED\r\n"));
        }
    });
    server.device.set_delay(Delay::None);
    let copied = bodies_written(&server) - written;
    assert!(copied <= (CLIENTS * (old.len() + CLIENTS)) as u64, "{copied}");
    assert_eq!(server.connect().get("k").unwrap().len(), old.len() + CLIENTS);
    let written = bodies_written(&server);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, headers) = (&server, format!("Content-Type: a/{number}\r\n"));
            scope.spawn(move || server.ask("PATCH", &target("k"), &headers, b"").expect(204));
        }
    });
    let copied = bodies_written(&server) - written;
    assert!(copied <= (CLIENTS * (old.len() + CLIENTS)) as u64, "{copied}");
    std::thread::scope(|scope| {
        assert_eq!(server.connect().set("n", b"0"), "STORED");
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..50).for_each(|_| drop(server.connect().command("incr n 1"))));
        }
    });
    assert_eq!(server.connect().get("n").unwrap(), (CLIENTS * 50).to_string().as_bytes());
}

#[test]
fn durable_changes_of_one_key_share_a_flush() {
    const CLIENTS: u64 = 16;
    let durable = options!(CacheOptions { ack: Ack::Flushed, ..CacheOptions::default() });
    let server = HttpServer::of_cache(options(), durable);
    assert_eq!(server.connect().set("n", b"0"), "STORED");
    let flushes = || server.cache.device_store().device().stats().flushes;
    server.device.set_delay(Delay::Sleep(Duration::from_millis(300)));
    let before = flushes();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| server.connect().command("incr n 1"));
        }
    });
    server.device.set_delay(Delay::None);
    assert!(flushes() - before < CLIENTS / 2, "{} flushes", flushes() - before);
    assert_eq!(server.connect().get("n").unwrap(), CLIENTS.to_string().as_bytes());
}

#[test]
fn an_append_stops_with_its_client() {
    let server = slow_server();
    let old = body(LARGE);
    store_large(&server, &old);
    let written = bodies_written(&server);
    server.device.set_delay(SLOW);
    // The first copies, the others wait for it.
    for noreply in ["", " noreply", ""] {
        let mut leaves = server.connect();
        leaves.send(format!("append k 0 0 1{noreply}\r\nx\r\n"));
        std::thread::sleep(A_LOOK);
    }
    server.wait_until(|now| now.connections_current == 0);
    server.device.set_delay(Delay::None);
    let mut stays = server.connect();
    stays.ask("append k 0 0 1\r\n!\r\n", "STORED\r\n");
    let copied = bodies_written(&server) - written;
    assert!(copied < 2 * old.len() as u64, "those that left copied: {copied}");
    let expected = [&old[..], b"!"].concat();
    assert!(stays.get("k").unwrap() == expected);
}

#[test]
fn a_patch_stops_with_its_client() {
    let server = slow_server();
    let old = body(LARGE);
    store_large(&server, &old);
    let written = bodies_written(&server);
    server.device.set_delay(SLOW);
    // The first copies, the others wait for it.
    for _ in 0..3 {
        let mut leaves = server.open();
        let target = target("k");
        leaves.send(format!("PATCH {target} HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n\r\n"));
        std::thread::sleep(A_LOOK);
    }
    server.wait_until(|now| now.connections_current == 0);
    server.device.set_delay(Delay::None);
    server.get("k", "").expect(200);
    server.ask("PATCH", &target("k"), "Content-Language: de\r\n", b"").expect(204);
    let copied = bodies_written(&server) - written;
    assert!(copied < 2 * old.len() as u64, "those that left copied: {copied}");
    let answer = server.get("k", "").expect_body(200, &old);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
}

#[test]
fn a_client_that_sends_nothing_more_is_there() {
    let server = slow_server();
    store_large(&server, &body(LARGE));
    server.device.set_delay(SLOW);
    let mut pipelines = server.connect();
    pipelines.send("append k 0 0 1 noreply\r\nx\r\nappend k 0 0 1\r\ny\r\n");
    pipelines.half_close();
    std::thread::sleep(A_LOOK);
    server.device.set_delay(Delay::None);
    pipelines.expect("STORED\r\n");
    assert!(server.connect().get("k").unwrap().ends_with(b"xy"));
    server.device.set_delay(SLOW);
    let mut asks = server.open();
    let target = target("k");
    asks.send(format!("PATCH {target} HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n\r\n"));
    asks.half_close();
    std::thread::sleep(A_LOOK);
    server.device.set_delay(Delay::None);
    asks.answer("PATCH").expect(204);
}

#[test]
fn what_is_quick_is_done_for_a_client_that_left() {
    let server = HttpServer::start();
    assert_eq!(server.connect().set("k", b""), "STORED");
    for _ in 0..20 {
        server.connect().send("append k 0 0 1 noreply\r\nx\r\n");
    }
    server.wait_until(|now| now.counts.connections_total == 21 && now.connections_current == 0);
    assert_eq!(server.connect().get("k").unwrap(), [b'x'; 20]);
}
