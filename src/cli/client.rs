//! A blocking memcached client, for `stats` alone. Owns the bytes on the wire; never prints.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::socket;
use crate::config::{EMBEDDED_SOCKET, ListenAddress, SERVICE_SOCKET};

/// Longest line that a server may answer with.
const LINE_LEN_MAX: u64 = 4096;
/// Longest wait for the daemon to send or take the next bytes.
const TIMEOUT: Duration = Duration::from_secs(30);

trait Stream: Read + Write {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// One connection.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    address: ListenAddress,
}

impl Client {
    /// Connects to `socket` (a path, `unix:PATH` or `tcp:IP:PORT`), or to where a daemon usually
    /// listens: beside the working directory, else where the service does.
    pub fn connect(socket: Option<&str>) -> anyhow::Result<Client> {
        let address = socket::address(socket, [EMBEDDED_SOCKET, SERVICE_SOCKET])?;
        let stream = open(&address).map_err(|error| socket::refused(&address, "socket", error))?;
        Ok(Client { stream: BufReader::new(stream), address })
    }

    /// Names and values of the daemon's counters; none from a server that has no such command.
    pub fn stats(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        self.send(b"stats\r\n")?;
        let mut stats = Vec::new();
        loop {
            let line = self.line()?;
            if line == "END" || line == "ERROR" {
                return Ok(stats);
            }
            ensure!(
                !line.starts_with("HTTP/"),
                "{} is an HTTP socket, and stats asks in the memcached protocol: name a socket of \
                 server.memcached with --socket",
                self.address
            );
            let pair = line.strip_prefix("STAT ").and_then(|pair| pair.split_once(' '));
            let Some((name, value)) = pair else { bail!("the daemon answered: {line}") };
            stats.push((name.to_owned(), value.to_owned()));
        }
    }

    fn send(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let stream = self.stream.get_mut();
        let sent = stream.write_all(line).and_then(|()| stream.flush());
        sent.context("the daemon does not take the request")
    }

    /// The next line without its end.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        let limited = (&mut self.stream).take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        limited.context("the daemon does not answer")?;
        ensure!(line.pop() == Some(b'\n'), "the daemon closed the connection");
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
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
