//! What the read-through listeners count, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::access_log::AccessLogSnapshot;
use super::upstream::UpstreamError;
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::metrics::Page;
use crate::server::count::Count;

/// Ways to an answer that are counted separately, in the order of [`ProxySnapshot::answers`].
pub const RESULTS: [&str; 12] = [
    "fresh",
    "stale",
    "revalidated",
    "collapsed",
    "partial",
    "miss",
    "hit_for_miss",
    "not_stored",
    "bypass",
    "upstream_error",
    "refused",
    "purged",
];
/// Ways in which an upstream fails, in the order of [`ProxySnapshot::upstream_errors`].
pub const UPSTREAM_ERRORS: [&str; 5] = ["connect", "busy", "timeout", "cut", "malformed"];

/// What becomes of requests for which there is no leave to fill at once, in the order of
/// [`ProxySnapshot::held_back`].
pub const HELD_BACK: [&str; 3] = ["filled", "stale", "passed"];

/// What becomes of a request for which there is no leave to fill at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldBack {
    /// It waited, and filled.
    Filled,
    /// What is stored answers it.
    Stale,
    /// It waited in vain, and goes to the upstream alone.
    Passed,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// From the store.
    Fresh,
    /// From the store although it is stale.
    Stale,
    /// From the store, which the upstream has confirmed.
    Revalidated,
    /// From another client's fill.
    Collapsed,
    /// Partly from the store, and the rest from the upstream, stored too.
    Partial,
    /// From the upstream, and it is stored.
    Miss,
    /// From the upstream, without waiting for others: what came last was not to be stored.
    HitForMiss,
    /// From the upstream; it was looked up, and what came is not stored.
    NotStored,
    /// From the upstream; it is not of those that are looked up.
    Bypass,
    /// The upstream failed.
    UpstreamError,
    /// Nobody was asked.
    Refused,
    /// What was stored is gone, or stale, as the client asked.
    Purged,
}

impl Served {
    /// What metrics and the access log call it.
    pub(super) fn word(self) -> &'static str {
        RESULTS[self as usize]
    }

    /// What the status of an answer says.
    pub(super) fn of(status: &CacheStatus) -> Served {
        let is_stale = status.ttl_secs.is_some_and(|secs| secs <= 0);
        let is_confirmed =
            status.forwarded_status.is_some_and(|code| code == ::http::StatusCode::NOT_MODIFIED);
        match status.forwarded {
            _ if status.hit && is_stale => Served::Stale,
            _ if status.hit => Served::Fresh,
            None => Served::Refused,
            // What is stored stands in for an error.
            Some(_) if status.ttl_secs.is_some() => Served::Stale,
            Some(_) if is_confirmed => Served::Revalidated,
            Some(_) if status.collapsed => Served::Collapsed,
            Some(Forwarded::Partial) if status.stored => Served::Partial,
            Some(_) if status.stored => Served::Miss,
            Some(Forwarded::Bypass | Forwarded::Method) => Served::Bypass,
            Some(_) if status.hit_for_miss => Served::HitForMiss,
            Some(_) => Served::NotStored,
        }
    }
}

/// The counts of one worker.
#[derive(Debug, Default)]
pub(in crate::server) struct ProxyShard {
    answers: [Count; RESULTS.len()],
    upstream_requests: Count,
    upstream_errors: [Count; UPSTREAM_ERRORS.len()],
    held_back: [Count; HELD_BACK.len()],
    first_byte: Histogram,
    blocks_ahead: [Count; 2],
    sent_bytes: [Count; RESULTS.len()],
    upstream_bytes: Count,
    upstream_connections: Arc<AtomicU64>,
}

/// The counts of all workers at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProxySnapshot {
    /// Answers, by [`RESULTS`].
    pub answers: [u64; RESULTS.len()],
    /// Requests sent to upstreams.
    pub upstream_requests: u64,
    /// Upstreams that failed, by [`UPSTREAM_ERRORS`].
    pub upstream_errors: [u64; UPSTREAM_ERRORS.len()],
    /// Blocks that were asked for before a client had come to them, and it came, or left before.
    pub blocks_ahead: [u64; 2],
    /// Requests for which there was no leave to fill at once, by [`HELD_BACK`].
    pub held_back: [u64; HELD_BACK.len()],
    /// Time from a request to the head of its response.
    pub first_byte: HistogramSnapshot,
    /// Bytes of bodies that clients got, by [`RESULTS`].
    pub sent_bytes: [u64; RESULTS.len()],
    /// Bytes of bodies that came from upstreams.
    pub upstream_bytes: u64,
    /// Open connections to upstreams, idle ones too.
    pub upstream_connections: u64,
    /// The access logs.
    pub access_logs: AccessLogSnapshot,
}

impl ProxyShard {
    pub(super) fn answered(&self, result: Served) {
        self.answers[result as usize].bump();
    }

    pub(super) fn held_back(&self, then: HeldBack) {
        self.held_back[then as usize].bump();
    }

    pub(super) fn asked(&self) {
        self.upstream_requests.bump();
    }

    pub(super) fn came(&self, after: Duration) {
        self.first_byte.record(after);
    }

    /// A block was asked for before its client had come to it, which came, or left before.
    pub(super) fn asked_ahead(&self, is_used: bool) {
        self.blocks_ahead[usize::from(!is_used)].bump();
    }

    pub(super) fn failed(&self, error: &UpstreamError) {
        let kind = match error {
            UpstreamError::Connect(_) => 0,
            UpstreamError::NoFreeConnection => 1,
            error if error.is_timeout() => 2,
            UpstreamError::Malformed(_) => 4,
            _ => 3,
        };
        self.upstream_errors[kind].bump();
    }

    pub(super) fn sent(&self, result: Served, len: u64) {
        self.sent_bytes[result as usize].add(len);
    }

    pub(super) fn read_of_upstream(&self, len: usize) {
        self.upstream_bytes.add(len as u64);
    }

    /// The number of open connections to upstreams, for whoever opens and closes them.
    pub(super) fn upstream_connections(&self) -> &Arc<AtomicU64> {
        &self.upstream_connections
    }
}

impl ProxySnapshot {
    /// Adds what one worker has counted.
    pub(in crate::server) fn merge(&mut self, shard: &ProxyShard) {
        for (sum, count) in self.answers.iter_mut().zip(&shard.answers) {
            *sum += count.get();
        }
        for (sum, count) in self.sent_bytes.iter_mut().zip(&shard.sent_bytes) {
            *sum += count.get();
        }
        for (sum, count) in self.upstream_errors.iter_mut().zip(&shard.upstream_errors) {
            *sum += count.get();
        }
        for (sum, count) in self.blocks_ahead.iter_mut().zip(&shard.blocks_ahead) {
            *sum += count.get();
        }
        for (sum, count) in self.held_back.iter_mut().zip(&shard.held_back) {
            *sum += count.get();
        }
        self.upstream_requests += shard.upstream_requests.get();
        self.upstream_bytes += shard.upstream_bytes.get();
        self.upstream_connections += shard.upstream_connections.load(Ordering::Relaxed);
        self.first_byte.merge(&shard.first_byte.snapshot());
    }
}

/// Writes what all read-through listeners count.
pub(in crate::server) fn write_proxy(page: &mut Page, snapshot: &ProxySnapshot) {
    let help = "Answers of read-through listeners, by how they came about.";
    for (result, count) in RESULTS.into_iter().zip(snapshot.answers) {
        page.counter("rawcached_proxy_answers_total", help, &[("result", result)], count);
    }
    let help = "Requests sent to upstreams.";
    let requests = snapshot.upstream_requests;
    page.counter("rawcached_proxy_upstream_requests_total", help, &[], requests);
    let help = "Upstreams that gave no answer, or no whole one.";
    for (kind, count) in UPSTREAM_ERRORS.into_iter().zip(snapshot.upstream_errors) {
        page.counter("rawcached_proxy_upstream_errors_total", help, &[("kind", kind)], count);
    }
    let help =
        "Requests for which fills_max gave no leave to fill at once, by what became of them.";
    for (then, count) in HELD_BACK.into_iter().zip(snapshot.held_back) {
        page.counter("rawcached_proxy_held_back_total", help, &[("then", then)], count);
    }
    page.histogram(
        "rawcached_proxy_upstream_duration_seconds",
        "Time from a request to the head of its response.",
        &[],
        &snapshot.first_byte,
    );
    let help = "Blocks asked of upstreams before a client had come to them.";
    for (result, count) in ["used", "wasted"].into_iter().zip(snapshot.blocks_ahead) {
        page.counter("rawcached_proxy_blocks_ahead_total", help, &[("result", result)], count);
    }
    let help =
        "Bytes of bodies that clients of read-through listeners got, by how they came about.";
    for (result, bytes) in RESULTS.into_iter().zip(snapshot.sent_bytes) {
        page.counter("rawcached_proxy_sent_bytes_total", help, &[("result", result)], bytes);
    }
    let help = "Bytes of bodies that came from upstreams.";
    let bytes = snapshot.upstream_bytes;
    page.counter("rawcached_proxy_upstream_received_bytes_total", help, &[], bytes);
    let help = "Open connections to upstreams, those that wait for their next request too.";
    let open = snapshot.upstream_connections;
    page.gauge("rawcached_proxy_upstream_connections", help, &[], open);
    let logs = &snapshot.access_logs;
    let help = "Bytes of lines of access logs that are not written yet.";
    page.gauge("rawcached_proxy_access_log_bytes", help, &[], logs.bytes);
    let help = "Most bytes of these; further lines are lost.";
    page.gauge("rawcached_proxy_access_log_max_bytes", help, &[], logs.bytes_max);
    let help = "Lines that are in no access log, because it could not be written as fast.";
    page.counter("rawcached_proxy_access_log_lost_lines_total", help, &[], logs.lost);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_by_how_it_came_about() {
        let forwarded = |why| CacheStatus { forwarded: Some(why), ..CacheStatus::default() };
        let stale = Forwarded::Stale;
        let code = Some(::http::StatusCode::NOT_MODIFIED);
        for (status, expected) in [
            (CacheStatus { hit: true, ttl_secs: Some(1), ..CacheStatus::default() }, Served::Fresh),
            (
                CacheStatus { hit: true, ttl_secs: Some(-1), ..CacheStatus::default() },
                Served::Stale,
            ),
            (CacheStatus { ttl_secs: Some(-1), ..forwarded(stale) }, Served::Stale),
            (CacheStatus { forwarded_status: code, ..forwarded(stale) }, Served::Revalidated),
            (CacheStatus { collapsed: true, ..forwarded(stale) }, Served::Collapsed),
            (CacheStatus { stored: true, ..forwarded(Forwarded::UriMiss) }, Served::Miss),
            (CacheStatus { stored: true, ..forwarded(Forwarded::Partial) }, Served::Partial),
            (
                CacheStatus { hit_for_miss: true, ..forwarded(Forwarded::UriMiss) },
                Served::HitForMiss,
            ),
            (
                CacheStatus { hit_for_miss: true, stored: true, ..forwarded(Forwarded::UriMiss) },
                Served::Miss,
            ),
            (forwarded(Forwarded::UriMiss), Served::NotStored),
            (forwarded(Forwarded::Method), Served::Bypass),
            (CacheStatus::default(), Served::Refused),
        ] {
            assert_eq!(Served::of(&status), expected, "{status:?}");
        }
        assert_eq!(RESULTS[Served::Refused as usize], "refused");
        assert_eq!(Served::Purged as usize, RESULTS.len() - 1);
    }
}
