//! Goal: a stock nginx stores into the daemon on a raw block device and is served from it, byte
//! for byte, also after the daemon was killed and without the origin. Method: nginx and the srcache recipe
//! of docs/memcached.md, word for word; an origin that counts what it is asked.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::http::Connection;
use crate::support::machine::{Missing, require};
use crate::support::process::Process;
use crate::support::waiting::eventually;
use tempfile::TempDir;

pub const MODULES: [&str; 4] = [
    "ndk_http_module",
    "ngx_http_set_misc_module",
    "ngx_http_srcache_filter_module",
    "ngx_http_memc_module",
];
const MODULE_DIRECTORY: &str = "/usr/lib/nginx/modules";

/// Stores that are complete.
const STORED: &str = "rawcached_command_duration_seconds_count{operation=\"store\",tier=\"none\"}";

/// Body sizes from 1 KB to 30 MB, just below and above the lengths at which bodies are cut.
const SIZES: [usize; 10] = [
    1000,
    1024,
    4095,
    65_536,
    100_001,
    (1 << 20) - 1,
    (1 << 20) + 1,
    5_000_000,
    16 << 20,
    30_000_000,
];

/// Bytes that differ from place to place and from size to size.
pub fn body(size: usize) -> Vec<u8> {
    let mut state = size as u64 | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 8).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// An HTTP server that answers `/SIZE` with [`body`] and counts. Header lines that it is to answer with
/// stand in the query, as in `/SIZE?Vary:Cookie&Set-Cookie:a=b`.
pub struct Origin {
    pub port: u16,
    requests: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Origin {
    pub fn start() -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&requests), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let _ = answer(stream.unwrap(), &count);
            }
        });
        Origin { port, requests, stopped }
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Closes the port.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        assert!(eventually(|| TcpStream::connect(("127.0.0.1", self.port)).is_err()));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: TcpStream, requests: &AtomicU64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut host = String::new();
    let start = line.len();
    while reader.read_line(&mut line)? > 2 {}
    for line in line[start..].lines() {
        if let Some(("host", value)) = line.to_ascii_lowercase().split_once(": ") {
            value.clone_into(&mut host);
        }
    }
    requests.fetch_add(1, Ordering::Relaxed);
    let (size, wanted) = path.trim_start_matches('/').split_once('?').unwrap_or((&path[1..], ""));
    let body = body(size.parse().unwrap_or(0));
    let mut extra: String = wanted
        .split('&')
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| format!("{name}: {}\r\n", value.replace("%20", " ")))
        .collect();
    if !extra.contains("Cache-Control") {
        extra += "Cache-Control: max-age=3600\r\n";
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\n{extra}X-Host: {host}\r\nX-Size: {0}\r\n\
         Content-Length: {0}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// A running nginx with a configuration of its own.
pub struct Nginx {
    _process: Process,
    directory: TempDir,
    pub port: u16,
}

impl Nginx {
    pub fn start(server: &str, http: &str) -> Nginx {
        let directory = TempDir::with_prefix("rawcached-nginx-").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let modules: String = MODULES
            .iter()
            .map(|name| format!("load_module {MODULE_DIRECTORY}/{name}.so;\n"))
            .collect();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        let text = format!(
            "{modules}{user} daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
             events {{}}\n\
             http {{ access_log off; {temporary} {http}\n\
             server {{ listen 127.0.0.1:{port};\n{server}\n}} }}\n"
        );
        fs::write(directory.path().join("nginx.conf"), text).unwrap();
        let child = Command::new("nginx")
            .args(["-c", "nginx.conf", "-e", "error.log", "-p"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Nginx { _process: Process(child), directory, port };
        let answers = eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(answers, "nginx does not start:\n{}", nginx.log());
        nginx
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }

    /// Status line with headers, and body.
    fn get(&self, path: &str) -> (String, Vec<u8>) {
        self.ask(path, "Host: x\r\n")
    }

    pub fn ask(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        Connection::open_tcp(("127.0.0.1", self.port)).unwrap().ask_last(request)
    }

    /// The key under which the recipe stores a path.
    fn key_of(&self, path: &str) -> String {
        let url = format!("http://x:{}{path}", self.port);
        let sum = Command::new("sha1sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut sum = sum.unwrap();
        sum.stdin.take().unwrap().write_all(url.as_bytes()).unwrap();
        let output = sum.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    }

    #[track_caller]
    fn expect_body(&self, path: &str, size: usize) {
        let (head, found) = self.get(path);
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{}", self.log());
        assert_eq!(found.len(), size, "{path}: {head}\n{}", self.log());
        assert!(found == body(size), "wrong bytes in {path}");
        if size > 0 && !path.starts_with("/plain") {
            assert!(head.contains(&format!("X-Size: {size}\r\n")), "{head}");
        }
    }
}

/// nginx and its modules, as Debian packages them.
pub fn nginx_is_installed() -> Result<(), Missing> {
    crate::support::machine::command("nginx", &[&"-v"])?;
    for name in MODULES {
        let path = PathBuf::from(MODULE_DIRECTORY).join(format!("{name}.so"));
        if !path.exists() {
            return Err(Missing(format!("{} (libnginx-mod-http-*)", path.display())));
        }
    }
    Ok(())
}

/// The recipe with srcache of a document, for a daemon with its socket at `socket` in place of `named` and an origin on
/// a port: what stands in `server`, and what in `http`.
pub fn recipe(document: &str, (named, socket): (&str, &Path), origin: u16) -> (String, String) {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let document = fs::read_to_string(document).unwrap();
    let section = document.split("\n## nginx with srcache\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let (http, server) = section.split_once("\nFor `server`:\n").unwrap();
    let recipe = |part: &str| {
        let lines = part.lines().filter(|line| line.starts_with("    "));
        let text = lines.collect::<Vec<_>>().join("\n");
        text.replace(named, &socket.display().to_string())
    };
    let http = format!("{}\nupstream origin {{ server 127.0.0.1:{origin}; }}", recipe(http));
    (recipe(server), http)
}

/// A formatted disk for a test that needs nginx too, if both are there.
pub fn disk(size: u64, sector_size: u32) -> Option<LoopDevice> {
    require(nginx_is_installed())?;
    let disk = require(LoopDevice::create(size, sector_size))?;
    crate::support::binary::format(disk.path());
    Some(disk)
}

/// An origin, and nginx with the recipe between it and the daemon.
fn start_recipe(daemon: &Daemon) -> (Origin, Nginx) {
    let origin = Origin::start();
    let named = "/run/rawcached/memcached.sock";
    let (recipe, http) = recipe("docs/memcached.md", (named, &daemon.socket()), origin.port);
    let nginx = Nginx::start(&recipe, &http);
    (origin, nginx)
}

fn miss_store_hit_and_hit_again_after_a_kill(sector_size: u32) {
    let Some(disk) = disk(512 << 20, sector_size) else { return };
    // Without memory every hit comes from the device.
    let mut daemon = Daemon::new(disk.path(), "");
    daemon.configure_more("[ram]\nsize = \"0\"\n");
    daemon.restart();
    let (origin, nginx) = start_recipe(&daemon);

    for (stored, size) in (1..).zip(SIZES) {
        let path = format!("/{size}");
        nginx.expect_body(&path, size);
        assert_eq!(origin.requests(), stored, "a miss asks the origin");
        let done = eventually(|| daemon.metric(STORED) == stored);
        assert!(done, "{path} is not stored\n{}\n{}", nginx.log(), daemon.log());
        nginx.expect_body(&path, size);
        assert_eq!(origin.requests(), stored, "a hit does not ask the origin for {path}");
    }
    let hits = || daemon.metric("rawcached_command_keys_total{command=\"get\",result=\"hit\"}");
    assert_eq!(hits(), SIZES.len() as u64);

    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    origin.stop();
    let (head, _) = nginx.get("/1000");
    assert!(head.starts_with("HTTP/1.1 502 "), "neither daemon nor origin: {head}");
    daemon.restart();
    for size in SIZES {
        nginx.expect_body(&format!("/{size}"), size);
    }
    let disk_hits = daemon.metric("rawcached_tier_hits_total{tier=\"disk\"}");
    assert_eq!(disk_hits, SIZES.len() as u64);
    let (head, _) = nginx.get("/12345");
    assert!(head.starts_with("HTTP/1.1 502 "), "a miss needs the origin: {head}");
    assert!(daemon.stop().success());
}

#[test]
fn srcache_on_a_raw_device_with_4096_byte_sectors() {
    miss_store_hit_and_hit_again_after_a_kill(4096);
}

#[test]
fn srcache_on_a_raw_device_with_512_byte_sectors() {
    miss_store_hit_and_hit_again_after_a_kill(512);
}

#[test]
fn what_the_recipe_stores_is_for_every_reader_of_the_url() {
    let Some(disk) = disk(256 << 20, 4096) else { return };
    let daemon = Daemon::start(disk.path());
    let (origin, nginx) = start_recipe(&daemon);
    // Asked twice, the origin is asked so often: once if it is stored, which is after the answer.
    let check = |path: &str, headers: &str, expected: u64| {
        let (asked, stored) = (origin.requests(), daemon.metric(STORED));
        nginx.ask(path, headers);
        match expected {
            1 => assert!(eventually(|| daemon.metric(STORED) > stored), "{path} is not stored"),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
        nginx.ask(path, headers);
        assert_eq!(origin.requests() - asked, expected, "{path}\n{headers}\n{}", nginx.log());
    };
    let host = "Host: x\r\n";
    for (path, asked) in [
        ("/100?Cache-Control:max-age=31536000", 1),
        ("/101?Cache-Control:public,max-age=99999999999", 1),
        ("/102?Expires:Wed,%2001%20Jan%202098%2000:00:00%20GMT&Cache-Control:public", 1),
        ("/103?Vary:Accept-Encoding", 1),
        ("/104?Set-Cookie:a=b", 2),
        ("/105?Vary:Cookie", 2),
        ("/106?Vary:Accept-Encoding,Cookie", 2),
        ("/107?Vary:*", 2),
        ("/108?Cache-Control:private", 2),
        ("/109?Cache-Control:no-store", 2),
        ("/110?Cache-Control:max-age=0", 2),
    ] {
        check(path, host, asked);
    }
    let long = format!("/111?{}", "x".repeat(3000));
    check(&long, host, 1);
    for credentials in ["Basic eDp5", "0"] {
        let with = format!("{host}Authorization: {credentials}\r\n");
        check("/112", &with, 2);
    }
    check("/112", host, 1);
    let with = format!("{host}Authorization: Basic eDp5\r\n");
    check("/112", &with, 2);
    for (site, asked) in [("one.example", 1), ("two.example", 1), ("ONE.example", 0)] {
        let headers = format!("Host: {site}\r\n");
        check("/113", &headers, asked);
        let (head, _) = nginx.ask("/113", &headers);
        let own = format!("X-Host: {}\r\n", site.to_ascii_lowercase());
        assert!(head.contains(&own), "{site}: {head}");
    }
}

#[test]
fn stock_nginx_reads_by_memcached_pass() {
    let Some(disk) = disk(256 << 20, 4096) else { return };
    let mut daemon = Daemon::start(disk.path());
    let store = |daemon: &Daemon| {
        let mut client = daemon.connect();
        for size in SIZES {
            assert_eq!(client.set(&format!("/plain/{size}"), &body(size)), "STORED");
        }
    };
    store(&daemon);
    let upstream =
        format!("upstream rawcached {{ server unix:{}; keepalive 4; }}", daemon.socket().display());
    let location = "location / { set $memcached_key $uri; memcached_pass rawcached; }";
    let direct = format!(
        "location /direct/ {{ set $memcached_key /plain/1000; memcached_pass unix:{}; }}",
        daemon.socket().display()
    );
    let nginx = Nginx::start(&format!("{location}\n{direct}"), &upstream);
    let read = |nginx: &Nginx| {
        for size in SIZES {
            nginx.expect_body(&format!("/plain/{size}"), size);
        }
        assert_eq!(nginx.get("/direct/x").1, body(1000));
        assert!(nginx.get("/plain/missing").0.starts_with("HTTP/1.1 404 "));
    };
    read(&nginx);
    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    assert!(nginx.get("/plain/1000").0.starts_with("HTTP/1.1 502 "));
    daemon.restart();
    read(&nginx);
}

#[test]
fn a_client_that_leaves_does_not_lose_the_store() {
    let Some(disk) = disk(256 << 20, 4096) else { return };
    let daemon = Daemon::start(disk.path());
    let (origin, nginx) = start_recipe(&daemon);
    let path = "/3000000";
    let mut connection = Connection::open_tcp(("127.0.0.1", nginx.port)).unwrap();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    // The client has all of the body and leaves before the store can have ended.
    let mut left = 3_000_000_usize;
    let mut piece = vec![0; 65_536];
    while left > 0 {
        let len = connection.0.read(&mut piece).unwrap();
        assert!(len > 0, "{}", nginx.log());
        left = left.saturating_sub(len);
    }
    drop(connection);
    let stored = eventually(|| daemon.metric(STORED) == 1);
    assert!(stored, "not stored:\n{}", nginx.log());
    nginx.expect_body(path, 3_000_000);
    assert_eq!(origin.requests(), 1);
    assert_eq!(daemon.connect().command(&format!("delete {}", nginx.key_of(path))), "DELETED");
    nginx.expect_body(path, 3_000_000);
    assert_eq!(origin.requests(), 2, "what was purged is fetched again");
}

/// An origin whose every answer has this body.
fn origin_of(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 2) {}
            let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    port
}

/// Pages under the keys that a careless configuration makes of what a client asks for.
#[test]
fn what_an_origin_says_is_no_command_whatever_key_a_client_makes_nginx_send() {
    const EVIL: &str = "\r\nset /held 0 60 4\r\nEVIL\r\nset /held 0 60 4\r\nEVIL\r\n";
    let Some(disk) = disk(256 << 20, 4096) else { return };
    let daemon = Daemon::start(disk.path());
    let port = origin_of(EVIL);
    let http =
        format!("upstream rawcached {{ server unix:{}; keepalive 1; }}", daemon.socket().display());
    let server = format!(
        "location / {{ set $key $uri; srcache_fetch GET /_cache $key; srcache_store PUT /_cache $key;
         proxy_pass http://127.0.0.1:{port}; }}
         location = /_cache {{ internal; set_unescape_uri $memc_key $args; set $memc_exptime 60;
         memc_pass rawcached; }}"
    );
    let nginx = Nginx::start(&server, &http);
    assert_eq!(daemon.connect().set("/held", b"good"), "STORED");
    let refused = || daemon.metric("rawcached_protocol_errors_total");
    for key in ["k".repeat(300), "k".repeat(1500), format!("{}%20b", "k".repeat(250))] {
        let before = refused();
        for _ in 0..3 {
            assert_eq!(nginx.get(&format!("/{key}")).1, EVIL.as_bytes(), "{}", nginx.log());
        }
        // The lookups and the stores are refused.
        assert!(eventually(|| refused() >= before + 6), "{}", nginx.log());
        assert_eq!(daemon.connect().get("/held").unwrap(), b"good", "{}", nginx.log());
    }
    // The connection that nginx keeps is in step: a page that may be stored is.
    assert_eq!(nginx.get("/page").1, EVIL.as_bytes());
    let stored = eventually(|| daemon.connect().get("/page").is_some());
    assert!(stored, "{}", nginx.log());
    assert_eq!(nginx.get("/page").1, EVIL.as_bytes(), "{}", nginx.log());
}
