//! What the clients of a listener may do.

/// What the clients of a listener may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Lookups only: what would change an entry is refused.
    pub read_only: bool,
    /// The memcached command `flush_all` is served.
    pub flush_all: bool,
}

impl Default for Access {
    fn default() -> Access {
        Access { read_only: false, flush_all: true }
    }
}
