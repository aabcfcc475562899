//! memcached itself as the oracle. Goal: clients cannot tell the server from memcached 1.6.
//! Method: random command sequences, good and bad, go to both; the answers must be the same
//! bytes but for the CAS values themselves. Prints the seed of a failure.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::machine::{Missing, require};
use crate::support::memcached::Client;
use crate::support::process::Process;
use crate::support::server::{TestServer, options};
use rawcached::server::Options;

const SEQUENCES: u64 = 150;
const COMMANDS: usize = 60;
/// Both servers' limit for a value with 2-byte keys; memcached counts its header too.
pub const VALUE_LEN_MAX: u64 = 1_000_000;

pub struct Memcached {
    /// Ends with the test.
    _process: Process,
}

impl Memcached {
    /// Starts memcached on a socket.
    pub fn start(path: &Path) -> Result<Memcached, Missing> {
        let mut command = Command::new("memcached");
        // Without its background threads: while one of them holds an entry, `decr` makes a new
        // one without the padding.
        command.args(["-U", "0", "-t", "1", "-o", "no_modern", "-s"]).arg(path);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| Missing(format!("memcached: {error}")))?;
        let server = Memcached { _process: Process(child) };
        for _ in 0..2000 {
            if UnixStream::connect(path).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("memcached does not answer");
    }
}

pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn key(&mut self) -> &'static str {
        self.pick(&["k1", "k2", "k3", "k4"])
    }
}

/// One request; `{cas:KEY}` stands for the CAS value a server gave for KEY.
fn request(random: &mut Random) -> String {
    let noreply = if random.below(8) == 0 { " noreply" } else { "" };
    let key = random.key();
    // Nothing expires while a sequence runs: the clocks of the two servers differ.
    let exptime = random.pick(&["0", "0", "1000", "-1", "2000000000", "100000000"]);
    match random.below(22) {
        0..=6 => {
            let verb = random.pick(&["set", "set", "add", "replace", "append", "prepend"]);
            let number = random.below(1000).to_string();
            let value = match random.below(8) {
                0 => String::new(),
                1 => "v".repeat(random.below(40_000)),
                2 => format!(" {number}  "),
                3 => "line\r\nend".to_owned(),
                4 => u64::MAX.to_string(),
                5 => "text".to_owned(),
                _ => number,
            };
            let flags = random.pick(&["0", "5", "4294967295"]);
            format!("{verb} {key} {flags} {exptime} {}{noreply}\r\n{value}\r\n", value.len())
        }
        7 | 8 => format!("cas {key} 3 {exptime} 2 {{cas:{key}}}{noreply}\r\n77\r\n"),
        9 | 10 => format!("get {key} {} nope\r\n", random.key()),
        11 | 12 => format!("gets {key}\r\n"),
        13 => format!("{} {exptime} {key} {}\r\n", random.pick(&["gat", "gats"]), random.key()),
        14 | 15 => {
            let verb = random.pick(&["incr", "decr"]);
            let delta = random.pick(&["1", "9", "1000", "18446744073709551615", "+3", "-1", "x"]);
            format!("{verb} {key} {delta}{noreply}\r\n")
        }
        16 => format!("delete {key}{}{noreply}\r\n", random.pick(&["", "", " 0", " 5"])),
        17 => format!("touch {key} {exptime}{noreply}\r\n"),
        18 => random.pick(&["flush_all\r\n", "flush_all noreply\r\n", "flush_all 0\r\n"]).into(),
        19 => too_large(random.pick(&["set", "add", "append"]), key),
        _ => malformed(random, key),
    }
}

fn too_large(verb: &str, key: &str) -> String {
    format!("{verb} {key} 0 0 1100000\r\n{}\r\n", "x".repeat(1_100_000))
}

fn malformed(random: &mut Random, key: &str) -> String {
    let long = "k".repeat(251);
    match random.below(15) {
        0 => format!("set {key} 0 0 3\r\nabcdef\r\n"),
        1 => format!("set {key} 0 0 6\r\na\r\n\r\n\r\n\r\n"),
        2 => format!("set {key} 0 0 1\nx\r\n"),
        3 => format!("get {key} {long} {key}\r\n"),
        4 => format!("set {key} 4294967299 0 1\r\n9\r\n"),
        5 => "set a\x01b 0 0 1\r\nx\r\nget a\x01b\r\nincr a\x01b 1\r\ndelete a\x01b\r\n".to_owned(),
        6 => "set a\x7fb 0 0 1\r\nx\r\nget a\tb a\rb a\x7fb\r\ntouch a\x7fb 0\r\n".to_owned(),
        7 => "slabs\r\nslabs automove\r\nslabs automove x\r\nslabs automove 3\r\n".to_owned(),
        8 => format!("  get   {key}  \r\n"),
        9 => format!("get {key}\n"),
        10 => format!("delete {key} 1 2 3\r\n"),
        11 => "get\r\n\r\nGET x\r\na\r\n".to_owned(),
        12 => format!("gat 0\r\ngat x {key}\r\ngats\r\n"),
        13 => format!("touch {key}\r\ntouch {key} x\r\nincr {key}\r\n"),
        _ => "flush_all x\r\nverbosity\r\nverbosity x\r\nshutdown\r\n".to_owned(),
    }
}

/// All that a server answers to a request, and to one more that shows the end of it.
pub fn marked_answer(client: &mut Client, request: String) -> String {
    // Nothing else in a sequence is answered like this.
    const END: &[u8] = b"STAT sizes_status disabled\r\nEND\r\n";
    client.send(request + "stats sizes\r\n");
    let mut answer = Vec::new();
    let mut piece = [0; 65536];
    while !answer.ends_with(END) {
        let len = client.0.read(&mut piece).unwrap();
        assert!(len > 0, "closed after {}", answer.escape_ascii());
        answer.extend_from_slice(&piece[..len]);
    }
    String::from_utf8(answer).unwrap()
}

/// One server's side of a sequence.
struct Side {
    client: Client,
    versions: HashMap<&'static str, String>,
}

impl Side {
    fn new(path: &Path) -> Side {
        let mut client = Client::connect(path);
        client.ask("flush_all\r\n", "OK\r\n");
        Side { client, versions: HashMap::new() }
    }

    /// The answer to a request, with CAS values removed and remembered.
    fn ask(&mut self, request: &str) -> String {
        let mut request = request.to_owned();
        for key in ["k1", "k2", "k3", "k4"] {
            let version = self.versions.get(key).map_or("0", String::as_str);
            request = request.replace(&format!("{{cas:{key}}}"), version);
        }
        let answer = marked_answer(&mut self.client, request);
        self.without_versions(&answer)
    }

    fn without_versions(&mut self, answer: &str) -> String {
        let mut plain = String::new();
        for line in answer.split_inclusive("\r\n") {
            let words: Vec<&str> = line.trim_end().split(' ').collect();
            if let ["VALUE", key, flags, len, version] = words[..] {
                let key = ["k1", "k2", "k3", "k4"].into_iter().find(|known| *known == key);
                self.versions.insert(key.unwrap(), version.to_owned());
                plain += &format!("VALUE {} {flags} {len} CAS\r\n", key.unwrap());
            } else {
                plain += line;
            }
        }
        plain
    }
}

#[test]
fn answers_are_those_of_memcached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oracle.sock");
    let Some(_memcached) = require(Memcached::start(&path)) else { return };
    let server = TestServer::with(Options { value_len_max: VALUE_LEN_MAX, ..options() });
    for seed in 1..=SEQUENCES {
        let mut random = Random::of(seed);
        let (mut ours, mut theirs) = (Side::new(&server.path), Side::new(&path));
        for step in 0..COMMANDS {
            let request = request(&mut random);
            let (ours, theirs) = (ours.ask(&request), theirs.ask(&request));
            let head: String = request.chars().take(200).collect();
            assert_eq!(ours, theirs, "seed {seed}, step {step}, request {head:?}");
        }
    }
}

/// Bytes sent on a connection of their own; what is answered until the server closes.
fn answer_to(path: &Path, text: &[u8]) -> String {
    let mut client = Client::connect(path);
    // A server that closes at once may take none of it.
    let _ = client.try_send(text);
    client.half_close();
    String::from_utf8(client.rest()).unwrap()
}

/// memcached 1.6.18 carries out the value behind a line that it refuses.
#[test]
fn a_refused_line_is_refused_as_by_memcached_and_its_value_is_no_command() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("oracle.sock");
    let Some(_memcached) = require(Memcached::start(&path)) else { return };
    let server = TestServer::start();
    let long = "k".repeat(251);
    let lines = [
        format!("set {long} 0 0 3\r\n"),
        "set k -1 0 3\r\n".to_owned(),
        "set k 99999999999999999999 0 3\r\n".to_owned(),
        "add k 0 0.5 3\r\n".to_owned(),
        "cas k 0 0 3 x\r\n".to_owned(),
        "set k 0 0 -1\r\n".to_owned(),
        "set k 0 0 2147483646\r\n".to_owned(),
        "set k 0 0 4294967295\r\n".to_owned(),
        "set k 0 0 3x\r\n".to_owned(),
        "SET k 0 0 3\r\n".to_owned(),
    ];
    for line in lines {
        let text = format!("{line}bad\r\n");
        let theirs = answer_to(&path, text.as_bytes());
        let (refusal, more) = theirs.split_once("\r\n").unwrap();
        assert_eq!(more, "ERROR\r\n", "{line:?}");
        assert_eq!(answer_to(&server.path, text.as_bytes()), format!("{refusal}\r\n"), "{line:?}");
    }
    for line in ["GET / HTTP/1.0\r\n", "PUT /asdf/sadf HTTP/1.1\r\n", "DELETE HTTP/1.1\r\n"] {
        let text = format!("{line}version\r\n");
        for server in [&path, &server.path] {
            assert_eq!(answer_to(server, text.as_bytes()), "", "{line:?}");
        }
    }
}
