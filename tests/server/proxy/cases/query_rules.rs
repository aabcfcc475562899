//! Goal: of targets that the origin calls one by `No-Vary-Search` one response answers all, and no client ever gets
//! the response of a target that is another one, whatever becomes of the rule meanwhile. Method: an origin that says
//! in each body what it was asked for, under a rule that the test changes.

use std::sync::{Arc, Mutex};

use rawcached::server::proxy::PurgeToken;

use super::purge::purge;
use crate::proxy::client::{Client, request};
use crate::proxy::origin::{Origin, Seen};
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;
use crate::support::waiting::eventually;

const IGNORES_X: &str = "params=(\"x\")";
const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// What the origin says at present; empty says nothing.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn of(rule: &str) -> Said {
        Said(Arc::new(Mutex::new(rule.to_owned())))
    }

    fn set(&self, rule: &str) {
        rule.clone_into(&mut self.0.lock().unwrap());
    }

    /// The number of the request and its target, with the present rule.
    fn reply(&self, seen: &Seen) -> Reply {
        let reply = Reply::ok(format!("{} {}", seen.order, seen.target)).control("max-age=60");
        self.on(reply)
    }

    fn on(&self, reply: Reply) -> Reply {
        let rule = self.0.lock().unwrap();
        if rule.is_empty() { reply } else { reply.header("No-Vary-Search", &rule) }
    }

    fn rig(&self) -> Rig {
        let said = self.clone();
        on(Origin::start(move |seen| match seen.method.as_str() {
            "GET" => said.reply(seen),
            _ => Reply::empty("204 No Content"),
        }))
    }
}

fn on(origin: Origin) -> Rig {
    Rig::with(origin, |proxy| {
        proxy.no_vary_search = true;
        proxy.purge_token = PurgeToken::new("s3cret");
        proxy.settings.trusted = vec!["x-rawcached-key".parse().unwrap()];
    })
}

/// A request by which the rule of the path of `target` is learnt. It is not stored: others may have waited for it.
#[track_caller]
fn learn(rig: &Rig, target: &str) {
    let answer = rig.get(target).expect(200);
    assert!(!answer.verdict().stored, "{answer:?}");
    assert!(answer.body.ends_with(target.as_bytes()), "{answer:?}");
}

#[track_caller]
fn expect_of(rig: &Rig, asked_by: &str, order: usize, target: &str) {
    rig.settled(asked_by, "").expect_body(200, format!("{order} {target}"));
}

#[test]
fn one_response_answers_targets_that_are_one() {
    for (rule, path, target, same, others) in [
        (
            IGNORES_X,
            "/a?x=0",
            "/a?x=1&b=2",
            &["/a?b=2", "/a?%78=3&b=%32", "/a?b=2&x"][..],
            &["/a", "/a?b=3", "/a?X=1&b=2"][..],
        ),
        ("params", "/a?b", "/a?x=1", &["/a", "/a?", "/a?y=2"], &["/b?x=1", "/a/?x=1"]),
        ("params, except=(\"b\")", "/a", "/a?b=1&x=2", &["/a?y&b=1"], &["/a", "/a?b=2", "/a?b"]),
        ("key-order", "/a", "/a?c=1&b=2&c=3", &["/a?b=2&c=1&c=3"], &["/a?b=2&c=3&c=1", "/a?b=2"]),
    ] {
        let rig = Said::of(rule).rig();
        learn(&rig, path);
        let kept = rig.fill(target, "").expect_body(200, format!("1 {target}"));
        assert_eq!(rig.origin.last().target, target, "the origin gets it as it came");
        for same in same {
            rig.get(same).expect_body(200, &kept.body).expect_hit();
        }
        rig.expect_asked(2);
        for (order, other) in (2..).zip(others) {
            let forwarded = rig.get(other).expect(200);
            assert!(!forwarded.verdict().hit, "{rule}: {other}");
            assert_eq!(forwarded.body, format!("{order} {other}").into_bytes());
        }
    }
}

#[test]
fn it_is_off_by_default() {
    let said = Said::of("params");
    let rig = Rig::of(Origin::start(move |seen| said.reply(seen)));
    rig.fill("/a", "");
    rig.fill("/a?x=1", "").expect_body(200, "1 /a?x=1");
    rig.fill("/a?x=2", "").expect_body(200, "2 /a?x=2");
    rig.get("/a").expect_body(200, "0 /a").expect_hit();
    rig.get("/a?").expect_forwarded("uri-miss");
}

#[test]
fn without_a_rule_every_byte_matters() {
    let rig = Said::default().rig();
    for target in ["/a", "/a?", "/a?b&c", "/a?c&b", "/a?b=&c", "/a?%62&c"] {
        rig.fill(target, "");
    }
}

#[test]
fn variants_and_ranges_are_those_of_the_one() {
    let rig = on(Origin::start(|seen| {
        let lang = seen.header("accept-language").unwrap_or("none").to_owned();
        let reply = Reply::ok(format!("{lang} 0123456789")).control("max-age=60");
        reply.header("Vary", "Accept-Language").header("No-Vary-Search", IGNORES_X)
    }));
    learn_any(&rig, "/a");
    for (target, lang) in [("/a?x=1", "en"), ("/a?x=2", "de")] {
        rig.fill(target, &format!("Accept-Language: {lang}\r\n"));
    }
    for lang in ["en", "de"] {
        let fields = format!("Accept-Language: {lang}\r\n");
        rig.get_with("/a", &fields).expect_body(200, format!("{lang} 0123456789")).expect_hit();
        let range = format!("{fields}Range: bytes=0-1\r\n");
        rig.get_with("/a?x=9", &range).expect_body(206, lang).expect_hit();
    }
    rig.expect_asked(3);
}

#[track_caller]
fn learn_any(rig: &Rig, target: &str) {
    assert!(!rig.get(target).expect(200).verdict().stored);
}

#[test]
fn a_rule_is_of_one_path_of_one_host() {
    let rig = Said::of(IGNORES_X).rig();
    learn(&rig, "/a?x=1");
    rig.fill("/a?x=2", "");
    learn(&rig, "/b?x=1");
    let mut client = rig.client();
    client.send("GET /a?x=3 HTTP/1.1\r\nHost: other\r\n\r\n");
    client.answer("GET").expect_body(200, "3 /a?x=3");
    rig.get("/a?x=4").expect_body(200, "1 /a?x=2").expect_hit();
}

#[test]
fn what_was_stored_by_a_rule_goes_with_it() {
    let said = Said::of(IGNORES_X);
    let rig = said.rig();
    learn(&rig, "/a");
    rig.fill("/a?x=1", "");
    expect_of(&rig, "/a?x=2", 1, "/a?x=1");
    // Withdrawn: learnt from a response that is no hit.
    said.set("");
    learn(&rig, "/a?y=1");
    for target in ["/a", "/a?x=2", "/a?x=1"] {
        rig.fill(target, "").expect_body(200, format!("{} {target}", rig.origin.count() - 1));
    }
    // Said once more: what was stored before may have been purged meanwhile, and nobody knew.
    said.set(IGNORES_X);
    learn(&rig, "/a?y=2");
    rig.fill("/a?x=3", "").expect_body(200, "7 /a?x=3");
    expect_of(&rig, "/a", 7, "/a?x=3");
    // Another one.
    said.set("params=(\"y\")");
    learn(&rig, "/a?z");
    for target in ["/a?x=1", "/a?x=2"] {
        let asked = rig.origin.count();
        rig.fill(target, "").expect_body(200, format!("{asked} {target}"));
    }
    expect_of(&rig, "/a?y=1&x=2", rig.origin.count() - 1, "/a?x=2");
}

/// A response that is stale is not replaced by one that has another rule, and not validated for another target.
#[test]
fn a_rule_that_changes_with_a_validation_is_heard() {
    for (later, is_repeated) in [("", false), ("params=(\"y\")", false), (IGNORES_X, true)] {
        let said = Said::of(IGNORES_X);
        let its = said.clone();
        let rig = on(Origin::start(move |seen| match seen.header("if-none-match") {
            // The same name for what every target has: it is unique within one target only.
            Some(_) => its.on(Reply::not_modified().header("ETag", "\"a\"").control("max-age=60")),
            None => its.reply(seen).header("ETag", "\"a\""),
        }));
        learn(&rig, "/a");
        rig.fill("/a?x=1", "");
        rig.pass(61);
        said.set(later);
        let answer = rig.get("/a?x=2").expect(200);
        if is_repeated {
            assert_eq!(answer.body, b"1 /a?x=1");
            expect_of(&rig, "/a?x=3", 1, "/a?x=1");
            rig.expect_asked(3);
        } else {
            assert_eq!(answer.body, b"3 /a?x=2", "{later}");
            assert!(!answer.verdict().stored, "{answer:?}");
            rig.fill("/a?x=2", "").expect_body(200, "4 /a?x=2");
            rig.fill("/a?x=1", "").expect_body(200, "5 /a?x=1");
        }
    }
}

/// A refresh in the background brings a new rule: nobody waits for it.
#[test]
fn a_refresh_brings_a_rule() {
    let said = Said::of(IGNORES_X);
    let its = said.clone();
    let rig = on(Origin::start(move |seen| {
        let reply = Reply::ok(format!("{} {}", seen.order, seen.target));
        its.on(reply.control("max-age=60, stale-while-revalidate=60"))
    }));
    learn(&rig, "/a");
    rig.fill("/a?x=1", "");
    rig.pass(61);
    said.set("");
    rig.get("/a?x=2").expect_body(200, "1 /a?x=1").expect_hit();
    rig.origin.wait_for(3);
    let is_learnt = eventually(|| rig.get("/a?x=3").expect(200).body.ends_with(b"/a?x=3"));
    assert!(is_learnt);
    expect_of(&rig, "/a?x=3", rig.origin.count() - 1, "/a?x=3");
}

/// Asks for all targets at once, and opens `latch` when the first of them is with the origin and all have asked.
fn crowd(rig: &Rig, targets: &[String], latch: &Latch) -> Vec<(String, Vec<u8>)> {
    let before = rig.origin.count();
    let ask = |target: &String| {
        let mut client = rig.client();
        client.send(request("GET", target, "", b""));
        client
    };
    let clients: Vec<Client> = targets.iter().map(ask).collect();
    rig.origin.wait_for(before + 1);
    // All of them wait, or have asked themselves.
    std::thread::sleep(crate::proxy::rig::SOON);
    latch.open();
    let answers = clients.into_iter().map(|mut client| client.answer("GET").expect(200).body);
    targets.iter().cloned().zip(answers).collect()
}

#[test]
fn who_waits_while_the_rule_changes_gets_its_own() {
    let targets: Vec<String> = (0..8).map(|n| format!("/a?x={n}")).collect();
    for later in ["", "params=(\"y\")", "key-order"] {
        let (said, latch) = (Said::of(IGNORES_X), Latch::default());
        let (its, gate) = (said.clone(), latch.clone());
        let rig = on(Origin::start(move |seen| match seen.order {
            2 => its.reply(seen).after(&gate),
            _ => its.reply(seen),
        }));
        rig.get("/a?x=0").expect(200);
        rig.fill("/a?x=1", "");
        rig.pass(61);
        said.set(later);
        for (target, body) in crowd(&rig, &targets, &latch) {
            assert!(body.ends_with(format!(" {target}").as_bytes()), "{later}: {target} {body:?}");
        }
        for target in &targets {
            rig.settled(target, "");
            let body = rig.get(target).expect_hit().body;
            assert!(body.ends_with(format!(" {target}").as_bytes()), "{later}: {target}");
        }
    }
}

/// Those who wait for a target whose rule nobody knows share one request by the rule once it is there.
#[test]
fn who_waits_while_a_rule_is_learnt_shares_by_it() {
    let latch = Latch::default();
    let (said, gate) = (Said::of(IGNORES_X), latch.clone());
    let rig = on(Origin::start(move |seen| match seen.order {
        0 => said.reply(seen).after(&gate),
        _ => said.reply(seen),
    }));
    let targets: Vec<String> = (0..8).map(|_| "/a?x=1".to_owned()).collect();
    for (_, body) in crowd(&rig, &targets, &latch) {
        assert!([&b"0 /a?x=1"[..], b"1 /a?x=1"].contains(&&body[..]), "{body:?}");
    }
    expect_of(&rig, "/a?x=2", 1, "/a?x=1");
    rig.expect_asked(2);
}

/// One more who asks for a part: what is stored of one target is not continued with bytes of another.
#[test]
fn parts_are_of_targets_that_are_one() {
    const LEN: usize = 4 << 20;
    let said = Said::of(IGNORES_X);
    let its = said.clone();
    let origin = Origin::start(move |seen| {
        let byte = seen.target.bytes().last().unwrap();
        let (start, end) = match seen.header("range") {
            Some(range) => {
                let (start, end) = range["bytes=".len()..].split_once('-').unwrap();
                (start.parse().unwrap(), end.parse().unwrap_or(LEN - 1).min(LEN - 1))
            }
            None => (0, LEN - 1),
        };
        let body = vec![byte; end + 1 - start];
        let reply = match seen.header("range") {
            Some(_) => Reply::of("206 Partial Content", body)
                .header("Content-Range", &format!("bytes {start}-{end}/{LEN}")),
            None => Reply::ok(body).header("Accept-Ranges", "bytes"),
        };
        its.on(reply.control("max-age=60").header("ETag", "\"a\""))
    });
    let rig = Rig::with(origin, |proxy| {
        proxy.no_vary_search = true;
        (proxy.range_fetch_min, proxy.fill_block) = (1 << 20, 1 << 20);
    });
    let part = |target: &str, start: usize| {
        let range = format!("Range: bytes={start}-{}\r\n", start + 9);
        let body = rig.get_with(target, &range).expect(206).body;
        assert_eq!(body.len(), 10);
        assert!(body.iter().all(|byte| *byte == body[0]), "{body:?}");
        char::from(body[0])
    };
    rig.get("/a?x=0").expect(200);
    let block = |n: usize| n << 20;
    assert_eq!(part("/a?x=1", block(1)), '1');
    let is_shared = eventually(|| part("/a?x=2", block(1)) == '1');
    assert!(is_shared);
    assert_eq!(part("/a?x=3", block(2)), '3', "the rest comes when somebody wants it");
    said.set("");
    assert_eq!(part("/a?x=4", block(3)), '4');
    for n in 1..4 {
        assert_eq!(part("/a?x=5", block(n)), '5', "nothing of another target");
        assert_eq!(part("/a?x=4", block(n)), '4', "nothing of another target");
    }
}

#[test]
fn no_client_can_end_a_rule_by_what_is_not_there() {
    let said = Said::of(IGNORES_X);
    let rig = on(Origin::start(move |seen| match seen.target.contains("missing") {
        true => Reply::of("404 Not Found", "none").control("max-age=60"),
        false => said.reply(seen),
    }));
    learn(&rig, "/a");
    rig.fill("/a?b=1&x=1", "");
    for n in 0..3 {
        rig.get(&format!("/a?missing={n}")).expect_body(404, "none");
    }
    rig.get("/a?b=1&x=2").expect(200).expect_hit();
}

#[test]
fn an_error_is_told_without_words_where_it_says_no_rule() {
    let said = Said::of(IGNORES_X);
    let its = said.clone();
    let rig = on(Origin::start(move |seen| match seen.target.contains("y=") {
        true => its.on(Reply::of("500 Internal Server Error", &seen.target)),
        false => its.reply(seen),
    }));
    learn(&rig, "/a");
    rig.get("/a?y=1&x=1").expect_body(500, "/a?y=1&x=1");
    rig.get("/a?y=1&x=2").expect_body(500, "/a?y=1&x=1");
    rig.pass(2);
    said.set("");
    rig.get("/a?y=1&x=3").expect_body(500, "/a?y=1&x=3");
    let told = rig.get("/a?y=1&x=4").expect(500);
    assert!(!String::from_utf8(told.body).unwrap().contains("x=3"));
    rig.expect_asked(3);
}

#[test]
fn a_purge_of_one_is_a_purge_of_all_that_are_one() {
    type Purge = fn(&Rig);
    let purges: [(&str, Purge); 5] = [
        ("PURGE", |rig| drop(rig.ask("PURGE", "/a?b=1&x=7", TOKEN, b"").expect(200))),
        ("soft", |rig| {
            let fields = format!("{TOKEN}Purge: soft\r\n");
            rig.ask("PURGE", "/a?x=7&%62=1", &fields, b"").expect(200);
        }),
        ("uri", |rig| {
            let body = r#"{"type":"uri","selectors":["http://h/a?x=7&b=1"]}"#;
            assert_eq!(purge(rig, body), 200);
        }),
        ("prefix", |rig| {
            assert_eq!(purge(rig, r#"{"type":"uri-prefix","selectors":["http://h/a"]}"#), 200);
        }),
        ("POST", |rig| drop(rig.ask("POST", "/a?b=1&x=7", "", b"body").expect(204))),
    ];
    for (name, purge) in purges {
        let rig = Said::of(IGNORES_X).rig();
        learn(&rig, "/a");
        rig.fill("/a?x=1&b=1", "");
        rig.fill("/a?x=1&b=2", "");
        purge(&rig);
        let answer = rig.settled("/a?b=1&x=1", "").expect(200);
        assert!(answer.body.ends_with(b" /a?b=1&x=1"), "{name}: {answer:?}");
        let other = rig.get("/a?b=2").expect(200);
        assert_eq!(other.verdict().hit, name != "prefix", "{name}");
        // The rule stays: another target is answered by what came.
        let again = rig.settled("/a?x=3&b=1", "");
        assert!(again.verdict().hit && again.body == answer.body, "{name}: {again:?}");
    }
}

/// What was stored by no rule goes too: the rule may be withdrawn.
#[test]
fn a_purge_covers_what_was_stored_by_no_rule() {
    let said = Said::default();
    let rig = said.rig();
    for target in ["/a?x=1", "/a?x=2", "/a?x=3"] {
        rig.fill(target, "");
    }
    said.set(IGNORES_X);
    learn(&rig, "/a");
    rig.ask("PURGE", "/a?x=1", TOKEN, b"").expect(200);
    rig.ask("POST", "/a?x=2", "", b"").expect(204);
    assert_eq!(purge(&rig, r#"{"type":"uri","selectors":["http://h/a?x=3"]}"#), 200);
    said.set("");
    learn(&rig, "/a?y");
    for target in ["/a?x=1", "/a?x=2", "/a?x=3"] {
        rig.fill(target, "");
    }
}

/// Purged while another rule held, by which the purge did not name it: it does not come back with its rule.
#[test]
fn what_was_purged_between_two_rules_does_not_come_back() {
    let said = Said::of(IGNORES_X);
    let rig = said.rig();
    learn(&rig, "/a");
    rig.fill("/a?x=1", "");
    said.set("");
    learn(&rig, "/a?y=1");
    rig.ask("PURGE", "/a?x=2", TOKEN, b"").expect(200);
    said.set(IGNORES_X);
    learn(&rig, "/a?y=2");
    rig.fill("/a?x=2", "").expect_body(200, "4 /a?x=2");
}

/// A location is a target like another.
#[test]
fn what_an_answer_names_goes_with_all_that_are_one() {
    let said = Said::of(IGNORES_X);
    let rig = on(Origin::start(move |seen| match seen.method.as_str() {
        "GET" => said.reply(seen),
        _ => Reply::of("201 Created", "").header("Location", "/a?x=7&b=1"),
    }));
    learn(&rig, "/a");
    rig.fill("/a?x=1&b=1", "");
    rig.ask("POST", "/new", "", b"").expect(201);
    rig.fill("/a?x=2&b=1", "").expect_body(200, "3 /a?x=2&b=1");
}

#[test]
fn a_key_that_the_proxy_names_has_no_rule() {
    let rig = Said::of(IGNORES_X).rig();
    let key = |target: &str| format!("X-Rawcached-Key: h{target}\r\n");
    rig.fill("/a?x=1", &key("/k?x=1"));
    rig.fill("/a?x=1", &key("/k?x=2"));
    rig.get_with("/a?x=2", &key("/k?x=1")).expect_body(200, "0 /a?x=1").expect_hit();
    rig.expect_asked(2);
}

/// RAM holds none of it: the rule and the response are read from the device.
#[test]
fn a_rule_is_on_the_device() {
    let said = Said::of(IGNORES_X);
    let origin = Origin::start(move |seen| said.reply(seen));
    let rig = Rig::without_ram(origin, |proxy| proxy.no_vary_search = true);
    learn(&rig, "/a");
    rig.fill("/a?x=1", "");
    rig.get("/a?x=2").expect_body(200, "1 /a?x=1").expect_hit();
    rig.expect_asked(2);
}
