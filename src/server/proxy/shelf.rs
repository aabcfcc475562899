//! What is stored of responses, for whoever stores and answers without asking anybody.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use ::http::header::HeaderValue;

use crate::http_cache::settings::Settings;
use crate::server::http;

/// Stores responses and answers with them.
pub(in crate::server) struct Shelf {
    pub(super) settings: Settings,
    /// Largest body that is stored, in bytes.
    pub(super) object_size_max: u64,
    /// The cache, buffers, counters and timeouts.
    pub(super) http: Arc<http::Service>,
    /// What answers have in `Via`.
    pub(super) via: HeaderValue,
}

/// What a cache adds to `Via`. The name in it is random: who sees it in a request sees a loop.
pub(super) fn via() -> HeaderValue {
    let via = format!("1.1 rawcached-{:016x}", RandomState::new().hash_one(0));
    HeaderValue::from_str(&via).unwrap_or(HeaderValue::from_static("1.1 rawcached"))
}
