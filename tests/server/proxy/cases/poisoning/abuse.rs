//! Goal: no client ends for others that one request is enough for all, keeps them waiting, or removes what is
//! theirs. Method: floods, and crowds that come after them or in between.

use std::time::Duration;

use rawcached::http_cache::settings::ClientDirectives;

use crate::proxy::client::{Client, request};
use crate::proxy::origin::{Origin, Place};
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::Rig;
use crate::support::server::options;

/// So many clients that have asked for `/a` with `fields`.
fn clients(rig: &Rig, count: usize, fields: &str) -> Vec<Client> {
    let ask = |_| {
        let mut client = rig.client();
        client.send(request("GET", "/a", fields, b""));
        client
    };
    (0..count).map(ask).collect()
}

/// Asserts that a crowd costs one request.
#[track_caller]
fn expect_collapsed(rig: &Rig, latch: &Latch) {
    let asked = rig.origin.count();
    let crowd = clients(rig, 20, "");
    rig.origin.wait_for(asked + 1);
    // All of them have come.
    std::thread::sleep(Duration::from_millis(200));
    latch.open();
    for mut client in crowd {
        client.answer("GET").expect_body(200, "good");
    }
    rig.expect_asked(asked + 1);
}

#[test]
fn a_flood_of_requests_that_are_not_stored_leaves_others_collapsed() {
    const FLOOD: usize = 1000;
    let long = format!("Accept-Language: {}\r\n", "x".repeat(600));
    for (fields, directives) in [
        ("Cache-Control: no-store\r\n", ClientDirectives::Honor),
        ("Authorization: x\r\n", ClientDirectives::Ignore),
        (long.as_str(), ClientDirectives::Ignore),
        ("X-Original-URL: /b\r\n", ClientDirectives::Ignore),
        ("X_Forwarded_Host: evil\r\n", ClientDirectives::Ignore),
        ("Range: bytes=0-0\r\nRange: bytes=1-1\r\n", ClientDirectives::Ignore),
    ] {
        let latch = Latch::default();
        let gate = latch.clone();
        let mark = fields.split(':').next().unwrap_or_default().to_owned();
        let origin = Origin::start(move |seen| {
            let is_flood = !crate::proxy::wire::values(&seen.fields, &mark).is_empty();
            let reply = Reply::ok("good").control("max-age=60").header("Vary", "Accept-Language");
            if is_flood { reply } else { reply.after(&gate) }
        });
        let rig = Rig::with(origin, |proxy| proxy.settings.client_directives = directives);
        let mut client = rig.client();
        for _ in 0..FLOOD {
            client.ask("GET", "/a", fields, b"").expect(200);
        }
        rig.expect_asked(FLOOD);
        expect_collapsed(&rig, &latch);
    }
}

/// A request that wants nothing stored is nobody's fill.
#[test]
fn nobody_waits_for_what_a_client_does_not_want_stored() {
    let latch = Latch::default();
    let gate = latch.clone();
    let origin = Origin::start(move |seen| {
        let reply = Reply::ok("good").control("max-age=60").header("ETag", "\"a\"");
        match seen.header("cache-control") {
            Some(_) => reply.after(&gate),
            None => reply,
        }
    });
    let rig = Rig::with(origin, |proxy| {
        proxy.settings.client_directives = ClientDirectives::Honor;
        proxy.collapse_timeout = Duration::from_secs(60);
    });
    for (round, stale) in [false, true].into_iter().enumerate() {
        if stale {
            rig.pass(60);
        }
        let asked = rig.origin.count();
        let waiting = clients(&rig, 3, "Cache-Control: no-store\r\n");
        rig.origin.wait_for(asked + 3);
        rig.get("/a").expect_body(200, "good");
        rig.settled("/a", "").expect_hit();
        if round == 1 {
            latch.open();
        }
        rig.expect_asked(asked + 4);
        drop(waiting);
    }
}

/// Those with credentials, of whom each has an answer of its own, go to the origin side by side.
#[test]
fn credentials_do_not_wait_for_each_other() {
    const CLIENTS: usize = 12;
    let (first, others) = (Latch::default(), Latch::default());
    let gates = (first.clone(), others.clone());
    let origin = Origin::start(move |seen| {
        let who = seen.header("authorization").unwrap_or("nobody").to_owned();
        let gate = if seen.order == 0 { &gates.0 } else { &gates.1 };
        Reply::ok(who).control("max-age=60").after(gate)
    });
    let rig = Rig::with(origin, |proxy| proxy.collapse_timeout = Duration::from_secs(60));
    let ask = |n: usize| {
        let mut client = rig.client();
        client.send(request("GET", "/a", &format!("Authorization: {n}\r\n"), b""));
        client
    };
    let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
    rig.origin.wait_for(1);
    first.open();
    rig.origin.wait_for(CLIENTS);
    others.open();
    for (n, mut client) in clients.into_iter().enumerate() {
        client.answer("GET").expect_body(200, n.to_string());
    }
    // What is nobody's is stored all the same.
    rig.fill("/a", "").expect_body(200, "nobody");
}

/// The response turns out to depend on something else than those before it: who waited looks again.
#[test]
fn those_who_waited_for_another_variant_get_what_was_stored() {
    let latch = Latch::default();
    let gate = latch.clone();
    let rig = Rig::start(move |seen| match seen.order {
        0 => Reply::ok("old").control("max-age=60").header("Vary", "X"),
        _ => {
            Reply::ok(seen.order.to_string()).control("max-age=60").header("Vary", "Y").after(&gate)
        }
    });
    rig.fill("/a", "X: 1\r\n");
    let crowd = clients(&rig, 20, "X: 2\r\n");
    rig.origin.wait_for(2);
    std::thread::sleep(Duration::from_millis(200));
    latch.open();
    for mut client in crowd {
        client.answer("GET").expect_body(200, "1");
    }
    rig.expect_asked(2);
}

/// Clients cannot make records of purges, of which so many become a purge of everything.
#[test]
fn a_flood_of_changes_removes_nothing_else() {
    const FLOOD: usize = (64 << 10) / 3 + 1000;
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::on_unix(directory.path(), |seen| match seen.method.as_str() {
        "POST" => Reply::ok("done")
            .header("Location", &format!("/l{}", seen.target))
            .header("Content-Location", &format!("/c{}", seen.target))
            .header("Cache-Group-Invalidation", &format!("\"{}\"", seen.target)),
        _ => Reply::ok("good").control("max-age=60").header("Cache-Groups", "\"mine\""),
    });
    let place = match &origin.place {
        Place::Unix(path) => Place::Unix(path.clone()),
        Place::Tcp(address) => Place::Tcp(*address),
    };
    let rig = Rig::before(origin, &place, options(), |_| {});
    rig.fill("/kept", "");
    rig.fill("/l/7", "");
    std::thread::scope(|scope| {
        for half in 0..2 {
            let mut client = rig.client();
            scope.spawn(move || {
                for n in (half..FLOOD).step_by(2) {
                    client.ask("POST", &format!("/{n}"), "", b"").expect(200);
                }
            });
        }
    });
    // Of the groups that were named, some a second are purged.
    let [hard, _] = rig.server.cache.stats().store.purge_records;
    assert!(hard < FLOOD as u64 / 2, "{hard} records");
    rig.get("/kept").expect_body(200, "good").expect_hit();
    rig.get("/l/7").expect_forwarded("uri-miss");
}
