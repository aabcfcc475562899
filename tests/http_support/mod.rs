//! A server of both protocols over one cache, and a client that speaks HTTP as bytes.
#![allow(dead_code, reason = "each test crate uses its part")]
#![allow(clippy::unwrap_used, missing_docs, reason = "this is test code")]

use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::memcached_support::PATIENCE;
pub use crate::memcached_support::{TestServer, options};
use rawcached::cache::CacheOptions;
use rawcached::config::ListenAddress;
use rawcached::server::Options;
use rawcached::server::listener::{Listener, Permissions, Protocol};

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
        HttpServer::of_cache(options(), CacheOptions { ram_bytes: 0, ..CacheOptions::default() })
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

/// The path of an object.
pub fn target(key: &str) -> String {
    format!("/v1/objects/{key}")
}

/// Bytes that differ from offset to offset.
pub fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at % 251) ^ (at >> 10)).to_le_bytes()[0]).collect()
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that is there once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.body.escape_ascii());
        self
    }

    #[track_caller]
    pub fn expect_body(self, status: u16, body: &[u8]) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.body.len(), body.len());
        assert!(answer.body == body, "other bytes");
        answer
    }
}

/// A connection that sends and takes bytes.
pub struct Connection(pub UnixStream);

impl Connection {
    pub fn open(path: &Path) -> Connection {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection(stream)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let has_body = matches!(method, "PUT" | "POST") || !body.is_empty();
        let length =
            if has_body { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n");
        self.send(head);
        // A server that refuses may not take all of the body.
        let _ = self.0.write_all(body);
        self.answer(method)
    }

    /// Reads one answer to a request of `method`.
    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Answer {
        let head = self.head();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        let mut answer = Answer { status, headers: headers.collect(), body: Vec::new() };
        let bodiless = method == "HEAD" || matches!(status, 100 | 204 | 304);
        let len = answer.header("content-length").map(|len| len.parse::<usize>().unwrap());
        if let Some(len) = len.filter(|_| !bodiless) {
            answer.body = vec![0; len];
            self.0.read_exact(&mut answer.body).unwrap();
        } else if !bodiless {
            assert_eq!(answer.header("transfer-encoding"), None, "answers have a length");
        }
        answer
    }

    /// Reads up to the empty line behind the headers.
    #[track_caller]
    pub fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.0.read(&mut byte).unwrap();
            assert_eq!(read, 1, "the connection ended: {}", head.escape_ascii());
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn half_close(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }
}
