//! The file system that an image file would be in. Owns the questions to the kernel; never writes.

use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

/// `RAMFS_MAGIC` of `linux/magic.h`. devtmpfs, which is at /dev, is this or a tmpfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Whether a file made at `path` would be in memory: it takes memory that nobody counts, and is gone when
/// the machine stops. False where the kernel does not tell: making the file says why.
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    let kind = statfs(directory_of(path)).map(|found| found.filesystem_type());
    kind.is_ok_and(|kind| kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// The directory that `path` is in.
fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_the_directory_that_its_path_names() {
        assert_eq!(directory_of(Path::new("/a/b")), Path::new("/a"));
        assert_eq!(directory_of(Path::new("b")), Path::new("."));
        assert_eq!(directory_of(Path::new("/")), Path::new("."));
        assert!(!is_in_memory(Path::new("/no/such/directory/x")));
        // proc(5) is neither of the two.
        assert!(!is_in_memory(Path::new("/proc/x")));
    }
}
