//! Goal: bytes that a client did not mean as commands are never carried out as commands: the value
//! behind a storage line that is refused, the body of an HTTP request, what is in a TLS handshake.
//! Method: each of them holds a `set`; after it, at most one answer came and nothing was stored.

use crate::support::memcached::Client;
use crate::support::server::{TestServer, options};
use rawcached::server::Options;

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";
const VALUE: &str = "HTTP/1.1 200 OK\r\n\r\nset held 0 60 4\r\nEVIL\r\n";

/// Sends `text` in two pieces, the second only when the first was read.
fn send_split(server: &TestServer, client: &mut Client, text: &[u8], at: usize) {
    let seen = server.snapshot().counts.bytes_read;
    client.send(&text[..at]);
    server.wait_until(|now| now.counts.bytes_read >= seen + at as u64);
    // The server may have closed.
    let _ = client.try_send(&text[at..]);
}

/// What is answered to `line`, [`VALUE`] and, where the connection goes on, a `verbosity` after them.
fn answer_to(server: &TestServer, line: &[u8], split: usize) -> String {
    let mut client = server.connect();
    let text = [line, VALUE.as_bytes(), b"\r\nverbosity 1\r\n"].concat();
    send_split(server, &mut client, &text, split.min(text.len()));
    client.half_close();
    String::from_utf8(client.rest()).unwrap()
}

/// Refused lines that announce [`VALUE`], where the length stands where memcached has it.
fn with_known_length() -> Vec<(String, &'static str)> {
    let (long, len) = ("k".repeat(251), VALUE.len());
    vec![
        (format!("set {long} 0 60 {len}\r\n"), BAD_FORMAT),
        (format!("set {long} 0 60 {len} noreply\r\n"), ""),
        (format!("add k 0 0.5 {len}\r\n"), BAD_FORMAT),
        (format!("replace k -1 60 {len}\r\n"), BAD_FORMAT),
        (format!("append k x 60 {len}\r\n"), BAD_FORMAT),
        (format!("prepend k 18446744073709551616 60 {len}\n"), BAD_FORMAT),
        (format!("set k 0 9223372036854775808 {len} noreply\r\n"), ""),
        (format!("cas k 0 60 {len} x\r\n"), BAD_FORMAT),
        (format!("cas k 0 60 {len} -1 noreply\r\n"), ""),
        (format!("cas k 0 60 {len} \r\n"), BAD_FORMAT),
        (format!("SET k 0 60 {len}\r\n"), "ERROR\r\n"),
        (format!("MS k {len} T60\r\n"), "ERROR\r\n"),
        (format!("ms k {len} T60 T60\r\n"), "CLIENT_ERROR duplicate flag\r\n"),
        (format!("ms k {len} T60 q !\r\n"), "CLIENT_ERROR invalid flag\r\n"),
        (format!("ms {long} {len} q\r\n"), BAD_FORMAT),
        (format!("ms k! {len} b\r\n"), "CLIENT_ERROR error decoding key\r\n"),
    ]
}

/// Refused lines that do not tell how long the value behind them is.
fn with_unknown_length() -> Vec<(String, &'static str)> {
    let len = VALUE.len();
    vec![
        ("set k 0 60\r\n".to_owned(), BAD_FORMAT),
        ("set k 0 60 -1\r\n".to_owned(), BAD_FORMAT),
        ("set k 0 60 x noreply\r\n".to_owned(), ""),
        ("set k 0 60 2147483646\r\n".to_owned(), BAD_FORMAT),
        ("set k 0 60 4294967295\r\n".to_owned(), BAD_FORMAT),
        ("set k 0 60 99999999999999999999\r\n".to_owned(), BAD_FORMAT),
        // A key with a space in it: what stands where the length belongs is something else.
        (format!("set k y 0 60 {len}\r\n"), BAD_FORMAT),
        (format!("set k 7 0 60 {len}\r\n"), BAD_FORMAT),
        (format!("set k 7 0 60 {len} noreply\r\n"), ""),
        (format!("set {} 0 60 {len}\r\n", "k".repeat(5000)), "CLIENT_ERROR line too long\r\n"),
        ("ms k S9 T60\r\n".to_owned(), BAD_FORMAT),
        (format!("ms k y {len} T60\r\n"), BAD_FORMAT),
        (format!("ms k 7 {len} T60\r\n"), "CLIENT_ERROR invalid flag\r\n"),
        ("GET / HTTP/1.0\r\n".to_owned(), ""),
        ("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 46\r\n\r\n".to_owned(), ""),
        ("POST /\r\n".to_owned(), ""),
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03 \r\n".to_owned(), ""),
    ]
}

#[test]
fn a_value_of_known_length_is_skipped_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut good = server.connect();
    good.ask("set held 0 60 4\r\ngood\r\n", "STORED\r\n");
    for (line, answer) in with_known_length() {
        for split in [0, 3, line.len() - 1, line.len(), line.len() + 20, line.len() + VALUE.len()] {
            let found = answer_to(&server, line.as_bytes(), split);
            assert_eq!(found, format!("{answer}OK\r\n"), "{line:?} split at {split}");
        }
        good.ask("get held k\r\n", "VALUE held 0 4\r\ngood\r\nEND\r\n");
    }
}

#[test]
fn where_nobody_knows_how_long_a_value_is_the_connection_ends() {
    let server = TestServer::start();
    let mut good = server.connect();
    good.ask("set held 0 60 4\r\ngood\r\n", "STORED\r\n");
    for (line, answer) in with_unknown_length() {
        for split in [0, 1, line.len() - 1, line.len(), line.len() + 20] {
            let found = answer_to(&server, line.as_bytes(), split);
            assert_eq!(found, answer, "{line:?} split at {split}");
        }
        good.ask("get held k\r\n", "VALUE held 0 4\r\ngood\r\nEND\r\n");
    }
}

#[test]
fn a_refused_value_of_any_length_is_skipped_in_bounded_memory() {
    let server = TestServer::with(Options { input_bytes_max: 1000, ..options() });
    let mut client = server.connect();
    client.send(format!("set {} 0 0 {}\r\n", "k".repeat(251), 100 << 20));
    let piece = "get held\r\n".repeat(100 << 10);
    let mut missing = (100 << 20) + 2;
    while missing > 0 {
        let len = missing.min(piece.len());
        client.send(&piece[..len]);
        missing -= len;
    }
    client.expect(BAD_FORMAT);
    client.expect_alive();
    assert_eq!(server.snapshot().counts.cmd_get, 0);
}

#[test]
fn lengths_that_may_be_stored_are_no_mistakes() {
    let server = TestServer::with(Options { value_len_max: 1 << 40, ..options() });
    let mut client = server.connect();
    client.send("set k 0 0 4294967295\r\nabc");
    client.half_close();
    // The device has no room for it, and the rest of it is waited for.
    assert_eq!(client.rest(), b"SERVER_ERROR object too large for cache\r\n");
    let mut client = server.connect();
    client.send(format!("set k 0 0 {}\r\n", (1_u64 << 40) + 1));
    assert_eq!(client.rest(), BAD_FORMAT.as_bytes());
}

#[test]
fn keys_may_hold_what_memcached_takes() {
    let server = TestServer::start();
    let mut client = server.connect();
    for key in ["a\x01b", "a\x7fb", "\t", "a\rb", "a\0b", "\u{fc}"] {
        client.ask(format!("set {key} 4294967299 0 1\r\nx\r\n"), "STORED\r\n");
        client.ask(format!("get {key}\r\n"), format!("VALUE {key} 3 1\r\nx\r\nEND\r\n"));
        client.ask(format!("delete {key}\r\n"), "DELETED\r\n");
    }
}
