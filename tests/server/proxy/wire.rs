//! Messages of HTTP/1.1 as they stand on a socket, read strictly: what a lenient reader would let pass
//! (RFC 9112, section 2.2) is a fault here, so that nothing ambiguous goes through a test unseen.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::support::waiting::ANSWER_PATIENCE;

/// Longest head that is read.
const HEAD_LEN_MAX: usize = 1 << 20;

/// Names as they came, and values without white space around them.
pub type Fields = Vec<(String, String)>;

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended within it.
    Ended,
    /// It is not what RFC 9112 says.
    Malformed(String),
}

/// A connection and the bytes of it that are not taken yet. Sockets of both families are one type:
/// they use the same system calls.
pub struct Wire {
    pub stream: UnixStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn new(stream: UnixStream) -> Wire {
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    /// Bytes that came and that nobody took.
    pub fn left(&self) -> &[u8] {
        &self.buffer
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads on; false at the end of the connection.
    pub fn fill(&mut self) -> Result<bool, Broken> {
        let mut piece = [0; 64 << 10];
        loop {
            return match self.stream.read(&mut piece) {
                Ok(len) => {
                    self.buffer.extend_from_slice(&piece[..len]);
                    Ok(len > 0)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    let got = self.buffer.escape_ascii();
                    Err(Broken::Malformed(format!("no more came in time behind {got}")))
                }
                // Reset.
                Err(_) => Ok(false),
            };
        }
    }

    /// A head with its empty line; `None` if the connection ended before its first byte.
    pub fn head(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
            let seen = &self.buffer[..end.map_or(self.buffer.len(), |end| end + 4)];
            if let Some(at) = bare(seen, end.is_some()) {
                let text = seen.escape_ascii();
                return Err(Broken::Malformed(format!("a bare CR or LF at {at} of {text}")));
            }
            if let Some(end) = end {
                return Ok(Some(self.take(end + 4)));
            }
            if self.buffer.len() > HEAD_LEN_MAX {
                return Err(Broken::Malformed("the head is too long".to_owned()));
            }
            if !self.fill()? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Broken::Ended) };
            }
        }
    }

    /// A line without its end.
    fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.take(end + 1);
                if !line.ends_with(b"\r\n") {
                    let text = line.escape_ascii();
                    return Err(Broken::Malformed(format!("a line ends with LF alone: {text}")));
                }
                line.truncate(end - 1);
                return Ok(line);
            }
            if !self.fill()? {
                return Err(Broken::Ended);
            }
        }
    }

    /// One byte up to `max`; none at the end of the connection.
    fn some(&mut self, max: u64) -> Result<Vec<u8>, Broken> {
        if self.buffer.is_empty() && !self.fill()? {
            return Ok(Vec::new());
        }
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.take(len))
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(len);
        std::mem::replace(&mut self.buffer, rest)
    }
}

/// Where a CR or an LF stands alone. The last byte of what is not whole may be half of a line end.
fn bare(bytes: &[u8], is_whole: bool) -> Option<usize> {
    (0..bytes.len()).find(|at| match bytes[*at] {
        b'\n' => *at == 0 || bytes[at - 1] != b'\r',
        b'\r' => bytes.get(at + 1).map_or(is_whole, |next| *next != b'\n'),
        _ => false,
    })
}

/// The first line of a head and its fields.
pub fn parse(head: &[u8]) -> Result<(String, Fields), String> {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let text = text.strip_suffix("\r\n\r\n").ok_or("no empty line")?;
    if let Some(c) = text.chars().find(|c| c.is_control() && !"\r\n\t".contains(*c)) {
        return Err(format!("the byte {:#x} in a head", u32::from(c)));
    }
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("{name:?} is no name of a field"));
        }
        Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
    });
    let fields = fields.collect::<Result<Fields, String>>()?;
    Ok((first, fields))
}

pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// All values of `name`.
pub fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    let found = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str()).collect()
}

/// How much of a body is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// So many bytes of the present chunk, and then others.
    Chunk(u64),
    /// The line before a chunk.
    ChunkLine,
    /// All up to the end of the connection.
    UntilClose,
}

/// A body that is over.
pub const NO_BODY: Body = Body::Length(0);

impl Body {
    /// What `fields` announce (RFC 9112, section 6); `None` if they announce nothing.
    pub fn of(fields: &Fields) -> Result<Option<Body>, String> {
        let lengths = values(fields, "content-length");
        let codings = values(fields, "transfer-encoding");
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(None),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse().map(|len| Some(Body::Length(len))).map_err(|_| "length".to_owned())
            }
            ([], ["chunked"]) => Ok(Some(Body::ChunkLine)),
            _ => Err(format!("lengths {lengths:?}, codings {codings:?}")),
        }
    }

    /// The next bytes, at most `max`; `None` at the end of the body.
    pub fn next(&mut self, wire: &mut Wire, max: u64) -> Result<Option<Vec<u8>>, Broken> {
        match *self {
            NO_BODY => Ok(None),
            Body::Length(left) => {
                let bytes = wire.some(left.min(max))?;
                *self = Body::Length(left - bytes.len() as u64);
                if bytes.is_empty() { Err(Broken::Ended) } else { Ok(Some(bytes)) }
            }
            Body::UntilClose => {
                let bytes = wire.some(max)?;
                Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
            Body::ChunkLine => {
                let line = wire.line()?;
                let is_size = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
                let text = String::from_utf8_lossy(&line).into_owned();
                let size = u64::from_str_radix(&text, 16).ok().filter(|_| is_size);
                match size {
                    None => Err(Broken::Malformed(format!("{text:?} is no size of a chunk"))),
                    Some(0) => {
                        let end = wire.line()?;
                        *self = NO_BODY;
                        let text = end.escape_ascii();
                        let fault = || Broken::Malformed(format!("a trailer: {text}"));
                        if end.is_empty() { Ok(None) } else { Err(fault()) }
                    }
                    Some(size) => {
                        *self = Body::Chunk(size);
                        self.next(wire, max)
                    }
                }
            }
            Body::Chunk(left) => {
                let bytes = wire.some(left.min(max))?;
                let left = left - bytes.len() as u64;
                if bytes.is_empty() {
                    return Err(Broken::Ended);
                }
                *self = if left > 0 { Body::Chunk(left) } else { Body::ChunkLine };
                if left == 0 && !wire.line()?.is_empty() {
                    return Err(Broken::Malformed("a chunk is longer than it says".to_owned()));
                }
                Ok(Some(bytes))
            }
        }
    }

    /// All that is to come.
    pub fn rest(&mut self, wire: &mut Wire) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next(wire, u64::MAX)? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}
