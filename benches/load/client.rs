//! A closed-loop client on one thread: every connection has one request under way. Owns the
//! sockets; verifies every byte it reads.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rawcached::clock::Stopwatch;

use super::histogram::Histogram;
use super::values::{HEAD_LEN, Values};

/// A server that answers nothing for this long has failed.
const PATIENCE_MS: u16 = 60_000;
const SCRATCH_LEN: usize = 256 << 10;
const LINE_LEN_MAX: usize = 64;
const AFTER_VALUE: &[u8] = b"\r\nEND\r\n";

/// One request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Get(u32),
    Set(u32),
}

/// How requests are made.
pub struct Load<'a> {
    pub values: &'a Values,
    pub connections: usize,
    /// Store what a `get` did not find.
    pub fill_on_miss: bool,
}

/// What came of a run.
pub struct Outcome {
    pub gets: u64,
    pub hits: u64,
    pub sets: u64,
    /// Stores that the server refused.
    pub refused: u64,
    /// Body bytes read and stored.
    pub body_bytes: u64,
    pub get_latency: Histogram,
    pub set_latency: Histogram,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn ops(&self) -> u64 {
        self.gets + self.sets
    }
}

enum Expect {
    Nothing,
    Line,
    Value { at: usize },
    AfterValue { at: usize },
}

struct Connection {
    stream: UnixStream,
    request: Request,
    begun: Duration,
    len: usize,
    head: Vec<u8>,
    sent: usize,
    waits_to_write: bool,
    is_watched_to_write: bool,
    expect: Expect,
    line: Vec<u8>,
}

/// How a step of a connection ended.
enum Answer {
    Pending,
    Value(usize),
    Missing,
    Stored(usize),
    Refused,
}

impl Load<'_> {
    /// Makes the requests that `next` gives until it gives none, and waits for all answers.
    pub fn run(
        &self,
        socket: &Path,
        mut next: impl FnMut(Duration) -> Option<Request>,
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome {
            gets: 0,
            hits: 0,
            sets: 0,
            refused: 0,
            body_bytes: 0,
            get_latency: Histogram::new(),
            set_latency: Histogram::new(),
            elapsed: Duration::ZERO,
        };
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mut connections = Vec::new();
        for number in 0..self.connections {
            let connection = Connection::open(socket)?;
            epoll.add(&connection.stream, interest(number, false))?;
            connections.push(connection);
        }
        let watch = Stopwatch::start();
        let mut scratch = vec![0; SCRATCH_LEN];
        let mut busy = 0;
        for (number, connection) in connections.iter_mut().enumerate() {
            if let Some(request) = next(watch.elapsed()) {
                connection.begin(request, self.values, watch.elapsed())?;
                connection.watch_writes(&epoll, number)?;
                busy += 1;
            }
        }
        let mut events = [EpollEvent::empty(); 64];
        while busy > 0 {
            let count = match epoll.wait(&mut events, EpollTimeout::from(PATIENCE_MS)) {
                Err(Errno::EINTR) => continue,
                waited => waited?,
            };
            ensure!(count > 0, "the server answers nothing");
            for event in &events[..count] {
                let number = usize::try_from(event.data())?;
                let connection = &mut connections[number];
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    connection.send(self.values)?;
                }
                while let Some(answer) = connection.receive(self.values, &mut scratch)? {
                    let now = watch.elapsed();
                    let refill = self.account(&mut outcome, connection, &answer, now);
                    match refill.or_else(|| next(now)) {
                        Some(request) => connection.begin(request, self.values, now)?,
                        None => busy -= 1,
                    }
                }
                connection.watch_writes(&epoll, number)?;
            }
        }
        outcome.elapsed = watch.elapsed();
        Ok(outcome)
    }

    fn account(
        &self,
        outcome: &mut Outcome,
        connection: &Connection,
        answer: &Answer,
        now: Duration,
    ) -> Option<Request> {
        let latency = now.saturating_sub(connection.begun);
        match connection.request {
            Request::Get(_) => {
                outcome.gets += 1;
                outcome.get_latency.record(latency);
            }
            Request::Set(_) => {
                outcome.sets += 1;
                outcome.set_latency.record(latency);
            }
        }
        match answer {
            Answer::Value(len) => {
                outcome.hits += 1;
                outcome.body_bytes += *len as u64;
            }
            Answer::Stored(len) => outcome.body_bytes += *len as u64,
            Answer::Refused => outcome.refused += 1,
            Answer::Missing | Answer::Pending => {}
        }
        match (answer, connection.request) {
            (Answer::Missing, Request::Get(key)) if self.fill_on_miss => Some(Request::Set(key)),
            _ => None,
        }
    }
}

fn interest(number: usize, to_write: bool) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLIN;
    if to_write {
        flags |= EpollFlags::EPOLLOUT;
    }
    EpollEvent::new(flags, number as u64)
}

impl Connection {
    fn open(socket: &Path) -> anyhow::Result<Connection> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            request: Request::Get(0),
            begun: Duration::ZERO,
            len: 0,
            head: Vec::new(),
            sent: 0,
            waits_to_write: false,
            is_watched_to_write: false,
            expect: Expect::Nothing,
            line: Vec::new(),
        })
    }

    fn begin(&mut self, request: Request, values: &Values, now: Duration) -> anyhow::Result<()> {
        (self.request, self.begun, self.sent) = (request, now, 0);
        let (Request::Get(key) | Request::Set(key)) = request;
        (self.expect, self.len) = (Expect::Line, values.len(key));
        self.line.clear();
        self.head.clear();
        match request {
            Request::Get(key) => write!(self.head, "get key-{key:010}\r\n")?,
            Request::Set(key) => {
                write!(self.head, "set key-{key:010} 0 0 {}\r\n", self.len)?;
                self.head.extend_from_slice(&Values::head(key));
            }
        }
        self.send(values)
    }

    /// Sends as much of the request as the socket takes.
    fn send(&mut self, values: &Values) -> anyhow::Result<()> {
        let rest = match self.request {
            Request::Get(_) => &[][..],
            Request::Set(key) => values.rest(key, HEAD_LEN..self.len),
        };
        let end: &[u8] = if rest.is_empty() { b"" } else { b"\r\n" };
        let total = self.head.len() + rest.len() + end.len();
        while self.sent < total {
            let mut skip = self.sent;
            let parts = [&self.head[..], rest, end].map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                IoSlice::new(&part[skipped..])
            });
            match self.stream.write_vectored(&parts) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.waits_to_write = self.sent < total;
        Ok(())
    }

    fn watch_writes(&mut self, epoll: &Epoll, number: usize) -> anyhow::Result<()> {
        if self.waits_to_write != self.is_watched_to_write {
            epoll.modify(&self.stream, &mut interest(number, self.waits_to_write))?;
            self.is_watched_to_write = self.waits_to_write;
        }
        Ok(())
    }

    /// Reads what has arrived; the answer if it is complete.
    fn receive(&mut self, values: &Values, scratch: &mut [u8]) -> anyhow::Result<Option<Answer>> {
        if matches!(self.expect, Expect::Nothing) {
            return Ok(None);
        }
        loop {
            let len = match self.stream.read(scratch) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match self.understand(values, &scratch[..len])? {
                Answer::Pending if len < scratch.len() => return Ok(None),
                Answer::Pending => {}
                answer => return Ok(Some(answer)),
            }
        }
    }

    fn understand(&mut self, values: &Values, mut bytes: &[u8]) -> anyhow::Result<Answer> {
        let (Request::Get(key) | Request::Set(key)) = self.request;
        while !bytes.is_empty() {
            match &mut self.expect {
                Expect::Nothing => bail!("bytes that nobody asked for"),
                Expect::Line => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    self.line.extend_from_slice(part);
                    bytes = rest;
                    if end.is_none() {
                        continue;
                    }
                    if self.line.starts_with(b"VALUE ") {
                        let len = self.len;
                        let mut expected = [0; LINE_LEN_MAX];
                        let mut rest = &mut expected[..];
                        write!(rest, "VALUE key-{key:010} 0 {len}\r\n")?;
                        let written = LINE_LEN_MAX - rest.len();
                        let is_right = self.line == expected[..written];
                        ensure!(is_right, "{}", self.line.escape_ascii());
                        self.expect = Expect::Value { at: 0 };
                        continue;
                    }
                    ensure!(bytes.is_empty(), "more than one answer");
                    self.expect = Expect::Nothing;
                    return match self.line.as_slice() {
                        b"END\r\n" => Ok(Answer::Missing),
                        b"STORED\r\n" => Ok(Answer::Stored(self.len)),
                        line if line.starts_with(b"SERVER_ERROR out of memory") => {
                            Ok(Answer::Refused)
                        }
                        line => bail!("the server says {}", line.escape_ascii()),
                    };
                }
                Expect::Value { at } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(self.len - *at));
                    ensure!(values.is_right(key, *at, part), "wrong bytes in the value of {key}");
                    *at += part.len();
                    bytes = rest;
                    if *at == self.len {
                        self.expect = Expect::AfterValue { at: 0 };
                    }
                }
                Expect::AfterValue { at } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(AFTER_VALUE.len() - *at));
                    let expected = &AFTER_VALUE[*at..*at + part.len()];
                    ensure!(part == expected && rest.is_empty(), "wrong bytes behind a value");
                    *at += part.len();
                    bytes = rest;
                    if *at == AFTER_VALUE.len() {
                        self.expect = Expect::Nothing;
                        return Ok(Answer::Value(self.len));
                    }
                }
            }
        }
        Ok(Answer::Pending)
    }
}
