//! States of a region.

/// State of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Holds nothing; may be opened.
    Free,
    /// Takes appends, or its last bytes are being written.
    Open,
    /// Complete on the device; may be reclaimed.
    Sealed,
    /// Is being emptied.
    Reclaiming,
    /// Held something before the restart; recovery has not read it yet.
    Unknown,
    /// Could not be read at the start: not served, but tried again. Freed unread only if no tombstone
    /// in it can be needed.
    Unreadable,
}

impl RegionState {
    pub(in crate::store) fn from_code(code: u8) -> RegionState {
        match code {
            0 => RegionState::Free,
            1 => RegionState::Open,
            2 => RegionState::Sealed,
            3 => RegionState::Reclaiming,
            4 => RegionState::Unknown,
            _ => RegionState::Unreadable,
        }
    }
}
