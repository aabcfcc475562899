//! A read-through listener with every outcome.

use std::time::Duration;

use rawcached::config::AccessLogTarget;
use rawcached::metrics::Metrics;
use rawcached::server::proxy::PurgeToken;
use rawcached::server::proxy::options::AccessLogOptions;
use rawcached::server::write_server;

use super::Seen;
use crate::proxy::client::request;
use crate::proxy::origin::Origin;
use crate::proxy::reply::{Latch, Reply};
use crate::proxy::rig::{Rig, SOON};
use crate::support::waiting::eventually_within;

/// Longest wait for a block.
const PATIENCE: Duration = Duration::from_secs(3);

fn metrics_of(rig: &Rig) -> Metrics {
    let counters = rig.server.counters.clone();
    let metrics = Metrics::new();
    metrics.add(move |page| write_server(page, &counters.snapshot(), &[])).unwrap();
    metrics
}

/// `fills_max` in all its ways.
fn held_back(seen: &mut Seen) {
    let latch = Latch::default();
    let rig = Rig::with(origin(&latch), |proxy| {
        proxy.fills_max = 1;
        proxy.collapse_timeout = 2 * SOON;
    });
    let metrics = metrics_of(&rig);
    rig.fill("/stale", "");
    rig.pass(61);
    let mut client = rig.client();
    client.send(request("GET", "/slow", "", b""));
    let head = client.head("GET");
    rig.get("/stale").expect_hit();
    rig.get("/fresh").expect(200);
    let mut waits = rig.client();
    waits.send(request("GET", "/fresh", "", b""));
    std::thread::sleep(SOON / 2);
    latch.open();
    client.finish(head).expect_body(200, "body");
    waits.answer("GET").expect(200);
    seen.scrape(&metrics);
}

fn origin(latch: &Latch) -> Origin {
    let latch = latch.clone();
    Origin::start(move |seen| match seen.target.as_str() {
        "/fresh" if seen.header("if-none-match").is_some() => Reply::not_modified(),
        "/fresh" => Reply::ok("body").control("max-age=60").header("ETag", "\"a\""),
        "/stale" => Reply::ok("body").control("max-age=60, stale-while-revalidate=600"),
        "/slow" => Reply::ok("body").control("max-age=60").waits_at(2, &latch),
        target if target.starts_with("/parts") => part(seen.header("range").unwrap()),
        "/late" => Reply::hold(),
        "/close" => Reply::close(),
        "/nonsense" => Reply::raw_last("nonsense\r\n\r\n"),
        _ => Reply::ok("body").control("no-store"),
    })
}

/// A range of 16 MiB.
fn part(range: &str) -> Reply {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    Reply::of("206 Partial Content", vec![b'x'; last + 1 - first])
        .header("Content-Range", &format!("bytes {first}-{last}/16777216"))
        .control("max-age=60")
        .header("ETag", "\"a\"")
}

/// A client of 4 MiB blocks that reads on into the next, and one that leaves before it. A busy machine may ask for
/// that block late: then another object is tried.
fn blocks(rig: &Rig) {
    let blocks_ahead = || rig.server.counters.snapshot().proxy.blocks_ahead;
    for object in 0..5 {
        let target = format!("/parts/{object}");
        rig.get_with(&target, "Range: bytes=0-6000000\r\n").expect(206);
        let mut client = rig.client();
        client.send(request("GET", &target, "Range: bytes=8388608-16777215\r\n", b""));
        let mut answer = client.head("GET").expect_forwarded("partial");
        // Behind the middle of the block, and with what the kernel takes, which may be over 1 MiB, before its end.
        client.read_to(&mut answer, 2200 << 10);
        let ahead = Some("bytes=12582912-16777215");
        eventually_within(PATIENCE, || rig.origin.last().header("range") == ahead);
        drop(client);
        if eventually_within(PATIENCE, || blocks_ahead().iter().all(|n| *n > 0)) {
            return;
        }
    }
    let ranges: Vec<_> =
        rig.origin.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    panic!("{:?} of {ranges:?}", blocks_ahead());
}

/// The only connection to the upstream stays in use.
fn busy(seen: &mut Seen) {
    let rig = Rig::with(Origin::start(|_| Reply::hold()), |proxy| {
        proxy.upstream.connect_timeout = SOON;
        proxy.upstream.connections_max = 1;
    });
    let metrics = metrics_of(&rig);
    // Each worker has a connection.
    let holds: Vec<_> = (0..3)
        .map(|n| {
            let mut client = rig.client();
            client.send(request("GET", &format!("/{n}"), "", b""));
            client
        })
        .collect();
    rig.server.wait_until(|now| now.proxy.upstream_errors[1] > 0);
    seen.scrape(&metrics);
    drop(holds);
}

pub fn outcomes(seen: &mut Seen) {
    let latch = Latch::default();
    let rig = Rig::with(origin(&latch), |proxy| {
        proxy.upstream.first_byte_timeout = SOON;
        (proxy.range_fetch_min, proxy.fill_block) = (0, 4 << 20);
        proxy.purge_token = PurgeToken::new("token");
        // Nobody is there, so few lines wait and the others are lost.
        let target = AccessLogTarget::Unix("/no/such/socket".into());
        proxy.access_log = Some(AccessLogOptions { target, bytes_max: 1000 });
    });
    let metrics = metrics_of(&rig);
    seen.scrape(&metrics);
    rig.fill("/fresh", "");
    rig.fill("/stale", "");
    rig.get("/other").expect(200);
    rig.get("/other").expect(200);
    rig.ask("PURGE", "/other", "Authorization: Bearer token\r\n", b"").expect(200);
    rig.ask("POST", "/other", "", b"body").expect(200);
    rig.get_with("/other", "Upgrade: h2c\r\n").expect(501);
    let ask = |mut client: crate::proxy::client::Client| {
        client.send(request("GET", "/slow", "", b""));
        let head = client.head("GET");
        (client, head)
    };
    let (first, second) = (ask(rig.client()), ask(rig.client()));
    latch.open();
    for (mut client, head) in [first, second] {
        client.finish(head).expect_body(200, "body");
    }
    blocks(&rig);
    rig.pass(61);
    rig.get("/fresh").expect_forwarded("stale");
    rig.get("/stale").expect_hit();
    rig.get("/late").expect(504);
    rig.get("/close").expect(502);
    rig.get("/nonsense").expect(502);
    seen.scrape(&metrics);
    held_back(seen);
    busy(seen);
    let nobody =
        Rig::before(origin(&latch), &Origin::nowhere(), crate::support::server::options(), |_| {});
    let metrics = metrics_of(&nobody);
    nobody.get("/fresh").expect(502);
    seen.scrape(&metrics);
}
