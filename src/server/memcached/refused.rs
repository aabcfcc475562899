//! Lines that are refused: what is answered, and what comes after them. Values only.

/// What comes after a refused line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another command.
    Command,
    /// A value of this length, at most 2^63 - 1, and its line end.
    Value(u64),
    /// Nobody knows: the connection must end.
    Unknown,
}

/// Why and how a line is refused.
pub(super) struct Refusal {
    pub(super) reply: &'static str,
    /// The client asked for no answer, or would not read one.
    pub(super) silent: bool,
    pub(super) next: Next,
}

pub(super) fn refuse(reply: &'static str) -> Refusal {
    refuse_unless(false, reply)
}

pub(super) fn refuse_unless(silent: bool, reply: &'static str) -> Refusal {
    Refusal { reply, silent, next: Next::Command }
}

/// What comes after a line that announces a value of this length, or nobody knows of which.
pub(super) fn after(announced: Option<u64>) -> Next {
    announced.map_or(Next::Unknown, Next::Value)
}

pub(super) const ERROR: &str = "ERROR";
pub(super) const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";
