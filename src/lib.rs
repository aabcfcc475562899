//! Raw-disk cache storage for reverse proxies.
//!
//! `rawcached` owns a raw block device (or an image file), opens it with
//! `O_DIRECT` and keeps cache entries on it: crash-safe, checksummed, expired by
//! TTL and evicted when full. The daemon in `main.rs` serves them over a Unix
//! socket; this library is the whole of it, for embedding.
//!
//! Modules import downwards only, in this order (see `docs/ARCHITECTURE.md`):
//! `cli` → `daemon` → `server` → `metrics` → `config` → `cache` → `inspect` → `store` →
//! `format` → `device` → `clock`, `deadlines`, `histogram`, `units`, `planted`.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
mod deadlines;
pub mod device;
pub mod format;
pub mod histogram;
pub mod inspect;
pub mod metrics;
#[doc(hidden)]
pub mod planted;
pub mod server;
pub mod store;
pub mod units;
