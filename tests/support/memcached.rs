//! A client of the memcached protocol. It sends and takes bytes as they are.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::waiting::ANSWER_PATIENCE;

/// A connection. A test may also send and read bytes itself, but must read through the buffer.
pub struct Client(pub BufReader<UnixStream>);

/// A stored value.
pub struct Value {
    pub flags: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).unwrap();
        stream.set_write_timeout(Some(ANSWER_PATIENCE)).unwrap();
        Client::over(stream)
    }

    pub fn over(stream: UnixStream) -> Client {
        Client(BufReader::new(stream))
    }

    #[track_caller]
    pub fn send(&mut self, request: impl AsRef<[u8]>) {
        self.try_send(request).unwrap();
    }

    /// As [`Client::send`], for a connection that may have ended.
    pub fn try_send(&mut self, request: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(request.as_ref())
    }

    /// Reads exactly what is expected.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut got = vec![0; expected.len()];
        let mut len = 0;
        while len < got.len() {
            match self.0.read(&mut got[len..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => len += read,
            }
            if got[..len] != expected[..len] {
                break;
            }
        }
        let (got, expected) = (shorten(&got[..len]), shorten(expected));
        assert_eq!(got, expected);
    }

    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        self.send(request);
        self.expect(expected);
    }

    /// Sends a line; gives the first line of the answer.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> String {
        self.try_command(line).unwrap()
    }

    /// As [`Client::command`], for a connection that may end.
    pub fn try_command(&mut self, line: &str) -> io::Result<String> {
        self.try_send(format!("{line}\r\n"))?;
        self.try_line()
    }

    /// Reads a line, which is given without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().unwrap()
    }

    /// As [`Client::line`], for a connection that may end; half a line is an error.
    pub fn try_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Stores without a lifetime; gives the answer.
    #[track_caller]
    pub fn set(&mut self, key: &str, value: &[u8]) -> String {
        self.send(
            [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        );
        self.line()
    }

    /// The bytes under a key.
    #[track_caller]
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.try_get(key).unwrap().map(|value| value.body)
    }

    /// The value under a key, for a connection that may end.
    ///
    /// # Panics
    /// Panics on an answer that does not fit a `get` of the key.
    pub fn try_get(&mut self, key: &str) -> io::Result<Option<Value>> {
        let line = self.try_command(&format!("get {key}"))?;
        if line == "END" {
            return Ok(None);
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let ["VALUE", found, flags, len] = fields[..] else { panic!("{key}: {line}") };
        assert_eq!(found, key);
        let mut body = vec![0; len.parse().unwrap()];
        self.0.read_exact(&mut body)?;
        let (ended, end) = (self.try_line()?, self.try_line()?);
        assert_eq!((ended.as_str(), end.as_str()), ("", "END"), "{key}");
        Ok(Some(Value { flags: flags.to_owned(), body }))
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // The peer closed it before it had read everything that was sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads up to and including the line `last`.
    pub fn read_until(&mut self, last: &str) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(last.as_bytes()) {
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "{}", shorten(&text));
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Ends the sending side.
    pub fn half_close(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.ask("verbosity 1\r\n", "OK\r\n");
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.len() {
        0..=400 => text,
        len => format!("{}...{} ({} bytes)", &text[..200], &text[len - 100..], bytes.len()),
    }
}
