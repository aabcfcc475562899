//! Goal: an object can be stored part by part over HTTP, and nobody is given a byte that is not there or is of
//! another version. Method: bytes over a real socket to a server on a simulated device, with a clock that the
//! test moves.

use std::time::Duration;

use rawcached::cache::CacheOptions;

use crate::support::http::{Answer, Connection, body, target};
use crate::support::server::{HttpServer, options};

const LEN: usize = 300_000;
const TAG: &str = "ETag: \"v1\"\r\n";

/// Stores the bytes `first..=last` of `whole` under the key `a`.
fn put(server: &HttpServer, (first, last): (usize, usize), whole: &[u8], headers: &str) -> Answer {
    let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", whole.len());
    server.put("a", &format!("{range}{headers}"), &whole[first..=last])
}

fn missing(answer: &Answer) -> Option<&str> {
    answer.header("x-rawcached-missing")
}

#[test]
fn what_is_there_is_206_and_what_is_not_is_named() {
    let server = HttpServer::start();
    let whole = body(LEN);
    let fields = format!("{TAG}Content-Type: text/css\r\nCache-Control: max-age=100\r\n");
    let stored = put(&server, (100_000, 199_999), &whole, &fields).expect(201);
    assert_eq!(stored.header("etag"), Some("\"v1\""));
    let part = server.get("a", "Range: bytes=150000-150099\r\n");
    assert_eq!(part.header("content-range"), Some("bytes 150000-150099/300000"));
    assert_eq!(part.header("content-type"), Some("text/css"));
    part.expect_body(206, &whole[150_000..150_100]);
    let lacking = server.get("a", "").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=0-99999,200000-299999"));
    let lacking = server.ask("HEAD", &target("a"), "", b"").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=0-99999,200000-299999"));
    let lacking = server.get("a", "Range: bytes=90000-210000\r\n").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=90000-99999,200000-210000"));
    let lacking = server.get("a", "Range: bytes=0-9,150000-150009,-5\r\n").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=0-9,299995-299999"));
    server.get("a", "If-None-Match: \"v1\"\r\n").expect(304);
    put(&server, (200_000, LEN - 1), &whole, "If-Match: \"v1\"\r\n").expect(204);
    server.get("a", "Range: bytes=-5\r\n").expect_body(206, &whole[LEN - 5..]);
    put(&server, (0, 120_000), &whole, TAG).expect(204);
    let answer = server.get("a", "").expect_body(200, &whole);
    assert_eq!((answer.header("etag"), missing(&answer)), (Some("\"v1\""), None));
    server.ask("HEAD", &target("a"), "", b"").expect(200);
    assert_eq!(missing(&server.get("b", "").expect(404)), None, "nothing is known of it");
}

#[test]
fn a_part_is_checked_against_what_is_stored() {
    let server = HttpServer::start();
    let (whole, other) = (body(LEN), vec![7; LEN]);
    put(&server, (0, 9), &whole, "If-Match: \"v1\"\r\n").expect(412);
    put(&server, (0, 9), &whole, TAG).expect(201);
    put(&server, (10, 19), &other, "If-Match: \"v2\"\r\n").expect(412);
    put(&server, (10, 19), &other, "If-None-Match: *\r\nETag: \"v1\"\r\n").expect(412);
    put(&server, (10, 19), &other[..LEN - 1], TAG).expect(409);
    let lacking = server.get("a", "Range: bytes=0-19\r\n").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=10-19"), "nothing was joined");
    // Another version that is not older replaces it, an older one does not.
    server.clock.advance(Duration::from_secs(5));
    let older = "ETag: \"v0\"\r\nDate: Fri, 15 Jan 2027 07:59:50 GMT\r\n";
    put(&server, (10, 19), &other, older).expect(409);
    put(&server, (10, 19), &other, "ETag: \"v2\"\r\n").expect(201);
    server.get("a", "Range: bytes=10-19\r\n").expect_body(206, &other[10..20]);
    let lacking = server.get("a", "Range: bytes=0-19\r\n").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=0-9"), "nothing of the old one");
    // A whole object of the same version stays, one of another does not.
    let longer = server.put("a", "ETag: \"v2\"\r\nContent-Range: bytes 0-0/300001\r\n", b"x");
    longer.expect(409);
    server.put("a", "ETag: \"v3\"\r\n", &whole).expect(201);
    put(&server, (0, 9), &other, "ETag: \"v3\"\r\n").expect(204);
    put(&server, (0, 9), &other, "If-Match: \"v3\"\r\n").expect(204);
    put(&server, (0, 9), &other[1..], "ETag: \"v3\"\r\n").expect(409);
    server.get("a", "").expect_body(200, &whole);
    put(&server, (0, 9), &other, "ETag: \"v4\"\r\n").expect(201);
    server.get("a", "").expect(404);
}

#[test]
fn weak_validators_and_wrong_ranges_are_refused() {
    let server = HttpServer::start();
    let minute = "Date: Fri, 15 Jan 2027 08:00:00 GMT\r\nLast-Modified: Fri, 15 Jan 2027 07:59:";
    for validator in [String::new(), "ETag: W/\"v\"\r\n".into(), format!("{minute}01 GMT\r\n")] {
        put(&server, (0, 9), &body(10), &validator).expect(400);
    }
    put(&server, (0, 9), &body(20), &format!("{minute}00 GMT\r\n")).expect(201);
    // The entity tag that was made up for it names it too.
    let tag = server.get("a", "Range: bytes=0-9\r\n").header("etag").unwrap().to_owned();
    put(&server, (10, 14), &body(20), "If-Match: *\r\n").expect(400);
    let several = format!("If-Match: {tag}, \"other\"\r\n");
    put(&server, (10, 14), &body(20), &several).expect(400);
    put(&server, (10, 14), &body(20), &format!("If-Match: {tag}\r\n")).expect(204);
    let both = format!("If-Match: {tag}\r\n{minute}00 GMT\r\n");
    put(&server, (10, 19), &body(20), &both).expect(204);
    server.get("a", "").expect_body(200, &body(20));
    for range in ["bytes 0-9/*", "bytes 0-9/9", "bytes 0-8/20", "bytes 0-10/20", "lines 0-9/20"] {
        let headers = format!("{TAG}Content-Range: {range}\r\n");
        server.put("b", &headers, &body(10)).expect(400);
    }
    server.get("b", "").expect(404);
}

#[test]
fn a_part_of_a_stale_object_validates_it() {
    let server = HttpServer::start();
    let whole = body(1000);
    let fields = format!("{TAG}X-Rawcached-TTL: 10\r\nX-Rawcached-Grace: 1000\r\n");
    put(&server, (0, 499), &whole, &fields).expect(201);
    server.clock.advance(Duration::from_secs(20));
    server.get("a", "Range: bytes=0-9\r\n").expect(404);
    put(&server, (500, 999), &whole, &fields).expect(204);
    let answer = server.get("a", "").expect_body(200, &whole);
    assert_eq!(answer.header("age"), Some("0"));
    // PATCH works on what is not whole, and keeps its parts.
    put(&server, (0, 9), &body(2000), "ETag: \"v2\"\r\n").expect(201);
    server.ask("PATCH", &target("a"), "ETag: \"v3\"\r\n", b"").expect(409);
    for fields in ["X-Rawcached-TTL: 77\r\n", "Content-Type: text/html\r\n"] {
        server.ask("PATCH", &target("a"), fields, b"").expect(204);
        server.get("a", "Range: bytes=0-9\r\n").expect_body(206, &body(2000)[..10]);
    }
}

#[test]
fn of_a_part_that_is_cut_what_came_is_stored() {
    let server = HttpServer::start();
    let whole = body(LEN);
    let mut connection = Connection::open(&server.http);
    let path = target("a");
    connection.send(format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\n{TAG}Content-Range: bytes 1000-299999/{LEN}\r\n\
         Content-Length: 299000\r\n\r\n"
    ));
    connection.send(&whole[1000..150_000]);
    connection.half_close();
    assert!(connection.head().starts_with("HTTP/1.1 400"));
    let lacking = server.get("a", "").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=0-999,150000-299999"));
    // Chunks that are more or fewer bytes than the range are a mistake.
    for chunks in ["5\r\nabcde\r\n0\r\n\r\n", "b\r\nabcdefghijk\r\n0\r\n\r\n"] {
        let mut connection = Connection::open(&server.http);
        connection.send(format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\n{TAG}Content-Range: bytes 0-9/{LEN}\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        assert!(connection.head().starts_with("HTTP/1.1 400"));
    }
}

#[test]
fn many_holes_are_named_up_to_a_limit() {
    let server = HttpServer::start();
    let whole = vec![1; 200 * (128 << 10)];
    for n in 0..150 {
        let stored = put(&server, (n * (128 << 10), n * (128 << 10) + 65535), &whole, TAG);
        stored.expect(if n == 0 { 201 } else { 204 });
    }
    let lacking = server.get("a", "").expect(404);
    let text = missing(&lacking).unwrap();
    assert_eq!(text.split(',').count(), 100);
    assert!(text.ends_with(&format!("-{}", whole.len() - 1)), "{text}");
    // As it is, it asks for what is missing: up to 32 ranges at a time.
    let first: Vec<&str> = text.split(',').take(30).collect();
    let first = first.join(",");
    let lacking = server.get("a", &format!("Range: {first}\r\n")).expect(404);
    assert_eq!(missing(&lacking), Some(&first[..]));
}

#[test]
fn a_part_that_ends_at_once_is_refused_and_changes_nothing() {
    let server = HttpServer::start();
    let whole = body(1000);
    server.put("a", "ETag: \"v0\"\r\n", &whole).expect(201);
    let stale_soon = "ETag: \"v0\"\r\nX-Rawcached-TTL: 1\r\nX-Rawcached-Grace: 99\r\n";
    server.put("b", stale_soon, &whole).expect(201);
    server.clock.advance(Duration::from_secs(2));
    for fields in ["Cache-Control: max-age=0\r\n", "X-Rawcached-TTL: 0\r\n"] {
        for tag in ["ETag: \"v0\"\r\n", "ETag: \"v1\"\r\n"] {
            for key in ["a", "b"] {
                let headers = format!("{tag}{fields}Content-Range: bytes 0-9/1000\r\n");
                server.put(key, &headers, &whole[..10]).expect(422);
            }
        }
    }
    server.get("a", "").expect_body(200, &whole);
    server.get("b", "Cache-Control: max-stale\r\n").expect_body(200, &whole);
    // What is stale at once and kept is an object like others.
    let stale = format!("{TAG}X-Rawcached-TTL: 0\r\nX-Rawcached-Grace: 100\r\n");
    put(&server, (0, 9), &whole, &stale).expect(201);
    let part = "Cache-Control: max-stale\r\nRange: bytes=0-9\r\n";
    server.get("a", part).expect_body(206, &whole[..10]);
}

#[test]
fn a_date_names_the_version_of_a_whole_object_too() {
    let server = HttpServer::start();
    let whole = body(1000);
    let dates = |secs: u32| {
        format!(
            "Date: Fri, 15 Jan 2027 08:00:00 GMT\r\nLast-Modified: Fri, 15 Jan 2027 07:58:{secs:02} GMT\r\n"
        )
    };
    server.put("a", &dates(1), &whole).expect(201);
    put(&server, (0, 9), &vec![7; 1000], &dates(1)).expect(204);
    server.get("a", "").expect_body(200, &whole);
    put(&server, (0, 9), &vec![7; 1000], &dates(2)).expect(201);
    server.get("a", "").expect(404);
}

#[test]
fn a_condition_of_a_range_is_judged_before_what_is_missing() {
    let server = HttpServer::start();
    let whole = body(LEN);
    put(&server, (0, 999), &whole, TAG).expect(201);
    let asked = "Range: bytes=0-9\r\nIf-Range: ";
    server.get("a", &format!("{asked}\"v1\"\r\n")).expect_body(206, &whole[..10]);
    // Of another version all is wanted, which is not there.
    let lacking = server.get("a", &format!("{asked}\"v0\"\r\n")).expect(404);
    assert_eq!(missing(&lacking), Some("bytes=1000-299999"));
}

#[test]
fn ranges_that_are_there_are_answered_whatever_lies_between_them() {
    let server = HttpServer::start();
    let whole = body(1000);
    put(&server, (0, 9), &whole, TAG).expect(201);
    put(&server, (20, 29), &whole, TAG).expect(204);
    let answer = server.get("a", "Range: bytes=0-9,20-29\r\n").expect(206);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("bytes 0-9/1000") && text.contains("bytes 20-29/1000"), "{text}");
    let lacking = server.get("a", "Range: bytes=0-10,20-29\r\n").expect(404);
    assert_eq!(missing(&lacking), Some("bytes=10-10"));
}

#[test]
fn a_part_of_a_whole_object_has_just_the_bytes_that_it_says() {
    let server = HttpServer::start();
    let whole = body(1000);
    server.put("a", TAG, &whole).expect(201);
    let path = target("a");
    for chunks in ["5\r\nabcde\r\n0\r\n\r\n", "b\r\nabcdefghijk\r\n0\r\n\r\n", "ZZ\r\n"] {
        let mut connection = Connection::open(&server.http);
        connection.send(format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\n{TAG}Content-Range: bytes 0-9/1000\r\n\
             Transfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        assert!(connection.head().starts_with("HTTP/1.1 400"), "{chunks}");
    }
    put(&server, (0, 9), &whole, TAG).expect(204);
    let longer = "If-Match: \"v1\"\r\nContent-Range: bytes 0-9/1001\r\n";
    server.put("a", longer, &whole[..10]).expect(412);
    server.put("a", &format!("{TAG}Content-Range: bytes 0-9/1001\r\n"), &whole[..10]).expect(409);
    server.get("a", "").expect_body(200, &whole);
}

#[test]
fn a_part_and_a_whole_store_of_one_version_at_a_time_leave_the_whole() {
    let server = HttpServer::start();
    let whole = body(1000);
    for n in 0..200 {
        let tag = format!("ETag: \"{n}\"\r\n");
        std::thread::scope(|scope| {
            let part = scope.spawn(|| put(&server, (0, 9), &whole, &tag));
            server.put("a", &tag, &whole).expect(201);
            let part = part.join().unwrap();
            // What the whole one replaced meanwhile is gone: 503.
            assert!([201, 204, 503].contains(&part.status), "{}", part.status);
        });
        // Either the whole one came last, or the part was of a whole one.
        server.get("a", "").expect_body(200, &whole);
    }
}

#[test]
fn a_part_names_the_version_by_its_etag_then_by_if_match_then_by_its_date() {
    let server = HttpServer::start();
    let whole = body(100);
    put(&server, (0, 9), &whole, TAG).expect(201);
    let dates =
        "Date: Fri, 15 Jan 2027 08:00:00 GMT\r\nLast-Modified: Fri, 15 Jan 2027 07:00:00 GMT\r\n";
    put(&server, (10, 19), &whole, &format!("If-Match: \"v1\"\r\n{dates}")).expect(204);
    server.get("a", "Range: bytes=0-19\r\n").expect_body(206, &whole[..20]);
    // The validator may come again with an update.
    let fields = format!("{TAG}Cache-Control: max-age=600\r\n");
    server.ask("PATCH", &target("a"), &fields, b"").expect(204);
    let answer = server.get("a", "Range: bytes=0-19\r\n").expect_body(206, &whole[..20]);
    assert_eq!(answer.header("cache-control"), Some("max-age=600"));
    put(&server, (0, 9), &whole, dates).expect(201);
    server.ask("PATCH", &target("a"), dates, b"").expect(204);
    let other = dates.replace("07:00", "07:01");
    server.ask("PATCH", &target("a"), &other, b"").expect(409);
}

#[test]
fn a_validation_without_a_lifetime_begins_the_age_anew() {
    let server = HttpServer::start();
    for (key, range) in [("a", ""), ("b", "Content-Range: bytes 0-9/10\r\n")] {
        let headers = format!("{TAG}{range}X-Rawcached-TTL: 1000\r\n");
        server.put(key, &headers, &body(10)).expect(201);
    }
    server.clock.advance(Duration::from_secs(300));
    let date = "Date: Fri, 15 Jan 2027 08:05:00 GMT\r\n";
    for key in ["a", "b"] {
        assert_eq!(server.get(key, "").expect(200).header("age"), Some("300"));
        server.ask("PATCH", &target(key), date, b"").expect(204);
        assert_eq!(server.get(key, "").expect(200).header("age"), Some("0"), "{key}");
    }
    server.clock.advance(Duration::from_secs(699));
    server.get("a", "").expect(200);
    server.clock.advance(Duration::from_secs(2));
    server.get("a", "").expect(404);
}

#[test]
fn a_part_that_is_there_is_flushed_if_that_is_asked_for() {
    let hour = Duration::from_secs(3600);
    let slow = options!(CacheOptions { flush_interval: hour, ..CacheOptions::default() });
    let server = HttpServer::of_cache(options(), slow);
    let whole = body(1000);
    server.put("a", TAG, &whole).expect(201);
    put(&server, (0, 9), &whole, &format!("{TAG}X-Rawcached-Ack: flushed\r\n")).expect(204);
    let device = server.device.contents(0..128 << 20);
    assert!(device.windows(whole.len()).any(|bytes| bytes == &whole[..]), "it is on the device");
}
