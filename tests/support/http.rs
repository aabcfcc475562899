//! An HTTP client. It sends and takes bytes as they are: no redirects, no retries, no decoding.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::waiting::{ANSWER_PATIENCE, PATIENCE};

/// The path of an object.
pub fn target(key: &str) -> String {
    format!("/v1/objects/{key}")
}

/// Bytes that differ from offset to offset.
pub fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at % 251) ^ (at >> 10)).to_le_bytes()[0]).collect()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that occurs once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.body.escape_ascii());
        self
    }

    #[track_caller]
    pub fn expect_body(self, status: u16, body: &[u8]) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.body.len(), body.len());
        assert!(answer.body == body, "other bytes");
        answer
    }
}

/// The whole answer to a GET as it came, `None` if nobody answers.
pub fn get(address: &str, path: &str) -> Option<String> {
    let mut connection = Connection::open_tcp(address).ok()?;
    let host = format!("Host: {address}\r\nConnection: close\r\n");
    write!(connection.0, "GET {path} HTTP/1.1\r\n{host}\r\n").ok()?;
    let mut answer = String::new();
    connection.0.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A connection that sends and takes bytes.
pub struct Connection(pub UnixStream);

impl Connection {
    pub fn open(path: &Path) -> Connection {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).unwrap();
        Connection(stream)
    }

    /// Connects to a TCP port.
    pub fn open_tcp(address: impl ToSocketAddrs) -> io::Result<Connection> {
        // Both kinds of streams use the same system calls.
        let stream = UnixStream::from(OwnedFd::from(TcpStream::connect(address)?));
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(stream))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        self.try_ask(method, target, headers, body).unwrap()
    }

    /// As [`Connection::ask`], for a connection that may end.
    pub fn try_ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let has_body = matches!(method, "PUT" | "POST") || !body.is_empty();
        let length =
            if has_body { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n");
        self.0.write_all(head.as_bytes())?;
        // A server that refuses may not take all of the body.
        let _ = self.0.write_all(body);
        self.try_answer(method)
    }

    /// Reads one answer to a request of `method`.
    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).unwrap()
    }

    /// As [`Connection::answer`], for a connection that may end.
    pub fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        let head = self.try_head()?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        let mut answer = Answer { status, headers: headers.collect(), body: Vec::new() };
        let bodiless = method == "HEAD" || matches!(status, 100 | 204 | 304);
        let len = answer.header("content-length").map(|len| len.parse::<usize>().unwrap());
        if let Some(len) = len.filter(|_| !bodiless) {
            answer.body = vec![0; len];
            self.0.read_exact(&mut answer.body)?;
        } else if !bodiless {
            assert_eq!(answer.header("transfer-encoding"), None, "answers have a length");
        }
        Ok(answer)
    }

    /// Reads up to the empty line after the headers.
    #[track_caller]
    pub fn head(&mut self) -> String {
        self.try_head().unwrap()
    }

    fn try_head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte)? == 0 {
                let got = format!("the connection ended: {}", head.escape_ascii());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, got));
            }
            head.push(byte[0]);
        }
        Ok(String::from_utf8(head).unwrap())
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    }

    /// The last request: gives the head of the answer as it came, with the status line and the
    /// empty line at its end, and all bytes after it.
    #[track_caller]
    pub fn ask_last(mut self, request: impl AsRef<[u8]>) -> (String, Vec<u8>) {
        self.send(request);
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {}", answer.escape_ascii()));
        let body = answer.split_off(end + 4);
        (String::from_utf8(answer).unwrap(), body)
    }

    pub fn half_close(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }
}
