//! Goal: the headers of an object keep their meaning: for how long it lives, who may have it, which
//! version it is. Method: bytes over a real socket to a server with a clock that the test moves.

use std::time::{Duration, UNIX_EPOCH};

use crate::support::http::{Answer, target};
use crate::support::server::HttpServer;

/// The server's clock at the start, in seconds since 1970.
const START: u64 = 1_800_000_000;
const STALE: &str = "Cache-Control: max-stale=300\r\n";

/// A date so many seconds before or after the server's start.
fn date(secs: i64) -> String {
    let at = START.checked_add_signed(secs).unwrap();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at))
}

#[track_caller]
fn patch(server: &HttpServer, headers: &str) -> Answer {
    server.ask("PATCH", &target("k"), headers, b"")
}

fn advance(server: &HttpServer, secs: u64) {
    server.clock.advance(Duration::from_secs(secs));
}

/// For how many seconds a cache takes an answer to be fresh that has no `Cache-Control`.
#[track_caller]
fn lifetime_for_others(answer: &Answer) -> i64 {
    let secs = |name: &str| {
        let at = httpdate::parse_http_date(answer.header(name).unwrap()).unwrap();
        i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
    };
    secs("expires") - secs("date")
}

#[test]
fn what_a_patch_takes_back_is_gone() {
    let server = HttpServer::start();
    let old = "Cache-Control: max-age=10, stale-while-revalidate=600\r\n";
    for new in [
        "max-age=10, must-revalidate",
        "max-age=10",
        "no-cache",
        "must-revalidate",
        "max-age=10, stale-if-error=600, proxy-revalidate",
        "s-maxage=10, stale-while-revalidate=600",
        "max-age=10, stale-if-error=600; must-revalidate",
    ] {
        server.put("k", old, b"old promise").expect(201);
        patch(&server, &format!("Cache-Control: {new}\r\n")).expect(204);
        let answer = server.get("k", "");
        match new {
            "no-cache" => drop(answer.expect(404)),
            _ => assert_eq!(answer.expect(200).header("cache-control"), Some(new)),
        }
        advance(&server, 11);
        assert_eq!(server.get("k", STALE).status, 404, "{new}");
    }
    // What is not taken back stays, also where another header is changed.
    for new in
        ["max-age=10, stale-if-error=600", "max-age=10, no-cache=\"set-cookie\", stale-if-error=9"]
    {
        server.put("k", old, b"x").expect(201);
        patch(&server, &format!("Cache-Control: {new}\r\n")).expect(204);
        advance(&server, 11);
        server.get("k", STALE).expect(200);
    }
    server.put("k", old, b"x").expect(201);
    patch(&server, "Content-Type: a/b\r\n").expect(204);
    advance(&server, 11);
    server.get("k", STALE).expect(200);
}

#[test]
fn no_grace_without_consent() {
    let server = HttpServer::start();
    for control in [
        "no-cache, stale-while-revalidate=600",
        "s-maxage=10, stale-while-revalidate=600",
        "max-age=10, stale-if-error=600, must-revalidate",
    ] {
        server.put("k", &format!("Cache-Control: {control}\r\n"), b"x").expect(201);
        advance(&server, 11);
        assert_eq!(server.get("k", STALE).status, 404, "{control}");
        let given = format!("Cache-Control: {control}\r\nX-Rawcached-Grace: 60\r\n");
        server.put("k", &given, b"x").expect(201);
        advance(&server, 11);
        server.get("k", STALE).expect(200);
    }
}

#[test]
fn the_lifetime_of_a_patched_object_is_that_of_all_its_headers() {
    let server = HttpServer::start();
    let hour = date(3600);
    for (new, secs) in [
        (format!("Expires: {hour}\r\n"), 20),
        ("Cache-Control: max-age=3600, s-maxage=20\r\n".to_owned(), 20),
        (format!("Date: {}\r\n", date(0)), 20),
        (format!("Cache-Control:\r\nExpires: {}\r\n", date(65)), 60),
        (format!("Cache-Control: public\r\nExpires: {hour}\r\nDate: {}\r\n", date(3570)), 30),
        ("X-Rawcached-TTL: 40\r\nCache-Control: max-age=9\r\n".to_owned(), 40),
        // Nothing is said anew: the old end stays.
        ("Content-Type: a/b\r\n".to_owned(), 15),
        ("Cache-Control: public\r\n".to_owned(), 15),
        ("Cache-Control: max-age\r\n".to_owned(), 0),
    ] {
        let server_start = HttpServer::start();
        server_start.put("k", "Cache-Control: max-age=20\r\n", b"x").expect(201);
        advance(&server_start, 5);
        patch(&server_start, &new).expect(204);
        if secs > 0 {
            advance(&server_start, secs - 1);
            assert_eq!(server_start.get("k", "").status, 200, "{new}");
            advance(&server_start, 1);
        }
        assert_eq!(server_start.get("k", "").status, 404, "{new}");
    }
    // `Expires` is a moment: a validation does not move it.
    let dates = format!("Expires: {}\r\nDate: {}\r\n", date(-7140), date(-7200));
    server.put("k", &format!("{dates}Cache-Control: max-age=3000\r\n"), b"x").expect(201);
    advance(&server, 20);
    patch(&server, "Cache-Control: public\r\n").expect(204);
    assert_eq!(lifetime_for_others(&server.get("k", "").expect(200)), 40);
    advance(&server, 39);
    server.get("k", "").expect(200);
    advance(&server, 1);
    server.get("k", "").expect(404);
}

#[test]
fn a_patch_that_forbids_storing_removes_the_object() {
    let server = HttpServer::start();
    for headers in ["Cache-Control: no-store\r\n", "Cache-Control: private\r\n", "Vary: *\r\n"] {
        server.put("k", "ETag: \"v1\"\r\n", b"x").expect(201);
        patch(&server, &format!("If-Match: \"v2\"\r\n{headers}")).expect(412);
        server.get("k", "").expect(200);
        patch(&server, headers).expect(422);
        server.get("k", STALE).expect(404);
    }
    server.put("k", "", b"x").expect(201);
    patch(&server, "Cache-Control: no-store\r\nX-Rawcached-TTL: 9\r\n").expect(204);
    patch(&server, "Content-Type: a/b\r\n").expect(204);
    server.get("k", "").expect(200);
}

#[test]
fn quoted_text_is_no_directive() {
    let server = HttpServer::start();
    for control in
        [r#"note="a\"", no-store"#, r#"a="\"b", private, c="d\"""#, r#"note="x, no-store"#]
    {
        server.put("k", &format!("Cache-Control: {control}\r\n"), b"x").expect(422);
    }
    server.put("k", "Cache-Control: note=\"a\\\", no-store, b\"\r\n", b"x").expect(201);
    server.put("k", "Cache-Control: note=\"5\\\" disk\", max-age=10\r\n", b"x").expect(201);
    advance(&server, 10);
    server.get("k", "").expect(404);
}

#[test]
fn fields_for_one_reader_are_given_to_nobody() {
    let server = HttpServer::start();
    let headers = "Cache-Control: max-age=60, private=\"Cache-Tag, X\", no-cache=\"Content-Location\"\r\n\
                   Cache-Tag: secret\r\nContent-Location: /me\r\nContent-Language: de\r\n";
    server.put("k", headers, b"x").expect(201);
    let check = |answer: Answer| {
        assert_eq!(answer.header("cache-tag"), None);
        assert_eq!(answer.header("content-location"), None);
        answer
    };
    let answer = check(server.get("k", "").expect_body(200, b"x"));
    assert_eq!(answer.header("content-language"), Some("de"));
    check(server.ask("HEAD", &target("k"), "", b"").expect(200));
    check(server.get("k", "If-None-Match: *\r\n").expect(304));
    patch(&server, "Cache-Tag: other\r\nContent-Location: /you\r\n").expect(204);
    check(server.get("k", "").expect(200));
    patch(&server, "Cache-Control: max-age=60, private=content-language\r\n").expect(204);
    assert_eq!(server.get("k", "").expect(200).header("content-language"), None);
    for whole in ["private=\"vary\"", "private=\"\"", "private=\"a b\""] {
        server.put("k", &format!("Cache-Control: {whole}\r\nVary: a\r\n"), b"x").expect(422);
    }
}

#[test]
fn a_clock_that_is_wrong_at_the_origin_does_not_change_the_lifetime() {
    for off in [-7200, 0, 7200] {
        let server = HttpServer::start();
        let dates = format!("Date: {}\r\nExpires: {}\r\n", date(off), date(off + 60));
        server.put("k", &dates, b"x").expect(201);
        advance(&server, 7);
        for conditions in ["", "If-None-Match: *\r\n"] {
            let answer = server.get("k", conditions);
            assert_eq!(answer.header("date"), Some(date(off).as_str()), "{off} {conditions}");
            assert_eq!(lifetime_for_others(&answer), 60, "{off} {conditions}");
            assert_eq!(answer.header("age"), Some("7"));
        }
        // Confirmed without a new date: the origin's clock has moved on as this one has.
        patch(&server, "X-Rawcached-TTL: 90\r\nContent-Type: a/b\r\n").expect(204);
        let answer = server.get("k", "").expect(200);
        assert_eq!((answer.header("age"), lifetime_for_others(&answer)), (Some("0"), 53));
        let renewed = format!("Date: {}\r\nExpires: {}\r\n", date(off + 7), date(off + 27));
        patch(&server, &renewed).expect(204);
        assert_eq!(lifetime_for_others(&server.get("k", "").expect(200)), 20);
    }
    let server = HttpServer::start();
    for no_date in ["", "Date: soon\r\n"] {
        server.put("k", &format!("{no_date}Expires: {}\r\n", date(60)), b"x").expect(201);
        assert_eq!(server.get("k", "").header("date"), Some(date(0).as_str()));
    }
}

#[test]
fn vary_is_kept_and_a_star_is_refused() {
    let server = HttpServer::start();
    let headers = "Vary: Accept-Encoding\r\nVary: X-A, X-B\r\n";
    server.put("k", headers, b"x").expect(201);
    for (conditions, status) in [("", 200), ("If-None-Match: *\r\n", 304)] {
        let answer = server.get("k", conditions).expect(status);
        let lines = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
        let values: Vec<_> = lines.map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["Accept-Encoding", "X-A, X-B"]);
    }
    for star in ["Vary: *\r\n", "Vary: a, *\r\nX-Rawcached-TTL: 9\r\n", "Vary: a\r\nVary: *\r\n"] {
        server.put("k", star, b"y").expect(422);
        server.get("k", "").expect_body(200, b"x");
    }
    patch(&server, "Vary: Accept\r\n").expect(204);
    assert_eq!(server.get("k", "").header("vary"), Some("Accept"));
}

#[test]
fn a_header_of_one_value_that_comes_twice_is_refused() {
    let server = HttpServer::start();
    server.put("k", "", b"old").expect(201);
    let (earlier, later) = (date(-900), date(-90));
    for (name, values) in [
        ("Content-Type", ["text/html", "text/plain"]),
        ("Content-Type", ["text/html", "text/html"]),
        ("ETag", ["\"one\"", "\"two\""]),
        ("Last-Modified", [&earlier, &later]),
        ("Expires", [&earlier, &later]),
        ("Date", [&earlier, &later]),
        ("Content-Location", ["/a", "/b"]),
        ("Content-Disposition", ["inline", "attachment"]),
        ("X-Rawcached-TTL", ["5", "6"]),
        ("X-Rawcached-Grace", ["5", "5"]),
        ("X-Rawcached-Ack", ["flushed", "buffered"]),
    ] {
        let lines: String = values.map(|value| format!("{name}: {value}\r\n")).concat();
        server.put("k", &lines, b"new").expect(400);
        patch(&server, &format!("X-Rawcached-TTL: 9\r\n{lines}")).expect(400);
        server.get("k", "").expect_body(200, b"old");
    }
    for (name, value) in
        [("Range", "bytes=0-1"), ("If-Range", "\"a\""), ("If-Modified-Since", &later)]
    {
        server.get("k", &format!("{name}: {value}\r\n").repeat(2)).expect(400);
    }
    let lists = "Cache-Control: public\r\nCache-Control: max-age=60\r\nContent-Encoding: a\r\n\
                 Content-Encoding: b\r\nIf-Match: \"x\"\r\nIf-Match: *\r\n";
    server.put("k", lists, b"new").expect(204);
    let answer = server.get("k", "").expect(200);
    let values = |name: &str| -> Vec<&str> {
        let lines = answer.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("cache-control"), ["public", "max-age=60"]);
    assert_eq!(values("content-encoding"), ["a", "b"]);
}

#[test]
fn versions_of_one_second_do_not_pass_for_each_other() {
    let server = HttpServer::start();
    let mut memcached = server.connect();
    let stored = format!("Last-Modified: {0}\r\nDate: {0}\r\n", date(0));
    // By their own date, by one made up, and by one made up of a value of the other protocol.
    for headers in ["", &stored, "memcached"] {
        for wait in [0, 5] {
            let mut store = |body: &str| match headers {
                "memcached" => memcached.ask(format!("set k 0 0 1\r\n{body}\r\n"), "STORED\r\n"),
                headers => drop(server.put("k", headers, body.as_bytes())),
            };
            store("1");
            let first = server.get("k", "").header("last-modified").unwrap().to_owned();
            store("2");
            let second = server.get("k", "").header("last-modified").unwrap().to_owned();
            assert_eq!(first, second, "this test is about equal dates");
            advance(&server, wait);
            server.get("k", &format!("If-Modified-Since: {first}\r\n")).expect_body(200, b"2");
            let mut made = format!("If-Unmodified-Since: {first}\r\n");
            server.put("k", &made, b"made of 1").expect(412);
            made += "Content-Type: a/b\r\n";
            patch(&server, &made).expect(412);
            server.ask("DELETE", &target("k"), &made, b"").expect(412);
            // A validation makes no date any stronger.
            patch(&server, "X-Rawcached-TTL: 60\r\nContent-Type: c/d\r\n").expect(204);
            let shown = server.get("k", "").header("last-modified").unwrap().to_owned();
            server.get("k", &format!("If-Modified-Since: {shown}\r\n")).expect_body(200, b"2");
            server.put("k", &format!("If-Unmodified-Since: {shown}\r\n"), b"x").expect(412);
        }
    }
    // An earlier second than that of the answer is that of one version only.
    server.put("k", &format!("Last-Modified: {}\r\n", date(-1)), b"3").expect(201);
    let since = format!("If-Modified-Since: {}\r\n", date(-1));
    server.get("k", &since).expect(304);
    server.put("k", &format!("If-Unmodified-Since: {}\r\n", date(-1)), b"4").expect(204);
}

#[test]
fn a_lifetime_with_conditions_changes_in_place() {
    let server = HttpServer::start();
    let body = vec![7; 3_500_000];
    server.put("k", "ETag: \"v1\"\r\nCache-Control: max-age=10\r\n", &body).expect(201);
    let written = server.cache.stats().store.counters.body_bytes;
    patch(&server, "If-Match: \"v0\"\r\nX-Rawcached-TTL: 100\r\n").expect(412);
    patch(&server, "If-Match: \"v1\"\r\nX-Rawcached-TTL: 20\r\n").expect(204);
    patch(&server, "X-Rawcached-Grace: 30\r\n").expect(204);
    assert_eq!(server.cache.stats().store.counters.body_bytes, written);
    advance(&server, 19);
    server.get("k", "").expect_body(200, &body);
    advance(&server, 1);
    server.get("k", "").expect(404);
    advance(&server, 29);
    server.get("k", "Cache-Control: max-stale\r\n").expect_body(200, &body);
    patch(&server, "X-Rawcached-Grace: 30\r\n").expect(404);
    advance(&server, 1);
    server.get("k", "Cache-Control: max-stale\r\n").expect(404);
}
