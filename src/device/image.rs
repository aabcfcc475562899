//! Image files: regular files that stand in for a disk. Owns their creation.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Creates an image of `size` bytes that only its owner can read. Its space is reserved, so that a full
/// file system shows now and not in the middle of a write. Where that is not possible, it is sparse.
///
/// # Errors
/// The file exists, or the file system is full or fails; nothing is left behind then.
pub fn create_image(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let reserved = reserve(&file, size).and_then(|()| file.sync_all());
    if reserved.is_err()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "an unfinished image is left behind");
    }
    reserved
}

fn reserve(file: &File, size: u64) -> io::Result<()> {
    let len = i64::try_from(size).map_err(|_| io::Error::from(Errno::EFBIG))?;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(Errno::EOPNOTSUPP) => file.set_len(size),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_size_and_an_existing_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        create_image(&path, 1 << 20).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        let error = create_image(&path, 512).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    }

    #[test]
    fn an_impossible_size_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        assert!(create_image(&path, u64::MAX).is_err());
        assert!(!path.exists());
    }
}
