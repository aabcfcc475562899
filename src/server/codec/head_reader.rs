//! Finds heads in the bytes of a connection, in whatever pieces they come.

use memchr::memchr_iter;

use super::fault::Fault;
use super::head::{RequestHead, check_beginning, check_request_line};
use super::target::TARGET_LEN_MAX;

/// Longest head in bytes: room for a key and headers of their greatest lengths.
pub const HEAD_LEN_MAX: usize = 128 << 10;
/// Empty lines that may stand before a request (RFC 9112, section 2.2).
const EMPTY_LINES_MAX: u8 = 2;
/// Longest request line in bytes: room for the longest target, a method and a version.
const REQUEST_LINE_LEN_MAX: usize = TARGET_LEN_MAX + 128;
/// So many bytes of a request line are looked at before it is whole.
const BEGINNING_LEN: usize = 32;

/// Where the search for the end of one head is. Each byte is searched once.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Bytes that were searched.
    searched: usize,
    /// Where the line begins that is searched.
    line_start: usize,
    /// Length of the request line with its end, once it is whole.
    request_line: Option<usize>,
    empty_lines: u8,
}

/// What came of the bytes so far.
#[derive(Debug)]
pub enum Found {
    /// More bytes are needed. So many of them are done with.
    Nothing(usize),
    /// A head, and its length in bytes.
    Head(RequestHead, usize),
}

impl HeadReader {
    /// Looks for a head at the beginning of `unread`, which holds what the last call saw, less what
    /// that was done with, and more. After a head the search begins anew.
    ///
    /// # Errors
    /// What comes is no head of a request, whatever follows. Which of several faults is told does
    /// not depend on the pieces in which the bytes came.
    pub fn find(&mut self, unread: &[u8]) -> Result<Found, Fault> {
        let mut skipped = 0;
        while self.searched == 0 && self.empty_lines < EMPTY_LINES_MAX {
            let Some(rest) = unread[skipped..].strip_prefix(b"\r\n") else { break };
            skipped = unread.len() - rest.len();
            self.empty_lines += 1;
        }
        let unread = &unread[skipped..];
        match self.end_of(&unread[..unread.len().min(HEAD_LEN_MAX)]) {
            Ok(None) => Ok(Found::Nothing(skipped)),
            Ok(Some(len)) => {
                let head = RequestHead::parse(&unread[..len]);
                let head = head.map_err(|fault| self.first_fault(unread, fault))?;
                *self = HeadReader::default();
                Ok(Found::Head(head, skipped + len))
            }
            Err(fault) => Err(self.first_fault(unread, fault)),
        }
    }

    /// Whether nothing of a head has come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.searched == 0
    }

    /// The length of the head with its empty line, if it is whole.
    fn end_of(&mut self, unread: &[u8]) -> Result<Option<usize>, Fault> {
        if unread == b"\r" {
            // It may begin an empty line.
            return Ok(None);
        }
        for at in memchr_iter(b'\n', &unread[self.searched..]) {
            let at = self.searched + at;
            if self.request_line.is_none() && at > REQUEST_LINE_LEN_MAX {
                return Err(too_long(unread));
            }
            let line = &unread[self.line_start..at];
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(self.line_fault());
            };
            match (self.request_line, line.is_empty()) {
                (None, true) => return Err(Fault::REQUEST_LINE),
                (None, false) => self.request_line = Some(at + 1),
                (Some(_), true) => return Ok(Some(at + 1)),
                (Some(_), false) => {}
            }
            self.line_start = at + 1;
        }
        let was_searched = std::mem::replace(&mut self.searched, unread.len());
        match self.request_line {
            Some(len) if len > was_searched => check_request_line(&unread[..len])?,
            Some(_) => {}
            None if unread.len() > REQUEST_LINE_LEN_MAX => return Err(too_long(unread)),
            None if was_searched < BEGINNING_LEN => check_beginning(beginning(unread))?,
            None => {}
        }
        if unread.len() == HEAD_LEN_MAX { Err(Fault::HEAD_LEN) } else { Ok(None) }
    }

    fn line_fault(&self) -> Fault {
        if self.request_line.is_none() { Fault::REQUEST_LINE } else { Fault::LINE_END }
    }

    /// The fault of the request line, if it has one, else `fault`: had the bytes come one by one, the
    /// request line would have been looked at first.
    fn first_fault(&self, unread: &[u8], fault: Fault) -> Fault {
        let line = self.request_line.map(|len| &unread[..len]);
        line.and_then(|line| check_request_line(line).err()).unwrap_or(fault)
    }
}

fn beginning(unread: &[u8]) -> &[u8] {
    &unread[..unread.len().min(BEGINNING_LEN)]
}

fn too_long(unread: &[u8]) -> Fault {
    check_beginning(beginning(unread)).err().unwrap_or(Fault::TARGET_LEN)
}

#[cfg(test)]
#[path = "head_reader_tests.rs"]
mod tests;
