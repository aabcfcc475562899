//! Goal: nothing is taken on the word of a memcached client. Memory is what was sent and is not used yet,
//! and whoever takes long gives way to others. Method: crowds over real sockets, with small budgets.

use std::time::Duration;

use crate::support::memcached::Client;
use crate::support::server::{TestServer, options};
use crate::support::waiting::now;
use rawcached::cache::CacheOptions;
use rawcached::server::Options;

const KIB: u64 = 1 << 10;
const OUT_OF_MEMORY: &str = "SERVER_ERROR out of memory storing object\r\n";

/// As many connections that have sent `bytes`, all of which the server has read.
fn crowd(server: &TestServer, count: usize, bytes: &[u8]) -> Vec<Client> {
    let before = server.snapshot().counts.bytes_read;
    let clients: Vec<Client> = (0..count)
        .map(|_| {
            let mut client = server.connect();
            client.send(bytes);
            client
        })
        .collect();
    let sent = (count * bytes.len()) as u64;
    server.wait_until(|now| now.counts.bytes_read == before + sent);
    clients
}

fn server(write_buffer_bytes: u64, input_bytes_max: u64, connections_max: usize) -> TestServer {
    let cache_options = options!(CacheOptions { write_buffer_bytes, ..CacheOptions::default() });
    let options = Options { input_bytes_max, connections_max, ..options() };
    TestServer::of_cache(options, cache_options, Vec::new())
}

fn held(server: &TestServer) -> u64 {
    server.snapshot().input_bytes + server.cache.stats().write_buffer_bytes
}

/// What any client may do: a long retrieval, an append and values of every length.
fn behave(server: &TestServer) {
    let begun = now();
    let mut client = server.connect();
    client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    client.ask(format!("get {}\r\n", "a nope-nope-nope ".repeat(3000)), {
        "VALUE a 0 1\r\nx\r\n".repeat(3000) + "END\r\n"
    });
    client.ask(format!("append a 0 0 50000\r\n{}\r\n", "y".repeat(50_000)), "STORED\r\n");
    for len in [10, 50_000, 1 << 20, 3 << 20] {
        let value = "v".repeat(len);
        client.ask(format!("set v 0 0 {len}\r\n{value}\r\n"), "STORED\r\n");
        client.ask("get v\r\n", format!("VALUE v 0 {len}\r\n{value}\r\nEND\r\n"));
    }
    println!("an honest client took {:?}", begun.elapsed());
}

#[test]
fn announced_values_take_nothing() {
    let server = server(8 << 20, 4 << 20, 400);
    for line in ["set evil 0 0 1048576\r\n", "append evil 0 0 1048576\r\n", "set e 0 0 1000000\r\n"]
    {
        let evil = crowd(&server, 128, line.as_bytes());
        server.wait_until(|_| held(&server) == 0);
        behave(&server);
        drop(evil);
    }
    assert_eq!(server.snapshot().counts.store_no_memory, 0);
    server.wait_until(|_| held(&server) == 0);
}

#[test]
fn what_waits_for_more_takes_what_was_sent() {
    let server = server(64 << 20, 64 << 20, 400);
    let half = |line: &str, len: usize| [line.as_bytes(), &vec![b'x'; len]].concat();
    for (begin, most) in [
        (half("get ", 1000), 2 * KIB),
        (half("get ", 40), KIB),
        (half("set k 0 0 10000\r\n", 5000), 6 * KIB),
        (half("append k 0 0 10000\r\n", 5000), 6 * KIB),
        (half("set k 0 0 1000000\r\n", 30_000), 96 * KIB),
        (half("append k 0 0 1000000\r\n", 30_000), 96 * KIB),
    ] {
        let clients = crowd(&server, 300, &begin);
        let least = 300 * (begin.len() as u64 - 32);
        server.wait_until(|_| (least..=300 * most).contains(&held(&server)));
        drop(clients);
        server.wait_until(|_| held(&server) == 0);
    }
}

#[test]
fn a_slow_value_gives_way_and_its_client_is_told_at_once() {
    let server = server(256 * KIB, 64 << 20, 64);
    for verb in ["set", "add"] {
        let line = format!("{verb} slow 0 0 200000\r\n");
        let mut slow = crowd(&server, 1, &[line.as_bytes(), &[b'x'; 150_000]].concat());
        server.wait_until(|_| server.cache.stats().write_buffer_bytes > 150_000);
        let mut honest = server.connect();
        let value = "v".repeat(200_000);
        honest.ask(format!("set honest 0 0 200000\r\n{value}\r\n"), "STORED\r\n");
        // It has not sent a byte more, and is at its value still.
        slow[0].expect(OUT_OF_MEMORY);
        slow[0].send("y".repeat(50_000));
        slow[0].ask("\r\nget slow\r\n", "END\r\n");
    }
    assert_eq!(server.snapshot().counts.store_no_memory, 2);
    assert_eq!(server.cache.stats().write_buffer_bytes, 0);
}

#[test]
fn a_slow_line_or_append_gives_way_and_its_client_is_told_at_once() {
    let server = server(64 << 20, 200_000, 64);
    let mut honest = server.connect();
    honest.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let line = [b"get ", "k ".repeat(60_000).as_bytes()].concat();
    let mut slow = crowd(&server, 1, &line);
    honest.ask(format!("get {}\r\n", "a ".repeat(50_000)), {
        "VALUE a 0 1\r\nx\r\n".repeat(50_000) + "END\r\n"
    });
    slow[0].expect("SERVER_ERROR out of memory reading request\r\n");
    assert_eq!(slow[0].rest(), b"");
    let mut slow = crowd(&server, 1, &[b"append a 0 0 150000\r\n", &[b'y'; 120_000][..]].concat());
    honest.ask(format!("append a 0 0 100000\r\n{}\r\n", "z".repeat(100_000)), "STORED\r\n");
    slow[0].expect(OUT_OF_MEMORY);
    slow[0].ask(format!("{}\r\nget a\r\n", "y".repeat(30_000)), "VALUE a 0 100001\r\nxzz");
}

#[test]
fn honest_clients_beside_many_slow_ones_are_never_refused() {
    // 8 MiB for 300 clients that want a hundred times as much.
    let server = server(8 << 20, 4 << 20, 400);
    let begins = [
        ("set s 0 0 1000000\r\n", 1),
        ("set s 0 0 1000000\r\n", 100_000),
        ("append s 0 0 1000000\r\n", 100_000),
        ("get ", 100_000),
    ];
    for (line, len) in begins {
        let mut slow = Vec::new();
        for _ in 0..300 {
            let mut client = server.connect();
            client.0.get_ref().set_write_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = client.try_send([line.as_bytes(), &vec![b'x'; len]].concat());
            slow.push(client);
        }
        behave(&server);
    }
}

#[test]
fn a_small_value_that_comes_in_two_pieces_is_stored() {
    let server = TestServer::start();
    let mut client = server.connect();
    for len in [1_usize, 100, 8000, 16_300, 16_350, 16_384, 20_000, 70_000, 200_000] {
        let whole = format!("set k 7 0 {len}\r\n{}\r\n", "v".repeat(len));
        let answer = format!("STORED\r\nVALUE k 7 {len}\r\n{}\r\nEND\r\n", "v".repeat(len));
        let line = whole.find('\n').unwrap() + 1;
        for split in [1, line - 1, line, line + 1, line + len / 2, line + len, line + len + 1] {
            let before = server.snapshot().counts;
            client.send(&whole[..split]);
            server.wait_until(|now| now.counts.bytes_read >= before.bytes_read + split as u64);
            client.send(format!("{}get k\r\n", &whole[split..]));
            client.expect(&answer);
            assert_eq!(server.snapshot().counts.cmd_set, before.cmd_set + 1);
        }
    }
    server.wait_until(|_| held(&server) == 0);
}
