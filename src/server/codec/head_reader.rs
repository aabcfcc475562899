//! Finds heads of requests in the bytes of a connection, in whatever pieces they come.

use super::fault::Fault;
use super::head::{RequestHead, RequestLine};
use super::head_search::HeadSearch;

pub use super::head_search::HEAD_LEN_MAX;

/// Empty lines that may stand before a request (RFC 9112, section 2.2).
const EMPTY_LINES_MAX: u8 = 2;

/// Where the search for the end of one head is. Each byte is searched once.
#[derive(Debug, Default)]
pub struct HeadReader {
    search: HeadSearch<RequestLine>,
    empty_lines: u8,
}

/// What came of the bytes so far.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
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
        while self.search.is_idle() && self.empty_lines < EMPTY_LINES_MAX {
            let Some(rest) = unread[skipped..].strip_prefix(b"\r\n") else { break };
            skipped = unread.len() - rest.len();
            self.empty_lines += 1;
        }
        let unread = &unread[skipped..];
        if unread == b"\r" {
            // It may begin an empty line.
            return Ok(Found::Nothing(skipped));
        }
        let Some(len) = self.search.find(unread)? else { return Ok(Found::Nothing(skipped)) };
        let head = RequestHead::parse(&unread[..len]);
        let head = head.map_err(|fault| self.search.first_fault(unread, fault))?;
        *self = HeadReader::default();
        Ok(Found::Head(head, skipped + len))
    }

    /// Whether nothing of a head has come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.search.is_idle()
    }
}

#[cfg(test)]
#[path = "head_reader_tests.rs"]
mod tests;
