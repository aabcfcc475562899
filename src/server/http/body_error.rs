//! Why the body of a request ends early.

use crate::server::codec::fault::Fault;

/// Why the body of a request ends early.
#[derive(Debug)]
pub(super) enum BodyError {
    /// The client has sent all that it will.
    Cut,
    /// These are no chunks, or there is no memory for them.
    Malformed(Fault),
    /// The connection failed, or stood still for too long.
    Lost,
}
