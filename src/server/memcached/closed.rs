//! Why a connection ends.

use std::io;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Closed {
    /// The client closed it, said `quit`, or the server drains.
    Normally,
    /// The client does not speak the protocol.
    Refused,
    /// A value could not be sent to its end.
    Truncated,
    /// The socket failed.
    Failed(io::Error),
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Closed {
        Closed::Failed(error)
    }
}
