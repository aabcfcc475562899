//! Goal: an upstream that is down, silent or broken costs its clients an answer that says so, and
//! nothing of it is stored. Method: origins that misbehave, short timeouts.

use crate::proxy::client::{End, request};
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Reply, Step};
use crate::proxy::rig::{Rig, SOON};
use crate::support::server::options;

#[test]
fn an_upstream_that_is_down_is_502_with_the_reason() {
    let spare = Origin::start(|_| Reply::ok(""));
    let rig = Rig::before(spare, &Origin::nowhere(), options(), |_| {});
    for (method, body) in [("GET", &b""[..]), ("HEAD", b""), ("POST", b"body"), ("DELETE", b"")] {
        let answer = rig.ask(method, "/a", "", body).expect(502);
        let verdict = answer.verdict();
        assert!(!verdict.hit && !verdict.stored, "{verdict:?}");
        assert!(verdict.detail.is_some_and(|detail| !detail.is_empty()));
    }
    rig.expect_asked(0);
}

#[test]
fn an_upstream_that_has_no_socket_file_is_502() {
    let directory = tempfile::tempdir().unwrap();
    let place = crate::proxy::origin::Place::Unix(directory.path().join("none.sock"));
    let rig = Rig::before(Origin::start(|_| Reply::ok("")), &place, options(), |_| {});
    let answer = rig.get("/a").expect(502);
    assert!(answer.verdict().detail.is_some());
}

#[test]
fn an_upstream_that_comes_back_is_asked_again() {
    let rig = Rig::start(|seen| match seen.target.as_str() {
        "/a" if seen.order < 2 => Reply::close(),
        _ => Reply::ok("a").control("max-age=60"),
    });
    let answer = rig.get("/a");
    assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
    rig.pass(5);
    assert!(crate::support::waiting::eventually(|| {
        rig.pass(5);
        rig.get("/a").status == 200
    }));
}

#[test]
fn an_upstream_that_says_nothing_is_504() {
    let origin = Origin::start(|_| Reply::hold());
    let rig = Rig::with(origin, |proxy| proxy.upstream.first_byte_timeout = SOON);
    for (method, body) in [("GET", &b""[..]), ("POST", b"body")] {
        let answer = rig.ask(method, "/a", "", body).expect(504);
        assert!(answer.verdict().detail.is_some());
    }
    rig.origin.wait_for_quiet();
}

#[test]
fn an_upstream_that_stops_within_its_head_is_504() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-".to_vec());
    let origin = Origin::start(move |_| Reply::steps(vec![half.clone(), Step::Hold]));
    let rig = Rig::with(origin, |proxy| {
        proxy.upstream.first_byte_timeout = SOON;
        proxy.upstream.between_bytes_timeout = SOON;
    });
    rig.get("/a").expect(504);
}

#[test]
fn an_upstream_that_stops_within_a_body_cuts_it() {
    let origin =
        Origin::start(|_| Reply::ok("abcdef").control("max-age=60").ends_at(3, vec![Step::Hold]));
    let rig = Rig::with(origin, |proxy| proxy.upstream.between_bytes_timeout = SOON);
    for _ in 0..2 {
        let mut client = rig.client();
        client.send(request("GET", "/a", "", b""));
        let answer = client.answer("GET");
        assert_eq!((answer.status, answer.end), (200, End::Cut));
        assert!(b"abc".starts_with(&answer.body));
        rig.pass(2);
    }
    rig.expect_asked(2);
}

#[test]
fn a_body_that_moves_slowly_is_not_cut() {
    let pause = || Step::Pause(SOON / 2);
    let steps: Vec<Step> = (0..4).map(|_| Step::Send(b"x".to_vec())).collect();
    let head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\n";
    let mut slow = vec![Step::Send(head.to_vec())];
    slow.extend(steps.into_iter().flat_map(|step| [pause(), step]));
    let origin = Origin::queue([Reply::steps(slow)]);
    let rig = Rig::with(origin, |proxy| proxy.upstream.between_bytes_timeout = SOON);
    rig.fill("/a", "").expect_body(200, "xxxx");
}

#[test]
fn more_requests_than_connections_wait_for_their_turn() {
    let latch = crate::proxy::reply::Latch::default();
    let gate = latch.clone();
    let origin = Origin::start(move |seen| Reply::ok(&seen.target).after(&gate));
    let rig = Rig::with(origin, |proxy| proxy.upstream.connections_max = 1);
    let ask = |n: usize| {
        let mut client = rig.client();
        client.send(request("GET", &format!("/{n}"), "", b""));
        client
    };
    let clients: Vec<_> = (0..10).map(ask).collect();
    rig.origin.wait_for(1);
    latch.open();
    for (n, mut client) in clients.into_iter().enumerate() {
        client.answer("GET").expect_body(200, format!("/{n}"));
    }
    // One for each of the two workers.
    assert!(rig.origin.connections() <= 2);
}

#[test]
fn who_gets_no_turn_in_time_is_told_so() {
    let origin = Origin::start(|_| Reply::hold());
    let rig = Rig::with(origin, |proxy| {
        proxy.upstream.connections_max = 1;
        proxy.upstream.connect_timeout = SOON;
        proxy.upstream.first_byte_timeout = SOON * 10;
    });
    let mut clients: Vec<_> = (0..3).map(|_| rig.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(request("GET", &format!("/{n}"), "", b""));
    }
    // Two workers serve three clients: one of them has to wait.
    let statuses: Vec<u16> =
        clients.into_iter().map(|mut client| client.answer("GET").status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 502..=504)), "{statuses:?}");
    assert!(rig.origin.count() <= 2);
}

#[test]
fn errors_of_the_origin_are_passed_on_as_they_are() {
    for status in ["500 A", "502 B", "503 C", "504 D", "599 E"] {
        let number: u16 = status[..3].parse().unwrap();
        let rig = Rig::queue([Reply::of(status, "why").header("Retry-After", "5")]);
        let answer = rig.get("/a").expect_body(number, "why");
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
}

/// An error that names its client is told to nobody else.
#[test]
fn the_words_of_an_error_stay_with_the_client_they_are_for() {
    let of = |fields: &'static str, reply: fn() -> Reply| {
        let latch = crate::proxy::reply::Latch::default();
        let gate = latch.clone();
        let rig = Rig::start(move |_| reply().after(&gate));
        let mut first = rig.client();
        first.send(request("GET", "/a", fields, b""));
        rig.origin.wait_for(1);
        latch.open();
        let first = first.answer("GET").expect(500);
        // Within the second in which others get the same.
        let second = rig.get("/a").expect(500);
        (first.body == b"secret", second.body == b"secret", rig.origin.count())
    };
    fn plain() -> Reply {
        Reply::of("500 Internal Server Error", "secret")
    }
    assert_eq!(of("", plain), (true, true, 1));
    assert_eq!(of("Cookie: a=b\r\n", plain), (true, false, 1));
    assert_eq!(of("Authorization: x\r\n", plain), (true, false, 1));
    assert_eq!(of("", || plain().header("Set-Cookie", "a=b")), (true, false, 1));
    assert_eq!(of("", || plain().control("private")), (true, false, 1));
}
