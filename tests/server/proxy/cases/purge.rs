//! Goal: `POST /v1/purge` covers what its selectors say and nothing else, hard or soft, also what is being
//! fetched. Method: the socket of objects beside the listener.

use rawcached::server::Options;

use crate::proxy::client::{Client, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;
use crate::support::server::options;

fn origin() -> Origin {
    Origin::start(|seen: &Seen| match seen.header("if-none-match") {
        Some(_) => Reply::not_modified(),
        None => {
            let lang = seen.header("accept-language").unwrap_or("none").to_owned();
            Reply::ok(lang)
                .control("max-age=60")
                .header("ETag", "\"a\"")
                .header("Surrogate-Key", "one two")
                .header("Cache-Groups", "\"g\"")
                .header("Vary", "Accept-Language")
        }
    })
}

pub fn purge(rig: &Rig, body: &str) -> u16 {
    let mut client = Client::open(&rig.objects);
    client.send(request("POST", "/v1/purge", "", body.as_bytes()));
    client.answer("POST").status
}

fn is_hit(rig: &Rig, target: &str, fields: &str) -> bool {
    rig.settled(target, fields).verdict().hit
}

const ENGLISH: &str = "Accept-Language: en\r\n";
const HTTPS: &str = "X-Forwarded-Proto: https\r\n";

#[test]
fn a_selector_covers_what_it_says() {
    for (body, gone, stays) in [
        (r#"{"type":"uri","selectors":["http://h/a"]}"#, &["/a"][..], &["/b", "/a/b"][..]),
        (
            r#"{"type":"uri","selectors":["https://H:443/a","http://h/b"]}"#,
            &["/a", "/b"],
            &["/a/b"],
        ),
        (r#"{"type":"uri-prefix","selectors":["http://h/a"]}"#, &["/a", "/a/b"], &["/b"]),
        (r#"{"type":"origin","selectors":["http://h"]}"#, &["/a", "/a/b", "/b"], &[]),
        (r#"{"type":"origin","selectors":["http://other"]}"#, &[], &["/a", "/a/b", "/b"]),
        (r#"{"type":"group","selectors":["http://h"],"groups":["g"]}"#, &["/a", "/b"], &[]),
        (r#"{"type":"group","selectors":["http://h"],"groups":["G"]}"#, &[], &["/a", "/b"]),
        (r#"{"type":"group","selectors":["http://i"],"groups":["g"]}"#, &[], &["/a", "/b"]),
        (r#"{"type":"tag","selectors":["two"]}"#, &["/a", "/b"], &[]),
        (r#"{"type":"tag","selectors":["three"]}"#, &[], &["/a", "/b"]),
        (r#"{"type":"all"}"#, &["/a", "/a/b", "/b"], &[]),
    ] {
        let rig = Rig::of(origin());
        for target in ["/a", "/a/b", "/b"] {
            for fields in ["", ENGLISH, HTTPS] {
                rig.fill(target, fields);
            }
        }
        assert_eq!(purge(&rig, body), 200, "{body}");
        for target in stays {
            for fields in ["", ENGLISH, HTTPS] {
                assert!(is_hit(&rig, target, fields), "{body} {target} {fields}");
            }
        }
        for target in gone {
            for fields in ["", ENGLISH, HTTPS] {
                let asked = rig.origin.count();
                rig.get_with(target, fields).expect(200);
                assert_eq!(rig.origin.count(), asked + 1, "{body} {target} {fields}");
                assert_eq!(rig.origin.last().header("if-none-match"), None, "{body}");
            }
        }
    }
}

#[test]
fn a_soft_purge_has_what_it_covers_validated() {
    for body in [
        r#"{"type":"uri","selectors":["http://h/a"],"purge":false}"#,
        r#"{"type":"uri-prefix","selectors":["http://h/"],"purge":false}"#,
        r#"{"type":"tag","selectors":["one"],"purge":false}"#,
        r#"{"type":"all","purge":false}"#,
    ] {
        let rig = Rig::of(origin());
        for fields in ["", ENGLISH] {
            rig.fill("/a", fields);
        }
        assert_eq!(purge(&rig, body), 200, "{body}");
        for (fields, content) in [("", "none"), (ENGLISH, "en")] {
            rig.get_with("/a", fields).expect_body(200, content).expect_forwarded("stale");
            assert_eq!(rig.origin.last().header("if-none-match"), Some("\"a\""), "{body}");
            assert!(is_hit(&rig, "/a", fields), "{body}: it is fresh again");
        }
    }
}

#[test]
fn a_purge_covers_what_is_being_fetched() {
    for body in [
        r#"{"type":"uri","selectors":["http://h/a"]}"#,
        r#"{"type":"uri-prefix","selectors":["http://h/"]}"#,
        r#"{"type":"tag","selectors":["late"]}"#,
        r#"{"type":"all"}"#,
    ] {
        for vary in ["", "Accept"] {
            let latch = Latch::default();
            let gate = latch.clone();
            let rig = Rig::start(move |seen| {
                let reply = Reply::ok(seen.order.to_string()).control("max-age=60");
                let reply = if vary.is_empty() { reply } else { reply.header("Vary", vary) };
                // The tag is learnt after the purge.
                reply.header("Surrogate-Key", "late").after(&gate)
            });
            let mut client = rig.client();
            client.send(request("GET", "/a", "", b""));
            rig.origin.wait_for(1);
            assert_eq!(purge(&rig, body), 200, "{body}");
            latch.open();
            let first = client.answer("GET").expect(200);
            let second = rig.settled("/a", "").expect(200);
            assert!(first.body != second.body, "{body} {vary}: what came before the purge is gone");
        }
    }
}

/// Of one URL that has no variants there is no purge record which says that it was softly purged.
#[test]
fn a_soft_purge_covers_what_is_being_fetched() {
    let body = r#"{"type":"uri","selectors":["http://h/a"],"purge":false}"#;
    for vary in ["", "Accept"] {
        let latch = Latch::default();
        let gate = latch.clone();
        let rig = Rig::start(move |seen| {
            let reply = Reply::ok(seen.order.to_string()).control("max-age=60").after(&gate);
            if vary.is_empty() { reply } else { reply.header("Vary", vary) }
        });
        let mut client = rig.client();
        client.send(request("GET", "/a", "", b""));
        rig.origin.wait_for(1);
        assert_eq!(purge(&rig, body), 200);
        latch.open();
        let first = client.answer("GET").expect(200);
        let second = rig.settled("/a", "").expect(200);
        assert!(first.body != second.body, "{vary}: what came before the purge is not fresh");
    }
}

#[test]
fn what_is_no_purge_is_refused() {
    let rig = Rig::of(origin());
    rig.fill("/a", "");
    for body in [
        "",
        "{}",
        r#"{"type":"nothing","selectors":["http://h/a"]}"#,
        r#"{"type":"uri"}"#,
        r#"{"type":"uri","selectors":["/a"]}"#,
        r#"{"type":"uri","selectors":["http://h/a"],"groups":["g"]}"#,
        r#"{"type":"group","selectors":["http://h/a"]}"#,
        r#"{"type":"all","selectors":["http://h/a"]}"#,
        r#"{"type":"uri","selectors":["http://h/a"],"how":"soft"}"#,
    ] {
        assert_eq!(purge(&rig, body), 400, "{body}");
    }
    let many = vec!["\"http://h/a\""; 1001].join(",");
    assert_eq!(purge(&rig, &format!(r#"{{"type":"uri","selectors":[{many}]}}"#)), 413);
    assert!(is_hit(&rig, "/a", ""));
    // The listener has no paths of its own.
    rig.ask("POST", "/v1/purge", "", br#"{"type":"all"}"#).expect(200);
    assert!(is_hit(&rig, "/a", ""));
}

/// Purges that do not come whole share the memory for input with all other requests.
#[test]
fn purges_that_come_slowly_take_no_more_memory_than_there_is() {
    let (limit, origin) = (1 << 20, origin());
    let place = origin.place.clone();
    let options = Options { input_bytes_max: limit, connections_max: 200, ..options() };
    let rig = Rig::before(origin, &place, options, |_| {});
    let begin = |_| {
        let mut client = Client::open(&rig.objects);
        client.send("POST /v1/purge HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
        client.try_send(vec![b' '; 50_000]);
        client
    };
    let waiting: Vec<Client> = (0..100).map(begin).collect();
    rig.server.wait_until(|now| now.counts.bytes_read >= limit);
    let snapshot = rig.server.snapshot();
    assert!(snapshot.input_bytes <= snapshot.input_bytes_max, "{}", snapshot.input_bytes);
    drop(waiting);
    rig.server.wait_until(|now| now.input_bytes == 0);
    assert_eq!(purge(&rig, r#"{"type":"all"}"#), 200);
}
