//! Goal: PURGE on the listener is for whoever has the token, covers the variants of its target and nothing
//! else, also what is being fetched, and never reaches the upstream. Method: an origin that keeps what it is asked.

use rawcached::server::proxy::PurgeToken;

use crate::proxy::client::{Answer, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;

const TOKEN: &str = "Authorization: Bearer s3cret\r\n";
const ENGLISH: &str = "Accept-Language: en\r\n";
const HTTPS: &str = "X-Forwarded-Proto: https\r\n";

fn origin() -> Origin {
    Origin::start(|seen: &Seen| match seen.header("if-none-match") {
        Some(_) => Reply::not_modified(),
        None => {
            let lang = seen.header("accept-language").unwrap_or("none").to_owned();
            let reply = Reply::ok(lang).control("max-age=60").header("ETag", "\"a\"");
            match seen.target.starts_with("/plain") {
                true => reply,
                false => reply.header("Vary", "Accept-Language"),
            }
        }
    })
}

fn rig(origin: Origin) -> Rig {
    Rig::with(origin, |proxy| {
        proxy.purge_token = PurgeToken::new("s3cret");
        proxy.ignore_query = vec!["utm".to_owned()];
    })
}

#[track_caller]
fn purge(rig: &Rig, target: &str, fields: &str) -> Answer {
    let answer = rig.ask("PURGE", target, &format!("{TOKEN}{fields}"), b"");
    assert!(rig.origin.seen().iter().all(|seen| seen.method != "PURGE"));
    answer
}

#[track_caller]
fn is_hit(rig: &Rig, target: &str, fields: &str) -> bool {
    rig.settled(target, fields).verdict().hit
}

#[test]
fn without_the_setting_it_is_not_allowed_and_not_given_on() {
    let rig = Rig::of(origin());
    rig.fill("/a", "");
    let answer = rig.ask("PURGE", "/a", TOKEN, b"").expect(405);
    assert!(answer.header("allow").unwrap().contains("GET"), "{answer:?}");
    rig.get("/a").expect_hit();
    rig.expect_asked(1);
}

#[test]
fn without_the_token_it_is_refused_and_purges_nothing() {
    let rig = rig(origin());
    rig.fill("/a", "");
    for fields in [
        "",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Bearer s3crets\r\n",
        "Authorization: Bearer S3CRET\r\n",
        "Authorization: Basic s3cret\r\n",
        "Authorization: s3cret\r\n",
        "Authorization: Bearer s3cret\r\nAuthorization: Bearer s3cret\r\n",
        "X-Authorization: Bearer s3cret\r\n",
    ] {
        let answer = rig.ask("PURGE", "/a", fields, b"").expect(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "), "{answer:?}");
    }
    rig.get("/a").expect_hit();
    rig.expect_asked(1);
}

#[test]
fn all_variants_of_the_target_go_and_nothing_else() {
    for target in ["/a", "/plain"] {
        let rig = rig(origin());
        for other in [target, "/b", "/a/b"] {
            rig.fill(other, "");
            rig.fill(other, HTTPS);
        }
        if target == "/a" {
            rig.fill(target, ENGLISH);
        }
        // The query parameter is no part of the key, the body is none of the request.
        purge(&rig, &format!("{target}?utm=1"), "").expect(200);
        for other in ["/b", "/a/b"] {
            assert!(is_hit(&rig, other, "") && is_hit(&rig, other, HTTPS), "{other}");
        }
        assert!(is_hit(&rig, target, HTTPS), "the key of another client");
        rig.fill(target, "").expect(200);
        assert_eq!(rig.origin.last().header("if-none-match"), None, "nothing was left to validate");
        if target == "/a" {
            rig.fill(target, ENGLISH);
        }
        purge(&rig, target, HTTPS).expect(200);
        rig.fill(target, HTTPS);
        assert!(is_hit(&rig, target, ""));
    }
}

/// As after a mistake in a script.
#[test]
fn the_token_in_another_request_does_not_reach_the_upstream() {
    let rig = rig(origin());
    for method in ["GET", "POST"] {
        rig.ask(method, "/a", TOKEN, b"").expect(200);
        assert_eq!(rig.origin.last().header("authorization"), None);
        rig.ask(method, "/b", "Authorization: Bearer other\r\n", b"").expect(200);
        assert_eq!(rig.origin.last().header("authorization"), Some("Bearer other"));
    }
}

#[test]
fn what_is_not_stored_can_be_purged_too() {
    let rig = rig(origin());
    let answer = purge(&rig, "/nothing", "").expect(200);
    assert_eq!(answer.body, b"OK\n");
    purge(&rig, &format!("/{}", "x".repeat(8000)), "").expect(200);
    assert_eq!(rig.ask("PURGE", "*", TOKEN, b"").status, 400);
    rig.expect_asked(0);
}

#[test]
fn a_soft_one_has_every_variant_validated() {
    for target in ["/a", "/plain"] {
        let rig = rig(origin());
        let variants: &[&str] = if target == "/a" { &["", ENGLISH] } else { &[""] };
        for _ in 0..2 {
            variants.iter().for_each(|fields| assert!(rig.get_with(target, fields).status == 200));
            variants.iter().for_each(|fields| assert!(is_hit(&rig, target, fields)));
            purge(&rig, target, "Purge: soft\r\n").expect(200);
            for fields in variants {
                let asked = rig.origin.count();
                rig.get_with(target, fields).expect(200).expect_forwarded("stale");
                assert_eq!(rig.origin.count(), asked + 1, "{target} {fields}");
                assert_eq!(rig.origin.last().header("if-none-match"), Some("\"a\""));
                assert!(is_hit(&rig, target, fields), "{target} {fields}: it is fresh again");
            }
        }
        purge(&rig, target, "Purge: HARD\r\n").expect(200);
        rig.fill(target, "");
        assert_eq!(rig.origin.last().header("if-none-match"), None);
    }
    let rig = rig(origin());
    for wrong in ["Purge: sof\r\n", "Purge: soft\r\nPurge: soft\r\n"] {
        assert_eq!(purge(&rig, "/a", wrong).status, 400, "{wrong}");
    }
}

/// The first answer was asked for before the purge, and comes after it.
#[test]
fn it_covers_what_is_being_fetched() {
    for how in ["", "Purge: soft\r\n"] {
        for (vary, before) in [("", None), ("Accept", None), ("Accept", Some("Accept: x\r\n"))] {
            let latch = Latch::default();
            let gate = latch.clone();
            let rig = rig(Origin::start(move |seen| {
                let reply = Reply::ok(seen.order.to_string()).control("max-age=60");
                let reply = if vary.is_empty() { reply } else { reply.header("Vary", vary) };
                match seen.header("accept") {
                    Some(_) => reply,
                    None => reply.after(&gate),
                }
            }));
            if let Some(fields) = before {
                rig.fill("/a", fields);
            }
            let asked = rig.origin.count();
            let mut client = rig.client();
            client.send(request("GET", "/a", "", b""));
            rig.origin.wait_for(asked + 1);
            purge(&rig, "/a", how).expect(200);
            latch.open();
            let first = client.answer("GET").expect(200);
            let second = rig.settled("/a", "").expect(200);
            assert!(
                first.body != second.body,
                "{how} {vary} {before:?}: it is of before the purge"
            );
        }
    }
}

/// A client may send as many as it likes: they must not make the cache forget everything.
#[test]
fn it_takes_no_purge_record() {
    let rig = rig(origin());
    for target in ["/a", "/plain"] {
        rig.fill(target, "");
        for fields in ["", "Purge: soft\r\n"] {
            purge(&rig, target, fields).expect(200);
        }
    }
    assert_eq!(rig.server.cache.stats().store.purge_records, [0, 0]);
}

#[test]
fn it_is_answered_on_a_connection_that_goes_on() {
    let rig = rig(origin());
    let mut client = rig.client();
    client.ask("PURGE", "/a", TOKEN, b"a body").expect(200);
    client.ask("PURGE", "/a", "", b"a body").expect(401);
    client.get("/a").expect(200);
    rig.expect_asked(1);
}
