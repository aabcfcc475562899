//! Finds heads of responses in the bytes of a connection, in whatever pieces they come.

use http::Method;

use super::fault::Fault;
use super::head_search::HeadSearch;
use super::response_head::{ResponseHead, StatusLine};

/// Where the search for the end of one head is. Each byte is searched once.
#[derive(Debug, Default)]
pub struct ResponseReader {
    search: HeadSearch<StatusLine>,
}

impl ResponseReader {
    /// Looks for the head of a response to a `method` at the beginning of `unread`, which holds what
    /// the last call saw, and more: the head and its length in bytes, if it is whole. After a head the
    /// search begins anew.
    ///
    /// # Errors
    /// What comes is no head of a response, whatever follows. Which of several faults is told does
    /// not depend on the pieces in which the bytes came.
    pub fn find(
        &mut self,
        unread: &[u8],
        method: &Method,
    ) -> Result<Option<(ResponseHead, usize)>, Fault> {
        let Some(len) = self.search.find(unread)? else { return Ok(None) };
        let head = ResponseHead::parse(&unread[..len], method);
        let head = head.map_err(|fault| self.search.first_fault(unread, fault))?;
        *self = ResponseReader::default();
        Ok(Some((head, len)))
    }
}

#[cfg(test)]
#[path = "response_reader_tests.rs"]
mod tests;
