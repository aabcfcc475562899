//! Goal: what is configured for one listener holds for its clients, and for nobody else. Method: servers
//! with several listeners, each with rules of its own.

use std::path::PathBuf;
use std::time::Duration;

use rawcached::config::ListenAddress;
use rawcached::server::access::Access;
use rawcached::server::listener::{Listener, Permissions, Protocol, Rules};
use rawcached::server::listener_counts::ListenerSnapshot;
use rawcached::server::peers::Peers;
use tempfile::TempDir;

use crate::support::http::{Connection, target};
use crate::support::memcached::Client;
use crate::support::server::{TestServer, options};

/// A server with a further listener.
struct Served {
    server: TestServer,
    path: PathBuf,
    _directory: TempDir,
}

fn serve(protocol: Protocol, rules: Rules) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let address = ListenAddress::Unix(path.clone());
    let listener = Listener::bind(&address, &Permissions::default()).unwrap();
    let listeners = vec![listener.speaking(protocol).with_rules(rules)];
    let server = TestServer::serving(options(), listeners);
    Served { server, path, _directory: directory }
}

impl Served {
    /// What is counted of the further listener.
    fn counts(&self) -> ListenerSnapshot {
        let name = format!("unix:{}", self.path.display());
        let found = self.server.counters.listeners().into_iter().find(|it| it.name == name);
        found.expect("it is counted")
    }
}

#[test]
fn a_full_listener_locks_nobody_out_of_another() {
    let rules = Rules { connections_max: Some(2), ..Rules::default() };
    let served = serve(Protocol::Http, rules);
    // All that the memcached listener may have, as `options` says.
    let mut idle: Vec<Client> = (0..64).map(|_| served.server.connect()).collect();
    idle.iter_mut().for_each(Client::expect_alive);
    assert_eq!(served.server.connect().rest(), b"SERVER_ERROR too many open connections\r\n");
    let mut first = Connection::open(&served.path);
    first.ask("PUT", &target("k"), "", b"x").expect(201);
    let mut second = Connection::open(&served.path);
    second.ask("GET", &target("k"), "", b"").expect(200);
    Connection::open(&served.path).answer("GET").expect(503);
    let counts = served.counts();
    assert_eq!((counts.connections, counts.connections_max), (2, 2));
    assert_eq!((counts.refused_full, counts.refused_peer), (1, 0));
    assert_eq!(served.server.snapshot().counts.connections_rejected, 2);
    assert_eq!(served.server.snapshot().connections_current, 66);
}

#[test]
fn connections_that_ended_unread_take_no_place_of_another_listener() {
    let served = serve(Protocol::Http, Rules::default());
    let unread: Vec<Client> = (0..64)
        .map(|_| {
            let mut client = served.server.connect();
            client.send("version\r\nquit\r\n");
            client
        })
        .collect();
    let answered = 64 * "VERSION 1.6.40\r\n".len() as u64;
    served.server.wait_until(|now| now.counts.bytes_written >= answered);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(served.server.snapshot().connections_current, 64, "they have their places");
    assert_eq!(served.server.connect().rest(), b"SERVER_ERROR too many open connections\r\n");
    let mut others: Vec<Connection> = (0..64).map(|_| Connection::open(&served.path)).collect();
    others.iter_mut().for_each(|other| drop(other.ask("GET", &target("k"), "", b"").expect(404)));
    assert_eq!((served.counts().connections, served.counts().refused_full), (64, 0));
    drop(unread);
    std::thread::sleep(Duration::from_millis(50));
    served.server.connect().expect_alive();
}

#[test]
fn who_may_not_connect_is_told_so_and_counted() {
    let nobody = || Rules { peers: Some(Peers::default()), ..Rules::default() };
    let served = serve(Protocol::Memcached, nobody());
    let mut refused = Client::connect(&served.path);
    assert_eq!(refused.rest(), b"SERVER_ERROR this user may not connect here\r\n");
    served.server.connect().expect_alive();
    assert_eq!((served.counts().refused_peer, served.counts().refused_full), (1, 0));
    let served = serve(Protocol::Http, nobody());
    let answer = Connection::open(&served.path).answer("GET").expect(403);
    assert_eq!(answer.body, b"this user may not connect here\n");
    assert_eq!(served.counts().refused_peer, 1);
    assert_eq!(served.counts().connections, 0);
}

#[test]
fn a_read_only_listener_serves_lookups_only() {
    let access = Access { read_only: true, flush_all: true };
    let served = serve(Protocol::Memcached, Rules { access, ..Rules::default() });
    let mut full = served.server.connect();
    full.ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    let mut reader = Client::connect(&served.path);
    let refused = "CLIENT_ERROR this listener is read-only\r\n";
    for command in [
        "set k 0 0 8\r\nget none\r\n",
        "add k2 0 0 1\r\nx\r\n",
        "append k 0 0 1\r\nx\r\n",
        "cas k 0 0 1 1\r\nx\r\n",
        "delete k\r\n",
        "incr k 1\r\n",
        "touch k 1\r\n",
        "gat 1 k\r\n",
        "flush_all\r\n",
        "ms k 8 q\r\nget none\r\n",
        "md k q\r\n",
        "md k I\r\n",
        "ma k q\r\n",
        "mg k T1\r\n",
        "mg none N1\r\n",
    ] {
        reader.ask(command, refused);
    }
    // Larger than what may be stored at all, which takes the old value with it elsewhere.
    let large = "x".repeat(5 << 20);
    reader.ask(format!("set k 0 0 {}\r\n{large}\r\n", large.len()), refused);
    reader.send("set k 0 0 8 noreply\r\nget none\r\ndelete k noreply\r\n");
    reader.ask("get k k2\r\n", "VALUE k 0 1\r\n1\r\nEND\r\n");
    reader.ask("gets none\r\n", "END\r\n");
    reader.ask("mg k v\r\nmg none q\r\nmn\r\n", "VA 1\r\n1\r\nMN\r\n");
    reader.expect_alive();
    full.ask("incr k 1\r\n", "2\r\n");
}

#[test]
fn a_read_only_http_listener_serves_get_and_head_only() {
    let access = Access { read_only: true, flush_all: true };
    let served = serve(Protocol::Http, Rules { access, ..Rules::default() });
    served.server.connect().ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    for method in ["PUT", "PATCH", "DELETE", "PURGE", "POST"] {
        let body = if method == "PUT" { &b"other"[..] } else { b"" };
        let mut reader = Connection::open(&served.path);
        let answer = reader.ask(method, &target("k"), "X-Rawcached-TTL: 1\r\n", body).expect(403);
        assert_eq!(answer.body, b"this listener is read-only\n");
    }
    let part = "ETag: \"v\"\r\nContent-Range: bytes 0-4/5\r\n";
    let mut reader = Connection::open(&served.path);
    reader.ask("PUT", &target("k"), part, b"other").expect(403);
    let mut reader = Connection::open(&served.path);
    reader.ask("HEAD", &target("k"), "", b"").expect(200);
    reader.ask("GET", &target("k"), "", b"").expect_body(200, b"1");
}

#[test]
fn flush_all_can_be_switched_off_for_one_listener() {
    let access = Access { read_only: false, flush_all: false };
    let served = serve(Protocol::Memcached, Rules { access, ..Rules::default() });
    let mut client = Client::connect(&served.path);
    client.ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    client.ask("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
    client.ask("flush_all 10\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
    client.send("flush_all noreply\r\n");
    client.ask("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    served.server.connect().ask("flush_all\r\n", "OK\r\n");
    client.ask("get k\r\n", "END\r\n");
}

#[test]
fn who_is_named_may_connect() {
    let user = nix::unistd::geteuid().to_string();
    let peers = Peers::find(&[user], &[]).unwrap();
    let served = serve(Protocol::Memcached, Rules { peers: Some(peers), ..Rules::default() });
    Client::connect(&served.path).expect_alive();
    assert_eq!(served.counts().refused_peer, 0);
}
