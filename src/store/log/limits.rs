//! How much the log may keep in memory.

/// How much the log may keep in memory.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Bytes waiting to be written from which on stores have to wait.
    pub backlog: u64,
    /// Bytes of records and tombstones from which on a region is sealed: they are kept until then. The
    /// same for the region that takes entries and the one that takes purges.
    pub footer: u64,
    /// Entries of one region.
    pub records: usize,
}
