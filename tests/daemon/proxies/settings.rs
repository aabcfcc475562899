//! What `docs/moving.md` names in place of others' settings does what those do: each row that has a setting
//! of ours is run, with that setting as it is written there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::client::{Answer, Client, End, request};
use super::origin::{Origin, Place, Seen};
use super::reply::{Latch, Reply};
use crate::support::daemon::Daemon;
use crate::support::http::body;
use crate::support::waiting::{eventually, now};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/moving.md");
/// With these a response is stored without an explicit lifetime.
const OLD: &str = "Wed, 01 Jan 2020 00:00:00 GMT";

/// The settings of each row that has some, one a line.
fn rows() -> BTreeSet<String> {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.contains("| here |"));
    let ours = rows.map(|row| row.split(" | ").nth(1).unwrap().to_owned());
    let settings = ours.map(|cell| {
        let spans = cell.split('`').skip(1).step_by(2).filter(|span| span.contains(" = "));
        spans.map(str::to_owned).collect::<Vec<_>>().join("\n")
    });
    settings.filter(|settings| !settings.is_empty()).collect()
}

/// A daemon in front of an origin.
struct Rig {
    origin: Option<Origin>,
    socket: PathBuf,
    daemon: Daemon,
    _directory: TempDir,
}

impl Rig {
    fn start(settings: &str, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
        let origin = Origin::start(handler);
        let Place::Tcp(address) = origin.place else { unreachable!("it is on a port") };
        let directory = TempDir::with_prefix("rawcached-settings-").unwrap();
        let image = directory.path().join("cache.img");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        crate::support::binary::format(&image);
        let socket = directory.path().join("proxy.sock");
        // One worker has all of the connections to the upstream.
        let mut daemon = Daemon::new(&image, "workers = 1");
        let listen = socket.display();
        daemon.configure_more(&format!(
            "[[proxy]]\nlisten = [\"unix:{listen}\"]\nupstream = \"http://{address}\"\n{settings}\n"
        ));
        daemon.restart();
        Rig { origin: Some(origin), socket, daemon, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::open(&self.socket)
    }

    /// What a GET gives when nothing is being fetched.
    #[track_caller]
    fn get(&self, target: &str, fields: &str) -> Answer {
        let mut last = None;
        let is_settled = eventually(|| {
            let answer = self.client().ask("GET", target, fields, b"");
            let is_collapsed = answer.verdict().collapsed;
            last = Some(answer);
            !is_collapsed
        });
        assert!(is_settled, "{last:?}");
        last.unwrap()
    }

    /// Asks twice; gives the second answer and whether it was a hit.
    #[track_caller]
    fn again(&self, target: &str, fields: &str) -> (Answer, bool) {
        self.get(target, fields);
        let answer = self.get(target, fields);
        let is_hit = answer.verdict().hit;
        (answer, is_hit)
    }

    /// The lifetime with which a target is stored.
    #[track_caller]
    fn lifetime(&self, target: &str) -> i64 {
        let (answer, is_hit) = self.again(target, "");
        assert!(is_hit, "{answer:?}");
        let age: i64 = answer.header("age").unwrap().parse().unwrap();
        answer.verdict().ttl.unwrap() + age
    }

    fn asked(&self) -> usize {
        self.origin.as_ref().unwrap().count()
    }
}

fn ok() -> Reply {
    Reply::ok("x")
}

/// Asserts that a target has this lifetime, up to the second in which it was fetched.
#[track_caller]
fn lives_for(settings: &str, secs: i64, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
    let lifetime = Rig::start(settings, handler).lifetime("/a");
    assert!((secs - 1..=secs).contains(&lifetime), "{settings}: {lifetime}");
}

fn fields_make_keys(settings: &str) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60"));
    for (asked, device) in (1..).zip(["phone", "tablet"]) {
        let (answer, is_hit) = rig.again("/a", &format!("X-Device: {device}\r\n"));
        assert!(is_hit, "{answer:?}");
        assert_eq!(rig.asked(), asked);
    }
}

fn cookies(settings: &str, given: Option<&str>) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60").header("Set-Cookie", "a=b"));
    let (answer, is_hit) = rig.again("/a", "");
    assert!(is_hit, "{answer:?}");
    assert_eq!(answer.header("set-cookie"), given);
}

fn no_store_is_stored(settings: &str) {
    let rig = Rig::start(settings, |_| {
        ok().control("no-store").header("Expires", "0").header("Last-Modified", OLD)
    });
    let (answer, is_hit) = rig.again("/a", "");
    assert!(is_hit, "{answer:?}");
}

fn vary_is_ignored(settings: &str) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60").header("Vary", "X"));
    rig.get("/a", "X: 1\r\n");
    let answer = rig.get("/a", "X: 2\r\n");
    assert!(answer.verdict().hit, "{answer:?}");
}

fn stale_stands_in(settings: &str) {
    let mut rig = Rig::start(settings, |_| ok().control("max-age=1"));
    rig.get("/a", "");
    rig.origin = None;
    let is_stale = eventually(|| {
        let answer = rig.get("/a", "").expect_body(200, "x");
        answer.verdict().ttl.is_some_and(|secs| secs < 0)
    });
    assert!(is_stale);
}

fn who_waits_goes_alone(settings: &str) {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(settings, move |seen| match seen.order {
        0 => ok().control("max-age=60").after(&held),
        _ => ok().control("max-age=60"),
    });
    let mut first = rig.client();
    first.send(request("GET", "/a", "", b""));
    rig.origin.as_ref().unwrap().wait_for(1);
    let began = now();
    rig.client().get("/a").expect_body(200, "x");
    let waited = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    latch.open();
    first.answer("GET").expect_body(200, "x");
    assert_eq!(rig.asked(), 2);
}

fn clients_are_heard(settings: &str) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60"));
    rig.again("/a", "");
    rig.get("/a", "Cache-Control: no-cache\r\n");
    assert_eq!(rig.asked(), 2);
}

fn large_ones_pass(settings: &str) {
    let rig = Rig::start(settings, |seen| {
        Reply::ok(body(seen.target[1..].parse().unwrap())).control("max-age=60")
    });
    for (len, expected) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let (answer, is_hit) = rig.again(&format!("/{len}"), "");
        assert_eq!(is_hit, expected, "{len}: {:?}", answer.fields);
    }
}

fn parameters_are_left_out(settings: &str) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60"));
    rig.get("/a?b=c&utm_source=x", "");
    rig.get("/a?utm_source=y&b=c", "").expect_hit();
    rig.get("/a?b=d", "").expect_forwarded("uri-miss");
}

fn the_origin_says_which_targets_are_one(settings: &str) {
    let mut rig = Rig::start(settings, |seen| {
        let reply = Reply::ok(&seen.target).control("max-age=600");
        reply.header("No-Vary-Search", "key-order, params=(\"utm\")")
    });
    rig.get("/a", "");
    rig.get("/a?b=1&c=2", "").expect_body(200, "/a?b=1&c=2");
    rig.get("/a?c=2&utm=3&b=1", "").expect_body(200, "/a?b=1&c=2").expect_hit();
    rig.get("/a?c=3&b=1", "").expect_body(200, "/a?c=3&b=1").expect_forwarded("uri-miss");
    assert!(rig.daemon.stop().success());
    rig.daemon.restart();
    rig.get("/a?c=2&b=1", "").expect_body(200, "/a?b=1&c=2").expect_hit();
    assert_eq!(rig.asked(), 3);
}

fn ranges_come_in_blocks(settings: &str) {
    let rig = Rig::start(settings, |seen| {
        assert_eq!(seen.header("range"), Some("bytes=2097152-3145727"));
        Reply::of("206 Partial Content", body(1 << 20))
            .header("Content-Range", "bytes 2097152-3145727/9000000")
            .header("ETag", "\"a\"")
            .control("max-age=60")
    });
    for range in ["bytes=2097160-2097169", "bytes=3000000-3000009"] {
        let answer = rig.get("/a", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.body.len()), (206, 10), "{answer:?}");
    }
    assert_eq!(rig.asked(), 1);
}

/// Whether a request of a session is answered from what is stored, before and after one without.
fn sessions(settings: &str, hits: &[bool; 2]) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60"));
    let of_session = || rig.again("/a", "Cookie: session=1\r\n").1;
    let before = of_session();
    assert!(rig.again("/a", "").1);
    assert_eq!([before, of_session()], *hits);
}

fn what_is_rare_is_passed(settings: &str) {
    let rig = Rig::start(settings, |_| ok().control("max-age=60"));
    let hits = [(); 3].map(|()| rig.get("/a", "").verdict().hit);
    assert_eq!(hits, [false, false, true]);
}

fn heads_are_waited_for(settings: &str) {
    let rig = Rig::start(settings, |_| Reply::hold());
    let began = now();
    rig.get("/a", "").expect(504);
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
}

fn bodies_are_waited_for(settings: &str) {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(settings, move |_| Reply::ok(body(1000)).waits_at(500, &held));
    let began = now();
    let answer = rig.client().get("/a");
    assert_eq!(answer.end, End::Cut, "{answer:?}");
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    latch.open();
}

fn connections_are_waited_for(settings: &str) {
    let latch = Latch::default();
    let held = latch.clone();
    let rig = Rig::start(settings, move |_| ok().after(&held));
    let mut clients: Vec<_> = (0..64).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(request("POST", "/a", "", b""));
    }
    rig.origin.as_ref().unwrap().wait_for(64);
    let began = now();
    let answer = rig.client().get("/b");
    assert!(matches!(answer.status, 502..=504), "{answer:?}");
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    assert_eq!(rig.asked(), 64);
    latch.open();
    for client in &mut clients {
        client.answer("POST").expect_body(200, "x");
    }
}

type Run = fn(&str);

/// What each row has to do.
fn runs() -> BTreeMap<&'static str, Run> {
    BTreeMap::from([
        ("key_headers = [\"x-device\"]", fields_make_keys as Run),
        ("ttl_default = \"10m\"", |row| lives_for(row, 600, |_| ok())),
        ("ttl_default = \"120s\"", |row| lives_for(row, 120, |_| ok())),
        ("ttl_status = { 404 = \"1m\" }", |row| {
            lives_for(row, 60, |_| Reply::of("404 Not Found", "x"));
        }),
        ("ttl_override = \"1h\"", |row| lives_for(row, 3600, |_| ok().control("max-age=5"))),
        ("x_accel_expires = true", |row| {
            lives_for(row, 100, |_| ok().header("X-Accel-Expires", "100"));
        }),
        ("ignore = [\"cache-control\", \"expires\"]", no_store_is_stored),
        ("ignore = [\"vary\"]", vary_is_ignored),
        ("set_cookie = \"store\"", |row| cookies(row, Some("a=b"))),
        ("set_cookie = \"strip\"", |row| cookies(row, None)),
        ("grace_default = \"1h\"", stale_stands_in),
        ("collapse_timeout = \"2s\"", who_waits_goes_alone),
        ("client_directives = \"honor\"", clients_are_heard),
        ("object_size_max = \"1MiB\"", large_ones_pass),
        ("ignore_query = [\"utm_source\"]", parameters_are_left_out),
        ("no_vary_search = true", the_origin_says_which_targets_are_one),
        ("fill_block = \"1MiB\"\nrange_fetch_min = \"1MiB\"", ranges_come_in_blocks),
        ("bypass = [\"cookie:session\"]", |row| sessions(row, &[false, false])),
        ("no_store = [\"cookie:session\"]", |row| sessions(row, &[false, true])),
        ("min_uses = 2", what_is_rare_is_passed),
        ("first_byte_timeout = \"1s\"", heads_are_waited_for),
        ("between_bytes_timeout = \"1s\"", bodies_are_waited_for),
        ("connections_max = 64\nconnect_timeout = \"1s\"", connections_are_waited_for),
    ])
}

#[test]
fn every_setting_that_takes_the_place_of_anothers_does() {
    let (rows, runs) = (rows(), runs());
    let known: BTreeSet<String> = runs.keys().map(|&row| row.to_owned()).collect();
    assert_eq!(rows, known, "rows of docs/moving.md, and what is run");
    for (row, run) in runs {
        eprintln!("{row}");
        run(row);
    }
}
