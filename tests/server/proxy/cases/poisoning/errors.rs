//! Goal: an error, a part or a precondition that failed of one client is nobody else's.

use super::{get, send};
use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

/// RFC 6585; errors that one request causes by what it says in its fields, of which no key knows.
#[test]
fn an_error_that_blames_the_request_is_not_stored() {
    for status in [400, 406, 408, 411, 412, 413, 415, 417, 421, 425, 426, 428, 429, 431] {
        let origin = Origin::start(move |seen| match seen.header("x-bad") {
            Some(_) => Reply::of(&format!("{status} Error"), "error").control("public, max-age=60"),
            None => Reply::ok("good").control("public, max-age=60"),
        });
        let rig = Rig::of(origin);
        let bad = format!("X-Bad: {}", "x".repeat(10_000));
        let answer = send(rig.client(), &get(&bad)).unwrap().expect_body(status, "error");
        assert!(!answer.verdict().stored, "{status}");
        rig.fill("/a", "").expect_body(200, "good");
        rig.expect_asked(2);
    }
}

/// An operator who knows that his origin does not do that can have them stored.
#[test]
fn an_operator_can_have_errors_of_requests_stored() {
    let origin = |status: &'static str| {
        Origin::start(move |_| Reply::of(status, "error").control("max-age=60"))
    };
    let choose = |rig: &mut rawcached::server::proxy::options::ProxyOptions| {
        for status in [400, 431] {
            let status = http::StatusCode::from_u16(status).unwrap();
            rig.settings.ttl_status.insert(status, std::time::Duration::ZERO);
        }
    };
    let rig = Rig::with(origin("400 Bad Request"), choose);
    rig.get("/a").expect(400);
    rig.settled("/a", "").expect(400).expect_hit();
    // RFC 6585, section 5, leaves no choice.
    let rig = Rig::with(origin("431 Request Header Fields Too Large"), choose);
    for _ in 0..3 {
        assert!(!rig.settled("/a", "").expect(431).verdict().hit);
    }
    rig.expect_asked(3);
}

/// What this cache itself refuses never becomes what others get.
#[test]
fn a_refusal_of_this_cache_is_for_its_client() {
    let rig = Rig::start(|_| Reply::ok("good").control("max-age=60"));
    let long = format!("X-Long: {}", "x".repeat(1 << 20));
    let many = "X: y\r\n".repeat(200);
    for lines in [long.as_str(), many.trim_end(), "X : y", "Content-Length: x"] {
        let status = send(rig.client(), &get(lines)).unwrap().status;
        assert!(matches!(status, 400 | 431), "{status}");
    }
    rig.fill("/a", "").expect_body(200, "good");
}

/// An origin that does what conditions and ranges say.
fn obedient(marked: bool) -> Origin {
    Origin::start(move |seen| {
        let has = |name: &str| seen.header(name).is_some();
        let (first, control) = (seen.order == 0, "public, max-age=60");
        let control = if marked && first { "no-store" } else { control };
        let reply = match () {
            () if has("if-none-match") || has("if-modified-since") => Reply::not_modified(),
            () if has("if-match") => Reply::of("412 Precondition Failed", "failed"),
            () if seen.header("range") == Some("bytes=900-") => {
                Reply::of("416 Range Not Satisfiable", "").header("Content-Range", "bytes */4")
            }
            () if has("range") => {
                Reply::of("206 Partial Content", "g").header("Content-Range", "bytes 0-0/4")
            }
            () => Reply::ok("good"),
        };
        reply.control(control).header("ETag", "\"a\"")
    })
}

/// Also where nobody waits for the target, and each request goes to the origin as it is.
#[test]
fn what_the_conditions_of_one_client_bring_is_not_what_others_get() {
    for (lines, status) in [
        ("If-None-Match: \"a\"", 304),
        ("If-None-Match: *", 304),
        ("If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT", 304),
        ("If-Match: \"b\"", 412),
        ("Range: bytes=0-0", 206),
        ("Range: bytes=900-", 416),
    ] {
        for marked in [false, true] {
            let rig = Rig::of(obedient(marked));
            if marked {
                rig.get("/a").expect_body(200, "good");
            }
            let answer = send(rig.client(), &get(lines)).unwrap();
            // A date of the client's is later than the answer that it never had: the cache has its own.
            assert!(answer.status == status || answer.status == 200, "{lines}: {answer:?}");
            rig.settled("/a", "").expect_body(200, "good");
            let again = send(rig.client(), &get(lines)).unwrap();
            assert!(again.status == status || again.status == 200, "{lines}: {again:?}");
            rig.settled("/a", "").expect_body(200, "good").expect_hit();
        }
    }
}
