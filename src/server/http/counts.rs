//! What the HTTP server counts. Bytes and refused stores are counted together with those of the
//! memcached protocol.

use http::{Method, StatusCode};

use crate::cache::Tier;
use crate::histogram::{Histogram, HistogramSnapshot};
use crate::server::count::Count;

/// Request methods that are counted separately, in the order of [`HttpSnapshot::requests`].
pub const METHODS: [&str; 6] = ["get", "head", "put", "patch", "delete", "other"];
/// Classes of status codes, in the order of [`HttpSnapshot::requests`].
pub const STATUS_CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Operations whose latencies are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpOperation {
    /// A lookup answered from the RAM tier.
    GetRam,
    /// A lookup answered from the part of the log in memory.
    GetLog,
    /// A lookup answered from a device.
    GetDisk,
    /// A lookup that found nothing.
    GetMiss,
    /// A store, from the last byte of the body to its acknowledgement.
    Put,
    /// A change of headers or lifetime.
    Patch,
    /// A purge of one key.
    Delete,
}

impl HttpOperation {
    /// All operations, in the order of [`HttpSnapshot::latencies`].
    pub const ALL: [HttpOperation; 7] = [
        HttpOperation::GetRam,
        HttpOperation::GetLog,
        HttpOperation::GetDisk,
        HttpOperation::GetMiss,
        HttpOperation::Put,
        HttpOperation::Patch,
        HttpOperation::Delete,
    ];

    pub(super) fn of_lookup(tier: Option<Tier>) -> HttpOperation {
        match tier {
            Some(Tier::Ram) => HttpOperation::GetRam,
            Some(Tier::Log) => HttpOperation::GetLog,
            Some(Tier::Disk) => HttpOperation::GetDisk,
            None => HttpOperation::GetMiss,
        }
    }
}

/// The counts of one worker.
#[derive(Debug, Default)]
pub(in crate::server) struct HttpShard {
    pub(super) requests: [[Count; STATUS_CLASSES.len()]; METHODS.len()],
    pub(super) requests_started: Count,
    pub(super) requests_ended: Count,
    pub(super) connections_opened: Count,
    pub(super) connections_closed: Count,
    pub(super) latencies: [Histogram; HttpOperation::ALL.len()],
}

/// The counts of all workers at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpSnapshot {
    /// Requests answered, by [`METHODS`] and [`STATUS_CLASSES`].
    pub requests: [[u64; STATUS_CLASSES.len()]; METHODS.len()],
    /// Requests begun.
    pub requests_started: u64,
    /// Requests whose answer was sent or given up.
    pub requests_ended: u64,
    /// Connections given to a worker.
    pub connections_opened: u64,
    /// Connections that ended.
    pub connections_closed: u64,
    /// Latencies by operation, in the order of [`HttpOperation::ALL`].
    pub latencies: [HistogramSnapshot; HttpOperation::ALL.len()],
}

impl HttpShard {
    pub(in crate::server) fn count_request(&self, method: &Method, status: StatusCode) {
        let method = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::PUT => 2,
            Method::PATCH => 3,
            Method::DELETE => 4,
            _ => 5,
        };
        // Final statuses only: 200 to 599.
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.requests[method][class].bump();
    }

    pub(in crate::server) fn record(
        &self,
        operation: HttpOperation,
        duration: std::time::Duration,
    ) {
        self.latencies[operation as usize].record(duration);
    }
}

impl HttpSnapshot {
    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections_opened.saturating_sub(self.connections_closed)
    }

    /// Adds what one worker has counted.
    pub(in crate::server) fn merge(&mut self, shard: &HttpShard) {
        for (sums, counts) in self.requests.iter_mut().zip(&shard.requests) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count.get();
            }
        }
        // Reads the ends first, so that they never exceed the beginnings.
        self.requests_ended += shard.requests_ended.get();
        self.connections_closed += shard.connections_closed.get();
        self.requests_started += shard.requests_started.get();
        self.connections_opened += shard.connections_opened.get();
        for (sum, histogram) in self.latencies.iter_mut().zip(&shard.latencies) {
            sum.merge(&histogram.snapshot());
        }
    }
}
