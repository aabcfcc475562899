//! The file system that an image file would be in. Owns the questions to the kernel; never writes.

use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use crate::units::ByteSize;

/// `RAMFS_MAGIC` of `linux/magic.h`. devtmpfs, which is at /dev, is this or a tmpfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Whether a file made at `path` would be in memory: it takes memory that nobody counts, and is gone when
/// the machine stops. False where the kernel does not tell: making the file says why.
#[must_use]
pub fn is_in_memory(path: &Path) -> bool {
    let kind = statfs(directory_of(path)).map(|found| found.filesystem_type());
    kind.is_ok_and(|kind| kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// What to say of an image of `size` bytes for which there is no room where it is to be made. An image is
/// sparse: that it fits shows only when it is full.
#[must_use]
pub fn shortage(path: &Path, size: ByteSize) -> Option<String> {
    let found = statvfs(directory_of(path)).ok()?;
    let free = found.blocks_available().checked_mul(found.fragment_size())?;
    told_shortage(path, size, free)
}

/// As [`shortage`], where `free` bytes are free.
fn told_shortage(path: &Path, size: ByteSize, free: u64) -> Option<String> {
    let whole_mib = ByteSize(free >> 20 << 20);
    (size.0 > free).then(|| {
        format!(
            "{} may grow to {size}, and its file system has {whole_mib} free: make room or make it \
             smaller, for stores are refused when the file system is full",
            path.display()
        )
    })
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

    #[test]
    fn an_image_that_does_not_fit_is_told_with_both_sizes() {
        let told = |size, free| told_shortage(Path::new("x"), ByteSize(size), free);
        assert_eq!(told(5 << 20, 5 << 20), None);
        let text = told(6 << 20, (6 << 20) - 1).unwrap();
        assert!(
            text.starts_with("x may grow to 6MiB, and its file system has 5MiB free"),
            "{text}"
        );
        assert_eq!(shortage(Path::new("/no/such/directory/x"), ByteSize(u64::MAX)), None);
    }
}
