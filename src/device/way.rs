//! How a read reaches the device.

/// How a read reaches the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As all other transfers of the device: direct, if it is opened adaptively.
    #[default]
    Main,
    /// Through the page cache, though the device is opened for direct I/O.
    PageCache,
}

impl Way {
    pub(super) fn other(self) -> Way {
        match self {
            Way::Main => Way::PageCache,
            Way::PageCache => Way::Main,
        }
    }
}
