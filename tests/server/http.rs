//! Goal: objects are stored, read, changed and removed over HTTP as `docs/http.md` says. Method:
//! bytes over a real socket to a server on a simulated device, with a clock that the test moves.

use std::time::Duration;

use crate::support::http::{body, target};
use crate::support::server::HttpServer;
use rawcached::device::Delay;

/// The server's clock at the start, as a date.
const START: &str = "Fri, 15 Jan 2027 08:00:00 GMT";

#[test]
fn an_object_comes_back_with_its_headers() {
    let server = HttpServer::start();
    let kept = "Content-Type: text/css\r\nContent-Encoding: br\r\nContent-Language: de\r\n\
                Content-Disposition: inline\r\nETag: \"v1\"\r\n\
                Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: max-age=90\r\n\
                Expires: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Tag: a, b\r\nSurrogate-Key: c d\r\n";
    let dropped = "Connection: keep-alive\r\nAuthorization: x\r\nCookie: x\r\nX-Other: x\r\n\
                   Set-Cookie: x\r\n";
    let stored = server.put("a", &format!("{kept}{dropped}"), b"hello").expect(201);
    assert_eq!(stored.header("etag"), Some("\"v1\""));
    let answer = server.get("a", "").expect_body(200, b"hello");
    for line in kept.trim_end().split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for line in dropped.trim_end().split("\r\n") {
        let name = line.split(':').next().unwrap();
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("age"), Some("0"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert!(answer.header("date").is_some());
    let head = server.ask("HEAD", &target("a"), "", b"").expect_body(200, b"");
    let without_date = |headers: &[(String, String)]| {
        let mut rest = headers.to_vec();
        rest.retain(|(name, _)| name != "date");
        rest
    };
    assert_eq!(without_date(&head.headers), without_date(&answer.headers));
}

#[test]
fn what_the_client_does_not_say_is_made_up() {
    let server = HttpServer::start();
    let tag = server.put("a", "", b"one").expect(201).header("etag").unwrap().to_owned();
    server.clock.advance(Duration::from_secs(7));
    let answer = server.get("a", "").expect_body(200, b"one");
    assert_eq!(answer.header("etag"), Some(tag.as_str()));
    assert_eq!(answer.header("last-modified"), Some(START));
    assert_eq!(answer.header("age"), Some("7"));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    server.put("a", "", b"one").expect(201);
    assert_ne!(server.get("a", "").header("etag"), Some(tag.as_str()), "another version");
}

#[test]
fn objects_of_all_sizes_come_back_whole_and_in_parts() {
    let server = HttpServer::start();
    let mut connection = server.open();
    for len in [0, 1, 4096, 65_536, 1 << 20, (1 << 20) + 1, 3_500_000] {
        let sent = body(len);
        connection.ask("PUT", &target("k"), "", &sent).expect(201);
        connection.ask("GET", &target("k"), "", b"").expect_body(200, &sent);
        let head = connection.ask("HEAD", &target("k"), "", b"").expect(200);
        assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
        for (first, last) in [(0, 0), (len / 2, len - len / 3), (len.saturating_sub(1), len)] {
            let end = len.min(last + 1);
            let range = format!("Range: bytes={first}-{last}\r\n");
            let answer = connection.ask("GET", &target("k"), &range, b"");
            if len == 0 {
                assert_eq!(answer.expect_body(200, b"").header("content-range"), None);
                continue;
            }
            let answer = answer.expect_body(206, &sent[first..end]);
            let expected = format!("bytes {first}-{}/{len}", end - 1);
            assert_eq!(answer.header("content-range"), Some(expected.as_str()));
        }
        let past = connection.ask("GET", &target("k"), &format!("Range: bytes={len}-\r\n"), b"");
        let past = past.expect(if len == 0 { 200 } else { 416 });
        let expected = (len > 0).then(|| format!("bytes */{len}"));
        assert_eq!(past.header("content-range"), expected.as_deref());
    }
}

#[test]
fn several_ranges_come_as_multipart() {
    let server = HttpServer::start();
    for len in [9000, 3_500_000] {
        let sent = body(len);
        server.put("k", "Content-Type: text/css\r\n", &sent).expect(201);
        let last = len - 100;
        let range = format!("Range: bytes=-100,0-9,4000-4999,{}-{last}\r\n", last - 200);
        let answer = server.get("k", &range).expect(206);
        let content_type = answer.header("content-type").unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for (first, end) in [(0, 10), (4000, 5000), (last - 200, len)] {
            expected.extend_from_slice(
                format!(
                    "\r\n--{boundary}\r\nContent-Range: bytes {first}-{}/{len}\r\n\
                     Content-Type: text/css\r\n\r\n",
                    end - 1
                )
                .as_bytes(),
            );
            expected.extend_from_slice(&sent[first..end]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.body == expected, "{len}: {}", answer.body.len());
    }
    let many: Vec<String> = (0..40).map(|n| format!("{}-{}", n * 200, n * 200)).collect();
    let range = format!("Range: bytes={}\r\n", many.join(","));
    server.get("k", &range).expect_body(200, &body(3_500_000));
}

#[test]
fn preconditions_of_readers_are_kept() {
    let server = HttpServer::start();
    server.put("k", "ETag: \"v1\"\r\nCache-Control: max-age=60\r\n", b"0123456789").expect(201);
    let answer = server.get("k", "If-None-Match: \"v1\"\r\n").expect_body(304, b"");
    assert_eq!(answer.header("etag"), Some("\"v1\""));
    assert_eq!(answer.header("cache-control"), Some("max-age=60"));
    assert_eq!(answer.header("content-type"), None);
    server.get("k", "If-None-Match: \"v2\"\r\n").expect(200);
    server.get("k", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n").expect(200);
    server.get("k", "If-Match: \"v2\"\r\n").expect(412);
    server.get("k", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n").expect(412);
    let range = "Range: bytes=2-3\r\n";
    server.get("k", &format!("{range}If-Range: \"v1\"\r\n")).expect_body(206, b"23");
    server.get("k", &format!("{range}If-Range: \"v2\"\r\n")).expect_body(200, b"0123456789");
    let by_date = format!("{range}If-Range: {START}\r\n");
    server.get("k", &by_date).expect_body(200, b"0123456789");
    server.put("dated", &format!("Last-Modified: {START}\r\n"), b"0123456789").expect(201);
    server.get("dated", &by_date).expect_body(200, b"0123456789");
    server.clock.advance(Duration::from_secs(1));
    server.put("dated", &format!("Last-Modified: {START}\r\n"), b"0123456789").expect(201);
    server.get("dated", &by_date).expect_body(206, b"23");
    server.get("dated", &format!("If-Modified-Since: {START}\r\n")).expect(304);
    server.get("dated", &format!("If-Unmodified-Since: {START}\r\n")).expect(200);
    server.get("k", &format!("{range}If-None-Match: \"v1\"\r\n")).expect(304);
    let head = format!("{range}If-None-Match: \"v2\"\r\n");
    server.ask("HEAD", &target("k"), &head, b"").expect(200);
}

#[test]
fn preconditions_of_writers_are_kept() {
    let server = HttpServer::start();
    server.put("k", "If-Match: *\r\n", b"no").expect(412);
    server.put("k", "If-None-Match: *\r\nETag: \"v1\"\r\n", b"one").expect(201);
    server.put("k", "If-None-Match: *\r\n", b"two").expect(412);
    server.put("k", "If-Match: \"v0\"\r\n", b"two").expect(412);
    server.get("k", "").expect_body(200, b"one");
    server.put("k", "If-Match: \"v1\"\r\nETag: \"v2\"\r\n", b"two").expect(204);
    server.get("k", "").expect_body(200, b"two");
    let delete = |headers: &str| server.ask("DELETE", &target("k"), headers, b"");
    delete("If-Match: \"v1\"\r\n").expect(412);
    delete("If-Match: \"v2\"\r\n").expect(204);
    server.get("k", "").expect(404);
}

#[test]
fn a_store_that_another_overtakes_does_not_replace_it() {
    let server = HttpServer::start();
    for present in [false, true] {
        if present {
            server.put("k", "ETag: \"v1\"\r\n", b"old").expect(201);
        }
        let condition = if present { "If-Match: \"v1\"" } else { "If-None-Match: *" };
        let mut slow = server.open();
        slow.send(format!(
            "PUT /v1/objects/k HTTP/1.1\r\nHost: x\r\n{condition}\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n"
        ));
        slow.answer("PUT").expect(100);
        server.put("k", "", b"fast").expect(201);
        slow.send("slow");
        slow.answer("PUT").expect(412);
        server.get("k", "").expect_body(200, b"fast");
        server.ask("DELETE", &target("k"), "", b"").expect(204);
    }
}

#[test]
fn lifetimes_come_from_the_headers() {
    let server = HttpServer::start();
    let cases = [
        ("", 3600),
        ("Cache-Control: max-age=50\r\n", 50),
        ("Cache-Control: max-age=50, s-maxage=20\r\n", 20),
        ("X-Rawcached-TTL: 30\r\nCache-Control: max-age=50\r\n", 30),
        ("Expires: Sun, 06 Nov 1994 08:49:47 GMT\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 10),
    ];
    for (headers, secs) in cases {
        server.put("k", headers, b"x").expect(201);
        server.clock.advance(Duration::from_secs(secs - 1));
        server.get("k", "").expect(200);
        server.clock.advance(Duration::from_secs(1));
        server.get("k", "").expect(404);
    }
    server.put("k", "Cache-Control: no-store\r\n", b"x").expect(422);
    server.put("k", "Cache-Control: private\r\n", b"x").expect(422);
    server.put("k", "X-Rawcached-TTL: soon\r\n", b"x").expect(400);
    server.put("k", "X-Rawcached-Ack: maybe\r\n", b"x").expect(400);
    server.get("k", "").expect(404);
    server.put("k", "X-Rawcached-Ack: flushed\r\n", b"x").expect(201);
}

#[test]
fn stale_objects_are_for_those_that_ask() {
    let server = HttpServer::start();
    let control = "Cache-Control: max-age=10, stale-while-revalidate=60\r\n";
    server.put("k", control, b"x").expect(201);
    server.clock.advance(Duration::from_secs(20));
    server.get("k", "").expect(404);
    let answer = server.get("k", "Cache-Control: max-stale\r\n").expect_body(200, b"x");
    assert_eq!(answer.header("age"), Some("20"));
    server.get("k", "Cache-Control: max-stale=10\r\n").expect(200);
    server.get("k", "Cache-Control: max-stale=9\r\n").expect(404);
    server.ask("HEAD", &target("k"), "Cache-Control: max-stale=10\r\n", b"").expect(200);
    server.ask("HEAD", &target("k"), "Cache-Control: max-stale=9\r\n", b"").expect(404);
    let patch = |headers: &str| server.ask("PATCH", &target("k"), headers, b"");
    patch("Content-Type: a/b\r\n").expect(404);
    patch("X-Rawcached-Grace: 600\r\n").expect(404);
    server.clock.advance(Duration::from_secs(49));
    server.get("k", "Cache-Control: max-stale\r\n").expect_body(200, b"x");
    server.clock.advance(Duration::from_secs(1));
    server.get("k", "Cache-Control: max-stale\r\n").expect(404);
    server.put("k", control, b"y").expect(201);
    server.clock.advance(Duration::from_secs(20));
    server.put("k", "If-None-Match: *\r\n", b"stale counts as absent").expect(201);
    server.clock.advance(Duration::from_secs(4000));
    server.get("k", "Cache-Control: max-stale\r\n").expect(404);
}

#[test]
fn delete_and_purge_remove() {
    let server = HttpServer::start();
    for method in ["DELETE", "PURGE"] {
        server.put("k", "", b"x").expect(201);
        server.ask(method, &target("k"), "", b"").expect(204);
        server.get("k", "").expect(404);
        server.ask(method, &target("k"), "", b"").expect(404);
    }
}

#[test]
fn patch_changes_the_lifetime_in_place() {
    let server = HttpServer::start();
    let patch = |headers: &str| server.ask("PATCH", &target("k"), headers, b"");
    patch("X-Rawcached-TTL: 5\r\n").expect(404);
    server.put("k", "Cache-Control: max-age=10\r\n", &body(2_500_000)).expect(201);
    let written = server.cache.stats().store.counters.body_bytes;
    patch("X-Rawcached-TTL: 100\r\nX-Rawcached-Grace: 50\r\n").expect(204);
    assert_eq!(server.cache.stats().store.counters.body_bytes, written);
    server.clock.advance(Duration::from_secs(99));
    server.get("k", "").expect_body(200, &body(2_500_000));
    server.clock.advance(Duration::from_secs(30));
    server.get("k", "").expect(404);
    server.get("k", "Cache-Control: max-stale\r\n").expect(200);
    patch("").expect(400);
    patch("X-Other: 5\r\n").expect(400);
    patch("X-Rawcached-TTL: 5\r\nX-Rawcached-Ack: maybe\r\n").expect(400);
    server.ask("PATCH", &target("k"), "X-Rawcached-TTL: 5\r\n", b"body").expect(400);
}

#[test]
fn patch_replaces_headers_and_keeps_the_rest() {
    let server = HttpServer::start();
    for len in [3, 2_500_000] {
        let headers = "Content-Type: text/css\r\nCache-Tag: a\r\nCache-Control: max-age=10\r\n";
        let tag = server.put("k", headers, &body(len)).expect(201);
        let tag = tag.header("etag").unwrap().to_owned();
        let modified = server.get("k", "").header("last-modified").unwrap().to_owned();
        server.clock.advance(Duration::from_secs(5));
        let patch = |headers: &str| server.ask("PATCH", &target("k"), headers, b"");
        patch("Cache-Tag:\r\nContent-Type: text/html\r\n").expect(204);
        let answer = server.get("k", "").expect_body(200, &body(len));
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("cache-tag"), None);
        assert_eq!(answer.header("cache-control"), Some("max-age=10"));
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
        assert_eq!(answer.header("last-modified"), Some(modified.as_str()));
        assert_eq!(answer.header("age"), Some("5"), "headers alone refresh nothing");
        patch("If-Match: \"other\"\r\nContent-Type: x/y\r\n").expect(412);
        patch("If-Match: \"other\"\r\nX-Rawcached-TTL: 9\r\n").expect(412);
        server.clock.advance(Duration::from_secs(5));
        server.get("k", "").expect(404);
        server.put("k", "Cache-Control: max-age=10, stale-if-error=60\r\n", b"x").expect(201);
        server.clock.advance(Duration::from_secs(20));
        patch("Cache-Control: max-age=30\r\n").expect(204);
        let answer = server.get("k", "").expect_body(200, b"x");
        assert_eq!(answer.header("age"), Some("0"), "a new lifetime is a validation");
    }
}

#[test]
fn a_patch_does_not_bring_back_what_was_replaced_meanwhile() {
    let server = HttpServer::without_ram();
    let old = body(3_900_000);
    for _ in 0..4 {
        server.put("k", "", &old).expect(201);
        // The open region is read from memory: fill it up.
        server.put("filler", "", &old).expect(201);
        server.put("filler", "X-Rawcached-Ack: flushed\r\n", &old).expect(201);
        // The copy reads four slices, the store at most the header of what it replaces.
        server.device.set_delay(Delay::Sleep(Duration::from_millis(300)));
        std::thread::scope(|scope| {
            let change = "Content-Type: text/html\r\n";
            let patch = scope.spawn(|| server.ask("PATCH", &target("k"), change, b""));
            std::thread::sleep(Duration::from_millis(100));
            server.put("k", "Content-Type: text/css\r\n", b"new").expect(201);
            patch.join().unwrap().expect(204);
        });
        server.device.set_delay(Delay::None);
        server.get("k", "").expect_body(200, b"new");
    }
}

#[test]
fn age_and_expires_count_from_the_date() {
    let server = HttpServer::start();
    let headers = "Expires: Fri, 15 Jan 2027 08:01:40 GMT\r\n";
    server.put("k", headers, b"x").expect(201);
    server.clock.advance(Duration::from_secs(60));
    for conditions in ["", "If-None-Match: *\r\n"] {
        let answer = server.get("k", conditions);
        assert_eq!(answer.header("date"), Some(START));
        assert_eq!(answer.header("age"), Some("60"));
        assert_eq!(answer.header("expires"), Some("Fri, 15 Jan 2027 08:01:40 GMT"));
    }
    server.clock.advance(Duration::from_secs(40));
    server.get("k", "").expect(404);
}

#[test]
fn calendar_times_go_by_the_wall_clock_of_the_moment() {
    let server = HttpServer::start();
    // Ahead by years at the start, set right now.
    server.clock.set_wall(784_111_777);
    server.put("k", "Expires: Sun, 06 Nov 1994 08:49:47 GMT\r\n", b"x").expect(201);
    server.clock.advance(Duration::from_secs(9));
    let answer = server.get("k", "").expect_body(200, b"x");
    for name in ["date", "last-modified"] {
        assert_eq!(answer.header(name), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{name}");
    }
    assert_eq!(answer.header("age"), Some("9"));
    server.clock.advance(Duration::from_secs(1));
    server.get("k", "").expect(404);
    // Behind at the store, set right later: nothing moves but the dates that are shown.
    server.put("k", "Expires: Sun, 06 Nov 1994 08:50:47 GMT\r\n", b"x").expect(201);
    server.clock.set_wall(1_800_000_000);
    let answer = server.get("k", "").expect(200);
    assert_eq!(answer.header("last-modified"), Some(START));
    server.clock.advance(Duration::from_secs(59));
    server.get("k", "").expect(200);
    server.clock.advance(Duration::from_secs(1));
    server.get("k", "").expect(404);
    // Dates that HTTP cannot write, and a year that 32 bits do not hold.
    server.put("k", "", b"x").expect(201);
    for (wall, date) in [
        (-5_000_000_000, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (1 << 50, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ((1 << 32) + 4, "Sun, 07 Feb 2106 06:28:20 GMT"),
    ] {
        server.clock.set_wall(wall);
        assert_eq!(server.get("k", "").expect(200).header("date"), Some(date));
        let expires = "Expires: Sun, 07 Feb 2106 06:28:21 GMT\r\n";
        server.put("later", expires, b"x").expect(201);
        server.get("later", "").expect(if wall < 1 << 40 { 200 } else { 404 });
    }
}

#[test]
fn a_clock_that_was_set_back_does_not_make_a_newer_version_pass_for_an_older_one() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    let date = server.get("k", "").header("last-modified").unwrap().to_owned();
    server.clock.set_wall(1_800_000_000 - 3600);
    server.put("k", "", b"new").expect(201);
    server.get("k", &format!("If-Modified-Since: {date}\r\n")).expect_body(200, b"new");
    server.put("k", &format!("If-Unmodified-Since: {date}\r\n"), b"made of old").expect(412);
}

#[test]
fn both_protocols_share_their_entries() {
    let server = HttpServer::start();
    let mut memcached = server.connect();
    server.put("k", "Content-Type: text/css\r\nETag: \"v1\"\r\n", b"12").expect(201);
    memcached.ask("get k\r\n", "VALUE k 0 2\r\n12\r\nEND\r\n");
    memcached.ask("append k 0 0 1\r\n3\r\n", "STORED\r\n");
    let answer = server.get("k", "").expect_body(200, b"123");
    let tag = answer.header("etag").unwrap();
    assert!(tag.len() > 2 && tag != "\"v1\"", "the tag was of another body: {tag}");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let changes = [
        ("prepend k 0 0 1\r\n9\r\n", "STORED\r\n", "912"),
        ("incr k 1\r\n", "13\r\n", "13"),
        ("decr k 1\r\n", "11\r\n", "11"),
    ];
    for headers in ["ETag: \"v1\"\r\n", ""] {
        for (command, reply, body) in changes {
            let tag = server.put("k", headers, b"12").expect(201).header("etag").map(str::to_owned);
            memcached.ask(command, reply);
            let changed = server.get("k", "").expect_body(200, body.as_bytes());
            assert!(changed.header("etag").is_some() && changed.header("etag") != tag.as_deref());
        }
    }
    memcached.ask("set k 7 0 3\r\nabc\r\n", "STORED\r\n");
    let answer = server.get("k", "").expect_body(200, b"abc");
    assert_eq!(answer.header("x-rawcached-flags"), Some("7"));
    let tag = answer.header("etag").unwrap().to_owned();
    server.get("k", &format!("If-None-Match: {tag}\r\n")).expect(304);
    memcached.ask("set k 0 0 3\r\nabc\r\n", "STORED\r\n");
    let answer = server.get("k", &format!("If-None-Match: {tag}\r\n")).expect(200);
    assert_eq!(answer.header("x-rawcached-flags"), None);
    server.ask("DELETE", &target("k"), "", b"").expect(204);
    memcached.ask("get k\r\n", "END\r\n");
}

#[test]
fn keys_are_percent_decoded_bytes() {
    let server = HttpServer::start();
    server.put("a/b%20c%00%ff?", "", b"no").expect(400);
    server.put("a/b%20c%00%ff%3F", "", b"x").expect(201);
    server.get("%61%2Fb%20c%00%FF%3f", "").expect_body(200, b"x");
    let hit = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(hit.block_on(server.cache.lookup(b"a/b c\0\xff?")).is_some());
    let long = "k".repeat(4096);
    server.put(&long, "", b"long").expect(201);
    server.get(&long, "").expect_body(200, b"long");
    server.put(&format!("{long}k"), "", b"long").expect(414);
    server.get("", "").expect(400);
    server.get("%zz", "").expect(400);
    server.ask("GET", "/", "", b"").expect(404);
    server.ask("GET", "/v2/objects/a", "", b"").expect(404);
    let answer = server.ask("POST", &target("k"), "", b"body").expect(405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT, PATCH, DELETE, PURGE"));
}

#[test]
fn headers_to_be_kept_have_a_limit() {
    let server = HttpServer::start();
    let fits = format!("Cache-Tag: {}\r\n", "a".repeat(60_000));
    server.put("k", &fits, b"x").expect(201);
    assert_eq!(server.get("k", "").expect(200).header("cache-tag").unwrap().len(), 60_000);
    let too_long = format!("{fits}Surrogate-Key: {}\r\n", "b".repeat(6000));
    server.put("k", &too_long, b"y").expect(431);
    server.get("k", "").expect_body(200, b"x");
    server.put("k", "ETag: v1\r\n", b"y").expect(400);
}
