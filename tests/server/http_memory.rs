//! Goal: clients that take their time cost bounded memory and hinder nobody. Method: readers that
//! stop reading and writers that stop sending, as bytes over a real socket, with small budgets.

use std::time::Duration;

use crate::support::http::{Answer, Connection, body, target};
use crate::support::server::{HttpServer, options};
use rawcached::cache::CacheOptions;
use rawcached::server::Options;

/// In one slot, in several slices.
const LENS: [usize; 2] = [250_000, 3_000_000];
/// For a few of the objects.
const BUDGET: u64 = 600_000;
const STALLED: usize = 24;
const UNSHARED_LEN_MAX: usize = 64 << 10;

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let happened = (0..20_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        condition()
    });
    assert!(happened, "{what}");
}

fn key(reader: usize) -> String {
    format!("object/{}/{reader}", LENS[reader % LENS.len()])
}

fn object(reader: usize) -> Vec<u8> {
    let mut object = body(LENS[reader % LENS.len()]);
    object.rotate_left(reader);
    object
}

/// Enough requests that the answers exceed the socket buffers.
fn times(reader: usize) -> usize {
    2_000_000 / LENS[reader % LENS.len()] + 1
}

/// Readers that asked for an object each and read nothing.
fn stalled(server: &HttpServer) -> Vec<Connection> {
    let ask = |reader| {
        server.put(&key(reader), "", &object(reader)).expect(201);
        let mut connection = server.open();
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", target(&key(reader)));
        connection.send(request.repeat(times(reader)));
        connection
    };
    (0..STALLED).map(ask).collect()
}

fn with_budget(ram_bytes: u64) -> HttpServer {
    let budget =
        options!(CacheOptions { ram_bytes, range_buffer_bytes: BUDGET, ..CacheOptions::default() });
    HttpServer::of_cache(options(), budget)
}

fn held(server: &HttpServer) -> u64 {
    server.cache.stats().store.ranges.buffer_bytes
}

/// Every reader gets its object, those that stopped and those that come meanwhile.
fn everybody_is_served(ram_bytes: u64) {
    let server = with_budget(ram_bytes);
    let mut readers = stalled(&server);
    let least = BUDGET - LENS[0] as u64 - 100_000;
    eventually("the budget is held", || held(&server) > least);
    for reader in 0..STALLED {
        server.get(&key(reader), "").expect_body(200, &object(reader));
        let part = server.get(&key(reader), "Range: bytes=100000-200000\r\n");
        part.expect_body(206, &object(reader)[100_000..=200_000]);
    }
    for (reader, connection) in readers.iter_mut().enumerate() {
        for _ in 0..times(reader) {
            connection.answer("GET").expect_body(200, &object(reader));
        }
    }
    eventually("all of it comes back", || held(&server) == 0);
}

#[test]
fn stalled_readers_of_the_device_hinder_nobody() {
    everybody_is_served(0);
}

#[test]
fn stalled_readers_of_the_ram_tier_hinder_nobody() {
    everybody_is_served(256 << 20);
}

#[test]
fn a_reader_without_a_share_of_the_budget_holds_a_small_piece_only() {
    let server = with_budget(0);
    let _readers = stalled(&server);
    eventually("the budget is held", || held(&server) > BUDGET - 350_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut others = Vec::new();
        for reader in 0..STALLED {
            let mut hit = server.cache.lookup(key(reader).as_bytes()).await.unwrap();
            let first = hit.next_chunk().await.unwrap().unwrap();
            others.push((hit, first));
        }
        assert!(held(&server) <= BUDGET);
        let large = |piece: &&(_, bytes::Bytes)| piece.1.len() > UNSHARED_LEN_MAX;
        let shared = others.iter().filter(large).map(|(_, first)| first.len()).sum::<usize>();
        assert!(shared as u64 <= BUDGET, "{shared}");
        let whole =
            others.iter().filter_map(|(hit, _)| hit.whole()).map(<[u8]>::len).sum::<usize>();
        assert!(whole as u64 <= BUDGET, "{whole} bytes of bodies are held");
        for (reader, (mut hit, first)) in others.into_iter().enumerate() {
            let mut found = first.to_vec();
            while let Some(piece) = hit.next_chunk().await.unwrap() {
                found.extend_from_slice(&piece);
            }
            assert!(found == object(reader), "object {reader}");
        }
    });
}

#[test]
fn an_object_replaced_while_it_is_read_in_small_pieces_is_read_to_its_end() {
    let server = with_budget(0);
    let mut readers = stalled(&server);
    eventually("the budget is held", || held(&server) > BUDGET - 350_000);
    for reader in 0..STALLED {
        server.put(&key(reader), "", b"new").expect(201);
    }
    for (reader, connection) in readers.iter_mut().enumerate() {
        connection.answer("GET").expect_body(200, &object(reader));
        let mut is_new = false;
        for _ in 1..times(reader) {
            let answer = connection.answer("GET").expect(200);
            is_new |= answer.body == b"new";
            assert!(answer.body == if is_new { b"new".to_vec() } else { object(reader) });
        }
    }
}

#[test]
fn a_store_waits_for_the_memory_that_another_one_gives_back() {
    let cache_options =
        options!(CacheOptions { write_buffer_bytes: 64 << 10, ..CacheOptions::default() });
    let server = HttpServer::of_cache(options(), cache_options);
    let mut slow = server.open();
    slow.send("PUT /v1/objects/s HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n");
    slow.send(vec![b'x'; 49_999]);
    eventually("bytes are staged", || server.cache.stats().write_buffer_bytes > 49_000);
    let mut second = server.open();
    second.send("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n");
    second.send(vec![b'x'; 20_000]);
    second.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let early = std::io::Read::read(&mut second.0, &mut [0]);
    assert!(early.is_err(), "an answer came although there is no memory");
    slow.send("x");
    slow.answer("PUT").expect(201);
    second.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let answer: Answer = second.answer("PUT");
    answer.expect(201);
    assert_eq!(server.snapshot().counts.store_no_memory, 0);
}

#[test]
fn what_is_kept_of_a_long_head_counts_until_its_request_ends() {
    let head = 100_000;
    let tight = Options { input_bytes_max: 7 * head / 2, ..options() };
    let server = HttpServer::with(tight);
    let field = format!("Cache-Tag: {}\r\n", "t".repeat(60_000));
    let filler = format!("X-Other: {}\r\n", "o".repeat(39_000));
    let start = format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{field}{filler}");
    let begin = || {
        let mut upload = server.open();
        upload.send(format!("{start}Content-Length: 2\r\n\r\na"));
        upload
    };
    let mut first = begin();
    eventually("the first head is kept", || server.snapshot().http.requests_started == 1);
    eventually("and counted", || server.snapshot().input_bytes >= 19 * head / 10);
    let before = server.snapshot().counts.bytes_read;
    let mut second = begin();
    eventually("the second is read", || server.snapshot().counts.bytes_read > before + 99_000);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.snapshot().http.requests_started, 1, "there is no memory for another one");
    first.send("b");
    first.answer("PUT").expect(201);
    eventually("the second is begun", || server.snapshot().http.requests_started == 2);
    assert!(server.snapshot().input_bytes < 4 * head);
    second.send("b");
    second.answer("PUT").expect(201);
    eventually("all is given back", || server.snapshot().input_bytes == 0);
}

#[test]
fn a_client_that_does_not_read_keeps_nothing_of_its_long_head() {
    let server = HttpServer::start();
    server.put("k", "", &body(3_000_000)).expect(201);
    let mut reader = server.open();
    let filler = format!("X-Other: {}\r\n", "o".repeat(100_000));
    reader.send(format!("GET /v1/objects/k HTTP/1.1\r\nHost: x\r\n{filler}\r\n"));
    let is_running = || {
        let now = server.snapshot().http;
        now.requests_started - now.requests_ended == 1
    };
    eventually("it is answered", || is_running() && server.snapshot().counts.bytes_written > 4096);
    eventually("nothing is kept", || server.snapshot().input_bytes == 0);
    assert!(is_running());
    reader.answer("GET").expect_body(200, &body(3_000_000));
}

#[test]
fn a_slow_upload_with_a_long_head_gives_way_to_an_honest_one() {
    let write_buffer_wait = Duration::from_secs(3);
    let cache = options!(CacheOptions { write_buffer_wait, ..CacheOptions::default() });
    let server = HttpServer::of_cache(Options { input_bytes_max: 400_000, ..options() }, cache);
    let filler = format!("X-Other: {}\r\n", "o".repeat(100_000));
    let start = format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{filler}");
    for body in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5"] {
        let mut slow = server.open();
        slow.send(format!("{start}{body}"));
        eventually("its head is kept", || server.snapshot().input_bytes > 190_000);
        let mut honest = server.open();
        honest.send(format!("{start}Content-Length: 2\r\n\r\nab"));
        assert!(matches!(honest.answer("PUT").status, 201 | 204));
        slow.answer("PUT").expect(503);
    }
}

#[test]
fn slow_long_heads_give_way_to_an_honest_one() {
    // Who has sent nothing for a fifth of a second is slow.
    let write_buffer_wait = Duration::from_secs(3);
    let cache = options!(CacheOptions { write_buffer_wait, ..CacheOptions::default() });
    let options = Options { input_bytes_max: 4 << 20, connections_max: 500, ..options() };
    let server = HttpServer::of_cache(options, cache);
    let filler = format!("X-Other: {}\r\n", "o".repeat(120_000));
    let start = format!("PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{filler}");
    let mut slow: Vec<Connection> = Vec::new();
    for (len, count) in [(90_000, 60), (10_000, 300)] {
        for _ in 0..count {
            let mut half = server.open();
            half.send(&start[..len]);
            slow.push(half);
        }
        for _ in 0..3 {
            let mut honest = server.open();
            honest.send(format!("{start}Content-Length: 2\r\n\r\nab"));
            assert!(matches!(honest.answer("PUT").status, 201 | 204));
        }
        let now = server.snapshot();
        assert!(now.input_bytes <= now.input_bytes_max);
    }
    slow[0].answer("PUT").expect(503);
    drop(slow);
    eventually("all of it comes back", || server.snapshot().input_bytes == 0);
}
