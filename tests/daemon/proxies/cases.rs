//! What holds with each proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::{Answer, End, request};
use super::origin::Seen;
use super::recipe::{DENIED_HERE, Proxy};
use super::reply::{Latch, Reply, Step};
use super::site::{Site, is_ours};
use super::wire::values;
use crate::support::http::body;
use crate::support::waiting::{eventually, now};

/// An answer is there at once: nobody waited for a timeout. The rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

/// `/LEN` has a body of that length, and any other page its target; a POST is answered with the beginning of its
/// body. Not with all of it: Caddy 2.6 may cut an answer of more than 4 KiB that comes before it has seen the end
/// of what it sends, from any origin.
fn page(seen: &Seen) -> Reply {
    if seen.method == "POST" {
        return Reply::ok(&seen.body[..seen.body.len().min(1000)]);
    }
    let bytes = match seen.target[1..].parse() {
        Ok(len) => body(len),
        Err(_) => seen.target.clone().into_bytes(),
    };
    Reply::ok(bytes).control("max-age=600").header("ETag", "\"v1\"")
}

pub fn what_is_stored_is_hit_in_parts_and_by_validators(proxy: Proxy) {
    let Some(site) = Site::start(proxy, page) else { return };
    for (asked, len) in (1..).zip([1000, 65_536, 5_000_000]) {
        let (target, bytes) = (format!("/{len}"), body(len));
        let answer = site.get(&target).expect_body(200, &bytes).expect_forwarded("uri-miss");
        assert!(answer.verdict().stored, "{answer:?}");
        let answer = site.hit(&target).expect_body(200, &bytes);
        assert_eq!(answer.header("etag"), Some("\"v1\""));
        let part = site.ask("GET", &target, "Range: bytes=100-899\r\n", b"");
        let part = part.expect_body(206, &bytes[100..900]).expect_hit();
        let range = format!("bytes 100-899/{len}");
        assert_eq!(part.header("content-range"), Some(&*range));
        // Apache keeps Cache-Status back.
        site.ask("GET", &target, "If-None-Match: \"v1\"\r\n", b"").expect_body(304, b"");
        site.ask("HEAD", &target, "", b"").expect(200).expect_hit();
        assert_eq!(site.origin().count(), asked, "{target}: {:?}", site.origin().seen());
    }
    let (head, found) = site.last("GET /5000000 HTTP/1.0\r\nHost: h\r\n\r\n");
    assert!(head.contains("rawcached; hit") && found == body(5_000_000), "{head}");
}

pub fn a_purge_makes_the_next_a_miss(proxy: Proxy) {
    let Some(site) = Site::start(proxy, page) else { return };
    for target in ["/a", "/b%2Fc//d%20e?f=%2Fg&h"] {
        site.get(target).expect_forwarded("uri-miss");
        assert_eq!(site.origin().last().target, target, "as the client wrote it");
        site.hit(target);
        let asked = site.origin().count();
        site.purge(target);
        site.get(target).expect_body(200, target).expect_forwarded("uri-miss");
        assert_eq!(site.origin().count(), asked + 1);
        site.hit(target);
    }
    site.hit("/a");
}

pub fn a_dead_origin_is_stood_in_for(proxy: Proxy) {
    let started =
        Site::start(proxy, |seen| Reply::ok(&seen.target).control("max-age=1, stale-if-error=600"));
    let Some(mut site) = started else { return };
    site.get("/a").expect(200);
    site.hit("/a");
    site.stop_origin();
    let is_stale = eventually(|| {
        let answer = site.get("/a").expect_body(200, "/a");
        answer.verdict().ttl.is_some_and(|secs| secs < 0)
    });
    assert!(is_stale, "{:?}\n{}", site.get("/a"), site.log());
    let answer = site.get("/b");
    assert!(matches!(answer.status, 502..=504), "{answer:?}");
    site.start_origin(page);
    let started = now();
    // Varnish leaves who refused it alone for a quarter of a second.
    let is_back = (0..).map(|number| site.get(&format!("/c{number}")).status);
    assert!(is_back.take_while(|status| *status != 200).all(|_| started.elapsed() < AT_ONCE));
}

/// The answer to a POST with the bytes `id`, if there is one. Varnish cannot send a body twice, not even where
/// nobody took it: it fails until its probe has seen that the daemon is away.
#[track_caller]
fn post(site: &Site, id: &str) -> Option<Answer> {
    let answer = site.ask("POST", "/post", "", id.as_bytes());
    let is_lost = site.proxy == Proxy::Varnish && answer.status == 503;
    (!is_lost).then(|| answer.expect_body(200, id))
}

/// How often a POST with the bytes `id` came to the origin.
fn posted(site: &Site, id: &str) -> usize {
    let seen = site.origin().seen();
    seen.iter().filter(|seen| seen.method == "POST" && seen.body == id.as_bytes()).count()
}

pub fn the_site_goes_on_without_the_daemon_and_hits_go_on_with_it(proxy: Proxy) {
    let Some(mut site) = Site::start(proxy, page) else { return };
    // A connection that clients keep, and what it has behind the front.
    let mut kept = site.client();
    kept.get("/a").expect_body(200, "/a");
    site.hit("/a");
    post(&site, "before").expect("the daemon runs");
    for round in ["killed", "killed again", "stopped"] {
        match round {
            "stopped" => assert!(site.daemon.stop().success()),
            _ => site.kill_daemon(),
        }
        for number in 0..20 {
            let asked = now();
            let own = format!("/{}/{number}", round.len());
            for target in ["/a", &own] {
                let answer = site.get(target).expect_body(200, target);
                assert!(!is_ours(&answer), "{answer:?}");
            }
            kept.get(&own).expect_body(200, &own);
            let id = format!("{round} {number}");
            let answer = post(&site, &id);
            assert_eq!(posted(&site, &id), usize::from(answer.is_some()), "{}", site.log());
            assert!(asked.elapsed() < AT_ONCE, "{:?}\n{}", asked.elapsed(), site.log());
        }
        assert!(eventually(|| post(&site, "without").is_some()), "{}", site.log());
        site.daemon.restart();
        site.hit("/a").expect_body(200, "/a");
        let asked = site.origin().count();
        for _ in 0..10 {
            kept.get("/a").expect_body(200, "/a").expect_hit();
        }
        assert_eq!(site.origin().count(), asked);
        post(&site, &format!("{round} again")).expect("the daemon runs");
    }
    assert_eq!(posted(&site, "before"), 1);
}

pub fn a_kill_before_the_answer_sends_no_post_again(proxy: Proxy) {
    let (latch, is_slow) = (Latch::default(), Arc::new(AtomicBool::new(true)));
    let (held, slow) = (latch.clone(), is_slow.clone());
    let started = Site::start(proxy, move |seen| match slow.load(Ordering::Relaxed) {
        true => page(seen).after(&held),
        false => page(seen),
    });
    let Some(mut site) = started else { return };
    let mut reader = site.client();
    reader.send(request("GET", "/a", "", b""));
    let posts: [(&str, &[u8]); 2] = [("/post", b"once"), ("/empty", b"")];
    let mut writers = posts.map(|_| site.client());
    for (writer, (target, sent)) in writers.iter_mut().zip(posts) {
        writer.send(request("POST", target, "", sent));
    }
    site.origin().wait_for(3);
    is_slow.store(false, Ordering::Relaxed);
    site.daemon.kill();
    let answer = reader.answer("GET");
    match proxy {
        // It asks nobody else once it has sent a request.
        Proxy::Apache => drop(answer.expect(502)),
        _ => drop(answer.expect_body(200, "/a")),
    }
    for answer in writers.iter_mut().filter_map(|writer| writer.try_head("POST")) {
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
    }
    latch.open();
    site.get("/a").expect_body(200, "/a");
    for (target, _) in posts {
        let seen = site.origin().seen();
        let times = seen.iter().filter(|seen| seen.target == target).count();
        assert_eq!(times, 1, "{target}\n{}", site.log());
    }
}

/// Pages that an origin breaks off. Caddy 2.6 lets chunked bodies that broke off look whole.
fn breaking(proxy: Proxy) -> &'static [&'static str] {
    match proxy {
        Proxy::Caddy => &["/length"],
        _ => &["/length", "/chunked"],
    }
}

pub fn a_kill_in_mid_fill_cuts_a_body_and_nothing_looks_whole(proxy: Proxy) {
    const LEN: usize = 2_000_000;
    let (latch, is_slow) = (Latch::default(), Arc::new(AtomicBool::new(true)));
    let (held, slow) = (latch.clone(), is_slow.clone());
    let started = Site::start(proxy, move |seen| {
        let bytes = body(LEN);
        let reply = match &*seen.target {
            "/chunked" => Reply::chunked(&[&bytes[..LEN / 2], &bytes[LEN / 2..]]),
            _ => Reply::ok(bytes),
        };
        let reply = reply.control("max-age=600");
        if slow.load(Ordering::Relaxed) { reply.waits_at(LEN / 2, &held) } else { reply }
    });
    let Some(mut site) = started else { return };
    let targets = breaking(proxy);
    let mut waiting = Vec::new();
    for &target in targets {
        // The second follows the fill of the first.
        for _ in 0..2 {
            let mut client = site.client();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let mut answer = client.head("GET");
            assert!(is_ours(&answer), "{answer:?}");
            client.read_to(&mut answer, LEN / 4);
            waiting.push((client, answer));
        }
    }
    assert_eq!(site.origin().count(), targets.len());
    is_slow.store(false, Ordering::Relaxed);
    site.daemon.kill();
    for (mut client, answer) in waiting {
        let answer = client.finish(answer);
        assert_eq!(answer.end, End::Cut, "{answer:?}");
        assert!(answer.body == body(LEN)[..answer.body.len()], "{answer:?}");
    }
    for target in targets {
        site.get(target).expect_body(200, body(LEN));
    }
    latch.open();
    site.daemon.restart();
    for target in targets {
        site.get(target).expect_body(200, body(LEN));
        site.hit(target).expect_body(200, body(LEN));
    }
}

pub fn a_body_that_breaks_off_at_the_origin_is_not_stored(proxy: Proxy) {
    const LEN: usize = 2_000_000;
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = is_broken.clone();
    let started = Site::start(proxy, move |seen| {
        let bytes = body(LEN);
        let reply = match &*seen.target {
            "/chunked" => Reply::chunked(&[&bytes[..LEN / 2], &bytes[LEN / 2..]]),
            _ => Reply::ok(bytes),
        };
        let reply = reply.control("max-age=600").header("CDN-Cache-Control", "max-age=600");
        match broken.load(Ordering::Relaxed) {
            true => reply.ends_at(LEN / 4, vec![Step::Close]),
            false => reply,
        }
    });
    let Some(site) = started else { return };
    for target in ["/length", "/chunked"] {
        is_broken.store(true, Ordering::Relaxed);
        let answer = site.get(target);
        let is_told = answer.end == End::Cut || answer.status >= 500;
        assert!(is_told || !breaking(proxy).contains(&target), "{answer:?}");
        is_broken.store(false, Ordering::Relaxed);
        // It is not stored; an error that it became may be given for a second.
        let mut last = answer;
        assert!(eventually(|| {
            last = site.get(target);
            last.status == 200
        }));
        last.expect_body(200, body(LEN));
        if breaking(proxy).contains(&target) {
            site.hit(target).expect_body(200, body(LEN));
        }
    }
}

pub fn a_post_comes_to_the_origin_once(proxy: Proxy) {
    let started = Site::start(proxy, |seen| match &*seen.target {
        "/broken" => Reply::close(),
        "/reset" => Reply::steps(vec![Step::Reset]),
        "/late" => Reply::raw_last("HTTP/1.1 200 OK\r\nContent-Le"),
        _ => page(seen),
    });
    let Some(site) = started else { return };
    for sent in [body(0), body(1000), body(300_000)] {
        let asked = site.origin().count();
        site.ask("POST", "/post", "", &sent).expect_body(200, &sent[..sent.len().min(1000)]);
        assert_eq!(site.origin().count(), asked + 1);
        assert!(site.origin().last().body == sent, "other bytes");
        // Varnish sends one without a body again if a connection that was used before breaks.
        let targets = ["/broken", "/reset", "/late"];
        let is_sent_again = site.proxy == Proxy::Varnish && sent.is_empty();
        for target in targets.iter().filter(|_| !is_sent_again) {
            let asked = site.origin().count();
            let answer = site.ask("POST", target, "", &sent);
            assert!(matches!(answer.status, 502..=504), "{target}: {answer:?}");
            assert_eq!(site.origin().count(), asked + 1, "{target}\n{}", site.log());
        }
    }
    site.get("/a").expect(200);
    site.hit("/a");
    site.ask("POST", "/a", "", b"x").expect(200);
    site.get("/a").expect_body(200, "/a").expect_forwarded("uri-miss");
}

pub fn who_is_denied_gets_no_hit(proxy: Proxy) {
    let Some(mut site) = Site::start(proxy, page) else { return };
    site.get("/a").expect(200);
    site.hit("/a");
    let expect_denied = |site: &Site| {
        for target in ["/a", "/other"] {
            let answer = site.client_from(DENIED_HERE).get(target).expect(403);
            assert!(!is_ours(&answer) && answer.body != target.as_bytes(), "{answer:?}");
        }
    };
    expect_denied(&site);
    site.client_from([127, 0, 0, 3]).get("/a").expect_body(200, "/a").expect_hit();
    assert_eq!(site.origin().count(), 1);
    site.kill_daemon();
    expect_denied(&site);
    assert_eq!(site.origin().count(), 1);
}

pub fn what_clients_say_of_themselves_is_overwritten(proxy: Proxy) {
    let Some(mut site) = Site::start(proxy, page) else { return };
    let said = |word: &str| {
        let names = ["For", "Host", "Port", "Prefix", "Proto", "Server"];
        let lines = names.map(|name| format!("X-Forwarded-{name}: {word}\r\n")).concat();
        format!("{lines}Forwarded: for={word};host={word};proto={word}\r\n")
    };
    let client = [127, 0, 0, 3];
    let expect_own = |site: &Site| {
        let seen = site.origin().last();
        let words = seen.fields.iter().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name.starts_with("x-forwarded-") || name == "forwarded"
        });
        for (name, value) in words {
            assert!(!value.contains("evil"), "{name}: {value}");
        }
        assert_eq!(values(&seen.fields, "x-forwarded-for"), ["127.0.0.3"], "{seen:?}");
        assert_eq!(values(&seen.fields, "x-forwarded-proto"), ["http"], "{seen:?}");
        assert_eq!(values(&seen.fields, "host"), ["h"], "{seen:?}");
    };
    let ask = |site: &Site, method: &str, target: &str| {
        site.client_from(client).ask(method, target, &said("evil"), b"").expect(200)
    };
    ask(&site, "GET", "/a").expect_forwarded("uri-miss");
    expect_own(&site);
    site.hit("/a");
    site.ask("GET", "/a", &said("other"), b"").expect_body(200, "/a").expect_hit();
    ask(&site, "POST", "/a");
    expect_own(&site);
    site.daemon.kill();
    ask(&site, "GET", "/b").expect_body(200, "/b");
    expect_own(&site);
}

pub fn connections_are_kept(proxy: Proxy) {
    const ASKED: usize = 100;
    let Some(site) = Site::start(proxy, page) else { return };
    let opened = || site.daemon.metric("rawcached_http_connections_opened_total");
    let before = opened();
    let mut client = site.client();
    for number in 0..ASKED {
        let target = format!("/{number}x");
        client.get(&target).expect_body(200, &target);
    }
    // Health checks open some.
    assert!(opened() - before < ASKED as u64 / 4, "{} to the daemon", opened() - before);
    let opened = site.origin().connections();
    assert!(opened < ASKED / 4, "{opened} to the origin");
}

#[test]
fn nginx_compresses_once_and_only_for_who_can_read_it() {
    let started = Site::start(Proxy::Nginx, |seen| page(seen).header("Content-Type", "text/html"));
    let Some(site) = started else { return };
    let mut stored = Vec::new();
    for number in 0..3 {
        let packed = site.ask("GET", "/65536", "Accept-Encoding: gzip\r\n", b"").expect(200);
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{packed:?}");
        assert_eq!(packed.header("vary"), Some("Accept-Encoding"));
        assert!(packed.body.len() < 65_536 && packed.body.starts_with(b"\x1f\x8b"));
        site.get("/65536").expect_body(200, body(65_536));
        if number > 0 {
            // As it is stored, with its length: the front would send chunks.
            assert!(packed.header("content-length").is_some(), "{packed:?}");
            assert!(packed.expect_hit().body == stored);
        } else {
            stored = packed.body;
        }
    }
    assert_eq!(site.origin().count(), 2, "one a variant");
}
