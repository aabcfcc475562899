//! Worker threads: each owns a single-threaded runtime and the connections it was handed.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{self, JoinError, JoinSet};

use super::access::Access;
use super::bounded::{Bounded, Family};
use super::counters::Ticket;
use super::gate::Gate;
use super::http::Socket;
use super::listener::{Protocol, Stream};
use super::memcached::{self, Service, Shared};
use super::options::RunError;
use super::proxy;
use super::proxy::AccessLog;
use super::proxy::options::{AccessLogOptions, ProxyOptions};
use super::proxy::replay::{self, Replay};
use super::routes::Routes;
use super::standing::Standing;
use super::{Server, http};
use crate::device::{Device, ThreadRing, look_soon};

/// Most tasks that a busy worker runs before it polls its sockets, and before it takes tasks that
/// other threads woke. A task runs for 128 commands, or 64 keys of one, at most.
const TASKS_BETWEEN_EVENTS: u32 = 31;
const TASKS_BETWEEN_WOKEN: u32 = 4;

/// How long the end waits for the access logs to be written out.
const LOG_FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// A connection on its way to a worker.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    pub(super) access: Access,
    pub(super) ticket: Ticket,
}

pub(super) struct Workers {
    workers: Vec<(mpsc::UnboundedSender<Arrival>, JoinHandle<()>)>,
    /// The access logs, which are written out at the end.
    logs: Vec<Arc<AccessLog>>,
    turn: AtomicUsize,
}

impl Workers {
    /// Starts all threads.
    pub(super) fn start(server: &Server, standing: &Arc<Standing>) -> Result<Workers, RunError> {
        let shared = Shared::new();
        let http_shared = http::Shared::default();
        let replay_shared = replay::Shared::default();
        let logs = access_logs(server)?;
        let proxies = server.options.proxies.iter().zip(&logs);
        let proxies: Vec<_> = proxies
            .map(|(options, log)| Arc::new(proxy::Shared::new(options, log.clone())))
            .collect();
        let workers = (0..server.options.workers.get()).map(|index| {
            let http = Arc::new(http::Service::new(server, index, &http_shared));
            let proxies = server.options.proxies.iter().zip(&proxies);
            let proxies = proxies
                .map(|(options, shared)| proxy::Service::new(options, &http, shared))
                .collect();
            let replay = Replay::new(server.options.replay_miss_status, &http, &replay_shared);
            let device = server.cache.device_store().device().clone();
            let service = Arc::new(Service::new(server, index, &shared));
            let worker = Worker {
                leads: index == 0,
                service,
                http,
                replay,
                proxies,
                standing: standing.clone(),
                connections: JoinSet::new(),
                gates: HashMap::new(),
            };
            spawn(index, device, worker).map_err(RunError::Worker)
        });
        let workers = workers.collect::<Result<_, _>>()?;
        let logs = logs.into_iter().flatten().collect();
        Ok(Workers { workers, logs, turn: AtomicUsize::new(0) })
    }

    /// Gives a connection to the next worker that is alive.
    pub(super) fn hand_over(&self, mut arrival: Arrival) {
        for _ in 0..self.workers.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len();
            match self.workers[turn].0.send(arrival) {
                Ok(()) => return,
                Err(refused) => arrival = refused.0,
            }
        }
        tracing::error!("all workers have failed; a connection is dropped");
    }

    /// Waits until every worker has drained its connections.
    pub(super) async fn drain(self) {
        let (senders, threads): (Vec<_>, Vec<_>) = self.workers.into_iter().unzip();
        drop(senders);
        let joined = task::spawn_blocking(|| {
            threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        match joined.await {
            Ok(0) => {}
            Ok(count) => tracing::error!(count, "workers ended by a panic"),
            Err(error) => tracing::error!(%error, "cannot wait for the workers"),
        }
        join_all(self.logs.iter().map(|log| log.flush(LOG_FLUSH_LIMIT))).await;
    }
}

/// The access log of each read-through listener that has one.
fn access_logs(server: &Server) -> Result<Vec<Option<Arc<AccessLog>>>, RunError> {
    let open = |options: &AccessLogOptions| {
        let counts = server.counters.add_access_log(options.bytes_max);
        AccessLog::start(options, &counts)
            .map(Arc::new)
            .map_err(|source| RunError::AccessLog { target: options.target.to_string(), source })
    };
    let of = |proxy: &ProxyOptions| proxy.access_log.as_ref().map(open).transpose();
    server.options.proxies.iter().map(of).collect()
}

fn spawn(
    index: usize,
    device: Device,
    worker: Worker,
) -> std::io::Result<(mpsc::UnboundedSender<Arrival>, JoinHandle<()>)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(TASKS_BETWEEN_EVENTS)
        .global_queue_interval(TASKS_BETWEEN_WOKEN)
        .build()?;
    // Bounded by the tickets: every arrival holds one.
    let (sender, arrivals) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // Dropped after the runtime: the reads that its connections began end first.
        let _ring = ring_of_thread(&device, &runtime);
        runtime.block_on(worker.run(arrivals));
        drop(runtime);
    })?;
    Ok((sender, thread))
}

/// A ring for this thread's reads; a task in `runtime` completes them. Without a ring, reads go
/// through the device's own threads.
fn ring_of_thread(device: &Device, runtime: &runtime::Runtime) -> Option<ThreadRing> {
    match device.thread_ring() {
        Ok(ring) => {
            if let Some(ring) = &ring {
                let completions = ring.completions();
                runtime.spawn(async move {
                    let error = completions.await;
                    tracing::error!(%error, "a worker no longer hears from its device");
                });
            }
            ring
        }
        Err(error) => {
            tracing::warn!(%error, "a worker has no ring of its own and uses the device's");
            None
        }
    }
}

struct Worker {
    /// One worker also runs the scheduled flush, and looks at clients that do not read.
    leads: bool,
    service: Arc<Service>,
    http: Arc<http::Service>,
    replay: Arc<Replay>,
    proxies: Vec<Arc<proxy::Service>>,
    standing: Arc<Standing>,
    connections: JoinSet<()>,
    gates: HashMap<task::Id, Arc<Gate>>,
}

impl Worker {
    async fn run(mut self, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
        let background = self.leads.then(|| {
            let service = self.service.clone();
            let standing = self.standing.clone();
            [
                tokio::spawn(async move { service.flushes.run(&service.cache).await }),
                tokio::spawn(async move { standing.run().await }),
            ]
        });
        loop {
            tokio::select! {
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => self.open(arrival),
                    None => break,
                },
                Some(ended) = self.connections.join_next_with_id() => self.close(ended),
            }
        }
        self.drain(self.service.options.drain_timeout).await;
        background.iter().flatten().for_each(task::JoinHandle::abort);
    }

    fn open(&mut self, arrival: Arrival) {
        let gate = Arc::new(Gate::default());
        let (its_gate, standing) = (gate.clone(), self.standing.clone());
        let connections = &mut self.connections;
        let task = match arrival.protocol {
            Protocol::Memcached => {
                let connection = serve(arrival, self.service.clone(), its_gate, standing);
                connections.spawn(hearing_from_the_device(connection))
            }
            Protocol::Http => {
                let service = OfHttp { service: self.http.clone(), replay: self.replay.clone() };
                let connection = serve(arrival, service, its_gate, standing);
                connections.spawn(hearing_from_the_device(connection))
            }
            Protocol::Proxy(index) => {
                let connection = serve(arrival, self.proxies[index].clone(), its_gate, standing);
                connections.spawn(hearing_from_the_device(connection))
            }
        };
        self.gates.insert(task.id(), gate);
    }

    fn close(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.gates.remove(&id);
        if let Err(error) = ended
            && error.is_panic()
        {
            self.service.shard.connection_panics.bump();
            tracing::error!(%error, "a connection ended by a panic; the others go on");
        }
    }

    async fn drain(&mut self, timeout: Duration) {
        for gate in self.gates.values() {
            gate.close();
        }
        let rest = async {
            while let Some(ended) = self.connections.join_next_with_id().await {
                self.close(ended);
            }
        };
        if tokio::time::timeout(timeout, rest).await.is_err() {
            let count = self.connections.len();
            tracing::warn!(count, "connections were cut: the drain took too long");
            self.connections.shutdown().await;
        }
    }
}

/// Serves a connection, and has the device polled in each round of ready connections: they may be
/// ready for ever.
async fn hearing_from_the_device(connection: impl Future<Output = ()>) {
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        look_soon();
        polled
    })
    .await;
}

/// Serves connections of one protocol.
trait Serve: Send + 'static {
    /// Serves a connection until either side ends it.
    fn serve<S: Socket>(
        self,
        stream: S,
        gate: Arc<Gate>,
        access: Access,
    ) -> impl Future<Output = ()> + Send;
}

impl Serve for Arc<Service> {
    async fn serve<S: Socket>(self, stream: S, gate: Arc<Gate>, access: Access) {
        memcached::serve(stream, self, gate, access).await;
    }
}

/// What a connection of an HTTP listener needs.
struct OfHttp {
    service: Arc<http::Service>,
    replay: Arc<Replay>,
}

impl Serve for OfHttp {
    async fn serve<S: Socket>(self, stream: S, gate: Arc<Gate>, access: Access) {
        let routes = Routes { replay: self.replay, access };
        http::serve(stream, self.service, gate, routes).await;
    }
}

impl Serve for Arc<proxy::Service> {
    async fn serve<S: Socket>(self, stream: S, gate: Arc<Gate>, _access: Access) {
        proxy::serve(stream, self, gate).await;
    }
}

async fn serve(arrival: Arrival, service: impl Serve, gate: Arc<Gate>, standing: Arc<Standing>) {
    let (access, ticket) = (arrival.access, arrival.ticket);
    let error = match arrival.stream {
        Stream::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
            Ok(stream) => {
                let stream = Bounded::new(stream, Family::Unix, standing, ticket);
                return service.serve(stream, gate, access).await;
            }
            Err(error) => error,
        },
        Stream::Tcp(stream) => match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => {
                let stream = Bounded::new(stream, Family::Tcp, standing, ticket);
                return service.serve(stream, gate, access).await;
            }
            Err(error) => error,
        },
    };
    tracing::warn!(%error, "a connection cannot be served");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::clock::Clock;
    use crate::server::Options;
    use ::http::StatusCode;

    #[tokio::test]
    async fn a_panic_in_a_connection_is_counted() {
        let server = Server::new(Options::default(), Cache::simulated(Clock::system()).await);
        let service = Arc::new(Service::new(&server, 0, &Shared::new()));
        let http = Arc::new(http::Service::new(&server, 0, &http::Shared::default()));
        let replay = Replay::new(StatusCode::GATEWAY_TIMEOUT, &http, &replay::Shared::default());
        let (connections, gates, proxies) = (JoinSet::new(), HashMap::new(), Vec::new());
        let standing = Arc::new(Standing::new(server.counters.clone()));
        let mut worker =
            Worker { leads: false, service, http, replay, proxies, standing, connections, gates };
        worker.connections.spawn(async { panic!("a bug") });
        worker.drain(Duration::from_secs(10)).await;
        assert_eq!(server.counters.snapshot().counts.connection_panics, 1);
    }
}
