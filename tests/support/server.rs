//! A server over a cache on a simulated device, in the process of the test. It speaks the memcached
//! protocol, or HTTP too.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rawcached::cache::{Cache, CacheOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::config::ListenAddress;
use rawcached::device::{Device, SimDevice};
use rawcached::format::Uuid;
use rawcached::server::counters::{Counters, Snapshot};
use rawcached::server::listener::{Listener, Permissions, Protocol};
use rawcached::server::{Options, RunError, Server};
use rawcached::store::{FormatOptions, Store};
use tokio::sync::oneshot;

use super::http::{Answer, Connection, target};
use super::log;
use super::memcached::Client;
use super::waiting::ANSWER_PATIENCE;

/// A running server; dropping it shuts it down.
pub struct TestServer {
    pub path: PathBuf,
    pub clock: Clock,
    pub cache: Cache,
    pub counters: Arc<Counters>,
    pub device: SimDevice,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    _directory: tempfile::TempDir,
}

/// Two workers, values up to 4 MiB, which changes may copy, and no long waits.
pub fn options() -> Options {
    Options {
        workers: NonZeroUsize::new(2).unwrap(),
        connections_max: 64,
        drain_timeout: Duration::from_secs(5),
        value_len_max: 4 << 20,
        copied_len_max: 4 << 20,
        ..Options::default()
    }
}

/// An empty cache on a simulated device.
async fn open_cache(device: Device, cache_options: CacheOptions, clock: Clock) -> Cache {
    log::init();
    let options = options!(FormatOptions {
        region_size: Some(4 << 20),
        ..FormatOptions::default().with_uuid(Uuid([7; 16]))
    });
    Store::format(&device, &options, &clock).await.unwrap();
    let cache = Cache::open_device(device, cache_options, clock).await.unwrap();
    cache.ready().await;
    cache
}

impl TestServer {
    pub fn start() -> TestServer {
        TestServer::with(options())
    }

    pub fn with(options: Options) -> TestServer {
        TestServer::serving(options, Vec::new())
    }

    /// Serves on further listeners besides its own socket.
    pub fn serving(options: Options, listeners: Vec<Listener>) -> TestServer {
        TestServer::of_cache(options, CacheOptions::default(), listeners)
    }

    /// As [`TestServer::serving`], over a cache with `cache_options`.
    pub fn of_cache(
        options: Options,
        cache_options: CacheOptions,
        mut listeners: Vec<Listener>,
    ) -> TestServer {
        let clock = Clock::manual(Timestamp(1_800_000_000));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memcached.sock");
        let address = ListenAddress::Unix(path.clone());
        listeners.push(Listener::bind(&address, &Permissions::default()).unwrap());
        let connections_all_max = options.connections_max * listeners.len();
        let options = Options { connections_all_max, ..options };
        let (stop, stopped) = oneshot::channel();
        let (opened, opening) = std::sync::mpsc::channel();
        let cache_clock = clock.clone();
        let device = SimDevice::new(128 << 20, 512);
        let opened_device = device.open();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let cache = open_cache(opened_device, cache_options, cache_clock).await;
                let server = Server::new(options, cache.clone());
                opened.send((cache, server.counters().clone())).unwrap();
                let stopped = async {
                    stopped.await.ok();
                };
                server.run(listeners, stopped).await
            })
        });
        let (cache, counters) = opening.recv().unwrap();
        let (stop, thread) = (Some(stop), Some(thread));
        TestServer { path, clock, cache, counters, device, stop, thread, _directory: directory }
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    pub fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Asks the server to drain and returns at once.
    pub fn begin_shutdown(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the server's end.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    /// Waits until `condition` holds of the counters.
    pub fn wait_until(&self, condition: impl Fn(&Snapshot) -> bool) {
        for _ in 0..ANSWER_PATIENCE.as_millis() {
            if condition(&self.snapshot()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("waited in vain: {:?}", self.snapshot());
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_shutdown();
        if !std::thread::panicking() {
            self.join();
        }
    }
}

/// A running server with an HTTP socket besides the memcached one.
pub struct HttpServer {
    pub server: TestServer,
    pub http: PathBuf,
    _directory: tempfile::TempDir,
}

impl Deref for HttpServer {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.server
    }
}

impl DerefMut for HttpServer {
    fn deref_mut(&mut self) -> &mut TestServer {
        &mut self.server
    }
}

impl HttpServer {
    pub fn start() -> HttpServer {
        HttpServer::with(options())
    }

    pub fn with(options: Options) -> HttpServer {
        HttpServer::of_cache(options, CacheOptions::default())
    }

    /// Without a RAM tier: what was written is read from the device.
    pub fn without_ram() -> HttpServer {
        HttpServer::of_cache(
            options(),
            options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() }),
        )
    }

    pub fn of_cache(options: Options, cache_options: CacheOptions) -> HttpServer {
        let directory = tempfile::tempdir().unwrap();
        let http = directory.path().join("http.sock");
        let address = ListenAddress::Unix(http.clone());
        let listener = Listener::bind(&address, &Permissions::default()).unwrap();
        let listeners = vec![listener.speaking(Protocol::Http)];
        let server = TestServer::of_cache(options, cache_options, listeners);
        HttpServer { server, http, _directory: directory }
    }

    pub fn open(&self) -> Connection {
        Connection::open(&self.http)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        self.open().ask(method, target, headers, body)
    }

    #[track_caller]
    pub fn put(&self, key: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask("PUT", &target(key), headers, body)
    }

    #[track_caller]
    pub fn get(&self, key: &str, headers: &str) -> Answer {
        self.ask("GET", &target(key), headers, b"")
    }
}
