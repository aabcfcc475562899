//! A read-through listener with every outcome.

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

fn metrics_of(rig: &Rig) -> Metrics {
    let counters = rig.server.counters.clone();
    let metrics = Metrics::new();
    metrics.add(move |page| write_server(page, &counters.snapshot(), &[])).unwrap();
    metrics
}

fn origin(latch: &Latch) -> Origin {
    let latch = latch.clone();
    Origin::start(move |seen| match seen.target.as_str() {
        "/fresh" if seen.header("if-none-match").is_some() => Reply::not_modified(),
        "/fresh" => Reply::ok("body").control("max-age=60").header("ETag", "\"a\""),
        "/stale" => Reply::ok("body").control("max-age=60, stale-while-revalidate=600"),
        "/slow" => Reply::ok("body").control("max-age=60").waits_at(2, &latch),
        "/late" => Reply::hold(),
        "/close" => Reply::close(),
        "/nonsense" => Reply::raw_last("nonsense\r\n\r\n"),
        _ => Reply::ok("body").control("no-store"),
    })
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
    rig.pass(61);
    rig.get("/fresh").expect_forwarded("stale");
    rig.get("/stale").expect_hit();
    rig.get("/late").expect(504);
    rig.get("/close").expect(502);
    rig.get("/nonsense").expect(502);
    seen.scrape(&metrics);
    busy(seen);
    let nobody =
        Rig::before(origin(&latch), &Origin::nowhere(), crate::support::server::options(), |_| {});
    let metrics = metrics_of(&nobody);
    nobody.get("/fresh").expect(502);
    seen.scrape(&metrics);
}
