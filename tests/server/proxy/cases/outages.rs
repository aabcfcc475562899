//! Goal: an origin that is away for long, or comes back, is asked little, and its clients see nothing of it as far
//! as it allowed that. Method: an origin that a test ends and begins, a clock that a test moves, counts of requests
//! and of bytes written to the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::proxy::client::request;
use crate::proxy::origin::Origin;
use crate::proxy::reply::Reply;
use crate::proxy::rig::Rig;

const HOUR: u64 = 3600;

/// An origin that answers with `failure` while it is away, and whether it is. What it has never changes.
fn origin(control: &'static str, failure: Reply) -> (Origin, Arc<AtomicBool>) {
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let origin = Origin::start(move |seen| match seen.header("if-none-match") {
        _ if away.load(Ordering::SeqCst) => failure.clone(),
        Some(_) => Reply::not_modified().control(control),
        None => Reply::ok("old").control(control).header("ETag", "\"a\""),
    });
    (origin, is_away)
}

/// Ways of being away.
fn failures() -> [Reply; 3] {
    [
        Reply::close(),
        Reply::of("503 Service Unavailable", "x"),
        // Its length is not known before its end.
        Reply::raw(
            "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        ),
    ]
}

#[test]
fn an_hour_without_an_origin_is_an_hour_of_stale_answers() {
    for failure in failures() {
        let (origin, is_away) = origin("max-age=60, stale-if-error=7200", failure);
        let rig = Rig::of(origin);
        rig.fill("/a", "");
        rig.pass(60);
        is_away.store(true, Ordering::SeqCst);
        let mut client = rig.client();
        for second in (0..HOUR).step_by(3) {
            for _ in 0..2 {
                let answer = client.get("/a").expect_body(200, "old");
                assert_eq!(answer.header("age"), Some(format!("{}", 60 + second).as_str()));
            }
            rig.pass(3);
        }
        // A connection that rested is tried, and then a new one.
        let asked = rig.origin.count() - 1;
        assert!((60..=135).contains(&asked), "{asked} requests of 2400");
        is_away.store(false, Ordering::SeqCst);
        rig.pass(30);
        let asked = rig.origin.count();
        let clients: Vec<_> = (0..40).map(|_| rig.client()).collect();
        let ask = |mut client: crate::proxy::client::Client| {
            client.send(request("GET", "/a", "", b""));
            client
        };
        for mut client in clients.into_iter().map(ask).collect::<Vec<_>>() {
            client.answer("GET").expect_body(200, "old");
        }
        rig.expect_asked(asked + 1);
        assert_eq!(rig.get("/a").expect_hit().verdict().ttl, Some(60));
    }
}

#[test]
fn a_refresh_that_nobody_waits_for_backs_off_too() {
    for failure in failures() {
        let (origin, is_away) = origin("max-age=60, stale-while-revalidate=7200", failure);
        let rig = Rig::of(origin);
        rig.fill("/a", "");
        rig.pass(60);
        is_away.store(true, Ordering::SeqCst);
        let mut client = rig.client();
        for _ in 0..HOUR / 5 {
            client.get("/a").expect_body(200, "old").expect_hit();
            // The refresh has its time to fail, which real time only gives.
            std::thread::sleep(Duration::from_millis(2));
            rig.pass(5);
        }
        std::thread::sleep(Duration::from_millis(200));
        let asked = rig.origin.count() - 1;
        assert!((30..=135).contains(&asked), "{asked} requests");
        is_away.store(false, Ordering::SeqCst);
        rig.pass(30);
        let asked = rig.origin.count();
        rig.get("/a").expect_body(200, "old");
        let is_fresh = || rig.get("/a").verdict().ttl == Some(60);
        assert!(crate::support::waiting::eventually(is_fresh));
        rig.expect_asked(asked + 1);
    }
}

/// How it failed is remembered for more than a few objects.
#[test]
fn a_thousand_stale_objects_are_a_thousand_requests_to_an_origin_that_is_away() {
    const OBJECTS: usize = 1000;
    for failure in failures() {
        let (origin, is_away) = origin("max-age=60, stale-if-error=7200", failure);
        let rig = Rig::of(origin);
        let mut client = rig.client();
        let targets: Vec<String> = (0..OBJECTS).map(|n| format!("/{n}")).collect();
        for target in &targets {
            client.get(target).expect(200);
        }
        rig.settled(targets.last().unwrap(), "").expect_hit();
        rig.pass(60);
        is_away.store(true, Ordering::SeqCst);
        for target in targets.iter().chain(&targets).chain(&targets) {
            client.get(target).expect_body(200, "old");
        }
        let asked = rig.origin.count() - OBJECTS;
        assert!((OBJECTS..=OBJECTS + 2).contains(&asked), "{asked} requests");
    }
}

/// Those who waited for somebody else's validation do not go to an origin that says nothing either.
#[test]
fn a_crowd_gets_what_is_stale_from_behind_an_origin_that_says_nothing() {
    let (origin, is_away) = origin("max-age=60, stale-if-error=7200", Reply::hold());
    let rig = Rig::with(origin, |proxy| {
        proxy.collapse_timeout = Duration::from_millis(200);
        proxy.upstream.first_byte_timeout = Duration::from_secs(3);
    });
    rig.fill("/a", "");
    rig.pass(60);
    is_away.store(true, Ordering::SeqCst);
    let ask = |_| {
        let mut client = rig.client();
        client.send(request("GET", "/a", "", b""));
        client
    };
    for mut client in (0..40).map(ask).collect::<Vec<_>>() {
        client.answer("GET").expect_body(200, "old");
    }
    rig.expect_asked(2);
}

/// Bodies of a length that is stored in one piece, and of more than 64 KiB; an origin that says the time, as they do.
#[test]
fn a_thousand_validations_write_no_bodies() {
    const OBJECTS: usize = 1000;
    for len in [20 << 10, 66 << 10] {
        let body = vec![b'x'; len];
        let now = Arc::new(std::sync::atomic::AtomicU64::new(1_800_000_000));
        let clock = now.clone();
        let origin = Origin::start(move |seen| {
            let sent = std::time::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst));
            let reply = match seen.header("if-none-match") {
                Some(_) => Reply::not_modified(),
                None => Reply::ok(&body),
            };
            let ends = httpdate::fmt_http_date(sent + Duration::from_secs(60));
            let reply = reply.header("Date", &httpdate::fmt_http_date(sent)).control("max-age=60");
            reply.header("Expires", &ends).header("ETag", "\"a\"")
        });
        let rig = Rig::of(origin);
        let mut client = rig.client();
        let mut ask_all = || {
            for n in 0..OBJECTS {
                let answer = client.get(&format!("/{n}")).expect(200);
                assert_eq!(answer.body.len(), len);
            }
        };
        ask_all();
        rig.settled("/999", "").expect_hit();
        let mut asked = OBJECTS;
        for round in 1..=2 {
            rig.pass(100);
            now.fetch_add(100, Ordering::SeqCst);
            // What was stored is on the device.
            std::thread::sleep(Duration::from_millis(1500));
            let before = rig.server.device.counts().bytes_written;
            ask_all();
            std::thread::sleep(Duration::from_millis(1500));
            let written = rig.server.device.counts().bytes_written - before;
            assert!(written < OBJECTS as u64 * 8192, "{len}: {written} bytes in round {round}");
            asked += OBJECTS;
            rig.expect_asked(asked);
            let seen = rig.origin.seen().split_off(asked - OBJECTS);
            assert!(seen.iter().all(|seen| seen.header("if-none-match") == Some("\"a\"")));
            let answer = rig.get("/1").expect_hit();
            let sent = 1_800_000_000 + 100 * round;
            let text =
                |secs| httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(secs));
            assert_eq!(answer.header("date"), Some(text(sent).as_str()), "{len}");
            assert_eq!(answer.header("expires"), Some(text(sent + 60).as_str()), "{len}");
            assert_eq!((answer.verdict().ttl, answer.header("age")), (Some(60), Some("0")));
        }
    }
}
