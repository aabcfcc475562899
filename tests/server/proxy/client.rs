//! A client that sends and takes bytes as they are, reads answers strictly, and tells a body that came
//! whole from one that was cut.

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::origin::Place;
use super::verdict::Verdict;
use super::wire::{Body, Broken, Fields, NO_BODY, Wire, parse, values};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did not.
    Open,
    /// As it was announced: more may come on the connection.
    Whole,
    /// With the connection, as it was announced.
    Closed,
    /// With the connection, before it was whole.
    Cut,
}

/// An answer, or as much of it as was read.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// As it came, with its empty line.
    pub head: Vec<u8>,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub end: End,
    /// Statuses of the interim answers before it.
    pub interim: Vec<u16>,
    left: Body,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, len) = (self.head.escape_ascii(), self.body.len());
        write!(f, "{head} and {len} bytes, {:?}", self.end)
    }
}

impl Answer {
    /// The value of a field that is there once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} is there {} times: {self:?}", values.len());
        values.first().copied()
    }

    /// The values of all lines of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// What the cache says of how it came to the answer.
    #[track_caller]
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.all("cache-status"))
    }

    /// A whole answer of `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        let head = self.head.escape_ascii();
        assert_eq!(self.status, status, "{head} {}", self.body.escape_ascii());
        assert!(matches!(self.end, End::Whole | End::Closed), "{:?} {head}", self.end);
        self
    }

    /// A whole answer of `status` with this body.
    #[track_caller]
    pub fn expect_body(self, status: u16, body: impl AsRef<[u8]>) -> Answer {
        let (answer, body) = (self.expect(status), body.as_ref());
        assert_eq!(answer.body.len(), body.len(), "{}", answer.head.escape_ascii());
        assert!(answer.body == body, "other bytes: {}", answer.head.escape_ascii());
        answer
    }

    /// From the store, without a request to the origin.
    #[track_caller]
    pub fn expect_hit(self) -> Answer {
        assert!(self.verdict().hit, "{}", self.head.escape_ascii());
        self
    }

    /// From the origin, for this reason.
    #[track_caller]
    pub fn expect_forwarded(self, why: &str) -> Answer {
        let verdict = self.verdict();
        assert!(!verdict.hit, "{}", self.head.escape_ascii());
        assert_eq!(verdict.forwarded.as_deref(), Some(why), "{}", self.head.escape_ascii());
        self
    }
}

/// A connection of a client.
pub struct Client {
    wire: Wire,
}

impl Client {
    /// Connects to a Unix socket.
    pub fn open(path: &Path) -> Client {
        Client::over(UnixStream::connect(path).unwrap())
    }

    /// On a connection.
    pub fn over(stream: UnixStream) -> Client {
        Client { wire: Wire::new(stream) }
    }

    /// Connects to an origin, without a cache between.
    pub fn to(place: &Place) -> Client {
        match place {
            Place::Unix(path) => Client::open(path),
            Place::Tcp(address) => {
                let stream = OwnedFd::from(TcpStream::connect(address).unwrap());
                Client::over(UnixStream::from(stream))
            }
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).unwrap();
    }

    /// Sends as much as the other side takes: it may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.send(bytes.as_ref());
    }

    /// Says that no more comes.
    pub fn half_close(&self) {
        let _ = self.wire.stream.shutdown(Shutdown::Write);
    }

    /// Reads the head of an answer to a request of `method`; `None` if the connection ended before it.
    #[track_caller]
    pub fn try_head(&mut self, method: &str) -> Option<Answer> {
        let mut interim = Vec::new();
        loop {
            let head = match self.wire.head() {
                Ok(Some(head)) => head,
                Ok(None) => return None,
                Err(broken) => panic!("{broken:?}"),
            };
            let text = head.escape_ascii().to_string();
            let (line, fields) = parse(&head).unwrap_or_else(|fault| panic!("{fault}: {text}"));
            let status = status(&line).unwrap_or_else(|| panic!("no status line: {text}"));
            if status < 200 {
                interim.push(status);
                continue;
            }
            let announced = Body::of(&fields).unwrap_or_else(|fault| panic!("{fault}: {text}"));
            let left = match (method, status) {
                ("HEAD", _) | (_, 204 | 304) => NO_BODY,
                _ => announced.unwrap_or(Body::UntilClose),
            };
            let end = if left == NO_BODY { End::Whole } else { End::Open };
            return Some(Answer { status, head, fields, body: Vec::new(), end, interim, left });
        }
    }

    #[track_caller]
    pub fn head(&mut self, method: &str) -> Answer {
        self.try_head(method).expect("the connection ended before the answer")
    }

    /// Reads on until the body has `len` bytes, or ends.
    #[track_caller]
    pub fn read_to(&mut self, answer: &mut Answer, len: usize) {
        while answer.body.len() < len && answer.end == End::Open {
            let until_close = answer.left == Body::UntilClose;
            let max = (len - answer.body.len()) as u64;
            match answer.left.next(&mut self.wire, max) {
                Ok(Some(bytes)) => answer.body.extend_from_slice(&bytes),
                Ok(None) => answer.end = if until_close { End::Closed } else { End::Whole },
                Err(Broken::Ended) => answer.end = End::Cut,
                Err(Broken::Malformed(text)) => panic!("{text}"),
            }
        }
        if answer.left == NO_BODY && answer.end == End::Open {
            answer.end = End::Whole;
        }
    }

    /// Reads on to the end of the body.
    #[track_caller]
    pub fn finish(&mut self, mut answer: Answer) -> Answer {
        self.read_to(&mut answer, usize::MAX);
        answer
    }

    /// Reads an answer to a request of `method`.
    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Answer {
        let answer = self.head(method);
        self.finish(answer)
    }

    /// Sends a request and reads the answer. `fields` are whole lines; a body gets its length.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &str, body: &[u8]) -> Answer {
        self.send(request(method, target, fields, body));
        self.answer(method)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, "", b"")
    }

    /// The next head, an interim one too, as it came.
    #[track_caller]
    pub fn raw_head(&mut self) -> Vec<u8> {
        self.wire.head().unwrap().expect("the connection ended before the head")
    }

    /// The next bytes, of whatever protocol.
    #[track_caller]
    pub fn raw(&mut self, len: usize) -> Vec<u8> {
        while self.wire.left().len() < len {
            assert!(self.wire.fill().unwrap(), "it ended behind {} bytes", self.wire.left().len());
        }
        self.wire.take(len)
    }

    /// The same connection, for another thread to send on.
    pub fn writer(&self) -> UnixStream {
        self.wire.stream.try_clone().unwrap()
    }

    /// Whether the other side ended the connection, and sent nothing more before.
    pub fn is_over(&mut self) -> bool {
        self.wire.left().is_empty() && matches!(self.wire.fill(), Ok(false))
    }
}

/// A request with `Host: h`.
pub fn request(method: &str, target: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let has_length = matches!(method, "POST" | "PUT" | "PATCH") || !body.is_empty();
    let length = format!("Content-Length: {}\r\n", body.len());
    let length = if has_length { length.as_str() } else { "" };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{length}{fields}\r\n");
    [head.as_bytes(), body].concat()
}

fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ")?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let is_status = digits.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(' ');
    digits.parse().ok().filter(|status| is_status && *status >= 100)
}
