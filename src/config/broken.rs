//! A rule that a configuration breaks. Owns its shape; `check` and `memory` have the rules.

/// A rule that a configuration breaks.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The key to change, as in `server.admin`.
    pub key: &'static str,
    /// Why, and what to write.
    pub reason: String,
}
