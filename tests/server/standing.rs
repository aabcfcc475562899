//! Goal: what clients leave unread is bounded, who stands still is cut when memory runs short, and who
//! reads gets every byte. Method: real sockets and small budgets; the counters tell what was set aside.

use std::io::Read as _;
use std::time::Duration;

use crate::support::http::{Connection, body};
use crate::support::memcached::Client;
use crate::support::server::{HttpServer, TestServer, options};
use crate::support::waiting::{eventually, now};
use rawcached::config::ListenAddress;
use rawcached::server::Options;
use rawcached::server::listener::{Listener, Permissions};

const MIB: usize = 1 << 20;
const GET: &str = "GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n\r\n";
/// More than any wait of a server here, but less than its limits for those that stand still.
const A_WHILE: Duration = Duration::from_millis(700);

fn answer_of(value: &[u8]) -> Vec<u8> {
    [format!("VALUE k 0 {}\r\n", value.len()).as_bytes(), value, b"\r\nEND\r\n"].concat()
}

#[test]
fn who_does_not_read_holds_no_more_than_the_first_buffer() {
    let tcp = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), &Permissions::default()).unwrap();
    let ListenAddress::Tcp(port) = *tcp.address() else { panic!("not a TCP address") };
    let options = Options { connections_max: 1000, ..options() };
    let server = TestServer::serving(options, vec![tcp]);
    assert_eq!(server.connect().set("k", &body(4 * MIB)), "STORED");
    server.wait_until(|now| now.connections_current == 0);
    let one = {
        let _client = server.connect();
        server.wait_until(|now| now.connections_current == 1);
        server.snapshot().socket_buffer_bytes
    };
    server.wait_until(|now| now.connections_current == 0);
    assert!(one * 1000 <= server.snapshot().socket_buffer_bytes_max / 2, "{one} B");
    let mut readers: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for reader in &mut readers {
        reader.send("get k\r\n");
    }
    server.wait_until(|now| now.unsent_bytes > 0);
    std::thread::sleep(A_WHILE);
    let snapshot = server.snapshot();
    assert_eq!(snapshot.socket_buffer_bytes, 20 * one);
    let written = snapshot.counts.bytes_written;
    assert!(written <= 20 * one, "{written} B written to 20 that read nothing");
    drop(readers);
    server.wait_until(|now| now.connections_current == 0);
    assert_eq!(server.snapshot().unsent_bytes, 0);
    let before = server.snapshot().counts.bytes_written;
    let mut reader = std::net::TcpStream::connect(port).unwrap();
    std::io::Write::write_all(&mut reader, b"get k\r\n").unwrap();
    std::thread::sleep(A_WHILE);
    let written = server.snapshot().counts.bytes_written - before;
    // The client's own side of a TCP connection reads for it: its kernel takes some, as a quick reader does.
    let taken = server.snapshot().socket_buffer_bytes;
    assert!(taken <= server.snapshot().socket_buffer_bytes_max / 4, "{taken} B over TCP");
    assert!(server.snapshot().unsent_bytes > 0, "{written} B written over TCP");
    let mut found = vec![0; answer_of(&body(4 * MIB)).len()];
    reader.read_exact(&mut found).unwrap();
    assert!(found == answer_of(&body(4 * MIB)), "other bytes");
}

/// The kernel goes on telling what it had for a TCP client that was answered by a reset.
#[test]
fn clients_that_leave_over_tcp_leave_their_places() {
    use std::io::Write as _;
    let tcp = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap(), &Permissions::default()).unwrap();
    let ListenAddress::Tcp(port) = *tcp.address() else { panic!("not a TCP address") };
    let server = TestServer::serving(options(), vec![tcp]);
    assert_eq!(server.connect().set("k", &body(MIB)), "STORED");
    for asked in ["get k\r\n".to_owned(), "bogus\r\n".repeat(50), "get k".to_owned()] {
        for _ in 0..10 {
            let mut client = std::net::TcpStream::connect(port).unwrap();
            client.write_all(asked.as_bytes()).unwrap();
        }
        server.wait_until(|now| now.connections_current == 0);
        assert_eq!(server.snapshot().unsent_bytes, 0, "{asked}");
    }
}

#[test]
fn who_reads_gets_a_long_buffer_until_it_leaves() {
    let server = HttpServer::start();
    server.put("k", "", &body(8 * MIB)).expect(201);
    server.wait_until(|now| now.connections_current == 0);
    let mut readers: Vec<Connection> = (0..2).map(|_| server.open()).collect();
    for reader in &mut readers {
        for _ in 0..3 {
            reader.ask("GET", "/v1/objects/k", "", b"").expect_body(200, &body(8 * MIB));
        }
    }
    let taken = server.snapshot().socket_buffer_bytes;
    assert!(taken > 2 * MIB as u64, "{taken} B for two quick readers");
    drop(readers);
    server.wait_until(|now| now.socket_buffer_bytes == 0);
}

#[test]
fn who_sends_all_before_it_reads_is_answered() {
    let server = TestServer::with(Options { connections_max: 1000, ..options() });
    let mut client = server.connect();
    let value = "v".repeat(4000);
    let count = 2000;
    let sets: String = (0..count).map(|n| format!("set {n} 0 0 4000\r\n{value}\r\n")).collect();
    // Fails after a while if the server waits for a reader who waits for the server.
    client.send(sets);
    client.expect("STORED\r\n".repeat(count));
}

#[test]
fn an_ended_connection_keeps_its_place_until_its_answers_are_read() {
    let server = TestServer::with(Options { connections_max: 1, ..options() });
    let mut client = server.connect();
    client.ask("set k 0 0 1000\r\n", "");
    client.ask(format!("{}\r\n", "v".repeat(1000)), "STORED\r\n");
    client.send("get k\r\nquit\r\n");
    server.wait_until(|now| now.counts.bytes_written >= 1000);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.snapshot().connections_current, 1, "it ended, and its bytes are unread");
    let refused = server.connect().rest();
    assert_eq!(refused, b"SERVER_ERROR too many open connections\r\n");
    assert_eq!(client.rest(), answer_of("v".repeat(1000).as_bytes()));
    std::thread::sleep(Duration::from_millis(20));
    server.connect().expect_alive();
}

#[test]
fn a_client_that_is_gone_keeps_no_place() {
    let server = TestServer::with(Options { connections_max: 1, ..options() });
    let mut client = server.connect();
    assert_eq!(client.set("k", &body(MIB)), "STORED");
    client.send("get k\r\n");
    server.wait_until(|now| now.unsent_bytes > 0);
    drop(client);
    server.wait_until(|now| now.connections_current == 0);
    std::thread::sleep(Duration::from_millis(20));
    server.connect().expect_alive();
}

/// Reads `len` bytes, 20 KB a second for six seconds and then the rest.
fn read_slowly(mut from: impl std::io::Read, len: usize) -> Vec<u8> {
    let mut found = vec![0; len];
    let (slow, rest) = found.split_at_mut(60 * 2000);
    for piece in slow.chunks_mut(2000) {
        std::thread::sleep(Duration::from_millis(100));
        from.read_exact(piece).unwrap();
    }
    from.read_exact(rest).unwrap();
    found
}

#[test]
fn who_stands_still_is_cut_and_who_reads_slowly_is_not() {
    let server =
        HttpServer::with(Options { unsent_bytes_max: 10_000, connections_max: 4096, ..options() });
    let sent = body(4 * MIB);
    server.put("k", "", &sent).expect(201);
    let mut standing = server.connect();
    standing.send("get k\r\n");
    let mut standing_http = server.open();
    standing_http.send(GET);
    let start = now();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let mut client = server.connect();
            client.send("get k\r\n");
            read_slowly(&mut client.0, answer_of(&sent).len())
        });
        let slow_http = scope.spawn(|| {
            let mut reader = server.open();
            reader.send(GET);
            reader.head();
            read_slowly(&mut reader.0, sent.len())
        });
        server.wait_until(|now| now.counts.connections_cut_unsent == 2);
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(slow.join().unwrap() == answer_of(&sent), "other bytes");
        assert!(slow_http.join().unwrap() == sent, "other bytes");
    });
    assert_eq!(server.snapshot().counts.connections_cut_unsent, 2);
    let mut rest = Vec::new();
    standing.0.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty() && answer_of(&sent).starts_with(&rest), "{} B", rest.len());
    let rest = standing_http.rest();
    assert!(!rest.is_empty() && rest.len() < sent.len(), "{} B", rest.len());
    server.wait_until(|now| now.connections_current == 0 && now.unsent_bytes == 0);
}

#[test]
fn a_half_closed_reader_gets_all_with_the_least_memory() {
    let tight = Options { socket_buffer_bytes_max: 1, connections_max: 64, ..options() };
    let server = HttpServer::with(tight);
    let sent = body(4 * MIB);
    server.put("k", "", &sent).expect(201);
    server.wait_until(|now| now.connections_current == 0);
    let mut client = server.connect();
    client.send("get k\r\n");
    client.half_close();
    assert!(client.rest() == answer_of(&sent), "other bytes");
    server.wait_until(|now| now.connections_current == 0);
    server.get("k", "").expect_body(200, &sent);
    let refused = (server.connect(), server.connect());
    drop(refused);
    // There is memory for one only, and one is always served.
    assert!(server.snapshot().counts.connections_rejected <= 2);
}

#[test]
fn who_rests_gives_its_long_buffer_back_when_others_want_one() {
    let tight = Options { socket_buffer_bytes_max: 3 << 20, connections_max: 100, ..options() };
    let server = TestServer::with(tight);
    let sent = body(4 * MIB);
    let mut reading = server.connect();
    assert_eq!(reading.set("k", &sent), "STORED");
    let one = server.snapshot().socket_buffer_bytes;
    let mut resting: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut resting {
        assert!(client.get("k").is_some_and(|found| found == sent));
    }
    let taken = server.snapshot().socket_buffer_bytes;
    assert!(taken > 40 * one, "{taken} B for ten quick readers");
    let given_back = eventually(|| {
        assert!(reading.get("k").is_some_and(|found| found == sent));
        // All that is left is its own.
        server.snapshot().socket_buffer_bytes < 11 * one + 800_000
    });
    assert!(given_back, "{:?}", server.snapshot());
    for client in &mut resting {
        assert!(client.get("k").is_some_and(|found| found == sent));
    }
    assert_eq!(server.snapshot().counts.connections_cut_buffer, 0);
}
