//! A read-through listener between a recording origin and strict clients. Its clock stands still until a
//! test moves it.

use std::path::PathBuf;
use std::time::Duration;

use rawcached::cache::CacheOptions;
use rawcached::config::ListenAddress;
use rawcached::server::Options;
use rawcached::server::listener::{Listener, Permissions, Protocol};
use rawcached::server::proxy::options::{ProxyOptions, UpstreamAddress};

use super::client::{Answer, Client};
use super::origin::{Origin, Place, Seen};
use super::reply::Reply;
use crate::support::server::{TestServer, options};
use crate::support::waiting::eventually;

/// Short, but long enough for a busy machine.
pub const SOON: Duration = Duration::from_millis(400);

/// A server with one read-through listener, and its origin.
pub struct Rig {
    pub server: TestServer,
    pub origin: Origin,
    /// The socket of `/v1/objects` and `/v1/purge`.
    pub objects: PathBuf,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// The origin answers each request with what `handler` gives.
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
        Rig::of(Origin::start(handler))
    }

    /// The origin answers with `replies` in turn; one request more fails the test.
    pub fn queue(replies: impl IntoIterator<Item = Reply>) -> Rig {
        Rig::of(Origin::queue(replies))
    }

    /// In front of `origin`.
    pub fn of(origin: Origin) -> Rig {
        Rig::with(origin, |_| {})
    }

    /// In front of `origin`, with other choices.
    pub fn with(origin: Origin, choose: impl FnOnce(&mut ProxyOptions)) -> Rig {
        let place = origin.place.clone();
        Rig::before(origin, &place, options(), choose)
    }

    /// The listener asks whoever is at `place`.
    pub fn before(
        origin: Origin,
        place: &Place,
        options: Options,
        choose: impl FnOnce(&mut ProxyOptions),
    ) -> Rig {
        Rig::over(CacheOptions::default(), (origin, place), options, choose)
    }

    /// In front of `origin`, with other choices, and without a RAM tier: what was written is read from the device.
    pub fn without_ram(origin: Origin, choose: impl FnOnce(&mut ProxyOptions)) -> Rig {
        let place = origin.place.clone();
        let cache = options!(CacheOptions { ram_bytes: 0, ..CacheOptions::default() });
        Rig::over(cache, (origin, &place), options(), choose)
    }

    fn over(
        cache: CacheOptions,
        (origin, place): (Origin, &Place),
        options: Options,
        choose: impl FnOnce(&mut ProxyOptions),
    ) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("proxy.sock");
        let address = ListenAddress::Unix(socket.clone());
        let listener = Listener::bind(&address, &Permissions::default()).unwrap();
        let upstream = match place {
            Place::Tcp(address) => UpstreamAddress::Tcp(*address),
            Place::Unix(path) => UpstreamAddress::Unix(path.clone()),
        };
        let mut proxy = ProxyOptions::new("test", upstream);
        choose(&mut proxy);
        let options = Options { proxies: vec![proxy], ..options };
        let objects = directory.path().join("http.sock");
        let address = ListenAddress::Unix(objects.clone());
        let http = Listener::bind(&address, &Permissions::default()).unwrap();
        let listeners = vec![listener.speaking(Protocol::Proxy(0)), http.speaking(Protocol::Http)];
        let server = TestServer::of_cache(options, cache, listeners);
        Rig { server, origin, objects, socket, _directory: directory }
    }

    /// A new connection to the listener.
    pub fn client(&self) -> Client {
        Client::open(&self.socket)
    }

    /// One request on a connection of its own. `fields` are whole lines.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Answer {
        self.client().ask(method, target, fields, body)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    #[track_caller]
    pub fn get_with(&self, target: &str, fields: &str) -> Answer {
        self.ask("GET", target, fields, b"")
    }

    /// What a GET gives once whatever was being fetched before it is stored, or is not: whoever comes
    /// in between follows it.
    #[track_caller]
    pub fn settled(&self, target: &str, fields: &str) -> Answer {
        let mut last = None;
        let is_settled = eventually(|| {
            let answer = self.get_with(target, fields);
            let is_collapsed = answer.verdict().collapsed;
            last = Some(answer);
            !is_collapsed
        });
        assert!(is_settled, "{last:?}");
        last.unwrap()
    }

    /// A GET that stores, and what it gave. It is stored when this returns.
    #[track_caller]
    pub fn fill(&self, target: &str, fields: &str) -> Answer {
        let asked = self.origin.count();
        let answer = self.get_with(target, fields);
        self.settled(target, fields).expect_hit();
        assert_eq!(self.origin.count(), asked + 1, "one request fills");
        answer
    }

    /// Time passes.
    pub fn pass(&self, secs: u64) {
        self.server.clock.advance(Duration::from_secs(secs));
    }

    /// Asserts that so many whole requests came to the origin.
    #[track_caller]
    pub fn expect_asked(&self, count: usize) {
        let seen = self.origin.seen();
        let lines: Vec<_> =
            seen.iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
        assert_eq!(seen.len(), count, "{lines:?}");
    }
}
