//! A client of the HTTP socket on a blocking connection. Owns requests and the heads of answers.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::pattern::{MIB, fill};

pub struct Client(BufReader<UnixStream>);

/// The head of a GET.
pub fn get_request(key: &str) -> String {
    format!("GET /v1/objects/{key} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// The head of a PUT of unknown length.
pub fn put_request(key: &str) -> String {
    format!("PUT /v1/objects/{key} HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n")
}

impl Client {
    pub fn open(socket: &Path) -> anyhow::Result<Client> {
        Ok(Client(BufReader::new(UnixStream::connect(socket)?)))
    }

    /// Sends a GET.
    pub fn ask(&mut self, key: &str) -> anyhow::Result<()> {
        self.0.get_mut().write_all(get_request(key).as_bytes())?;
        Ok(())
    }

    /// Sends a GET of a range in the notation of `Range`.
    pub fn ask_range(&mut self, key: &str, range: &str) -> anyhow::Result<()> {
        let request = get_request(key);
        let request = request.trim_end();
        self.0
            .get_mut()
            .write_all(format!("{request}\r\nRange: bytes={range}\r\n\r\n").as_bytes())?;
        Ok(())
    }

    /// Reads the head of an answer; gives the status and the length of the body.
    pub fn head(&mut self) -> anyhow::Result<(u16, u64)> {
        let (mut status, mut len, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the server closed the connection");
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            match status {
                None => status = text.split(' ').nth(1).and_then(|status| status.parse().ok()),
                Some(_) => {
                    if let Some(found) = text.strip_prefix("content-length: ") {
                        len = found.parse()?;
                    }
                }
            }
        }
        Ok((status.context("no status")?, len))
    }

    /// Reads a part of the body.
    pub fn read_exact(&mut self, part: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.0.read_exact(part)?)
    }

    /// Stores an object of so many MiB in chunks of awkward lengths.
    pub fn put(&mut self, key: &str, mebibytes: u64) -> anyhow::Result<()> {
        let mut piece = vec![0; MIB];
        self.0.get_mut().write_all(put_request(key).as_bytes())?;
        for number in 0..mebibytes {
            fill(&mut piece, number);
            let (one, rest) = piece.split_at(1);
            let (few, many) = rest.split_at(65_537);
            for chunk in [one, few, many] {
                let stream = self.0.get_mut();
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
        }
        self.0.get_mut().write_all(b"0\r\n\r\n")?;
        let (status, _) = self.head()?;
        ensure!(status == 201, "PUT of {key}: {status}");
        Ok(())
    }
}
