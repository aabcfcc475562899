//! How requests are written and what the lines of an answer mean. Owns both protocols; never
//! touches a socket.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::address::Protocol;
use super::requests::Request;

/// Digits of a key's number.
const DIGITS: usize = 10;

/// The form of requests to a server.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The protocol.
    pub protocol: Protocol,
    /// Keys begin with this; their number follows. HTTP: a part of a path.
    pub prefix: String,
    /// HTTP: the path before the key.
    pub path: String,
    /// HTTP: further header fields of every request, each line with its end.
    pub fields: String,
    /// Lifetime of what is stored; `None` leaves it to the server.
    pub ttl: Option<Duration>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The value came, whole.
    Value,
    /// There is no such value.
    Missing,
    /// It is stored.
    Stored,
    /// The server does not take it now.
    Refused,
}

/// What comes next in an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another line.
    Line,
    /// The value.
    Body,
    /// So many bytes to skip.
    Skip(u64, Answer),
    /// Nothing: the answer is complete.
    Done(Answer),
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    stage: Stage,
    status: u16,
    len: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Start,
    Headers,
    AfterValue,
    End,
}

impl Wire {
    /// The memcached protocol with keys of this prefix.
    #[must_use]
    pub fn memcached(prefix: &str) -> Wire {
        Wire::new(Protocol::Memcached, prefix)
    }

    /// HTTP objects as this project's daemon has them, with keys of this prefix.
    #[must_use]
    pub fn http(prefix: &str) -> Wire {
        Wire::new(Protocol::Http, prefix)
    }

    fn new(protocol: Protocol, prefix: &str) -> Wire {
        let (prefix, path) = (prefix.to_owned(), "/v1/objects/".to_owned());
        Wire { protocol, prefix, path, fields: String::new(), ttl: None }
    }

    fn push_key(&self, out: &mut Vec<u8>, key: u32) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(&digits(key));
    }

    /// Writes a read.
    pub fn push_get(&self, out: &mut Vec<u8>, key: u32) {
        match self.protocol {
            Protocol::Memcached => {
                out.extend_from_slice(b"get ");
                self.push_key(out, key);
                out.extend_from_slice(b"\r\n");
            }
            Protocol::Http => {
                out.extend_from_slice(b"GET ");
                self.push_target(out, key);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes a store of `len` bytes, without the body.
    pub fn push_set(&self, out: &mut Vec<u8>, key: u32, len: usize) {
        let ttl_secs = self.ttl.map(|ttl| ttl.as_secs());
        match self.protocol {
            Protocol::Memcached => {
                out.extend_from_slice(b"set ");
                self.push_key(out, key);
                out.extend_from_slice(b" 0 ");
                push_number(out, ttl_secs.unwrap_or(0));
                out.push(b' ');
                push_number(out, len as u64);
                out.extend_from_slice(b"\r\n");
            }
            Protocol::Http => {
                out.extend_from_slice(b"PUT ");
                self.push_target(out, key);
                out.extend_from_slice(b"Content-Length: ");
                push_number(out, len as u64);
                if let Some(seconds) = ttl_secs {
                    out.extend_from_slice(b"\r\nCache-Control: max-age=");
                    push_number(out, seconds);
                }
                out.extend_from_slice(b"\r\n\r\n");
            }
        }
    }

    fn push_target(&self, out: &mut Vec<u8>, key: u32) {
        out.extend_from_slice(self.path.as_bytes());
        self.push_key(out, key);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: bench\r\n");
        out.extend_from_slice(self.fields.as_bytes());
    }

    /// What follows a stored body.
    #[must_use]
    pub fn after_body(&self) -> &'static [u8] {
        match self.protocol {
            Protocol::Memcached => b"\r\n",
            Protocol::Http => b"",
        }
    }

    /// Parses a line, with its end, of the answer to `request`, whose value has `len` bytes.
    ///
    /// # Errors
    /// The answer breaks the protocol.
    pub fn hear(
        &self,
        heard: &mut Heard,
        (request, len): (Request, usize),
        line: &[u8],
    ) -> anyhow::Result<Next> {
        match (self.protocol, heard.stage) {
            (Protocol::Memcached, Stage::Start) => self.first_line(request, len, line),
            (Protocol::Memcached, Stage::AfterValue) => {
                ensure!(line == b"\r\n", "bytes behind a value: {}", line.escape_ascii());
                heard.stage = Stage::End;
                Ok(Next::Line)
            }
            (Protocol::Memcached, _) => {
                ensure!(line == b"END\r\n", "no END behind a value: {}", line.escape_ascii());
                Ok(Next::Done(Answer::Value))
            }
            (Protocol::Http, Stage::Start) => {
                heard.status = status(line)?;
                heard.stage = Stage::Headers;
                Ok(Next::Line)
            }
            (Protocol::Http, _) if line == b"\r\n" => end_of_head(*heard, request, len),
            (Protocol::Http, _) => header(heard, line),
        }
    }

    /// What comes after the value.
    pub fn after_value(&self, heard: &mut Heard) -> Next {
        match self.protocol {
            Protocol::Memcached => {
                heard.stage = Stage::AfterValue;
                Next::Line
            }
            Protocol::Http => Next::Done(Answer::Value),
        }
    }

    fn first_line(&self, request: Request, len: usize, line: &[u8]) -> anyhow::Result<Next> {
        let is_get = matches!(request, Request::Get(_));
        if let Some(rest) = line.strip_prefix(b"VALUE ")
            && is_get
        {
            let key = rest.strip_prefix(self.prefix.as_bytes());
            let rest = key.and_then(|key| key.strip_prefix(&digits(request.key())));
            let found = rest.and_then(|rest| rest.strip_prefix(b" 0 ")?.strip_suffix(b"\r\n"));
            let found = found.with_context(|| format!("another key: {}", line.escape_ascii()))?;
            return expected_len(found, len).map(|()| Next::Body);
        }
        match line {
            b"END\r\n" if is_get => Ok(Next::Done(Answer::Missing)),
            b"STORED\r\n" if !is_get => Ok(Next::Done(Answer::Stored)),
            line if line.starts_with(b"SERVER_ERROR ") && !is_get => {
                Ok(Next::Done(Answer::Refused))
            }
            line => bail!("the server says {}", line.escape_ascii()),
        }
    }
}

fn digits(key: u32) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    let mut rest = key;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    digits
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut rest, mut at) = (number, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

fn expected_len(found: &[u8], len: usize) -> anyhow::Result<()> {
    ensure!(
        number(found) == Some(len as u64),
        "the value has {} bytes, {len} were expected: was it stored with another --size or --trace? \
         Another --prefix keeps them apart",
        found.escape_ascii()
    );
    Ok(())
}

fn status(line: &[u8]) -> anyhow::Result<u16> {
    let status = line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
    let status = status.and_then(|status| u16::try_from(status).ok());
    status.with_context(|| format!("no status line: {}", line.escape_ascii()))
}

fn header(heard: &mut Heard, line: &[u8]) -> anyhow::Result<Next> {
    let colon = line.iter().position(|byte| *byte == b':').context("a header without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.eq_ignore_ascii_case(b"content-length") {
        heard.len = Some(number(value).context("a content length that is no number")?);
    }
    ensure!(!name.eq_ignore_ascii_case(b"transfer-encoding"), "an answer of unknown length");
    Ok(Next::Line)
}

fn end_of_head(heard: Heard, request: Request, len: usize) -> anyhow::Result<Next> {
    let body_len = match (heard.status, heard.len) {
        (204 | 304, _) => 0,
        (_, found) => found.with_context(|| format!("status {} without a length", heard.status))?,
    };
    let answer = match (heard.status, request) {
        (200, Request::Get(_)) => {
            expected_len(body_len.to_string().as_bytes(), len)?;
            return Ok(Next::Body);
        }
        (404, Request::Get(_)) => Answer::Missing,
        (200 | 201 | 204, Request::Set(_)) => Answer::Stored,
        (503 | 507 | 429, Request::Set(_)) => Answer::Refused,
        (status, _) => bail!("the server answers with status {status}"),
    };
    Ok(if body_len == 0 { Next::Done(answer) } else { Next::Skip(body_len, answer) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: (Request, usize) = (Request::Get(7), 5);
    const SET: (Request, usize) = (Request::Set(7), 5);

    fn last(wire: &Wire, asked: (Request, usize), text: &str) -> anyhow::Result<Next> {
        let mut heard = Heard::default();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            assert_eq!(wire.hear(&mut heard, asked, line.as_bytes())?, Next::Line);
        }
        wire.hear(&mut heard, asked, last.as_bytes())
    }

    #[test]
    fn requests_are_written_as_the_protocols_have_them() {
        let mut wire = Wire::memcached("k");
        wire.ttl = Some(Duration::from_secs(60));
        let mut out = Vec::new();
        wire.push_get(&mut out, 7);
        wire.push_set(&mut out, u32::MAX, 1020);
        assert_eq!(out, b"get k0000000007\r\nset k4294967295 0 60 1020\r\n");
        (wire.protocol, out) = (Protocol::Http, Vec::new());
        wire.push_get(&mut out, 7);
        assert_eq!(out, b"GET /v1/objects/k0000000007 HTTP/1.1\r\nHost: bench\r\n\r\n");
        out.clear();
        wire.fields = "Accept: */*\r\n".to_owned();
        wire.push_get(&mut out, 7);
        wire.push_set(&mut out, 7, 0);
        let head = "GET /v1/objects/k0000000007 HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n\
                    PUT /v1/objects/k0000000007 HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\
                    Content-Length: 0\r\nCache-Control: max-age=60\r\n\r\n";
        assert_eq!(out, head.as_bytes());
    }

    #[test]
    fn answers_of_memcached_are_understood() {
        let wire = Wire::memcached("k");
        assert_eq!(last(&wire, GET, "VALUE k0000000007 0 5\r\n").unwrap(), Next::Body);
        assert_eq!(last(&wire, GET, "END\r\n").unwrap(), Next::Done(Answer::Missing));
        assert_eq!(last(&wire, SET, "STORED\r\n").unwrap(), Next::Done(Answer::Stored));
        let refused = last(&wire, SET, "SERVER_ERROR out of memory\r\n").unwrap();
        assert_eq!(refused, Next::Done(Answer::Refused));
        for (asked, line) in [
            (GET, "VALUE k0000000008 0 5\r\n"),
            (GET, "VALUE k0000000007 1 5\r\n"),
            (GET, "VALUE k0000000007 0 6\r\n"),
            (GET, "STORED\r\n"),
            (GET, "SERVER_ERROR x\r\n"),
            (SET, "END\r\n"),
            (SET, "ERROR\r\n"),
        ] {
            assert!(last(&wire, asked, line).is_err(), "{line}");
        }
    }

    #[test]
    fn answers_of_http_are_understood() {
        let wire = Wire::http("k");
        let head =
            |status: u16, len: u64| format!("HTTP/1.1 {status} X\r\ncontent-length: {len}\r\n\r\n");
        assert_eq!(last(&wire, GET, &head(200, 5)).unwrap(), Next::Body);
        assert_eq!(last(&wire, GET, &head(404, 9)).unwrap(), Next::Skip(9, Answer::Missing));
        assert_eq!(last(&wire, SET, &head(201, 0)).unwrap(), Next::Done(Answer::Stored));
        assert_eq!(last(&wire, SET, &head(503, 0)).unwrap(), Next::Done(Answer::Refused));
        assert!(last(&wire, GET, &head(200, 6)).is_err());
        assert!(last(&wire, GET, &head(500, 0)).is_err());
        assert!(last(&wire, GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n").is_err());
        assert!(last(&wire, GET, "HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
