//! One connection with some requests in flight. Owns its socket and how far requests and answers
//! have come; verifies every byte it reads.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

use anyhow::{bail, ensure};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::Load;
use super::address::Stream;
use super::requests::Request;
use super::values::{HEAD_LEN, Values, Verifier};
use super::wire::{Answer, Heard, Next};

/// Shorter bodies are copied after their heads, so that several requests go out at once.
const COPIED_LEN_MAX: usize = 8 << 10;
/// Longest line of an answer.
const LINE_LEN_MAX: usize = 8 << 10;

/// A server gave other bytes than were stored.
#[derive(Debug, thiserror::Error)]
#[error("wrong bytes in the value of {key} ({len} bytes), from byte {at} on")]
pub struct WrongBytes {
    key: String,
    len: usize,
    at: usize,
}

/// A request in flight.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) request: Request,
    /// Length of its value.
    pub(super) len: usize,
    /// When it was due, since the phase began.
    pub(super) due: Duration,
}

/// A long body that is sent without a copy.
struct LongBody {
    key: u32,
    version: u32,
    len: usize,
}

enum Expect {
    Line,
    Value { at: usize },
    Skip { left: u64, answer: Answer },
}

pub(super) struct Connection {
    stream: Stream,
    number: usize,
    /// Requests that are not sent yet, without the long body that follows them.
    out: Vec<u8>,
    long_body: Option<LongBody>,
    sent: usize,
    is_watched_to_write: bool,
    asked: VecDeque<Asked>,
    expect: Expect,
    heard: Heard,
    line: Vec<u8>,
    verifier: Verifier,
    /// It is in the worker's list of connections with room.
    pub(super) is_listed: bool,
}

impl Connection {
    /// Connects, and registers with `epoll` under `number`.
    pub(super) fn open(load: &Load, epoll: &Epoll, number: usize) -> anyhow::Result<Connection> {
        let stream = load.address.connect()?;
        stream.set_nonblocking()?;
        epoll.add(&stream, interest(number, false))?;
        Ok(Connection {
            stream,
            number,
            out: Vec::new(),
            long_body: None,
            sent: 0,
            is_watched_to_write: false,
            asked: VecDeque::with_capacity(load.depth),
            expect: Expect::Line,
            heard: Heard::default(),
            line: Vec::new(),
            verifier: Verifier::default(),
            is_listed: true,
        })
    }

    /// Whether another request may begin.
    pub(super) fn has_room(&self, load: &Load) -> bool {
        self.asked.len() < load.depth && self.long_body.is_none()
    }

    /// Queues a request; a store writes this version.
    pub(super) fn begin(&mut self, load: &Load, (request, version): (Request, u32), due: Duration) {
        let len = load.values.len(request.key());
        self.asked.push_back(Asked { request, len, due });
        let key = match request {
            Request::Get(key) => return load.wire.push_get(&mut self.out, key),
            Request::Set(key) => key,
        };
        load.wire.push_set(&mut self.out, key, len);
        self.out.extend_from_slice(&Values::head(key, version)[..HEAD_LEN.min(len)]);
        if len > COPIED_LEN_MAX {
            self.long_body = Some(LongBody { key, version, len });
            return;
        }
        if len > HEAD_LEN {
            let rest = load.values.rest((key, version), HEAD_LEN..len);
            self.out.extend_from_slice(rest);
        }
        self.out.extend_from_slice(load.wire.after_body());
    }

    /// Sends as much as the socket takes, and lets `epoll` report when it takes more.
    pub(super) fn send(&mut self, load: &Load, epoll: &Epoll) -> anyhow::Result<()> {
        let (body, end): (&[u8], &[u8]) = match &self.long_body {
            None => (&[], &[]),
            Some(LongBody { key, version, len }) => {
                (load.values.rest((*key, *version), HEAD_LEN..*len), load.wire.after_body())
            }
        };
        let total = self.out.len() + body.len() + end.len();
        while self.sent < total {
            let mut skip = self.sent;
            let parts = [&self.out[..], body, end].map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                IoSlice::new(&part[skipped..])
            });
            let written = match body {
                [] => self.stream.write(&parts[0]),
                _ => self.stream.write_vectored(&parts),
            };
            match written {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let waits = self.sent < total;
        if !waits {
            self.out.clear();
            (self.sent, self.long_body) = (0, None);
        }
        if waits != self.is_watched_to_write {
            epoll.modify(&self.stream, &mut interest(self.number, waits))?;
            self.is_watched_to_write = waits;
        }
        Ok(())
    }

    /// Reads what has arrived and adds the answers that are complete.
    pub(super) fn receive(
        &mut self,
        load: &Load,
        scratch: &mut [u8],
        answers: &mut Vec<(Asked, Answer)>,
    ) -> anyhow::Result<()> {
        loop {
            let len = match self.stream.read(scratch) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.understand(load, &scratch[..len], answers)?;
            if len < scratch.len() {
                return Ok(());
            }
        }
    }

    fn understand(
        &mut self,
        load: &Load,
        mut bytes: &[u8],
        answers: &mut Vec<(Asked, Answer)>,
    ) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let Some(asked) = self.asked.front().copied() else {
                bail!("bytes that nobody asked for: {}", bytes.escape_ascii())
            };
            let next = match &mut self.expect {
                Expect::Line => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    bytes = rest;
                    ensure!(self.line.len() + part.len() <= LINE_LEN_MAX, "a line without end");
                    if end.is_none() || !self.line.is_empty() {
                        self.line.extend_from_slice(part);
                    }
                    if end.is_none() {
                        return Ok(());
                    }
                    let whole = if self.line.is_empty() { part } else { &self.line };
                    let next =
                        load.wire.hear(&mut self.heard, (asked.request, asked.len), whole)?;
                    self.line.clear();
                    next
                }
                Expect::Value { at } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(asked.len - *at));
                    bytes = rest;
                    let key = asked.request.key();
                    let is_right =
                        !load.verify || self.verifier.is_right(&load.values, (key, *at), part);
                    if !is_right {
                        let key = format!("{}{key:010}", load.wire.prefix);
                        return Err(WrongBytes { key, len: asked.len, at: *at }.into());
                    }
                    *at += part.len();
                    if *at < asked.len {
                        return Ok(());
                    }
                    load.wire.after_value(&mut self.heard)
                }
                Expect::Skip { left, answer } => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[len..];
                    *left -= len as u64;
                    if *left > 0 {
                        return Ok(());
                    }
                    Next::Done(*answer)
                }
            };
            self.go_on(load, next, answers);
        }
        Ok(())
    }

    fn go_on(&mut self, load: &Load, next: Next, answers: &mut Vec<(Asked, Answer)>) {
        self.expect = match next {
            Next::Line => Expect::Line,
            Next::Skip(left, answer) => Expect::Skip { left, answer },
            Next::Body if self.asked.front().is_some_and(|asked| asked.len == 0) => {
                let next = load.wire.after_value(&mut self.heard);
                return self.go_on(load, next, answers);
            }
            Next::Body => Expect::Value { at: 0 },
            Next::Done(answer) => {
                answers.extend(self.asked.pop_front().map(|asked| (asked, answer)));
                self.heard = Heard::default();
                Expect::Line
            }
        };
    }
}

fn interest(number: usize, to_write: bool) -> EpollEvent {
    let mut flags = EpollFlags::EPOLLIN;
    if to_write {
        flags |= EpollFlags::EPOLLOUT;
    }
    EpollEvent::new(flags, number as u64)
}
