//! Connects the daemon with the cache and the protocol server. Owns only how they are opened and
//! started; the one file that changes when their interfaces do.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::StatusCode;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::permission::explain_denied;
use super::{image, proxies};
use crate::cache::{Ack, Cache, CacheOptions, RangeOptions};
use crate::clock::Clock;
use crate::config::{
    AckMode, AutoSize, Config, EngineChoice, IoMode, ListenAddress, MemoryPlan, RangeConfig, Switch,
};
use crate::device::{self, Device, EngineKind, OpenOptions};
use crate::format::Uuid;
use crate::metrics::{Metrics, write_cache, write_device};
use crate::server::listener::{Listener, Protocol};
use crate::server::{Options, RunError, Server, write_server};
use crate::store::{FormatOptions, OpenError, Store, read_superblocks};

/// Time beyond the drain's own limit after which a server that does not end is given up.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Opens the cache on the configured device; recovery may still run when it returns.
pub async fn open_cache(
    config: &Config,
    memory: &MemoryPlan,
    clock: Clock,
) -> anyhow::Result<Cache> {
    let region_size = match config.store.region_size {
        AutoSize::Auto => None,
        AutoSize::Fixed(size) => Some(size.0),
    };
    image::prepare(config, async |path| {
        let device = Device::open(&OpenOptions::new(path))?;
        let options = FormatOptions { region_size, ..FormatOptions::default() };
        Store::format(&device, &options, &clock).await.with_context(|| named(path))?;
        Ok(())
    })
    .await?;
    let device = config.device();
    let path = &device.path;
    let options = OpenOptions {
        io: match device.io {
            IoMode::Auto => device::IoMode::Auto,
            IoMode::Direct => device::IoMode::Direct,
            IoMode::Buffered => device::IoMode::Buffered,
            IoMode::Adaptive => device::IoMode::Adaptive,
        },
        engine: match device.engine {
            EngineChoice::Auto => EngineKind::Auto,
            EngineChoice::IoUring => EngineKind::IoUring,
            EngineChoice::Threads => EngineKind::Threads,
        },
        read_deadline: device.read_deadline.0,
        ..OpenOptions::new(path)
    };
    // Opening may wait for seconds.
    let wanted = device.uuid;
    let device = spawn_blocking(move || Device::open(&options)).await?.map_err(explain_denied)?;
    refuse_another(wanted, path, &device).await?;
    let opened = match Cache::open_device(device, cache_options(config, memory), clock).await {
        Err(OpenError::NotFormatted(_)) => Err(unformatted(path)),
        opened => opened.map_err(anyhow::Error::from),
    };
    opened.with_context(|| named(path))
}

/// An error if `wanted` names another store than the one on the device. Any other trouble with it shows
/// when it is opened.
async fn refuse_another(wanted: Option<Uuid>, path: &Path, device: &Device) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    match read_superblocks(device).await {
        Ok(found) if found.best.uuid != wanted => Err(anyhow!(
            "{} has the store {}, and device.uuid wants {wanted}: nothing was changed. Were disks \
             swapped? If the store is the right one, change device.uuid",
            path.display(),
            found.best.uuid
        )),
        _ => Ok(()),
    }
}

/// Context for an error that does not name its device.
fn named(path: &Path) -> String {
    format!("device {}", path.display())
}

/// Says what to do with a device that is not formatted: `serve` formats only images that it makes.
fn unformatted(path: &Path) -> anyhow::Error {
    let signature = device::probe(path).ok().and_then(|report| report.foreign_signature);
    let path = path.display();
    match signature {
        Some(name) => anyhow!(
            "it is not formatted and holds {name}: name another device, or erase this one with: \
             rawcached format {path} --force"
        ),
        None => anyhow!("it is not formatted: run: rawcached format {path}"),
    }
}

fn cache_options(config: &Config, memory: &MemoryPlan) -> CacheOptions {
    CacheOptions {
        ram_bytes: memory.ram,
        index_bytes_max: memory.index,
        recovery_bytes_max: memory.recovery,
        backlog_bytes_max: memory.backlog,
        write_buffer_bytes: memory.write_buffers,
        ttl_default: config.ttl.default.0,
        ttl_max: config.ttl.max.0,
        min_to_disk: config.ttl.min_to_disk.0,
        ack: match config.store.ack {
            AckMode::Buffered => Ack::Buffered,
            AckMode::Flushed => Ack::Flushed,
        },
        flush_interval: config.store.flush_interval.0,
        range: range_options(&config.range),
        // The device is read into the last third.
        range_buffer_bytes: memory.read_buffers / 3 * 2,
        scrub_bytes_per_sec: config.store.scrub_rate.0,
        ..CacheOptions::default()
    }
}

fn range_options(range: &RangeConfig) -> RangeOptions {
    RangeOptions {
        parallel: range.parallel == Switch::On,
        threshold: range.threshold.0,
        chunk_size: usize::try_from(range.chunk_size.0).unwrap_or(usize::MAX),
        concurrency: usize::try_from(range.concurrency).unwrap_or(usize::MAX),
        timeout: range.timeout.0,
    }
}

/// Adds the snapshots of cache, store and device.
pub fn add_metrics(metrics: &Metrics, cache: &Cache) -> anyhow::Result<()> {
    let (cache, uuid) = (cache.clone(), cache.device_store().uuid().to_string());
    metrics.add(move |page| {
        write_cache(page, &cache.stats());
        let device = cache.device_store().device();
        write_device(page, device.info(), &device.stats());
        let (help, uuid) = ("Always 1; the store is in the label.", uuid.as_str());
        page.gauge("rawcached_store_info", help, &[("uuid", uuid)], 1);
    })?;
    Ok(())
}

/// Adds how the memory is divided.
pub fn add_memory(metrics: &Metrics, memory: MemoryPlan) -> anyhow::Result<()> {
    metrics.add(move |page| {
        let help = "Memory that all parts take at most together; see memory.max.";
        page.gauge("rawcached_memory_max_bytes", help, &[], memory.max);
        let help = "Memory that a part takes at most, by its setting.";
        for (setting, bytes) in memory.parts() {
            page.gauge("rawcached_memory_part_max_bytes", help, &[("setting", setting)], bytes);
        }
    })?;
    Ok(())
}

/// The running protocol server.
pub struct Serving {
    /// Where the read-through listeners listen.
    pub proxies: Vec<ListenAddress>,
    task: JoinHandle<Result<(), RunError>>,
    stop: oneshot::Sender<()>,
    drain_timeout: Duration,
}

/// Starts the workers on `listeners` and adds what they count.
pub fn start_server(
    (config, memory): (&Config, &MemoryPlan),
    cache: &Cache,
    listeners: Vec<Listener>,
    metrics: &Metrics,
) -> anyhow::Result<Serving> {
    let mut options = options_of(config, memory)?;
    let limit_of = |it: &Listener| it.rules().connections_max.unwrap_or(options.connections_max);
    let of_proxies = listeners.iter().filter(|it| matches!(it.protocol(), Protocol::Proxy(_)));
    let proxies = of_proxies.map(|it| it.address().clone()).collect();
    options.connections_all_max = listeners.iter().map(limit_of).sum();
    let drain_timeout = options.drain_timeout;
    let server = Server::new(options, cache.clone());
    let counters = server.counters().clone();
    metrics.add(move |page| write_server(page, &counters.snapshot(), &counters.listeners()))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(listeners, async {
        let _ = stopped.await;
    }));
    Ok(Serving { proxies, task, stop, drain_timeout })
}

/// How many worker threads there will be.
pub fn workers(config: &Config) -> NonZeroUsize {
    let workers = usize::try_from(config.server.workers).ok().and_then(NonZeroUsize::new);
    workers.unwrap_or(Options::default().workers)
}

fn options_of(config: &Config, memory: &MemoryPlan) -> anyhow::Result<Options> {
    let server = &config.server;
    Ok(Options {
        workers: workers(config),
        connections_max: usize::try_from(server.max_connections).unwrap_or(usize::MAX),
        connections_all_max: usize::MAX,
        drain_timeout: DRAIN_DEADLINE,
        value_len_max: server.max_object_size.0,
        input_bytes_max: memory.connections,
        // What the kernel has taken of answers, and what waits for room in it.
        socket_buffer_bytes_max: memory.socket_buffers / 3 * 2,
        unsent_bytes_max: memory.socket_buffers / 3,
        ttl_default: config.ttl.default.0,
        copied_len_max: server.max_append_copy.0,
        ttl_max: config.ttl.max.0,
        memcached_idle_timeout: Some(server.memcached_idle_timeout.0)
            .filter(|idle| !idle.is_zero()),
        memcached_stall_timeout: server.memcached_stall_timeout.0,
        http_idle_timeout: server.http_idle_timeout.0,
        http_stall_timeout: server.http_stall_timeout.0,
        replay_miss_status: StatusCode::from_u16(server.replay_miss_status)
            .unwrap_or(Options::default().replay_miss_status),
        proxies: proxies::options(config, workers(config))?,
    })
}

impl Serving {
    /// Waits until the server fails; it does not end by itself otherwise.
    pub async fn failed(&mut self) -> anyhow::Error {
        let reason = match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("it ended by itself"),
            Ok(Err(error)) => error.into(),
            Err(panicked) => panicked.into(),
        };
        reason.context("the server failed")
    }

    /// Stops accepting and lets commands in progress finish within the drain's limit.
    pub async fn stop(mut self) {
        if self.task.is_finished() {
            return;
        }
        let _ = self.stop.send(());
        let limit = self.drain_timeout + STOP_GRACE;
        match tokio::time::timeout(limit, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the server failed"),
            Ok(Err(panicked)) => tracing::error!(%panicked, "the server failed"),
            Err(_) => tracing::error!(?limit, "the server does not end; given up"),
        }
    }
}

/// How long clients may take to finish after SIGTERM.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
