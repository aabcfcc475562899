//! Why an upstream gave no response, or no whole one.

use std::io;

use crate::server::codec::fault::Fault;

/// Why an upstream gave no response, or no whole one. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum UpstreamError {
    /// Nobody takes connections there.
    #[error("cannot connect to the upstream")]
    Connect(#[source] io::Error),
    /// It did not take the connection in time.
    #[error("the upstream takes no connection in time")]
    ConnectTimeout,
    /// All connections stayed in use.
    #[error("no connection to the upstream became free in time")]
    NoFreeConnection,
    /// The connection ended before the first byte of a response.
    #[error("the upstream closed the connection without a response")]
    Closed {
        /// An earlier request was sent on it.
        is_reused: bool,
    },
    /// The connection ended while the request was sent. The response may have come before: to read its
    /// head tells.
    #[error("the upstream takes no more of the request")]
    NotTaken(#[source] io::Error),
    /// It took no byte of the request for too long. The response may have come before.
    #[error("the upstream does not go on reading the request")]
    SendTimeout,
    /// No head of a response came in time.
    #[error("the upstream does not answer in time")]
    FirstByteTimeout,
    /// No byte of the body came for too long.
    #[error("the upstream does not go on with the body")]
    BodyTimeout,
    /// The connection ended within a head or a body.
    #[error("the response broke off")]
    Cut,
    /// What came is no response.
    #[error("the response is malformed: {}", .0.text.trim_end())]
    Malformed(Fault),
    /// The body of the request is not as long as its head says.
    #[error("the body of the request is not as long as announced")]
    BodyLength,
    /// The connection failed otherwise.
    #[error("the connection to the upstream failed")]
    Io(#[source] io::Error),
}

impl UpstreamError {
    /// Whether the upstream was too slow (504), and not wrong or away (502).
    pub(in crate::server) fn is_timeout(&self) -> bool {
        use UpstreamError as E;
        matches!(
            self,
            E::ConnectTimeout
                | E::NoFreeConnection
                | E::SendTimeout
                | E::FirstByteTimeout
                | E::BodyTimeout
        )
    }

    /// Whether an idle connection was closed at the moment it was used again: the same request may
    /// go out once more, on a fresh connection, if its method is idempotent and its body is at hand
    /// (RFC 9112, section 9.3.1).
    pub(in crate::server) fn is_stale_reuse(&self) -> bool {
        matches!(self, UpstreamError::Closed { is_reused: true })
    }

    /// Whether a response may have come although the request cannot be sent on.
    pub(in crate::server) fn may_have_answered(&self) -> bool {
        matches!(self, UpstreamError::NotTaken(_) | UpstreamError::SendTimeout)
    }
}

/// Whether the peer ended the connection.
pub(super) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::BrokenPipe | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::NotConnected
    )
}
