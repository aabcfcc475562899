//! A site: a proxy with its recipe, the daemon behind its front, and an origin behind its back.

use std::fs;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use tempfile::TempDir;

use super::client::{Answer, Client};
use super::origin::{Origin, Place, Seen};
use super::recipe::{Places, Proxy};
use super::reply::Reply;
use crate::support::daemon::Daemon;
use crate::support::http::Connection;
use crate::support::machine::require;
use crate::support::process::Process;
use crate::support::waiting::eventually;

/// What was stored longer ago than this survives a kill: the daemon writes every 100 ms; the rest is for a
/// busy machine.
const FLUSH_WINDOW: Duration = Duration::from_millis(500);

pub struct Site {
    pub proxy: Proxy,
    pub daemon: Daemon,
    /// Until it is stopped.
    origin: Option<Origin>,
    places: Places,
    _process: Process,
    _directory: TempDir,
}

impl Site {
    /// The origin answers each request with what `handler` gives. `None` if the proxy is not installed.
    pub fn start(
        proxy: Proxy,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Option<Site> {
        require(proxy.is_installed())?;
        let origin = Origin::start(handler);
        let Place::Tcp(address) = origin.place else { unreachable!("it is on a port") };
        let directory = TempDir::with_prefix("rawcached-site-").unwrap();
        // Some proxies have a user of their own.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let places = Places::new(directory.path(), address);
        let image = directory.path().join("cache.img");
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        crate::support::binary::format(&image);
        let server = "http = [\"unix:SOCKET.http\"]\nsocket_mode = \"0666\"";
        let mut daemon = Daemon::new(&image, server);
        daemon.configure_more(&proxy.daemon(&places));
        daemon.restart();
        let process = proxy.start(&places);
        let origin = Some(origin);
        Some(Site { proxy, daemon, origin, places, _process: process, _directory: directory })
    }

    #[track_caller]
    pub fn origin(&self) -> &Origin {
        self.origin.as_ref().expect("the origin runs")
    }

    /// Ends the origin: its port is closed.
    pub fn stop_origin(&mut self) {
        self.origin = None;
        assert!(eventually(|| TcpStream::connect(self.places.origin).is_err()));
    }

    /// Starts another one in its place.
    pub fn start_origin(&mut self, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.origin = Some(Origin::start_at(self.places.origin, handler));
    }

    /// Kills the daemon when what it has stored is on the device.
    pub fn kill_daemon(&mut self) {
        std::thread::sleep(FLUSH_WINDOW);
        self.daemon.kill();
    }

    /// Where clients connect.
    pub fn front(&self) -> Place {
        Place::Tcp(self.places.front())
    }

    /// A new connection to the front.
    pub fn client(&self) -> Client {
        Client::to(&self.front())
    }

    /// The same from an address of the client's choice.
    pub fn client_from(&self, address: [u8; 4]) -> Client {
        let [a, b, c, d] = address;
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let stream: OwnedFd = socket::socket(family, SockType::Stream, flags, None).unwrap();
        socket::bind(stream.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
        let front = SockaddrIn::new(127, 0, 0, 1, self.places.front().port());
        socket::connect(stream.as_raw_fd(), &front).unwrap();
        Client::over(UnixStream::from(stream))
    }

    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Answer {
        self.client().ask(method, target, fields, body)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    /// The bytes of a request, and of the answer up to the end of the connection.
    #[track_caller]
    pub fn last(&self, request: &str) -> (String, Vec<u8>) {
        Connection::open_tcp(self.places.front()).unwrap().ask_last(request)
    }

    /// Asks until it is answered from the store. Fills end after their answers, and proxies look only now and then
    /// whether the daemon is back.
    #[track_caller]
    pub fn hit(&self, target: &str) -> Answer {
        let mut last = None;
        let is_hit = eventually(|| {
            let answer = self.get(target);
            let is_hit = is_ours(&answer) && answer.verdict().hit;
            last = Some(answer);
            is_hit
        });
        assert!(is_hit, "{last:?}\n{}", self.log());
        last.unwrap()
    }

    /// Removes what is stored of a target.
    #[track_caller]
    pub fn purge(&self, target: &str) {
        let socket = self.daemon.socket().with_extension("sock.http");
        let purge = format!("{{\"type\": \"uri\", \"selectors\": [\"http://h{target}\"]}}");
        Connection::open(&socket).ask("POST", "/v1/purge", "", purge.as_bytes()).expect(200);
    }

    /// What daemon and proxy say.
    pub fn log(&self) -> String {
        let logs = ["proxy.log", "error.log"].map(|name| self.places.directory.join(name));
        let logs = logs.map(|path| fs::read_to_string(path).unwrap_or_default());
        format!("{}{}", self.daemon.log(), logs.concat())
    }
}

/// Whether an answer came through the daemon.
pub fn is_ours(answer: &Answer) -> bool {
    !answer.all("cache-status").is_empty()
}
