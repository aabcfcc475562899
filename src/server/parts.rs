//! What a server is made of. Owns nothing: the cache and the counts are shared.

use std::sync::Arc;

use super::counters::Counters;
use super::key_locks::KeyLocks;
use super::options::Options;
use crate::cache::Cache;

/// A server that is not running yet.
#[derive(Clone)]
pub struct Server {
    pub(super) options: Options,
    pub(super) cache: Cache,
    pub(super) counters: Arc<Counters>,
    pub(super) key_locks: Arc<KeyLocks>,
}
