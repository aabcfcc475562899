//! Finds where a head ends in the bytes of a connection, in whatever pieces they come.

use std::marker::PhantomData;

use memchr::memchr_iter;

use super::fault::Fault;

/// Longest head in bytes: room for a key and headers of their greatest lengths.
pub const HEAD_LEN_MAX: usize = 128 << 10;
/// So many bytes of a start line are looked at before it is whole.
const BEGINNING_LEN: usize = 32;

/// What heads of one kind begin with: the line of a request, or that of a status.
pub(super) trait StartLine {
    /// Longest one in bytes.
    const LEN_MAX: usize;
    /// It is longer.
    const TOO_LONG: Fault;
    /// It is none.
    const MALFORMED: Fault;

    /// Looks at a line with its end.
    fn check(line: &[u8]) -> Result<(), Fault>;

    /// Looks at the first bytes of a line: what can only become wrong is not waited for.
    fn check_beginning(beginning: &[u8]) -> Result<(), Fault>;
}

/// Where the search for the end of one head is. Each byte is searched once.
#[derive(Debug, Default)]
pub(super) struct HeadSearch<S> {
    /// Bytes that were searched.
    searched: usize,
    /// Where the line begins that is searched.
    line_start: usize,
    /// Length of the start line with its end, once it is whole.
    start_line: Option<usize>,
    kind: PhantomData<S>,
}

impl<S: StartLine> HeadSearch<S> {
    /// The length of the head at the beginning of `unread`, with its empty line, if it is whole.
    /// `unread` holds what the last call saw, and more.
    ///
    /// # Errors
    /// What comes is no head, whatever follows. Which of several faults is told does not depend on
    /// the pieces in which the bytes came.
    pub(super) fn find(&mut self, unread: &[u8]) -> Result<Option<usize>, Fault> {
        let found = self.end_of(&unread[..unread.len().min(HEAD_LEN_MAX)]);
        found.map_err(|fault| self.first_fault(unread, fault))
    }

    /// Whether no byte was searched.
    pub(super) fn is_idle(&self) -> bool {
        self.searched == 0
    }

    /// The fault of the start line, if it has one, else `fault`: had the bytes come one by one, the
    /// start line would have been looked at first.
    pub(super) fn first_fault(&self, unread: &[u8], fault: Fault) -> Fault {
        let line = self.start_line.map(|len| &unread[..len]);
        line.and_then(|line| S::check(line).err()).unwrap_or(fault)
    }

    fn end_of(&mut self, unread: &[u8]) -> Result<Option<usize>, Fault> {
        for at in memchr_iter(b'\n', &unread[self.searched..]) {
            let at = self.searched + at;
            if self.start_line.is_none() && at > S::LEN_MAX {
                return Err(too_long::<S>(unread));
            }
            let line = &unread[self.line_start..at];
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(self.line_fault());
            };
            match (self.start_line, line.is_empty()) {
                (None, true) => return Err(S::MALFORMED),
                (None, false) => self.start_line = Some(at + 1),
                (Some(_), true) => return Ok(Some(at + 1)),
                (Some(_), false) => {}
            }
            self.line_start = at + 1;
        }
        let was_searched = std::mem::replace(&mut self.searched, unread.len());
        match self.start_line {
            Some(len) if len > was_searched => S::check(&unread[..len])?,
            Some(_) => {}
            None if unread.len() > S::LEN_MAX => return Err(too_long::<S>(unread)),
            None if was_searched < BEGINNING_LEN => S::check_beginning(beginning(unread))?,
            None => {}
        }
        if unread.len() == HEAD_LEN_MAX { Err(Fault::HEAD_LEN) } else { Ok(None) }
    }

    fn line_fault(&self) -> Fault {
        if self.start_line.is_none() { S::MALFORMED } else { Fault::LINE_END }
    }
}

fn beginning(unread: &[u8]) -> &[u8] {
    &unread[..unread.len().min(BEGINNING_LEN)]
}

fn too_long<S: StartLine>(unread: &[u8]) -> Fault {
    S::check_beginning(beginning(unread)).err().unwrap_or(S::TOO_LONG)
}
