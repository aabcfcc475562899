//! Goal: the clients in `docs/http.md` work with the daemon as documented, with ranges and 304.
//! Method: run each block of that document as it stands, but for paths and ports.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::daemon::Daemon;
use crate::support::devices::LoopDevice;
use crate::support::http::{Connection, body};
use crate::support::machine::{command, require};
use crate::support::process::Process;
use crate::support::waiting::eventually;
use tempfile::TempDir;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");

/// A daemon on an image file, and a directory for its clients.
struct Rig {
    daemon: Daemon,
    directory: TempDir,
}

impl Rig {
    fn start() -> Rig {
        let directory = TempDir::with_prefix("rawcached-http-").unwrap();
        let image = directory.path().join("cache.img");
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        crate::support::binary::format(&image);
        let mut daemon = Daemon::new(&image, "http = [\"unix:SOCKET.http\"]");
        daemon.restart();
        Rig { daemon, directory }
    }

    fn socket(&self) -> PathBuf {
        self.daemon.socket().with_extension("sock.http")
    }

    /// The indented lines under the heading `name` of the document.
    fn block(&self, name: &str) -> String {
        let document = fs::read_to_string(DOCUMENT).unwrap();
        let section = document.split(&format!("\n### {name}\n")).nth(1).unwrap();
        let section = section.split("\n### ").next().unwrap();
        let lines = section.lines().filter(|line| line.starts_with("    ") || line.is_empty());
        let lines = lines.map(|line| line.strip_prefix("    ").unwrap_or(line));
        let text = lines.collect::<Vec<_>>().join("\n");
        text.replace("/run/rawcached/http.sock", &self.socket().display().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a program to its end and gives its output.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn put(&self, key: &str, body: &[u8]) {
        fs::write(self.path("input"), body).unwrap();
        let target = format!("http://localhost/v1/objects/{key}");
        let socket = self.socket().display().to_string();
        let tag = "ETag: \"v1\"";
        self.run("curl", &["-sf", "--unix-socket", &socket, "-H", tag, "-T", "input", &target]);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status line with headers, and body, of a GET over TCP.
fn get(port: u16, path: &str, headers: &str) -> (String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let (head, body) = Connection::open_tcp(("127.0.0.1", port)).unwrap().ask_last(request);
    (head.to_lowercase(), body)
}

/// What a proxy in front of the daemon must pass through, under the path `prefix`.
fn expect_objects(rig: &Rig, port: u16, prefix: &str) {
    for len in [1000, 5_000_000] {
        let sent = body(len);
        rig.put("a%20b/c", &sent);
        let path = format!("{prefix}a%20b/c");
        let (head, found) = get(port, &path, "");
        assert!(head.starts_with("http/1.1 200 ") && found == sent, "{len}: {head}");
        assert!(head.contains("etag: \"v1\"\r\n") && head.contains("\r\nage: "), "{head}");
        let (head, found) = get(port, &path, "Range: bytes=100-899\r\n");
        assert!(head.starts_with("http/1.1 206 ") && found == sent[100..900], "{head}");
        assert!(head.contains(&format!("content-range: bytes 100-899/{len}\r\n")), "{head}");
        let (head, found) = get(port, &path, "If-None-Match: \"v1\"\r\n");
        assert!(head.starts_with("http/1.1 304 ") && found.is_empty(), "{head}");
        let (head, _) = get(port, &path, "Range: bytes=99999999-\r\n");
        assert!(head.starts_with("http/1.1 416 "), "{head}");
    }
    let (head, _) = get(port, &format!("{prefix}none"), "");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

#[test]
fn curl_stores_reads_and_removes() {
    if require(command("curl", &[&"--version"])).is_none() {
        return;
    }
    let rig = Rig::start();
    let movie = body(3_000_000);
    fs::write(rig.path("movie.mp4"), &movie).unwrap();
    let printed = rig.run("sh", &["-ec", &rig.block("curl")]);
    assert_eq!(printed, "304\n");
    assert!(fs::read(rig.path("copy.mp4")).unwrap() == movie);
    assert!(fs::read(rig.path("part.mp4")).unwrap() == movie[1000..2000]);
    let count = |method: &str, status: &str| {
        let name =
            format!("rawcached_http_requests_total{{method=\"{method}\",status=\"{status}\"}}");
        rig.daemon.metric(&name)
    };
    assert_eq!((count("put", "2xx"), count("get", "2xx"), count("get", "3xx")), (2, 2, 1));
    assert_eq!(count("delete", "2xx"), 1);
}

#[test]
fn python_speaks_over_the_socket() {
    if require(command("python3", &[&"--version"])).is_none() {
        return;
    }
    let rig = Rig::start();
    let printed = rig.run("python3", &["-c", &rig.block("Python")]);
    let expected = "201 \n200 hello, cache\n206 cache\n304 \n201 \n200 in chunks\n204 \n\
                    404 the object is not in the cache\n\n";
    assert_eq!(printed, expected);
}

fn start_proxy(command: &mut Command, port: u16, log: &Path) -> Process {
    let log_file = fs::File::create(log).unwrap();
    let process = Process(
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file).spawn().unwrap(),
    );
    let answers = eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(answers, "it does not start:\n{}", fs::read_to_string(log).unwrap());
    process
}

/// nginx with the block of the document, on a port.
fn start_nginx(rig: &Rig) -> (Process, u16) {
    let port = free_port();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};\n"))
        .concat();
    let text = format!(
        "{user} daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
         events {{}}\nhttp {{ access_log off; {temporary}\n\
         server {{ listen 127.0.0.1:{port};\n{}\n}} }}\n",
        rig.block("nginx")
    );
    fs::write(rig.path("nginx.conf"), text).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(rig.directory.path());
    (start_proxy(&mut nginx, port, &rig.path("nginx.log")), port)
}

#[test]
fn nginx_passes_objects_ranges_and_304() {
    if require(command("nginx", &[&"-v"])).is_none() {
        return;
    }
    let rig = Rig::start();
    let (_nginx, port) = start_nginx(&rig);
    expect_objects(&rig, port, "/objects/");
}

#[test]
fn nginx_passes_uploads_and_their_refusals() {
    if require(command("nginx", &[&"-v"])).is_none() {
        return;
    }
    let rig = Rig::start();
    let (_nginx, port) = start_nginx(&rig);
    let sent = body(24 << 20);
    // A client that waits for 100, as curl does for large bodies, would hide what the others see.
    let put = |key: &str, headers: &str, sent: &[u8]| {
        let mut connection = Connection::open_tcp(("127.0.0.1", port)).unwrap();
        connection.ask("PUT", &format!("/objects/{key}"), headers, sent).status
    };
    for len in [1000, 1 << 20, 24 << 20] {
        for _ in 0..6 {
            let refused = put("k", "Cache-Control: no-store\r\n", &sent[..len]);
            assert_eq!(
                refused,
                422,
                "{len}: {}",
                fs::read_to_string(rig.path("error.log")).unwrap()
            );
            assert_eq!(put("k", "If-Match: *\r\n", &sent[..len]), 412, "{len}");
            assert_eq!(put("%23", "X-Rawcached-TTL: soon\r\n", &sent[..len]), 400, "{len}");
        }
    }
    assert_eq!(put("k", "", &sent), 201);
    assert!(get(port, "/objects/k", "").1 == sent);
    // nginx decodes a # and encodes it again.
    assert_eq!(put("k%231", "", b"escaped"), 201);
    assert!(get(port, "/objects/k", "").1 == sent);
    assert!(get(port, "/objects/k%231", "").1 == b"escaped");
}

#[test]
fn haproxy_passes_objects_ranges_and_304() {
    if require(command("haproxy", &[&"-v"])).is_none() {
        return;
    }
    let rig = Rig::start();
    let port = free_port();
    let text = rig.block("HAProxy").replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    fs::write(rig.path("haproxy.cfg"), text + "\n").unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(rig.path("haproxy.cfg"));
    let _haproxy = start_proxy(&mut haproxy, port, &rig.path("haproxy.log"));
    expect_objects(&rig, port, "/");
}

#[test]
fn a_stream_that_was_acknowledged_as_flushed_survives_a_kill() {
    let Some(disk) = require(LoopDevice::create(256 << 20, 4096)) else {
        return;
    };
    if require(command("curl", &[&"--version"])).is_none() {
        return;
    }
    crate::support::binary::format(disk.path());
    let mut daemon = Daemon::new(disk.path(), "http = [\"unix:SOCKET.http\"]");
    // Nothing else writes the log in time.
    daemon.configure_more("[store]\nflush_interval = \"10s\"\n");
    daemon.restart();
    let directory = TempDir::new().unwrap();
    let curl = |socket: &Path, arguments: &str, key: usize| {
        let socket = socket.display();
        let target = format!("http://localhost/v1/objects/{key}");
        let script = format!("curl -sf --unix-socket {socket} {arguments} {target}");
        Command::new("sh").args(["-ec", &script]).current_dir(directory.path()).output().unwrap()
    };
    let socket = daemon.socket().with_extension("sock.http");
    for len in [0, 10, 100_000, 1 << 20, 5_000_000] {
        let sent = body(len);
        fs::write(directory.path().join("input"), &sent).unwrap();
        let stored = curl(&socket, "-T - -H 'X-Rawcached-Ack: flushed' <input", len);
        daemon.kill();
        assert!(stored.status.success(), "{len}: {stored:?}");
        daemon.restart();
        assert!(curl(&socket, "", len).stdout == sent, "{len}");
    }
}
