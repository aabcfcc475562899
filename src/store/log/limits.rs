//! How much the log may keep in memory.

/// How much the log may keep in memory.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Bytes waiting to be written from which on stores have to wait.
    pub backlog: u64,
    /// Entries of one region: their records are kept until it is sealed.
    pub records: usize,
}
