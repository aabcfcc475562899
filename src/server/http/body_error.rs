//! Why the body of a request ends early.

use crate::server::codec::fault::Fault;

/// Why the body of a request ends early.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum BodyError {
    /// The client has sent all that it will.
    #[error("the body of the request is cut short")]
    Cut,
    /// These are no chunks, or there is no memory for them.
    #[error("the body of the request cannot be read: {}", .0.text.trim_end())]
    Malformed(Fault),
    /// The connection failed, or stood still for too long.
    #[error("the client is lost")]
    Lost,
}
