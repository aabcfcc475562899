//! A failed transfer. Owns its message; never decides what to do about it.

use std::io;

use super::OperationKind;

/// A failed transfer.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of {len} bytes at offset {offset} failed")]
#[non_exhaustive]
pub struct DeviceError {
    /// `read`, `write` or `flush`.
    pub operation: &'static str,
    /// Byte offset of the request.
    pub offset: u64,
    /// Length of the request in bytes.
    pub len: usize,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

impl DeviceError {
    pub(super) fn new(kind: OperationKind, offset: u64, len: usize, source: io::Error) -> Self {
        DeviceError { operation: kind.as_str(), offset, len, source }
    }
}
