//! A blocking client of the memcached text protocol. Owns the bytes on the wire; never prints.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::clock::Timestamp;
use crate::config::{EMBEDDED_SOCKET, ListenAddress, SERVICE_SOCKET};

/// Longest key of the protocol in bytes.
const KEY_LEN_MAX: usize = 250;
/// Longest line that a server may answer with.
const LINE_LEN_MAX: u64 = 4096;
/// Longest wait for the daemon to send or take the next bytes.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Lifetimes up to this are sent as they are; the protocol takes longer ones as a time of day.
const RELATIVE_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// A key that the protocol can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Checks `text`.
    ///
    /// # Errors
    /// It is empty, too long, or has a space or control character.
    pub fn new(text: &str) -> anyhow::Result<Key> {
        let len = text.len();
        ensure!(
            (1..=KEY_LEN_MAX).contains(&len),
            "the key has {len} bytes; the memcached protocol takes 1 to {KEY_LEN_MAX}: hash longer keys"
        );
        ensure!(
            !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f),
            "the key {text:?} has a space or control character, which the memcached protocol cannot carry"
        );
        Ok(Key(text.to_owned()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `exptime` of a lifetime; 0 lets the daemon choose.
pub fn exptime(ttl: Option<Duration>, now: Timestamp) -> anyhow::Result<u64> {
    let Some(ttl) = ttl else { return Ok(0) };
    ensure!(ttl >= Duration::from_secs(1), "--ttl: the shortest lifetime is 1s");
    Ok(if ttl <= RELATIVE_TTL_MAX { ttl.as_secs() } else { u64::from(now.plus(ttl).0) })
}

trait Stream: Read + Write {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// One connection.
pub struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    /// Connects to `socket` (a path, `unix:PATH` or `tcp:IP:PORT`), or to where a daemon usually
    /// listens: beside the working directory, else where the service does.
    pub fn connect(socket: Option<&str>) -> anyhow::Result<Client> {
        let address = match socket {
            Some(text) if text.starts_with("unix:") || text.starts_with("tcp:") => text.parse()?,
            Some(path) => ListenAddress::Unix(path.into()),
            None => usual_socket()?,
        };
        let stream = open(&address).with_context(|| {
            format!(
                "cannot connect to {address}; is the daemon running? name its socket with --socket"
            )
        })?;
        Ok(Client(BufReader::new(stream)))
    }

    /// Writes the value of `key` to `output`; false if there is none.
    pub fn get(&mut self, key: &Key, output: &mut dyn Write) -> anyhow::Result<bool> {
        self.send(&[format!("get {key}\r\n").as_bytes()])?;
        let line = self.line()?;
        if line == "END" {
            return Ok(false);
        }
        let len = value_len(&line, key)?;
        let copied = io::copy(&mut (&mut self.0).take(len), output)
            .map_err(super::output::closed_or_failed)?;
        ensure!(copied == len, "the daemon ended the value after {copied} of {len} bytes");
        ensure!(self.line()?.is_empty() && self.line()? == "END", "the answer has no end");
        Ok(true)
    }

    /// Stores `value`.
    pub fn set(&mut self, key: &Key, exptime: u64, value: &[u8]) -> anyhow::Result<()> {
        let head = format!("set {key} 0 {exptime} {}\r\n", value.len());
        let sent = self.send(&[head.as_bytes(), value, b"\r\n"]);
        // A daemon that refuses may close before it has taken everything; its answer says why.
        match (self.line(), sent) {
            (Ok(line), _) if line == "STORED" => Ok(()),
            (Ok(line), _) => bail!("not stored: {line}"),
            (Err(_), Err(sent)) => Err(sent),
            (Err(unread), Ok(())) => Err(unread),
        }
    }

    /// Removes `key`; false if there was none.
    pub fn delete(&mut self, key: &Key) -> anyhow::Result<bool> {
        self.send(&[format!("delete {key}\r\n").as_bytes()])?;
        match self.line()?.as_str() {
            "DELETED" => Ok(true),
            "NOT_FOUND" => Ok(false),
            other => bail!("not removed: {other}"),
        }
    }

    /// Names and values of the daemon's counters.
    pub fn stats(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        self.send(&[b"stats\r\n"])?;
        let mut stats = Vec::new();
        loop {
            let line = self.line()?;
            if line == "END" {
                return Ok(stats);
            }
            let pair = line.strip_prefix("STAT ").and_then(|pair| pair.split_once(' '));
            let Some((name, value)) = pair else { bail!("the daemon answered: {line}") };
            stats.push((name.to_owned(), value.to_owned()));
        }
    }

    fn send(&mut self, parts: &[&[u8]]) -> anyhow::Result<()> {
        let stream = self.0.get_mut();
        let sent = parts.iter().try_for_each(|part| stream.write_all(part));
        sent.and_then(|()| stream.flush()).context("the daemon does not take the request")
    }

    /// The next line without its end.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        let limited = (&mut self.0).take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        limited.context("the daemon does not answer")?;
        ensure!(line.pop() == Some(b'\n'), "the daemon closed the connection");
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

fn value_len(line: &str, key: &Key) -> anyhow::Result<u64> {
    let fields: Vec<&str> = line.split(' ').collect();
    match fields[..] {
        ["VALUE", found, _flags, len] if found == key.0 => {
            len.parse().with_context(|| format!("the daemon answered: {line}"))
        }
        _ => bail!("the daemon answered: {line}"),
    }
}

fn usual_socket() -> anyhow::Result<ListenAddress> {
    let found = [EMBEDDED_SOCKET, SERVICE_SOCKET].into_iter().find(|path| Path::new(path).exists());
    let path = found.with_context(|| {
        format!("no socket at {EMBEDDED_SOCKET} or {SERVICE_SOCKET}: name one with --socket")
    })?;
    Ok(ListenAddress::Unix(path.into()))
}

fn open(address: &ListenAddress) -> io::Result<Box<dyn Stream>> {
    match address {
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(Box::new(stream))
        }
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(Box::new(stream))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_the_protocol_cannot_carry_are_refused() {
        assert!(Key::new("/a?b=c").is_ok());
        assert!(Key::new(&"x".repeat(250)).is_ok());
        for text in ["", "a b", "a\nb", "a\tb", "\u{7f}", &"x".repeat(251)] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn long_lifetimes_become_a_time_of_day() {
        let now = Timestamp(1_000_000_000);
        let day = Duration::from_secs(86_400);
        assert_eq!(exptime(None, now).unwrap(), 0);
        assert_eq!(exptime(Some(Duration::from_secs(600)), now).unwrap(), 600);
        assert_eq!(exptime(Some(day * 30), now).unwrap(), 30 * 86_400);
        assert_eq!(exptime(Some(day * 31), now).unwrap(), 1_000_000_000 + 31 * 86_400);
        assert!(exptime(Some(Duration::from_millis(500)), now).is_err());
    }

    #[test]
    fn an_answer_for_another_key_is_refused() {
        let key = Key::new("a").unwrap();
        assert_eq!(value_len("VALUE a 0 5", &key).unwrap(), 5);
        for line in ["VALUE b 0 5", "VALUE a 0", "VALUE a 0 x", "SERVER_ERROR busy"] {
            assert!(value_len(line, &key).is_err(), "{line}");
        }
    }
}
