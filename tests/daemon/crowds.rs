//! Goal: thousands of clients that send a part and no more cost bounded memory, and refuse no honest one.
//! Method: crowds of connections against the built daemon, held open by a process with a limit of its own
//! for open files; resident memory as the kernel has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::daemon::Daemon;
use crate::support::http::{Connection, target};
use crate::support::machine::{command, require};
use crate::support::waiting::{eventually, now};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Less than `server.max_connections`, for the honest ones.
const CROWD: usize = 3900;

/// Opens connections that send something, says so and holds them until its input ends.
const HOLD: &str = r#"
import resource, socket, sys
path, count, head, length = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for _ in range(count):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.setblocking(False)
    try:
        client.send(head.encode().decode("unicode_escape").encode() + b"x" * length)
    except BlockingIOError:
        pass
    held.append(client)
print("held", flush=True)
sys.stdin.read()
"#;

struct Crowd(Child);

impl Crowd {
    fn gather(socket: &Path, head: &str, len: usize) -> Crowd {
        let mut child = Command::new("python3")
            .args(["-c", HOLD])
            .arg(socket)
            .args([&CROWD.to_string(), head, &len.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Crowd(child)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Stores of each length over both protocols, and reads.
fn behave(daemon: &Daemon, http: &Path) {
    for len in [10_usize, 50_000, 1 << 20] {
        let body = vec![b'h'; len];
        let begun = now();
        Connection::open(http).ask("PUT", &target("honest"), "", &body);
        let over_http = begun.elapsed();
        Connection::open(http).ask("GET", &target("honest"), "", b"").expect_body(200, &body);
        let begun = now();
        assert_eq!(daemon.connect().set("honest", &body), "STORED", "{len} bytes");
        let over_memcached = begun.elapsed();
        assert!(daemon.connect().get("honest").is_some_and(|found| found == body));
        println!("{len} bytes: {over_http:?} over HTTP, {over_memcached:?} over memcached");
    }
}

#[test]
fn thousands_of_half_sent_values_cost_what_they_have_sent_and_refuse_nobody() {
    if require(command("python3", &[&"--version"])).is_none() {
        return;
    }
    let directory = TempDir::with_prefix("rawcached-crowds-").unwrap();
    let image = directory.path().join("cache.img");
    std::fs::File::create(&image).unwrap().set_len(512 * MIB).unwrap();
    crate::support::binary::format(&image);
    let mut daemon = Daemon::new(&image, "http = [\"unix:SOCKET.http\"]");
    daemon.configure_more("[ram]\nsize = \"16MiB\"\n");
    daemon.restart();
    let (memcached, http) = (daemon.socket(), daemon.socket().with_extension("sock.http"));
    let put = r"PUT /v1/objects/s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    let set = r"set s 0 0 1000000\r\n";
    // The memory of 3900 of them, in MiB: what they have sent, and some KiB for each connection.
    for (socket, head, len, most) in [
        (&memcached, r"get half", 0, 150),
        (&memcached, r"set s 0 0 10000\r\n", 5000, 180),
        (&memcached, set, 0, 150),
        (&memcached, set, 1, 150),
        (&memcached, set, 131_000, 350),
        (&http, put, 1, 300),
        (&http, put, 131_000, 800),
    ] {
        let before = daemon.resident_bytes();
        let crowd = Crowd::gather(socket, head, len);
        behave(&daemon, &http);
        let [held, input] = ["rawcached_write_buffer_bytes", "rawcached_input_bytes"]
            .map(|name| daemon.metric(name) / 1024);
        let more = daemon.resident_bytes().saturating_sub(before) / MIB;
        println!("{head} and {len} bytes: {more} MiB more, {held} KiB and {input} KiB counted");
        assert!(more < most, "{more} MiB for {head} and {len} bytes");
        assert!(held <= 128 << 10);
        drop(crowd);
        assert!(eventually(|| daemon.metric("rawcached_connections") == 0));
        assert_eq!(daemon.metric("rawcached_write_buffer_bytes"), 0);
        assert_eq!(daemon.metric("rawcached_input_bytes"), 0);
    }
    assert!(daemon.stop().success());
}
