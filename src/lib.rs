//! A cache on a raw block device or an image file: crash-safe, checksummed, expired by TTL, evicted when
//! full.
//!
//! This is the store of the `rawcached` daemon as a library. It opens the device with `O_DIRECT`,
//! keeps a compact index in memory, and streams large objects in and out. A cache may forget, but not
//! lie: it gives what was stored last, or nothing.
//!
//! ```
//! use rawcached::{Cache, CacheOptions, Condition, StoreOptions};
//! # use std::time::Duration;
//!
//! # async fn example(path: std::path::PathBuf) -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::create(&path, Some(64 << 20), CacheOptions::default()).await?;
//! cache.ready().await;
//! let mut options = StoreOptions::default();
//! options.ttl = Some(Duration::from_secs(60));
//! cache.put(b"greeting", b"hello", Condition::Always, &options).await?;
//! let hit = cache.lookup(b"greeting").await.expect("it was just stored");
//! assert_eq!(&hit.bytes().await?[..], b"hello");
//! cache.shutdown().await?;
//! # Ok(())
//! # }
//! # let path = std::env::temp_dir().join(format!("rawcached-doc-{}", std::process::id()));
//! # let run = tokio::runtime::Runtime::new().unwrap().block_on(example(path.clone()));
//! # std::fs::remove_file(path).unwrap();
//! # run.unwrap();
//! ```
//!
//! Begin with [`Cache`]: [`Cache::create`] or [`Cache::open`] gives one by path. [`Cache::lookup`] gives a
//! [`Hit`], [`Cache::store`] a [`Writer`] for streamed bodies, [`Cache::follow`] a [`Follower`] of one that is
//! still being stored, [`Cache::declare`] the [`Parts`] of one that comes part by part, [`Cache::lookup_or_fill`]
//! a [`Lease`] to one of those who miss a key. A cache needs a tokio runtime with I/O and time for its background
//! work; dropping the last handle closes it.
//!
//! The daemon, its servers and its tools are behind the feature `daemon`, which is on by default:
//! without it the library needs no HTTP, command line or allocator.
//!
//! The modules are public for the daemon, the tests and the benchmarks of this package only: they may
//! change at any time.
//!
//! They import downwards only, in this order (see `docs/ARCHITECTURE.md`):
//! `cli` → `daemon` → `server` → `metrics` → `config` → `http_cache` → `cache` → `inspect` → `store` →
//! `format` → `device` → `clock`, `deadlines`, `fair_memory`, `histogram`, `units`,
//! `planted`.

#[doc(hidden)]
pub mod cache;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod daemon;
mod deadlines;
#[doc(hidden)]
pub mod device;
mod fair_memory;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod histogram;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod http_cache;
#[doc(hidden)]
pub mod inspect;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod planted;
#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod units;

#[doc(inline)]
pub use cache::{
    Ack, BodyReader, Cache, CacheError, CacheOptions, CacheStats, Condition, FollowError, Follower,
    Found, Hit, KEY_LEN_MAX, Lease, Leased, Lifetime, METADATA_LEN_MAX, PartWriter, Parts, Purge,
    RangeOptions, RangeStats, RecoveryStats, StoreError, StoreOptions, StoreStats, Stored, Tier,
    TruncatedBody, UpdateOptions, Validator, Writer, ZeroRangeOption,
};
#[doc(inline)]
pub use clock::{Clock, Timestamp};
#[doc(inline)]
pub use device::{
    Device, DeviceError, EngineKind, IoMode, OpenError as DeviceOpenError,
    OpenOptions as DeviceOptions,
};
#[doc(inline)]
pub use store::{CountersSnapshot, FormatError, FormatOptions, OpenError};
