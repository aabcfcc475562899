//! Connections of the memcached server. Goal: whatever a client does, it gets a clear answer
//! or is closed, and disturbs nobody else. Method: real sockets, bytes in, bytes out.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::memcached::Client;
use crate::support::server::{TestServer, options};
use rawcached::config::ListenAddress;
use rawcached::server::Options;
use rawcached::server::listener::{Listener, Permissions};

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

#[test]
fn oversized_keys_are_refused_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut client = server.connect();
    for len in [251, 1900] {
        let key = "k".repeat(len);
        client.ask(format!("get {key}\r\n"), BAD_FORMAT);
        client.ask(format!("set {key} 0 0 7\r\nversion\r\n"), BAD_FORMAT);
        client.ask(format!("get a {key} b\r\n"), BAD_FORMAT);
        client.ask(format!("delete {key}\r\n"), BAD_FORMAT);
        client.ask(format!("touch {key} 0 noreply\r\nincr {key} 1\r\n"), BAD_FORMAT);
    }
    let key = "k".repeat(250);
    client.ask(format!("set {key} 0 0 1\r\nx\r\n"), "STORED\r\n");
    client.ask(format!("get {key}\r\n"), format!("VALUE {key} 0 1\r\nx\r\nEND\r\n"));
}

#[test]
fn lines_that_never_end_close_the_connection() {
    let server = TestServer::start();
    for (start, len) in [("", 2049), ("incr", 2052), ("set ", 100 << 10), ("get ", 3 << 20)] {
        let mut client = server.connect();
        let mut line = start.as_bytes().to_vec();
        line.resize(len, if start == "incr" { b' ' } else { b'x' });
        // The server may close before it has read everything.
        let _ = client.try_send(&line);
        client.expect("CLIENT_ERROR line too long\r\n");
        assert_eq!(client.rest(), b"");
    }
    server.connect().expect_alive();
}

#[test]
fn a_retrieval_may_name_thousands_of_keys() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let request = format!("get {}\r\n", "a nope-nope-nope ".repeat(20_000));
    client.ask(request, "VALUE a 0 1\r\nx\r\n".repeat(20_000) + "END\r\n");
}

#[test]
fn pipelined_commands_answer_in_order() {
    let server = TestServer::start();
    let mut client = server.connect();
    let large = "v".repeat(20_000);
    let mut request = String::new();
    let mut answer = String::new();
    for i in 0..2000 {
        let value = if i % 100 == 0 { large.clone() } else { i.to_string() };
        let len = value.len();
        request += &format!("set k{i} {i} 0 {len}\r\n{value}\r\nget k{i} nope\r\nbad\r\n");
        answer += &format!("STORED\r\nVALUE k{i} {i} {len}\r\n{value}\r\nEND\r\nERROR\r\n");
    }
    let mut sender = client.0.get_ref().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(request.as_bytes()).unwrap());
        client.expect(answer);
    });
}

#[test]
fn one_byte_at_a_time_works() {
    let server = TestServer::start();
    let mut client = server.connect();
    let request =
        "set a 1 0 5\r\nab\r\nc\r\nget a\r\nbad\r\nset b 0 0 2 noreply\r\nxy\r\ndelete b\r\n";
    for byte in request.as_bytes() {
        client.send([*byte]);
        std::thread::sleep(Duration::from_micros(200));
    }
    client.expect("STORED\r\nVALUE a 1 5\r\nab\r\nc\r\nEND\r\nERROR\r\nDELETED\r\n");
}

#[test]
fn a_half_closed_connection_gets_its_answers() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send("set a 0 0 1\r\nx\r\nget a\r\nget a\r\nget unfinished");
    client.half_close();
    let value = "VALUE a 0 1\r\nx\r\nEND\r\n";
    assert_eq!(client.rest(), format!("STORED\r\n{value}{value}").as_bytes());
}

#[test]
fn a_connection_closed_within_a_value_stores_nothing() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set a 0 0 3\r\nold\r\n", "STORED\r\n");
    for len in [10, 100_000, 3 << 20] {
        let mut dying = server.connect();
        dying.send(format!("set a 0 0 {len}\r\n"));
        dying.send(vec![b'x'; len - 1]);
        drop(dying);
        server.wait_until(|now| now.connections_current == 1);
        client.ask("get a\r\n", "VALUE a 0 3\r\nold\r\nEND\r\n");
    }
}

#[test]
fn a_slow_reader_holds_back_nobody() {
    let server = TestServer::with(Options { workers: 1.try_into().unwrap(), ..options() });
    let mut quick = server.connect();
    let value = "v".repeat(1 << 20);
    quick.ask(format!("set a 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
    let mut slow = server.connect();
    slow.send("get a a a a a a a a\r\n".repeat(4));
    slow.half_close();
    for _ in 0..100 {
        quick.ask("get nope\r\n", "END\r\n");
    }
    // Of 32 MiB only what socket buffers hold has left the server.
    assert!(server.snapshot().counts.bytes_written < 8 << 20);
    assert_eq!(slow.rest().len(), 4 * (8 * ((1 << 20) + 21) + 5));
}

#[test]
fn the_binary_protocol_gets_a_clear_error() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'k']);
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.starts_with("CLIENT_ERROR the binary protocol is not supported"), "{rest}");
    assert_eq!(server.snapshot().counts.protocol_errors, 1);
}

#[test]
fn garbage_does_not_disturb_others() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let mut garbage = server.connect();
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        let bytes: Vec<u8> = bytes.take(5000).collect();
        let _ = garbage.try_send(&bytes);
        client.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    }
    server.wait_until(|now| now.connections_current == 1);
    assert_eq!(server.snapshot().counts.connection_panics, 0);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let server = TestServer::with(Options { connections_max: 2, ..options() });
    let mut first = server.connect();
    first.expect_alive();
    let mut second = server.connect();
    second.expect_alive();
    let mut third = server.connect();
    assert_eq!(third.rest(), b"SERVER_ERROR too many open connections\r\n");
    first.expect_alive();
    drop(second);
    server.wait_until(|now| now.connections_current == 1);
    server.connect().expect_alive();
    assert_eq!(server.snapshot().counts.connections_rejected, 1);
}

#[test]
fn a_drain_finishes_what_has_begun_and_closes_what_rests() {
    let mut server = TestServer::start();
    let mut idle = server.connect();
    idle.expect_alive();
    let mut busy = server.connect();
    busy.ask("verbosity 1\r\nset a 0 0 5\r\nab", "OK\r\n");
    server.begin_shutdown();
    assert_eq!(idle.rest(), b"");
    busy.send("cde\r\n");
    assert_eq!(busy.rest(), b"STORED\r\n");
    server.join();
    assert!(!server.path.exists());
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let drain_timeout = Duration::from_millis(100);
    let mut server = TestServer::with(Options { drain_timeout, ..options() });
    let mut stuck = server.connect();
    stuck.ask("verbosity 1\r\nset a 0 0 5\r\nab", "OK\r\n");
    server.begin_shutdown();
    server.join();
    assert_eq!(stuck.rest(), b"");
    assert_eq!(server.snapshot().connections_current, 0);
}

#[test]
fn values_go_on_when_the_input_budget_is_used_up() {
    let server = TestServer::with(Options { input_bytes_max: 1000, ..options() });
    let mut holder = server.connect();
    holder.ask("verbosity 1\r\nset held 0 0 900\r\nx", "OK\r\n");
    let mut client = server.connect();
    let value = "v".repeat(500_000);
    client.ask(format!("set a 0 0 {}\r\n{value}\r\n", value.len()), "STORED\r\n");
    let answer = format!("VALUE a 0 {}\r\n{value}\r\nEND\r\n", value.len());
    client.ask("get a\r\n", &answer);
    let refused = "SERVER_ERROR out of memory storing object\r\n";
    client.ask(format!("append a 0 0 {}\r\n{value}\r\n", value.len()), refused);
    client.ask("get a\r\n", &answer);
    holder.ask(format!("{}\r\n", "x".repeat(899)), "STORED\r\n");
}

#[test]
fn sockets_that_are_open_already_and_loopback_tcp_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("activated.sock");
    let activated = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let activated = Listener::from_unix(activated).unwrap();
    assert_eq!(activated.address(), &ListenAddress::Unix(path.clone()));
    let tcp: ListenAddress = "tcp:127.0.0.1:0".parse().unwrap();
    let tcp = Listener::bind(&tcp, &Permissions::default()).unwrap();
    let ListenAddress::Tcp(port) = *tcp.address() else { panic!("not a TCP address") };
    let mut server = TestServer::serving(options(), vec![activated, tcp]);
    Client::connect(&path).expect_alive();
    let mut stream = std::net::TcpStream::connect(port).unwrap();
    stream.write_all(b"set a 0 0 1\r\nx\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "STORED\r\n");
    server.connect().ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    server.begin_shutdown();
    server.join();
    assert!(path.exists(), "the file belongs to whoever opened the socket");
    assert!(std::net::TcpStream::connect(port).is_err());
}

#[test]
fn hundreds_of_connections_are_served_side_by_side() {
    const COUNT: u64 = 400;
    let server = TestServer::with(Options { connections_max: 1000, ..options() });
    let mut clients: Vec<Client> = (0..COUNT).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.expect_alive();
    }
    assert_eq!(server.snapshot().connections_current, COUNT);
    drop(clients);
    server.wait_until(|now| now.connections_current == 0);
}

#[test]
fn a_long_line_is_refused_when_the_input_budget_is_used_up() {
    let server = TestServer::with(Options { input_bytes_max: 100_000, ..options() });
    let mut client = server.connect();
    client.ask(format!("get {}\r\n", "k ".repeat(15_000)), "END\r\n");
    let _ = client.try_send(format!("get {}\r\n", "k ".repeat(100_000)));
    client.expect("SERVER_ERROR out of memory reading request\r\n");
    assert_eq!(client.rest(), b"");
    let mut client = server.connect();
    client.ask(format!("get {}\r\n", "k ".repeat(15_000)), "END\r\n");
}

#[test]
fn where_the_bytes_are_split_does_not_matter() {
    let server = TestServer::start();
    let request = "set a 1 0 5\r\nab\r\nc\r\nget a\r\nset a 0 0 2\r\nabc\r\nbad\r\nincr a 1 noreply\r\n\
                   append a 0 0 1\r\n!\r\nget a x a\r\nset a 0 0 0 noreply\r\n\r\ndelete a\r\n";
    let answer = "STORED\r\nVALUE a 1 5\r\nab\r\nc\r\nEND\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\n\
                  ERROR\r\nSTORED\r\nVALUE a 1 6\r\nab\r\nc!\r\nVALUE a 1 6\r\nab\r\nc!\r\nEND\r\nDELETED\r\n";
    for split in 0..=request.len() {
        let mut client = server.connect();
        client.send(&request[..split]);
        server.wait_until(|now| now.counts.bytes_read >= (request.len() * split + split) as u64);
        client.send(&request[split..]);
        client.expect(answer);
    }
}

#[test]
fn clients_that_never_pause_do_not_hold_up_a_drain() {
    let drain_timeout = Duration::from_secs(3600);
    let mut server = TestServer::with(Options { drain_timeout, ..options() });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut client = server.connect();
            let mut sender = client.0.get_ref().try_clone().unwrap();
            scope.spawn(move || while sender.write_all(&b"get nope\r\n".repeat(5001)).is_ok() {});
            scope.spawn(move || while client.0.read(&mut [0; 9999]).is_ok_and(|len| len > 0) {});
        }
        server.wait_until(|now| now.counts.get_misses > 100_000);
        server.begin_shutdown();
        server.join();
    });
}

/// Longer than [`SOON`] even on a busy machine.
const LATER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(300);

#[test]
fn a_command_that_stands_still_is_cut_and_a_connection_that_rests_is_not() {
    let server = TestServer::with(Options { memcached_stall_timeout: SOON, ..options() });
    let mut resting = server.connect();
    resting.expect_alive();
    let mut after_half = server.connect();
    after_half.send("verbosi");
    server.wait_until(|now| now.counts.bytes_read >= 20);
    after_half.ask("ty 1\r\n", "OK\r\n");
    let begun = ["set a 0 0 5\r\nab", "set a 0 0 3000000\r\nab", "get a", "set a -1 0 9999\r\nx"];
    for (cut, text) in (1..).zip(begun) {
        let mut client = server.connect();
        client.send(text);
        let _ = client.rest();
        server.wait_until(|now| now.counts.stall_timeouts == cut);
    }
    std::thread::sleep(LATER);
    resting.expect_alive();
    after_half.expect_alive();
    assert_eq!(server.snapshot().counts.idle_timeouts, 0);
}

#[test]
fn an_answer_that_nobody_takes_is_cut() {
    let server = TestServer::with(Options { memcached_stall_timeout: SOON, ..options() });
    let mut client = server.connect();
    assert_eq!(client.set("a", &vec![b'v'; 4 << 20]), "STORED");
    let mut deaf = server.connect();
    deaf.send("get a a\r\n");
    // It keeps its place: the kernel has bytes for it that it did not read.
    server.wait_until(|now| now.counts.stall_timeouts == 1 && now.connections_current == 2);
    client.expect_alive();
}

#[test]
fn a_client_that_is_slow_but_moves_is_not_cut() {
    let server = TestServer::with(Options { memcached_stall_timeout: LATER, ..options() });
    let mut client = server.connect();
    for byte in b"set a 0 0 5\r\nabcde\r\n" {
        client.send([*byte]);
        std::thread::sleep(LATER / 8);
    }
    client.expect("STORED\r\n");
    assert_eq!(server.snapshot().counts.stall_timeouts, 0);
}

#[test]
fn a_connection_that_rests_too_long_is_closed_where_that_is_asked_for() {
    let server = TestServer::with(Options { memcached_idle_timeout: Some(SOON), ..options() });
    let mut silent = server.connect();
    let mut rested = server.connect();
    rested.expect_alive();
    assert_eq!((silent.rest(), rested.rest()), (vec![], vec![]));
    server.wait_until(|now| now.counts.idle_timeouts == 2 && now.connections_current == 0);
    assert_eq!(server.snapshot().counts.stall_timeouts, 0);
}
