//! Bodies in chunks (RFC 9112, section 7.1). Extensions and trailers are read and dropped.

use memchr::memchr;

use super::fault::Fault;
use super::fields::{is_field, is_text};
use super::head::LINES_MAX;

/// Longest line with the size of a chunk, and longest trailer line, in bytes with their ends.
pub const LINE_LEN_MAX: usize = 1 << 10;

/// Where the reading of a body in chunks is.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    /// The line with the size of a chunk.
    #[default]
    Size,
    /// So many bytes of a chunk are left, more than none.
    Data(u64),
    /// The line end after the bytes of a chunk.
    DataEnd,
    /// So many trailer lines have come.
    Trailers(usize),
    End,
}

/// What the next bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many bytes of the content.
    Data(usize),
    /// What it is shows when there is more.
    Incomplete,
    /// The body is over.
    End,
}

impl Chunks {
    /// Reads on in `unread`: how many bytes are no content and done with, and what the bytes behind
    /// them are. Those of [`Next::Data`] count as done with too: the next call begins after them.
    ///
    /// # Errors
    /// These are no chunks.
    pub fn read(&mut self, unread: &[u8]) -> Result<(usize, Next), Fault> {
        let mut done = 0;
        loop {
            let rest = &unread[done..];
            done += match self.at {
                At::End => return Ok((done, Next::End)),
                At::Data(_) if rest.is_empty() => return Ok((done, Next::Incomplete)),
                At::Data(left) => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.skip(len as u64);
                    return Ok((done, Next::Data(len)));
                }
                At::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.at = At::Size;
                        2
                    }
                    [] | [b'\r'] => return Ok((done, Next::Incomplete)),
                    _ => return Err(Fault::CHUNK),
                },
                At::Size => {
                    let Some(line) = line(rest, Fault::CHUNK)? else {
                        check_size_beginning(rest)?;
                        return Ok((done, Next::Incomplete));
                    };
                    self.at = match size(line)? {
                        0 => At::Trailers(0),
                        size => At::Data(size),
                    };
                    line.len() + 2
                }
                At::Trailers(count) => {
                    let Some(line) = line(rest, Fault::TRAILER)? else {
                        return Ok((done, Next::Incomplete));
                    };
                    self.at = match line {
                        [] => At::End,
                        line if is_field(line) && count < LINES_MAX => At::Trailers(count + 1),
                        _ => return Err(Fault::TRAILER),
                    };
                    line.len() + 2
                }
            };
        }
    }

    /// Bytes of the present chunk that are not read: what comes next is content, if there are any.
    #[must_use]
    pub fn data_left(&self) -> u64 {
        if let At::Data(left) = self.at { left } else { 0 }
    }

    /// So many bytes of the present chunk were read elsewhere, at most [`Chunks::data_left`].
    pub fn skip(&mut self, len: u64) {
        let left = self.data_left();
        assert!(len <= left, "a chunk is not so long");
        if len > 0 {
            self.at = if len < left { At::Data(left - len) } else { At::DataEnd };
        }
    }
}

/// The first line of `bytes` without its end, if it is whole.
fn line(bytes: &[u8], fault: Fault) -> Result<Option<&[u8]>, Fault> {
    let bytes = &bytes[..bytes.len().min(LINE_LEN_MAX)];
    match memchr(b'\n', bytes) {
        Some(end) => bytes[..end].strip_suffix(b"\r").map(Some).ok_or(fault),
        None if bytes.len() == LINE_LEN_MAX => Err(fault),
        None => Ok(None),
    }
}

/// The number at the beginning of a line, and what is behind it.
fn split_size(line: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(digits);
    let text = std::str::from_utf8(digits).map_err(|_| Fault::CHUNK)?;
    Ok((u64::from_str_radix(text, 16).map_err(|_| Fault::CHUNK)?, rest))
}

/// The size in a line, which may have extensions.
fn size(line: &[u8]) -> Result<u64, Fault> {
    let (size, rest) = split_size(line)?;
    let extensions = rest.trim_ascii_start();
    let is_end = rest.is_empty() || extensions.starts_with(b";");
    if is_end && rest.iter().all(|byte| is_text(*byte)) { Ok(size) } else { Err(Fault::CHUNK) }
}

/// Refuses the beginning of a line that cannot become one with a size.
fn check_size_beginning(beginning: &[u8]) -> Result<(), Fault> {
    match beginning {
        [] => Ok(()),
        _ => match split_size(beginning)?.1 {
            [] | [b'\r' | b' ' | b'\t' | b';', ..] => Ok(()),
            _ => Err(Fault::CHUNK),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of a body, and what is behind it, read in pieces of `piece` bytes.
    fn read(stream: &[u8], piece: usize) -> Result<(Vec<u8>, &[u8]), Fault> {
        let (mut chunks, mut content) = (Chunks::default(), Vec::new());
        let (mut start, mut end) = (0, 0);
        loop {
            let (done, next) = chunks.read(&stream[start..end])?;
            start += done;
            match next {
                Next::Data(len) => {
                    assert!(len > 0);
                    content.extend_from_slice(&stream[start..start + len]);
                    start += len;
                }
                Next::End => return Ok((content, &stream[start..])),
                // The stream ends too early.
                Next::Incomplete if end == stream.len() => return Ok((content, b"?")),
                Next::Incomplete => end = (end + piece).min(stream.len()),
            }
        }
    }

    /// The same however the stream is cut.
    fn read_all(stream: &[u8]) -> Result<(Vec<u8>, &[u8]), Fault> {
        let whole = read(stream, usize::MAX / 2);
        for piece in 1..stream.len().min(40) {
            assert_eq!(read(stream, piece), whole, "{}", stream.escape_ascii());
        }
        whole
    }

    #[test]
    fn the_content_of_all_chunks_is_read() {
        let line = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(LINE_LEN_MAX - 4));
        let trailers = format!("0\r\n{}\r\n", "T: x\r\n".repeat(LINES_MAX));
        let cases = [
            ("0\r\n\r\n", "", ""),
            ("0\r\n\r\nGET", "", "GET"),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", ""),
            ("3\r\nabc\r\n00002\r\nde\r\n000\r\n\r\n3", "abcde", "3"),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
            ("2;a=b;c=\"d;e\"\r\n\r\n\r\n0;x\r\n\r\n", "\r\n", ""),
            ("2 ;a\r\nab\r\n0\t ; x = y\r\n\r\n", "ab", ""),
            ("1\r\nx\r\n0\r\nTransfer-Encoding: gzip\r\nX:\r\nY: \x7e\t\r\n\r\nrest", "x", "rest"),
            (&line, "x", ""),
            (&trailers, "", ""),
        ];
        for (stream, content, rest) in cases {
            let found = read_all(stream.as_bytes()).unwrap();
            assert_eq!(found, (content.as_bytes().to_vec(), rest.as_bytes()), "{stream}");
        }
    }

    #[test]
    fn content_may_be_read_elsewhere() {
        let mut chunks = Chunks::default();
        chunks.skip(0);
        assert_eq!((chunks.data_left(), chunks.read(b"1")), (0, Ok((0, Next::Incomplete))));
        assert_eq!(chunks.read(b"10\r\n"), Ok((4, Next::Incomplete)));
        assert_eq!(chunks.data_left(), 16);
        chunks.skip(9);
        assert_eq!((chunks.data_left(), chunks.read(b"ab")), (7, Ok((0, Next::Data(2)))));
        chunks.skip(0);
        chunks.skip(5);
        assert_eq!(chunks.data_left(), 0);
        assert_eq!(chunks.read(b"\r\n0\r\n\r\nG"), Ok((7, Next::End)));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(LINE_LEN_MAX - 3));
        for stream in [
            "\r\n",
            "\n",
            "x",
            "xyz\r\n",
            ";\r\n",
            " 1\r\nx\r\n",
            "-1\r\n",
            "+1\r\nx\r\n",
            "0x1\r\nx\r\n",
            "1_0\r\n",
            "1 \r\nx\r\n",
            "1 1\r\nx",
            "1\nx\r\n0\r\n\r\n",
            "1\rx\r\n",
            "1;\x01\r\nx\r\n",
            "1;a\nb\r\nx\r\n",
            "1;a\rb\r\nx\r\n",
            "10000000000000000\r\n",
            "ffffffffffffffffff\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc\r\r\n",
            "1,\r\nx",
            &long,
        ] {
            assert_eq!(read_all(stream.as_bytes()), Err(Fault::CHUNK), "{stream:?}");
        }
        let many = format!("0\r\n{}\r\n", "T: x\r\n".repeat(LINES_MAX + 1));
        let long = format!("0\r\nT: {}\r\n\r\n", "e".repeat(LINE_LEN_MAX));
        for stream in [
            "0\r\n\n",
            "0\r\nT\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nT : x\r\n\r\n",
            "0\r\nT: x\n\r\n",
            "0\r\nT: x\r\n y\r\n\r\n",
            "0\r\nT: \0\r\n\r\n",
            "0\r\nT: a\rb\r\n\r\n",
            "0\r\n\rT: x\r\n\r\n",
            &many,
            &long,
        ] {
            assert_eq!(read_all(stream.as_bytes()), Err(Fault::TRAILER), "{stream:?}");
        }
        assert_eq!(read_all(b"3\r\nab"), Ok((b"ab".to_vec(), &b"?"[..])));
    }
}
