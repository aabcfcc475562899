//! The running daemon. Owns the order of start and stop, signals and messages to systemd; never
//! looks at an entry.

mod absent;
mod available_memory;
mod file_system;
mod huge_pages;
mod image;
mod listeners;
mod log_queue;
mod logging;
mod notifier;
mod open_files;
mod ownership;
mod permission;
mod progress;
mod proxies;
mod purge_token_file;
mod reload;
mod signals;
mod sockets;
mod start_log;
mod welcome;
mod wiring;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval, timeout};

pub use absent::absent;
pub use available_memory::available;
pub use file_system::{is_in_memory, shortage};
pub use image::{ImageError, create_sparse};
pub use ownership::{Foreign, check as check_ownership};
pub use permission::{explain_denied, socket_advice};

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Config, MemoryPlan};
use crate::metrics::{Metrics, ProcessStart};
use crate::server::admin::{Admin, Readiness};
use crate::server::listener::{Listener, Protocol};
use logging::Logging;
use notifier::Notifier;
use open_files::OpenFiles;
use progress::RecoveryProgress;
use reload::Reading;
use signals::{Signal, Signals};
use sockets::Inherited;
use wiring::Serving;

/// How long the cache may take to write what it has accepted. With the drain of the server before it
/// that stays below the 90 s that systemd waits (`TimeoutStopSec`).
const FLUSH_DEADLINE: Duration = Duration::from_secs(60);
/// Stands in for the watchdog's interval where there is no watchdog.
const NO_WATCHDOG: Duration = Duration::from_secs(3600);

pub use reload::Reload;

/// Serves until SIGTERM or SIGINT, then drains: stops accepting, lets clients finish within a
/// deadline, and writes what was accepted to the device. A second signal stops at once.
///
/// # Errors
/// The daemon cannot start, a part of it failed while it ran, or it could not drain cleanly.
pub fn run(config: Config, memory: MemoryPlan, reload: Reload) -> anyhow::Result<()> {
    let start = ProcessStart::now();
    // Image files, directories and sockets are private until their mode is set.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let logging = Logging::start(&config.log)?;
    start_log::tell_version();
    start_log::tell_settings(&config);
    huge_pages::fit(memory.max);
    let notifier = Notifier::start().context("cannot start the thread of notifications")?;
    let inherited = Inherited::take().context("sockets from the service manager")?;
    let of_proxies = config.proxies.iter().map(|proxy| proxy.listen.len());
    let listeners =
        config.server.memcached.len() + config.server.http.len() + of_proxies.sum::<usize>();
    let workers = wiring::workers(&config);
    let upstream = proxies::upstream_connections(&config, workers);
    let files = OpenFiles::raise(workers.get(), listeners, upstream)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outside = Outside { notifier, logging, reload };
    let ended = runtime.block_on(async {
        let given = (inherited, files);
        let started = Daemon::start((config, memory), given, start, &outside).await?;
        let Some(daemon) = started else { return Ok(()) };
        daemon.run(&outside).await
    });
    runtime.shutdown_background();
    ended
}

/// What the daemon tells, and is told by. None of it makes the main thread wait.
struct Outside {
    notifier: Notifier,
    /// Dropped after the notifier, which may have something to say.
    logging: Logging,
    reload: Reload,
}

/// What the daemon listens on.
struct Sockets {
    data: Vec<Listener>,
    admin: Option<std::net::TcpListener>,
}

/// A daemon that serves.
struct Daemon {
    config: Config,
    cache: Cache,
    signals: Signals,
    serving: Serving,
    admin: AdminTask,
    stopping: Arc<AtomicBool>,
}

impl Daemon {
    /// Opens the cache and the listeners; `None` if a signal came first.
    async fn start(
        (config, memory): (Config, MemoryPlan),
        given: (Inherited, OpenFiles),
        start: ProcessStart,
        outside: &Outside,
    ) -> anyhow::Result<Option<Daemon>> {
        let mut signals = Signals::install().context("cannot install signal handlers")?;
        tracing::info!("memory: {memory}");
        outside.notifier.send(&[NotifyState::Status("opening the device")]);
        let opened = tokio::select! {
            opened = wiring::open_cache(&config, &memory, Clock::system()) => opened,
            signal = signals.stop() => {
                tracing::info!(%signal, "stopped before the device was open");
                return Ok(None);
            }
        };
        // We hold the device from here on. A second daemon has failed already, before it could
        // take over our sockets.
        let cache = opened?;
        start_log::tell_device(&cache);
        let opened = tokio::select! {
            opened = Sockets::open(&config, given) => opened.map(Some),
            signal = signals.stop() => {
                tracing::info!(%signal, "stopped before the listeners were open");
                Ok(None)
            }
        };
        let started = match opened {
            Ok(Some(sockets)) => {
                let config = (&config, memory);
                Daemon::serve_on(sockets, config, cache.clone(), (start, outside)).map(Some)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        if let Ok(Some((serving, admin, stopping))) = started {
            return Ok(Some(Daemon { config, cache, signals, serving, admin, stopping }));
        }
        tokio::select! {
            closed = cache.shutdown() => if let Err(error) = closed {
                tracing::error!(error = &error as &dyn std::error::Error, "the cache did not close");
            },
            signal = signals.stop() => tracing::error!(%signal, "stopped at once"),
        }
        started.map(|_| None)
    }

    /// Starts what serves the listeners of an open cache.
    fn serve_on(
        sockets: Sockets,
        (config, memory): (&Config, MemoryPlan),
        cache: Cache,
        (start, outside): (ProcessStart, &Outside),
    ) -> anyhow::Result<(Serving, AdminTask, Arc<AtomicBool>)> {
        let stopping = Arc::new(AtomicBool::new(false));
        let metrics = Metrics::new();
        start.add_to(&metrics)?;
        outside.logging.add_to(&metrics)?;
        wiring::add_metrics(&metrics, &cache)?;
        wiring::add_memory(&metrics, memory)?;
        add_readiness(&metrics, &cache, &stopping)?;

        let Sockets { data, admin } = sockets;
        for listener in &data {
            match listener.protocol() {
                Protocol::Memcached => {
                    tracing::info!(address = %listener.address(), "memcached listener");
                }
                Protocol::Http => tracing::info!(address = %listener.address(), "HTTP listener"),
                Protocol::Proxy(index) => {
                    let (proxy, address) = (&config.proxies[index], listener.address());
                    let (name, upstream) = (proxy.name(), proxy.upstream());
                    tracing::info!(name, %upstream, %address, "read-through listener");
                }
            }
        }
        let serving = wiring::start_server((config, &memory), &cache, data, &metrics)?;
        let shown = Admin::new(metrics, readiness_of(&cache, &stopping));
        let admin = AdminTask::start(shown, admin)?;
        Ok((serving, admin, stopping))
    }

    async fn run(mut self, outside: &Outside) -> anyhow::Result<()> {
        let recovering = !self.cache.is_ready();
        let status = if recovering { "recovering; already serving" } else { "serving" };
        outside.notifier.send(&[NotifyState::Ready, NotifyState::Status(status)]);
        let (device, uuid) =
            (self.config.device().path.display(), self.cache.device_store().uuid());
        tracing::info!(%device, %uuid, recovering, "serving");
        if !recovering {
            self.tell_recovered(outside);
        }
        let failed = self.serve(outside).await;
        let drained = self.drain(&outside.notifier).await;
        match failed {
            Some(failed) => Err(failed),
            None => drained,
        }
    }

    /// Says that the cache is complete. What a new user is to do stands below all that the start logs.
    fn tell_recovered(&self, outside: &Outside) {
        start_log::tell_recovered(&self.cache);
        if self.config.embedded {
            let (proxies, admin) = (&self.serving.proxies, self.admin.address);
            welcome::print(&self.config, proxies, admin, outside.logging.queue().clone());
        }
    }

    /// Runs until a signal (`None`) or until a part of the daemon fails.
    async fn serve(&mut self, outside: &Outside) -> Option<anyhow::Error> {
        let Outside { logging, notifier, reload } = outside;
        let watchdog = sd_notify::watchdog_enabled();
        let mut watchdog_tick = interval(watchdog.map_or(NO_WATCHDOG, |limit| limit / 2));
        let mut recovering = !self.cache.is_ready();
        let mut progress = RecoveryProgress::new(logging.queue());
        let mut reading = Reading::default();
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Reload => reading.begin(reload),
                    stop => {
                        tracing::info!(signal = %stop, "draining; a second signal stops at once");
                        return None;
                    }
                },
                loaded = reading.ended() => reload::apply(&mut self.config, loaded, logging),
                _ = watchdog_tick.tick() => {
                    if watchdog.is_some() {
                        notifier.send(&[NotifyState::Watchdog]);
                    }
                }
                stats = progress.next(&self.cache), if recovering => {
                    notifier.send(&[NotifyState::Status(&progress.show(&stats))]);
                }
                () = self.cache.ready(), if recovering => {
                    recovering = false;
                    progress.end();
                    notifier.send(&[NotifyState::Status("serving")]);
                    self.tell_recovered(outside);
                }
                failed = self.serving.failed() => return Some(failed),
                failed = self.admin.failed() => return Some(failed),
            }
        }
    }

    async fn drain(mut self, notifier: &Notifier) -> anyhow::Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        notifier.send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        let (cache, serving) = (self.cache, self.serving);
        let drained = async {
            serving.stop().await;
            match timeout(FLUSH_DEADLINE, cache.shutdown()).await {
                Ok(ended) => ended.context("the cache could not be written out"),
                Err(_) => {
                    anyhow::bail!("the device did not take everything within {FLUSH_DEADLINE:?}")
                }
            }
        };
        let ended = tokio::select! {
            ended = drained => ended,
            signal = self.signals.stop() => {
                Err(anyhow::anyhow!("stopped at once by {signal}; what was not flushed is lost"))
            }
        };
        self.admin.stop().await;
        if ended.is_ok() {
            tracing::info!("stopped");
        }
        ended
    }
}

impl Sockets {
    /// Opens what was not passed, in a thread of its own: looking up a group may take its time.
    async fn open(
        config: &Config,
        (inherited, files): (Inherited, OpenFiles),
    ) -> anyhow::Result<Sockets> {
        let config = config.clone();
        let open = move || {
            let data = listeners::open(&config, inherited.data, &files)?;
            Ok(Sockets { data, admin: sockets::open_admin(&config.server, inherited.admin)? })
        };
        spawn_blocking(open).await?
    }
}

/// The admin listener's task; does nothing where the listener is turned off.
struct AdminTask {
    address: Option<std::net::SocketAddr>,
    task: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl AdminTask {
    fn start(admin: Admin, listener: Option<std::net::TcpListener>) -> anyhow::Result<AdminTask> {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let listener = listener.map(tokio::net::TcpListener::from_std).transpose()?;
        let task = tokio::spawn(async {
            match listener {
                Some(listener) => admin.serve(listener, stopped).await?,
                None => stopped.await,
            }
            Ok(())
        });
        if let Some(address) = address {
            tracing::info!(%address, "admin listener");
        }
        Ok(AdminTask { address, task, stop })
    }

    async fn failed(&mut self) -> anyhow::Error {
        let reason = match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("it ended by itself"),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        };
        reason.context("the admin listener failed")
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        if !self.task.is_finished() {
            let _ = self.task.await;
        }
    }
}

fn readiness_of(
    cache: &Cache,
    stopping: &Arc<AtomicBool>,
) -> impl Fn() -> Readiness + Send + Sync + 'static {
    let (cache, stopping) = (cache.clone(), Arc::clone(stopping));
    move || {
        if stopping.load(Ordering::Relaxed) {
            Readiness::NotReady("the daemon is stopping".to_owned())
        } else if !cache.is_ready() {
            Readiness::NotReady("recovery is running".to_owned())
        } else if !cache.takes_writes() {
            Readiness::NotReady("the device refuses writes: stores are refused".to_owned())
        } else {
            match cache.device_store().troubles() {
                troubles if troubles.is_empty() => Readiness::Ready,
                troubles => Readiness::Degraded(
                    troubles.into_iter().map(|trouble| format!("the device: {trouble}")).collect(),
                ),
            }
        }
    }
}

fn add_readiness(
    metrics: &Metrics,
    cache: &Cache,
    stopping: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let readiness = readiness_of(cache, stopping);
    metrics.add(move |page| {
        let ready = u64::from(!matches!(readiness(), Readiness::NotReady(_)));
        let help = "1 when the cache is recovered and the device takes writes, else 0.";
        page.gauge("rawcached_ready", help, &[], ready);
    })?;
    Ok(())
}
