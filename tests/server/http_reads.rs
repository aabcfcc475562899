//! Goal: readers cost no more reads than they need, and damage found in time is a miss, not a
//! broken answer. Method: bytes over a real socket to a server on a simulated device without a RAM
//! tier; the device counts its reads, the test overwrites what is on it.

use crate::support::http::{body, target};
use crate::support::server::HttpServer;

const MIB: usize = 1 << 20;
/// An object that is read slice after slice, and one that is read in parallel.
const LENGTHS: [usize; 2] = [6 * MIB, 20 * MIB];

/// A server that has an object of `len` bytes under `k`, all of it on the device.
fn holding(len: usize) -> HttpServer {
    let server = HttpServer::without_ram();
    server.put("k", "X-Rawcached-Ack: flushed\r\n", &body(len)).expect(201);
    server
}

/// Makes the bytes of the object at `at` unreadable.
fn damage(server: &HttpServer, len: usize, at: usize) {
    let needle = &body(len)[at..at + 4096];
    let contents = server.device.contents(0..128 << 20);
    let start = contents.windows(needle.len()).position(|window| window == needle).unwrap();
    server.device.overwrite(start as u64, &[0; 4096]);
}

fn bytes_read(server: &HttpServer) -> u64 {
    server.device.counts().bytes_read
}

#[test]
fn head_and_304_read_nothing_of_a_large_body() {
    for len in LENGTHS {
        let server = holding(len);
        let before = bytes_read(&server);
        let head = server.ask("HEAD", &target("k"), "", b"").expect(200);
        assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
        let tag = format!("If-None-Match: {}\r\n", head.header("etag").unwrap());
        server.get("k", &tag).expect(304);
        server.get("k", &format!("Range: bytes={len}-\r\n")).expect(416);
        let read = bytes_read(&server) - before;
        assert!(read < 64 << 10, "{len}: {read}");
    }
}

#[test]
fn a_range_reads_little_besides_itself() {
    for len in LENGTHS {
        let server = holding(len);
        let before = bytes_read(&server);
        let range = 4_500_000..4_600_000;
        let asked = format!("Range: bytes={}-{}\r\n", range.start, range.end - 1);
        server.get("k", &asked).expect_body(206, &body(len)[range]);
        let read = bytes_read(&server) - before;
        assert!(read < 3 * MIB as u64, "{len}: {read}");
    }
}

#[test]
fn an_answer_that_is_sent_whole_is_not_counted_as_cancelled() {
    let server = holding(LENGTHS[1]);
    let before = server.cache.stats().store.ranges;
    server.get("k", "").expect_body(200, &body(LENGTHS[1]));
    let after = server.cache.stats().store.ranges;
    assert_eq!((after.ranges - before.ranges, after.cancelled), (1, 0));
}

#[test]
fn damage_in_the_first_piece_is_a_miss() {
    for len in LENGTHS {
        let server = holding(len);
        damage(&server, len, 100);
        let mut connection = server.open();
        let intact = len - 1000;
        let range = format!("Range: bytes={intact}-\r\n");
        let answer = connection.ask("GET", &target("k"), &range, b"");
        answer.expect_body(206, &body(len)[intact..]);
        connection.ask("GET", &target("k"), "", b"").expect(404);
        connection.ask("GET", &target("other"), "", b"").expect(404);
        // Its first slice is gone, and known to be; ranges that need others are hits still.
        connection.ask("GET", &target("k"), "", b"").expect(404);
        connection.ask("HEAD", &target("k"), "", b"").expect(404);
        let answer = connection.ask("GET", &target("k"), &range, b"");
        answer.expect_body(206, &body(len)[intact..]);
        server.put("k", "If-None-Match: *\r\n", b"not whole: not there").expect(201);
    }
}

#[test]
fn damage_in_the_first_piece_of_a_range_is_a_miss() {
    for len in LENGTHS {
        for ranges in ["3145828-", "3145828-3145900,5242880-"] {
            let server = holding(len);
            damage(&server, len, 3 * MIB + 100);
            server.get("k", "Range: bytes=0-9\r\n").expect_body(206, &body(len)[..10]);
            server.get("k", &format!("Range: bytes={ranges}\r\n")).expect(404);
            // That slice is known to be gone: ranges that need it miss before the first byte.
            server.get("k", "").expect(404);
            server.get("k", "Range: bytes=0-9\r\n").expect_body(206, &body(len)[..10]);
            server.get("k", "Range: bytes=0-9,3145828-3145900\r\n").expect(404);
        }
    }
}
