//! Clients that behave: each changes keys of its own and knows what they have to hold.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Arena;
use crate::support::http::{Connection, target};
use crate::support::memcached::Client;
use crate::support::waiting::{ANSWER_PATIENCE, now};

pub const CLIENTS: usize = 8;
/// Keys of each client.
pub const KEYS: usize = 24;
const LONGEST: usize = 1 << 20;
/// What a client does between two requests, in real life.
const PAUSE: Duration = Duration::from_millis(4);
/// A client connects again after so many requests.
const REQUESTS: usize = 200;

/// Times of what was asked for, by kind.
pub type Times = BTreeMap<&'static str, Vec<Duration>>;

/// A key of a client.
pub fn key(client: usize, n: usize) -> String {
    format!("honest-{client}-{n}")
}

/// Bytes from which values are cut.
pub fn noise() -> Vec<u8> {
    let mut bytes = vec![0; LONGEST + 4096];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// This version in this length, or nothing: others purge, and room is needed.
    Version(u64, usize),
    Nothing,
    /// A change was not answered.
    Unknown,
}

/// What came of a request.
enum Outcome {
    /// A value, or a miss.
    Found(Option<Vec<u8>>),
    Done,
    /// A value that ended early.
    Short,
    Refused(String),
}

/// A connection that is open, in one protocol or the other.
enum Wire {
    Memcached(Client),
    Http(Connection),
}

impl Wire {
    fn open(arena: &Arena, client: usize) -> io::Result<Wire> {
        let is_http = client % 2 == 1;
        let stream = UnixStream::connect(if is_http { &arena.http } else { &arena.memcached })?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        Ok(if is_http {
            Wire::Http(Connection(stream))
        } else {
            Wire::Memcached(Client::over(stream))
        })
    }

    fn get(&mut self, key: &str) -> io::Result<Outcome> {
        match self.try_get(key) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Outcome::Short),
            got => got,
        }
    }

    fn try_get(&mut self, key: &str) -> io::Result<Outcome> {
        match self {
            Wire::Memcached(client) => {
                let line = client.try_command(&format!("get {key}"))?;
                if line == "END" {
                    return Ok(Outcome::Found(None));
                }
                let Some(len) = line.strip_prefix(&format!("VALUE {key} 0 ")) else {
                    return Ok(Outcome::Refused(line));
                };
                let mut value = vec![0; len.parse::<usize>().unwrap()];
                client.0.read_exact(&mut value)?;
                let (ended, end) = (client.try_line()?, client.try_line()?);
                assert_eq!((ended.as_str(), end.as_str()), ("", "END"), "{key}");
                Ok(Outcome::Found(Some(value)))
            }
            Wire::Http(connection) => {
                let answer = connection.try_ask("GET", &target(key), "", b"")?;
                Ok(match answer.status {
                    200 => Outcome::Found(Some(answer.body)),
                    404 => Outcome::Found(None),
                    status => Outcome::Refused(format!("{status} {}", answer.body.escape_ascii())),
                })
            }
        }
    }

    fn set(&mut self, key: &str, value: &[u8]) -> io::Result<Outcome> {
        match self {
            Wire::Memcached(client) => {
                client.try_send(format!("set {key} 0 0 {}\r\n", value.len()))?;
                client.try_send(value)?;
                client.try_send("\r\n")?;
                Ok(Outcome::of(client.try_line()?, &["STORED"]))
            }
            Wire::Http(connection) => {
                let answer = connection.try_ask("PUT", &target(key), "", value)?;
                Ok(Outcome::of(answer.status.to_string(), &["201", "204"]))
            }
        }
    }

    fn delete(&mut self, key: &str) -> io::Result<Outcome> {
        match self {
            Wire::Memcached(client) => {
                let answer = client.try_command(&format!("delete {key}"))?;
                Ok(Outcome::of(answer, &["DELETED", "NOT_FOUND"]))
            }
            Wire::Http(connection) => {
                let answer = connection.try_ask("DELETE", &target(key), "", b"")?;
                Ok(Outcome::of(answer.status.to_string(), &["204", "404"]))
            }
        }
    }
}

impl Outcome {
    fn of(answer: String, good: &[&str]) -> Outcome {
        if good.contains(&answer.as_str()) { Outcome::Done } else { Outcome::Refused(answer) }
    }
}

/// Asks until the arena closes, and compares every byte.
pub fn behave(arena: &Arena, client: usize) -> Times {
    let mut random = fastrand::Rng::with_seed(client as u64);
    let mut known = [Known::Unknown; KEYS];
    let mut times = Times::new();
    let mut wire = None;
    for version in 0_u64.. {
        if arena.is_closed() {
            break;
        }
        std::thread::sleep(PAUSE);
        if random.usize(..REQUESTS) == 0 {
            wire = None;
        }
        let n = random.usize(..KEYS);
        let key = key(client, n);
        let begun = now();
        let (kind, outcome, then) = {
            let mut ask = || -> io::Result<_> {
                let wire = match &mut wire {
                    Some(wire) => wire,
                    None => wire.insert(Wire::open(arena, client)?),
                };
                Ok(match random.usize(..100) {
                    0..60 => ("get", wire.get(&key)?, known[n]),
                    60..95 => {
                        let (kind, len) = length(&mut random);
                        let value = value(arena, &key, version, len);
                        (kind, wire.set(&key, &value)?, Known::Version(version, len))
                    }
                    _ => ("delete", wire.delete(&key)?, Known::Nothing),
                })
            };
            match ask() {
                Ok(done) => done,
                Err(error) => {
                    let why = format!("connection: {error}; before it {:?}", known[n]);
                    ("none", Outcome::Refused(why), Known::Unknown)
                }
            }
        };
        match outcome {
            Outcome::Refused(why) => {
                let waited = begun.elapsed();
                arena.refused(format!("client {client}, {kind} {key} after {waited:?}: {why}"));
                (wire, known[n]) = (None, Known::Unknown);
                continue;
            }
            Outcome::Short => {
                arena.short.lock().push(format!(
                    "{key} after {:?}: {:?}",
                    begun.elapsed(),
                    known[n]
                ));
                wire = None;
                continue;
            }
            Outcome::Found(found) => arena.check(&key, found.as_deref(), known[n]),
            Outcome::Done => known[n] = then,
        }
        times.entry(kind).or_default().push(begun.elapsed());
    }
    times
}

impl Arena {
    /// Ends the soak if these are not the bytes of the key.
    fn check(&self, key: &str, found: Option<&[u8]>, known: Known) {
        let is_right = match (found, known) {
            (None, _) | (Some(_), Known::Unknown) => true,
            (Some(_), Known::Nothing) => false,
            (Some(found), Known::Version(version, len)) => found == value(self, key, version, len),
        };
        if !is_right {
            let begin = found.map(|found| found[..found.len().min(60)].escape_ascii().to_string());
            self.fail(format!("{key} has other bytes: {begin:?}"));
        }
    }
}

fn length(random: &mut fastrand::Rng) -> (&'static str, usize) {
    match random.usize(..100) {
        0..45 => ("set 100 B", 100),
        45..85 => ("set 4 KiB", 4 << 10),
        85..97 => ("set 64 KiB", 64 << 10),
        _ => ("set 1 MiB", LONGEST),
    }
}

/// A version of a key's value. No two have the same bytes at their begin, nor at their end.
fn value(arena: &Arena, key: &str, version: u64, len: usize) -> Vec<u8> {
    let mut value = format!("{key:-<20} {version:020} ").into_bytes();
    let shift = usize::try_from(version % 4096).unwrap();
    let rest = len - value.len();
    value.extend_from_slice(&arena.noise[shift..shift + rest]);
    value
}
