//! Who appends, and what it hears when there is no room.

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appender {
    /// A client's change: must leave room for reclaim and must not outrun the device.
    Client,
    /// A removal, which is small: is not held up by stores that wait, and may use a part of the last
    /// free region.
    Removal,
    /// What reclaim carries on, less than a region for each that it frees: may use the last free
    /// region.
    Reclaim,
}

/// Why nothing can be appended right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// No free region; reclaim is on its way.
    Regions,
    /// No free region for the second copy of a purge's tombstone.
    Purges,
    /// Too many bytes wait to be written.
    Backlog,
    /// The epoch's sequence numbers run out, and the next epoch is not durable yet.
    Epoch,
}
