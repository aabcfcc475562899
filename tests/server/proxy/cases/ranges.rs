//! Goal: a client gets 304 or the part that it wants, of what is stored and of what is just being
//! fetched (RFC 9110, sections 13 and 14). Method: a recording origin that knows no ranges.

use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn tagged() -> Reply {
    Reply::ok("0123456789")
        .control("max-age=60")
        .header("ETag", "\"a\"")
        .header("Last-Modified", MODIFIED)
        .header("X-A", "1")
}

#[test]
fn a_client_that_has_it_gets_304() {
    let rig = Rig::queue([tagged()]);
    rig.fill("/a", "");
    for field in [
        "If-None-Match: \"a\"\r\n".to_owned(),
        "If-None-Match: W/\"a\"\r\n".to_owned(),
        "If-None-Match: \"b\", \"a\"\r\n".to_owned(),
        "If-None-Match: *\r\n".to_owned(),
        format!("If-Modified-Since: {MODIFIED}\r\n"),
        format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {}\r\n", MODIFIED.replace("94", "93")),
    ] {
        let answer = rig.get_with("/a", &field).expect_body(304, "").expect_hit();
        assert_eq!(answer.header("etag"), Some("\"a\""), "{field}");
        assert_eq!(answer.header("cache-control"), Some("max-age=60"), "{field}");
        assert!(answer.header("date").is_some() && answer.header("x-a").is_none(), "{field}");
        let head = rig.ask("HEAD", "/a", &field, b"");
        assert_eq!(head.status, 304, "{field}");
    }
    for field in [
        "If-None-Match: \"b\"\r\n".to_owned(),
        "If-None-Match: a\r\n".to_owned(),
        format!("If-Modified-Since: {}\r\n", MODIFIED.replace("94", "93")),
        format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {MODIFIED}\r\n"),
    ] {
        rig.get_with("/a", &field).expect_body(200, "0123456789").expect_hit();
    }
    rig.expect_asked(1);
}

#[test]
fn a_precondition_is_evaluated_by_the_cache_on_a_miss_too() {
    let rig = Rig::queue([tagged()]);
    let answer = rig.get_with("/a", "If-None-Match: \"a\"\r\n");
    answer.expect_body(304, "").expect_forwarded("uri-miss");
    // All want the object, not what one of them has.
    assert_eq!(rig.origin.only().header("if-none-match"), None);
    rig.settled("/a", "").expect_body(200, "0123456789").expect_hit();
}

#[test]
fn parts_are_cut_from_what_is_stored() {
    let rig = Rig::queue([tagged()]);
    rig.fill("/a", "");
    for (range, part, said) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let answer = rig.get_with("/a", &format!("Range: {range}\r\n")).expect_body(206, part);
        let answer = answer.expect_hit();
        assert_eq!(answer.header("content-range"), Some(said), "{range}");
        assert_eq!((answer.header("x-a"), answer.header("etag")), (Some("1"), Some("\"a\"")));
    }
    for range in ["bytes=5-4", "bytes=a-b", "lines=0-1", "bytes=", "bytes=0-1;x"] {
        let answer = rig.get_with("/a", &format!("Range: {range}\r\n"));
        answer.expect_body(200, "0123456789").expect_hit();
    }
    let answer = rig.get_with("/a", "Range: bytes=10-\r\n").expect(416);
    assert_eq!(answer.header("content-range"), Some("bytes */10"));
    let head = rig.ask("HEAD", "/a", "Range: bytes=0-1\r\n", b"").expect_body(200, "");
    assert_eq!(head.header("content-length"), Some("10"));
    rig.expect_asked(1);
}

#[test]
fn parts_of_another_version_are_not_given() {
    let rig = Rig::queue([tagged()]);
    rig.fill("/a", "");
    for (condition, status) in [
        ("\"a\"", 206),
        ("\"b\"", 200),
        ("W/\"a\"", 200),
        (MODIFIED, 206),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("x", 200),
    ] {
        let fields = format!("Range: bytes=0-1\r\nIf-Range: {condition}\r\n");
        let body = if status == 206 { "01" } else { "0123456789" };
        rig.get_with("/a", &fields).expect_body(status, body).expect_hit();
    }
}

#[test]
fn many_parts_come_in_one_body() {
    let body: Vec<u8> = (0..2000u16).map(|n| (n % 251) as u8).collect();
    let rig = Rig::queue([Reply::ok(&body).control("max-age=60").header("Content-Type", "a/b")]);
    rig.fill("/a", "");
    let answer = rig.get_with("/a", "Range: bytes=0-9,1000-1009\r\n").expect(206).expect_hit();
    let boundary = answer.header("content-type").unwrap();
    let boundary = boundary.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert_eq!(answer.header("content-range"), None);
    let parts = [(0, 9), (1000, 1009)].map(|(first, last)| {
        let head = format!(
            "--{boundary}\r\nContent-Range: bytes {first}-{last}/2000\r\nContent-Type: a/b\r\n\r\n"
        );
        [head.to_lowercase().as_bytes(), &body[first..=last], b"\r\n"].concat()
    });
    let found = answer.body.to_ascii_lowercase();
    for part in &parts {
        let part = part.to_ascii_lowercase();
        assert!(found.windows(part.len()).any(|window| window == part), "{}", found.escape_ascii());
    }
}

#[test]
fn a_part_of_what_is_not_stored_fetches_all_of_it() {
    let rig = Rig::queue([tagged()]);
    let answer = rig.get_with("/a", "Range: bytes=2-4\r\n").expect_body(206, "234");
    assert_eq!(answer.expect_forwarded("uri-miss").header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(rig.origin.only().header("range"), None);
    rig.settled("/a", "").expect_body(200, "0123456789").expect_hit();
    rig.expect_asked(1);
}

#[test]
fn a_part_of_what_has_no_known_length_is_the_whole_or_the_part() {
    let rig = Rig::queue([Reply::chunked(&["01234", "56789"]).control("max-age=60")]);
    let answer = rig.get_with("/a", "Range: bytes=2-4\r\n");
    match answer.status {
        206 => assert_eq!(answer.header("content-range"), Some("bytes 2-4/10")),
        _ => drop(answer.expect_body(200, "0123456789")),
    }
    rig.settled("/a", "Range: bytes=2-4\r\n").expect_body(206, "234").expect_hit();
}

#[test]
fn an_origin_that_sends_no_more_than_a_part_is_not_taken_for_the_whole() {
    let part = || {
        Reply::of("206 Partial Content", "234")
            .control("max-age=60")
            .header("ETag", "\"a\"")
            .header("Content-Range", "bytes 2-4/10")
    };
    let rig = Rig::start(move |seen| match seen.header("range") {
        Some("bytes=2-4") => part(),
        _ => tagged(),
    });
    let answer = rig.get_with("/a", "Range: bytes=2-4\r\n").expect(206);
    assert_eq!(answer.body, b"234");
    rig.settled("/a", "").expect_body(200, "0123456789");
}
