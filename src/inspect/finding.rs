//! One damaged thing. Owns its wording.

use std::fmt;

/// One damaged thing, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The region it is in; `None` for a superblock copy.
    pub region: Option<u32>,
    /// Byte offset on the device.
    pub offset: u64,
    /// What is damaged and how.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { region, offset, what } = self;
        match region {
            Some(region) => write!(f, "region {region}, offset {offset}: {what}"),
            None => write!(f, "offset {offset}: {what}"),
        }
    }
}

/// An error and its cause.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}
