//! States of a region.

/// What may happen to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Holds nothing; may be opened.
    Free,
    /// Takes appends, or its last bytes are on their way to the device.
    Open,
    /// Complete on the device; may be reclaimed.
    Sealed,
    /// Is being emptied.
    Reclaiming,
    /// Held something before the restart; recovery will tell.
    Unknown,
    /// Could not be read at the start: not served, tried again, and freed unread only where no
    /// tombstone in it can be missed.
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
