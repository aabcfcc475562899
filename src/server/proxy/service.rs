//! What the connections of one read-through listener share.

use std::ops::Deref;
use std::sync::Arc;

use ::http::HeaderMap;
use ::http::header::{HeaderValue, VIA};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::access_log::AccessLog;
use super::credentials::Credentials;
use super::failures::Failures;
use super::group_limit::GroupLimit;
use super::options::ProxyOptions;
use super::parts::Objects;
use super::shelf::{Shelf, via};
use super::slots::Slots;
use super::upstream::Upstream;
use super::uses::Uses;
use crate::server::http;
use crate::server::key_locks::KeyLocks;

/// What the connections of one read-through listener share in all workers.
pub(in crate::server) struct Shared {
    /// What this cache adds to `Via`.
    pub(super) via: HeaderValue,
    /// How the upstream failed lately.
    pub(super) failures: Failures,
    pub(super) groups: GroupLimit,
    /// What comes part by part.
    pub(super) objects: Objects,
    /// One at a time begins or takes up an object that comes part by part, by its target.
    pub(super) declaring: KeyLocks,
    /// Leave to fill.
    pub(super) slots: Slots,
    /// How often targets were asked for.
    pub(super) uses: Uses,
    pub(super) credentials: Credentials,
    pub(super) access_log: Option<Arc<AccessLog>>,
}

impl Shared {
    pub(in crate::server) fn new(
        options: &ProxyOptions,
        access_log: Option<Arc<AccessLog>>,
    ) -> Shared {
        Shared {
            via: via(),
            failures: Failures::default(),
            groups: GroupLimit::default(),
            objects: Objects::default(),
            declaring: KeyLocks::default(),
            slots: Slots::new(options.fills_max),
            uses: Uses::new(options.min_uses),
            credentials: Credentials::default(),
            access_log,
        }
    }
}

/// What the connections of one read-through listener share in one worker.
pub(in crate::server) struct Service {
    shelf: Shelf,
    pub(super) options: ProxyOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) upstream: Upstream,
    fills: Mutex<JoinSet<()>>,
}

impl Deref for Service {
    type Target = Shelf;

    fn deref(&self) -> &Shelf {
        &self.shelf
    }
}

impl Service {
    pub(in crate::server) fn new(
        options: &ProxyOptions,
        http: &Arc<http::Service>,
        shared: &Arc<Shared>,
    ) -> Arc<Service> {
        let shelf = Shelf {
            settings: options.settings.clone(),
            object_size_max: options.object_size_max,
            http: http.clone(),
            via: shared.via.clone(),
        };
        Arc::new(Service {
            shelf,
            options: options.clone(),
            shared: shared.clone(),
            upstream: Upstream::new(&options.upstream, http.shard.proxy.upstream_connections()),
            fills: Mutex::default(),
        })
    }

    /// Runs a fill in this worker. It goes on when the client that began it is gone, and ends with the
    /// worker.
    pub(super) fn spawn(&self, fill: impl Future<Output = ()> + Send + 'static) {
        let mut fills = self.fills.lock();
        while let Some(ended) = fills.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                self.http.shard.connection_panics.bump();
                tracing::error!(%error, "a fill ended by a panic; the others go on");
            }
        }
        fills.spawn(fill);
    }

    /// Whether a request has been here before.
    pub(super) fn is_loop(&self, headers: &HeaderMap) -> bool {
        let own = self.via.as_bytes();
        let name = own.split(|byte| *byte == b' ').next_back().unwrap_or(own);
        headers.get_all(VIA).iter().any(|line| {
            line.as_bytes()
                .split(|byte| matches!(byte, b' ' | b',' | b'\t'))
                .any(|word| word == name)
        })
    }
}
