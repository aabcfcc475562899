//! Kinds of appenders, and why there may be no room for one.

/// Kind of appender, with its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appender {
    /// A client's change: must leave room for reclaim and must not outrun the device.
    Client,
    /// A removal: small, so it is not held up by waiting stores, and may use a part of the last free
    /// region.
    Removal,
    /// Reclaim: writes less than a region for each that it frees, and may use the last free region.
    Reclaim,
}

/// Why nothing can be appended right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// No free region; reclaim is at work.
    Regions,
    /// No free region for the second copy of a purge's tombstone.
    Purges,
    /// The index is at its part of memory; reclaim frees regions.
    Index,
    /// Too many bytes wait to be written.
    Backlog,
    /// The epoch's sequence numbers are running out, and the next epoch is not durable yet.
    Epoch,
}
