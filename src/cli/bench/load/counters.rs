//! What a server counts itself: bytes on its device, hits by tier. Owns the names of these metrics
//! and stats; a server may lack them.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::address::{Address, Protocol, Stream};
use crate::cli::client::Client;
use crate::clock::Stopwatch;

const WRITTEN: &str = "rawcached_device_transferred_bytes_total{direction=\"write\"}";
const BACKLOG: &str = "rawcached_store_backlog_bytes";
/// Longest wait for accepted values to reach the device.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
const SETTLE_STEP: Duration = Duration::from_millis(20);
/// Longest page of metrics.
const PAGE_LEN_MAX: u64 = 16 << 20;

/// Counts of a server at one moment; `None` if it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Bytes written to its device.
    pub(super) device_bytes: Option<u64>,
    /// Hits from its device.
    pub(super) hits_disk: Option<u64>,
}

impl Counters {
    /// Asks the admin listener at `metrics`, if there is one, and a memcached server for its stats.
    /// Waits until accepted values are on the device, if the server tells.
    pub(super) fn read(
        (address, protocol): (&Address, Protocol),
        metrics: Option<&Address>,
    ) -> anyhow::Result<Counters> {
        let mut counters = Counters::default();
        if let Some(metrics) = metrics {
            settle(metrics)?;
            counters.device_bytes = Some(metric(metrics, WRITTEN)?);
        }
        if protocol == Protocol::Memcached {
            let stats = stats(address)?;
            let find = |wanted: &str| {
                let found = stats.iter().find(|(name, _)| name == wanted);
                found.and_then(|(_, value)| value.parse().ok())
            };
            counters.hits_disk = find("hits_disk").or_else(|| find("get_extstore"));
            counters.device_bytes =
                counters.device_bytes.or_else(|| find("extstore_bytes_written"));
        }
        Ok(counters)
    }
}

fn stats(address: &Address) -> anyhow::Result<Vec<(String, String)>> {
    let socket = match address {
        Address::Unix(_) => address.to_string(),
        Address::Tcp(at) => format!("tcp:{at}"),
    };
    Client::connect(Some(&socket))?.stats()
}

fn settle(metrics: &Address) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    while metric(metrics, BACKLOG)? > 0 && watch.elapsed() < SETTLE_PATIENCE {
        std::thread::sleep(SETTLE_STEP);
    }
    Ok(())
}

/// The value of a metric, named with its labels, on the page `/metrics` of an admin listener.
///
/// # Errors
/// Nobody answers, or there is no such metric.
pub fn metric(address: &Address, name: &str) -> anyhow::Result<u64> {
    // An admin listener answers only those who name it.
    let host = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    let page =
        page(address.connect()?, &host).with_context(|| format!("the metrics at {address}"))?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("{address} has no metric {name}"))?;
    value.trim().parse().with_context(|| format!("{name} is {value}"))
}

fn page(mut stream: Stream, host: &str) -> anyhow::Result<String> {
    let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut page = String::new();
    stream.take(PAGE_LEN_MAX).read_to_string(&mut page)?;
    let head = page.lines().next().unwrap_or_default();
    ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is {head:?}");
    Ok(page)
}
