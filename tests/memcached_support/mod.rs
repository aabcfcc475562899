//! A memcached server over an in-memory cache, and a client that speaks bytes.
#![allow(dead_code, reason = "each test crate uses its part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "this is test code")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rawcached::cache::{Cache, CacheOptions};
use rawcached::clock::{Clock, Timestamp};
use rawcached::config::ListenAddress;
use rawcached::device::{Device, SimDevice};
use rawcached::format::Uuid;
use rawcached::server::counters::{Counters, Snapshot};
use rawcached::server::listener::{Listener, Permissions};
use rawcached::server::{Options, RunError, Server};
use rawcached::store::{FormatOptions, Store};
use tokio::sync::oneshot;

/// Longest wait for anything a test expects to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

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

/// Two workers, values up to 4 MiB, and no long waits.
pub fn options() -> Options {
    Options {
        workers: NonZeroUsize::new(2).unwrap(),
        connections_max: 64,
        drain_timeout: Duration::from_secs(5),
        value_len_max: 4 << 20,
        ..Options::default()
    }
}

/// An empty cache on a simulated device.
async fn open_cache(device: Device, cache_options: CacheOptions, clock: Clock) -> Cache {
    crate::test_log::init();
    let options = FormatOptions {
        uuid: Uuid([7; 16]),
        region_size: Some(4 << 20),
        ..FormatOptions::default()
    };
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
        for _ in 0..PATIENCE.as_millis() {
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

/// A connection of a test.
pub struct Client(pub UnixStream);

impl Client {
    pub fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    pub fn send(&mut self, request: impl AsRef<[u8]>) {
        self.0.write_all(request.as_ref()).unwrap();
    }

    /// Reads exactly what is expected.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut got = vec![0; expected.len()];
        let mut len = 0;
        while len < got.len() {
            match self.0.read(&mut got[len..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => len += read,
            }
            if got[..len] != expected[..len] {
                break;
            }
        }
        let (got, expected) = (shorten(&got[..len]), shorten(expected));
        assert_eq!(got, expected);
    }

    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(request);
        self.expect(expected);
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // So ends a connection that was closed before all it was sent had been read.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads up to a line that is `last`, which is included.
    pub fn read_until(&mut self, last: &str) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(last.as_bytes()) {
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "{}", shorten(&text));
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Nothing more to send.
    pub fn half_close(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.ask("verbosity 1\r\n", "OK\r\n");
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.len() {
        0..=400 => text,
        len => format!("{}...{} ({} bytes)", &text[..200], &text[len - 100..], bytes.len()),
    }
}
