//! Where the daemon meets the cache and the protocol servers. Owns nothing but the way they are
//! started; the one file that changes when their interfaces do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::image;
use super::sockets::Listener;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Metrics;

/// Opens the cache on the configured device; recovery may still run when it returns.
pub async fn open_cache(config: &Config, clock: Clock) -> anyhow::Result<Cache> {
    image::prepare(config, |_unformatted| Ok(()))?;
    Ok(Cache::stand_in(clock))
}

/// Adds the snapshots of cache, store and device.
pub fn add_metrics(_metrics: &Metrics, _cache: &Cache) -> anyhow::Result<()> {
    Ok(())
}

/// The running protocol servers.
pub struct Serving {
    tasks: JoinSet<()>,
    stop: Arc<Notify>,
}

/// Starts the workers on `listeners`.
pub fn start_server(
    _config: &Config,
    _cache: &Cache,
    listeners: Vec<Listener>,
) -> anyhow::Result<Serving> {
    let mut serving = Serving { tasks: JoinSet::new(), stop: Arc::new(Notify::new()) };
    for listener in listeners {
        let stop = Arc::clone(&serving.stop);
        let refusing = refuse(listener).context("cannot serve a listener")?;
        serving.tasks.spawn(async move {
            tokio::select! {
                () = refusing => {}
                () = stop.notified() => {}
            }
        });
    }
    Ok(serving)
}

impl Serving {
    /// Waits until a worker fails; for ever if none does.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Err(panicked)) => anyhow::Error::from(panicked).context("a worker failed"),
            Some(Ok(())) => anyhow::anyhow!("a worker ended by itself"),
            None => std::future::pending().await,
        }
    }

    /// Stops accepting and gives connections `deadline` to finish.
    pub async fn stop(mut self, deadline: Duration) {
        self.stop.notify_waiters();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::warn!(?deadline, "connections were cut off at the deadline");
        }
    }
}

/// Answers every connection with an error, until the protocol server stands here.
fn refuse(listener: Listener) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    enum Accepting {
        Unix(UnixListener),
        Tcp(TcpListener),
    }
    let accepting = match listener {
        Listener::Unix(listener) => Accepting::Unix(UnixListener::from_std(listener)?),
        Listener::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
    };
    Ok(async move {
        loop {
            match &accepting {
                Accepting::Unix(listener) => {
                    if let Ok((stream, _)) = listener.accept().await {
                        say_no(stream).await;
                    }
                }
                Accepting::Tcp(listener) => {
                    if let Ok((stream, _)) = listener.accept().await {
                        say_no(stream).await;
                    }
                }
            }
        }
    })
}

async fn say_no(mut stream: impl AsyncWrite + Unpin) {
    let _ = stream.write_all(b"SERVER_ERROR the protocol is not served yet\r\n").await;
}
