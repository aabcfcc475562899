//! What the read-through listeners count, and its metrics.

use std::time::Duration;

use super::upstream::UpstreamError;
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::http_cache::cache_status::{CacheStatus, Forwarded};
use crate::metrics::Page;
use crate::server::count::Count;

/// Ways to an answer that are counted separately, in the order of [`ProxySnapshot::answers`].
pub const RESULTS: [&str; 10] = [
    "fresh",
    "stale",
    "revalidated",
    "collapsed",
    "partial",
    "miss",
    "not_stored",
    "bypass",
    "upstream_error",
    "refused",
];
/// Ways in which an upstream fails, in the order of [`ProxySnapshot::upstream_errors`].
pub const UPSTREAM_ERRORS: [&str; 4] = ["connect", "timeout", "cut", "malformed"];

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
    /// From the upstream; it was looked up, and what came is not stored.
    NotStored,
    /// From the upstream; it is not of those that are looked up.
    Bypass,
    /// The upstream failed.
    UpstreamError,
    /// Nobody was asked.
    Refused,
}

impl Served {
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
    bytes_of_store: Count,
    bytes_of_upstream: Count,
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
    /// Bytes of bodies that clients got from the store.
    pub bytes_of_store: u64,
    /// Bytes of bodies that came from upstreams.
    pub bytes_of_upstream: u64,
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
            UpstreamError::Connect(_) | UpstreamError::NoFreeConnection => 0,
            error if error.is_timeout() => 1,
            UpstreamError::Malformed(_) => 3,
            _ => 2,
        };
        self.upstream_errors[kind].bump();
    }

    pub(super) fn sent_of_store(&self, len: u64) {
        self.bytes_of_store.add(len);
    }

    pub(super) fn read_of_upstream(&self, len: u64) {
        self.bytes_of_upstream.add(len);
    }
}

impl ProxySnapshot {
    /// Adds what one worker has counted.
    pub(in crate::server) fn merge(&mut self, shard: &ProxyShard) {
        for (sum, count) in self.answers.iter_mut().zip(&shard.answers) {
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
        self.bytes_of_store += shard.bytes_of_store.get();
        self.bytes_of_upstream += shard.bytes_of_upstream.get();
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
    let help = "Bytes of bodies of read-through listeners, by where they came from.";
    for (source, bytes) in
        [("store", snapshot.bytes_of_store), ("upstream", snapshot.bytes_of_upstream)]
    {
        page.counter("rawcached_proxy_body_bytes_total", help, &[("source", source)], bytes);
    }
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
            (forwarded(Forwarded::UriMiss), Served::NotStored),
            (forwarded(Forwarded::Method), Served::Bypass),
            (CacheStatus::default(), Served::Refused),
        ] {
            assert_eq!(Served::of(&status), expected, "{status:?}");
        }
        assert_eq!(Served::Refused as usize, RESULTS.len() - 1);
    }
}
