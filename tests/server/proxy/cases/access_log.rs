//! Goal: the access log says how each answer came about, in correct JSON whatever the client sent, and never
//! holds an answer up. Method: a file that is read back, and sockets that nobody reads.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rawcached::config::AccessLogTarget;
use rawcached::server::proxy::PurgeToken;
use rawcached::server::proxy::options::AccessLogOptions;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::proxy::client::request;
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply, Step};
use crate::proxy::rig::Rig;
use crate::support::waiting::eventually;

/// A rig that logs to a file in a directory, and that directory.
fn rig(origin: Origin) -> (Rig, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let target = AccessLogTarget::File(directory.path().join("log"));
    let rig = Rig::with(origin, |proxy| {
        proxy.access_log = Some(AccessLogOptions { target, bytes_max: 1 << 20 });
        proxy.purge_token = PurgeToken::new("s3cret");
    });
    (rig, directory)
}

/// The lines, once there are `count` of them.
#[track_caller]
fn lines(directory: &TempDir, count: usize) -> Vec<Value> {
    let read = || fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(eventually(|| read().lines().count() >= count), "{}", read());
    let text = read();
    assert!(text.ends_with('\n') && text.lines().count() == count, "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn origin() -> Origin {
    Origin::start(|seen: &Seen| match (seen.target.as_str(), seen.header("if-none-match")) {
        ("/a", Some(_)) => Reply::not_modified(),
        ("/a", None) => Reply::ok("body").control("max-age=60").header("ETag", "\"a\""),
        ("/stale", _) if seen.order > 2 => Reply::close(),
        ("/stale", _) => Reply::ok("body").control("max-age=60, stale-if-error=600"),
        ("/close", _) => Reply::close(),
        ("/cut", _) => Reply::ok("0123456789").ends_at(4, vec![Step::Close]),
        _ => Reply::ok("private").control("no-store"),
    })
}

#[test]
fn each_answer_is_a_line_with_how_it_came_about() {
    let (rig, directory) = rig(origin());
    let mut expected = Vec::new();
    let mut ask = |method: &str, target: &str, status: u16, bytes: u64, cache: &str| {
        let answer = rig.ask(method, target, "", b"");
        assert_eq!(answer.status, status, "{method} {target}");
        expected.push((method.to_owned(), target.to_owned(), status, bytes, cache.to_owned()));
        // In order: each connection has a worker of its own.
        lines(&directory, expected.len());
    };
    ask("GET", "/a", 200, 4, "miss");
    ask("GET", "/stale", 200, 4, "miss");
    ask("GET", "/a", 200, 4, "fresh");
    ask("HEAD", "/a", 200, 0, "fresh");
    ask("GET", "/other", 200, 7, "not_stored");
    ask("GET", "/other", 200, 7, "hit_for_miss");
    ask("POST", "/other", 200, 7, "bypass");
    ask("PURGE", "/other", 401, 0, "refused");
    rig.pass(61);
    ask("GET", "/a", 200, 4, "revalidated");
    ask("GET", "/stale", 200, 4, "stale");
    ask("GET", "/close", 502, 0, "upstream_error");
    for (line, (method, target, status, bytes, cache)) in lines(&directory, 11).iter().zip(expected)
    {
        let url = format!("http://h{target}");
        assert_eq!(line["listener"], "test");
        assert_eq!((&line["method"], &line["url"]), (&json!(method), &json!(url)));
        assert_eq!((&line["status"], &line["cache"]), (&json!(status), &json!(cache)), "{line}");
        if bytes > 0 {
            assert_eq!(line["bytes"], bytes, "{line}");
        }
        assert_eq!((&line["complete"], &line["client"]), (&json!(true), &Value::Null), "{line}");
        let time = if line["cache"] == "upstream_error" || rig_has_moved(line) {
            "08:01:01"
        } else {
            "08:00:00"
        };
        assert_eq!(line["time"], format!("2027-01-15T{time}.000Z"), "{line}");
        let duration = line["duration"].as_f64().unwrap();
        let asks = !matches!(&*cache, "fresh" | "refused" | "upstream_error") && target != "/stale"
            || cache == "miss";
        assert_eq!(line["upstream_first_byte"].is_f64(), asks, "{line}");
        assert!(duration > 0.0 && duration < 20.0, "{line}");
        assert!(
            line["upstream_first_byte"].as_f64().is_none_or(|first| first <= duration),
            "{line}"
        );
    }
}

/// The clock of the cache was moved between the lines.
fn rig_has_moved(line: &Value) -> bool {
    line["cache"] == "revalidated" || line["cache"] == "stale"
}

#[test]
fn who_waits_for_another_is_collapsed_and_asked_nobody() {
    let latch = Latch::default();
    let gate = latch.clone();
    let origin =
        Origin::start(move |_| Reply::ok("0123456789").control("max-age=60").waits_at(3, &gate));
    let (rig, directory) = rig(origin);
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let mut client = rig.client();
            client.send(request("GET", "/a", "", b""));
            let head = client.head("GET");
            (client, head)
        })
        .collect();
    latch.open();
    for (mut client, head) in clients {
        client.finish(head).expect_body(200, "0123456789");
    }
    let mut lines = lines(&directory, 2);
    lines.sort_by_key(|line| line["cache"].to_string());
    assert_eq!((&lines[0]["cache"], &lines[1]["cache"]), (&json!("collapsed"), &json!("miss")));
    assert_eq!((lines[0]["bytes"].as_u64(), lines[1]["bytes"].as_u64()), (Some(10), Some(10)));
    assert!(lines[0]["upstream_first_byte"].is_null() && lines[1]["upstream_first_byte"].is_f64());
}

#[test]
fn an_answer_that_broke_off_is_not_complete() {
    let (rig, directory) = rig(origin());
    let answer = rig.get("/cut");
    assert_eq!(answer.body.len(), 4);
    let line = &lines(&directory, 1)[0];
    assert_eq!((&line["status"], &line["complete"]), (&json!(200), &json!(false)), "{line}");
    assert_eq!(line["bytes"], 4);
}

#[test]
fn any_bytes_of_a_client_are_correct_json_and_its_secrets_are_not_there() {
    let (rig, directory) = rig(origin());
    let mut client = rig.client();
    client.send(
        [
            &b"GET /\"{\\}|?q=\\u0000 HTTP/1.1\r\nHost: H:81\r\nX-Forwarded-Proto: HTTPS\r\n"[..],
            b"X-Forwarded-For: 1.2.3.4,\t\"\\\xff\xc3\xa4\r\nX-Forwarded-For: ::1\r\n",
            b"Cookie: s3cret\r\nAuthorization: Bearer s3cret\r\n\r\n",
        ]
        .concat(),
    );
    client.answer("GET").expect(200);
    lines(&directory, 1);
    rig.ask("PURGE", "/a", "Authorization: Bearer s3cret\r\n", b"").expect(200);
    let lines = lines(&directory, 2);
    assert_eq!(lines[0]["url"], "https://H:81/\"{\\}|?q=\\u0000");
    assert_eq!(lines[0]["client"], "1.2.3.4,\t\"\\\u{fffd}\u{e4}, ::1");
    assert_eq!((&lines[1]["method"], &lines[1]["cache"]), (&json!("PURGE"), &json!("purged")));
    let text = fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
}

fn to_socket(path: &Path, bytes_max: u64) -> Rig {
    let target = AccessLogTarget::Unix(path.to_owned());
    Rig::with(origin(), |proxy| {
        proxy.access_log = Some(AccessLogOptions { target, bytes_max });
    })
}

#[test]
fn lines_go_to_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let rig = to_socket(&path, 1 << 20);
    for _ in 0..3 {
        rig.get("/other").expect(200);
    }
    let mut reader = BufReader::new(listener.accept().unwrap().0).lines();
    for _ in 0..3 {
        let line: Value = serde_json::from_str(&reader.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["url"], "http://h/other");
    }
}

#[test]
fn a_socket_that_nobody_reads_holds_up_no_answer_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // It takes connections, and what the kernel has room for.
    let _listener = UnixListener::bind(&path).unwrap();
    let limit = 64 << 10;
    let rig = to_socket(&path, limit);
    rig.fill("/a", "");
    let mut client = rig.client();
    let long = format!("X-Forwarded-For: {}\r\n", "1.2.3.4, ".repeat(500));
    for _ in 0..2000 {
        client.ask("GET", "/a", &long, b"").expect(200);
        let logs = rig.server.snapshot().proxy.access_logs;
        assert!(logs.bytes <= limit && logs.bytes_max == limit, "{logs:?}");
    }
    let logs = rig.server.snapshot().proxy.access_logs;
    assert!(logs.lost > 1000 && logs.bytes > limit / 2, "{logs:?}");
}

#[test]
fn a_stop_writes_all_lines() {
    let (mut rig, directory) = rig(origin());
    for _ in 0..100 {
        rig.get("/other").expect(200);
    }
    rig.server.begin_shutdown();
    rig.server.join();
    // At once: the process would end here.
    let text = fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(text.lines().count(), 100);
}
