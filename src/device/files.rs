//! The open file descriptions of one device. Owns them; never reads or writes through them.

use std::fs::File;

use super::way::Way;

/// What an engine reads and writes through.
pub(super) struct Files {
    /// For all transfers but reads through the page cache.
    pub main: File,
    /// The same device through the page cache, for reads; only if it is opened adaptively.
    pub cached: Option<File>,
}

impl Files {
    /// One description for all transfers.
    pub fn only(main: File) -> Files {
        Files { main, cached: None }
    }

    /// The description that a read takes.
    ///
    /// # Panics
    /// If the device is not opened adaptively and the way is the page cache.
    pub fn of(&self, way: Way) -> &File {
        match way {
            Way::Main => &self.main,
            Way::PageCache => self.cached.as_ref().expect("only an adaptive device asks for it"),
        }
    }
}
