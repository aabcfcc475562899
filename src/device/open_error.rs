//! Why a device did not open. Owns the messages, which say what to do next.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::sysfs_directory;
use super::holder::{self, Holders, REMAINS_GO_WITHIN};
use crate::device::file_holder;

/// Why a device did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is a directory, a character device or a socket.
    #[error("{} is neither a block device nor a regular file: name one of these", path.display())]
    NotADevice {
        /// As given.
        path: PathBuf,
    },
    /// Someone else uses it.
    #[error("{} is in use: {}; stop that, or use another device", path.display(), names(holders))]
    Busy {
        /// As given.
        path: PathBuf,
        /// Who, as far as it could be found out.
        holders: Vec<String>,
        /// Within what time they may be gone by themselves; zero: they stay.
        go_within: Duration,
    },
    /// It refuses writes.
    #[error(
        "{} is read-only: make it writable (blockdev --setrw, or remount its file system), \
         or open it read-only",
        path.display()
    )]
    ReadOnly {
        /// As given.
        path: PathBuf,
    },
    /// Direct I/O was demanded where it cannot be had.
    #[error(
        "direct I/O does not work on {}: {reason}; use io = \"auto\" or \"buffered\", or \
         another device",
        path.display()
    )]
    DirectUnavailable {
        /// As given.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The io_uring engine was asked for and does not work.
    #[error(
        "{}: io_uring does not work here: use engine = \"auto\" or \"threads\", or allow it \
         (Linux 6.1, sysctl kernel.io_uring_disabled=0, the container's seccomp profile)",
        path.display()
    )]
    IoUringUnavailable {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The alignment asked for does not work.
    #[error(
        "{} cannot be used in blocks of {alignment} bytes: use a power of two from {required} \
         to 65536",
        path.display()
    )]
    Alignment {
        /// As given.
        path: PathBuf,
        /// As asked for, in bytes.
        alignment: u32,
        /// Least that works, in bytes.
        required: u32,
    },
    /// It has fewer bytes than were asked for, or not even a block.
    #[error("{} has {size} bytes, {needed} are needed: enlarge it, or ask for less", path.display())]
    TooSmall {
        /// As given.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Bytes asked for.
        needed: u64,
    },
    /// The system refused, or the device failed.
    #[error("{} cannot be opened", path.display())]
    Io {
        /// As given.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> OpenError {
        OpenError::Io { path: path.to_owned(), source }
    }

    pub(super) fn busy(path: &Path, holders: Holders) -> OpenError {
        let Holders { names, go_within } = holders;
        // A holder without a name is the kernel, after the end of a process.
        let go_within = if names.is_empty() { REMAINS_GO_WITHIN } else { go_within };
        OpenError::Busy { path: path.to_owned(), holders: names, go_within }
    }

    /// The error for an `open` that failed with `source`.
    pub(super) fn refused(path: &Path, metadata: &Metadata, source: io::Error) -> OpenError {
        match source.raw_os_error() {
            Some(libc::EBUSY) => {
                let holders = if metadata.file_type().is_block_device() {
                    holder::of_block_device(path, metadata.rdev(), None)
                } else {
                    file_holder::of_file(path)
                };
                OpenError::busy(path, holders)
            }
            // An active swap file cannot be opened for writing.
            Some(libc::ETXTBSY) => OpenError::busy(path, file_holder::of_file(path)),
            Some(libc::EROFS) => OpenError::ReadOnly { path: path.to_owned() },
            Some(libc::EACCES | libc::EPERM) if write_protected(metadata) => {
                OpenError::ReadOnly { path: path.to_owned() }
            }
            _ => OpenError::io(path, source),
        }
    }
}

fn names(holders: &[String]) -> String {
    if holders.is_empty() {
        return "by another process or by the kernel".to_owned();
    }
    holders.join(", ")
}

fn write_protected(metadata: &Metadata) -> bool {
    metadata.file_type().is_block_device()
        && fs::read_to_string(sysfs_directory(metadata.rdev()).join("ro"))
            .is_ok_and(|text| text.trim() == "1")
}
