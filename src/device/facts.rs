//! What the kernel says about an open block device or file. Owns the questions; draws no
//! conclusions and never writes.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use nix::sys::statfs::{self, FsType, fstatfs};

use super::DeviceKind;

mod ioctl {
    //! Requests from `linux/fs.h`; the numbers are part of the kernel's ABI.
    use libc::{c_int, c_long, c_uint};

    nix::ioctl_read_bad!(logical_sector, libc::BLKSSZGET, c_int);
    nix::ioctl_read_bad!(physical_sector, libc::BLKPBSZGET, c_uint);
    nix::ioctl_read_bad!(read_only, nix::request_code_none!(0x12, 94), c_int);
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
    nix::ioctl_read!(inode_flags, b'f', 1, c_long);
}

/// `FS_NOCOW_FL` of `linux/fs.h`: on btrfs, such a file is neither copied nor checksummed.
const FS_NOCOW_FL: libc::c_long = 0x0080_0000;

/// What `statx(STATX_DIOALIGN)` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DioAlignment {
    /// The kernel or file system does not tell.
    Unknown,
    /// Direct I/O is not supported on this file.
    Unsupported,
    /// Direct I/O wants these multiples, in bytes.
    Known { memory: u32, offset: u32 },
}

/// The kernel's answers about one open device.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kind: DeviceKind,
    /// Device number of a block device, 0 for a file.
    pub(super) device_number: u64,
    pub(super) size: u64,
    /// Block devices only, in bytes.
    pub(super) logical_sector: Option<u32>,
    /// Block devices only, in bytes.
    pub(super) physical_sector: Option<u32>,
    /// Block devices only, in bytes.
    pub(super) dma_alignment: Option<u32>,
    pub(super) dio: DioAlignment,
    /// `st_blksize`.
    pub(super) preferred_block: u64,
    /// Image files only.
    pub(super) file_system: Option<FsType>,
    /// The file system checksums the file's data, and so buffers direct writes.
    pub(super) data_checksums: bool,
    /// A block device that refuses writes.
    pub(super) write_protected: bool,
}

impl Facts {
    /// Asks about `file`; `None` if it is neither a block device nor a regular file.
    pub(super) fn ask(file: &File) -> io::Result<Option<Facts>> {
        let metadata = file.metadata()?;
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => DeviceKind::Block,
            kind if kind.is_file() => DeviceKind::File,
            _ => return Ok(None),
        };
        let mut facts = Facts {
            kind,
            device_number: 0,
            size: metadata.len(),
            logical_sector: None,
            physical_sector: None,
            dma_alignment: None,
            dio: dio_alignment(file)?,
            preferred_block: metadata.blksize(),
            file_system: None,
            data_checksums: false,
            write_protected: false,
        };
        match kind {
            DeviceKind::Block => {
                facts.device_number = metadata.rdev();
                facts.ask_block_device(file)?;
            }
            _ => {
                let file_system = fstatfs(file)?.filesystem_type();
                facts.file_system = Some(file_system);
                facts.data_checksums = file_system == statfs::BTRFS_SUPER_MAGIC && !is_nocow(file);
            }
        }
        Ok(Some(facts))
    }

    fn ask_block_device(&mut self, file: &File) -> io::Result<()> {
        let fd = file.as_raw_fd();
        let (mut logical, mut physical, mut size, mut read_only) = (0, 0, 0, 0);
        // SAFETY: BLKSSZGET writes one int to the address given, which is one.
        unsafe { ioctl::logical_sector(fd, &raw mut logical) }?;
        // SAFETY: BLKPBSZGET writes one unsigned int to the address given, which is one.
        unsafe { ioctl::physical_sector(fd, &raw mut physical) }?;
        // SAFETY: BLKGETSIZE64 writes one 64-bit integer to the address given, which is one.
        unsafe { ioctl::size_in_bytes(fd, &raw mut size) }?;
        // SAFETY: BLKROGET writes one int to the address given, which is one.
        unsafe { ioctl::read_only(fd, &raw mut read_only) }?;
        self.logical_sector = u32::try_from(logical).ok();
        self.physical_sector = Some(physical);
        self.size = size;
        self.write_protected = read_only != 0;
        self.dma_alignment = dma_alignment(self.device_number);
        Ok(())
    }

    /// Offsets and lengths must be multiples of this much, as far as the kernel tells. For a block
    /// device at least its physical sector: a torn write inside one may damage all of it.
    pub(super) fn offset_alignment(&self) -> Option<u32> {
        let dio = match self.dio {
            DioAlignment::Known { offset, .. } => Some(offset),
            _ => None,
        };
        [dio, self.logical_sector, self.physical_sector].into_iter().flatten().max()
    }

    /// Buffer addresses must be multiples of this much, as far as the kernel tells.
    pub(super) fn memory_alignment(&self) -> Option<u32> {
        match self.dio {
            DioAlignment::Known { memory, .. } => Some(memory),
            _ => self.dma_alignment,
        }
    }

    /// The file system's usual name, for image files.
    pub(super) fn file_system_name(&self) -> Option<String> {
        Some(match self.file_system? {
            statfs::EXT4_SUPER_MAGIC => "ext2/ext3/ext4".to_owned(),
            statfs::XFS_SUPER_MAGIC => "xfs".to_owned(),
            statfs::BTRFS_SUPER_MAGIC => "btrfs".to_owned(),
            statfs::TMPFS_MAGIC => "tmpfs".to_owned(),
            statfs::OVERLAYFS_SUPER_MAGIC => "overlayfs".to_owned(),
            statfs::NFS_SUPER_MAGIC => "nfs".to_owned(),
            FsType(magic) => format!("magic {magic:#x}"),
        })
    }

    /// Whether the file lives in memory. Such file systems accept `O_DIRECT` since Linux 6.6 but
    /// have nothing to bypass.
    pub(super) fn in_memory(&self) -> bool {
        /// `RAMFS_MAGIC` of `linux/magic.h`.
        const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
        self.file_system.is_some_and(|kind| kind == statfs::TMPFS_MAGIC || kind == RAMFS_MAGIC)
    }
}

/// The device's directory in sysfs.
pub(super) fn sysfs_directory(device_number: u64) -> PathBuf {
    let (major, minor) = (libc::major(device_number), libc::minor(device_number));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// From `queue/dma_alignment`, which holds a mask: 511 means multiples of 512.
fn dma_alignment(device_number: u64) -> Option<u32> {
    let directory = sysfs_directory(device_number);
    // A partition has no queue; its disk, one directory up, has.
    let text = fs::read_to_string(directory.join("queue/dma_alignment"))
        .or_else(|_| fs::read_to_string(directory.join("../queue/dma_alignment")));
    let alignment = text.ok()?.trim().parse::<u32>().ok()?.checked_add(1)?;
    alignment.is_power_of_two().then_some(alignment)
}

fn dio_alignment(file: &File) -> io::Result<DioAlignment> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a terminated empty string, and `answer` has room for one `statx`.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        // Before Linux 4.11 there is no statx.
        let absent = error.raw_os_error() == Some(libc::ENOSYS);
        return if absent { Ok(DioAlignment::Unknown) } else { Err(error) };
    }
    // SAFETY: it was zeroed, and a `statx` is plain integers.
    let answer = unsafe { answer.assume_init() };
    let (memory, offset) = (answer.stx_dio_mem_align, answer.stx_dio_offset_align);
    Ok(if answer.stx_mask & libc::STATX_DIOALIGN == 0 {
        DioAlignment::Unknown
    } else if memory == 0 || offset == 0 {
        DioAlignment::Unsupported
    } else {
        DioAlignment::Known { memory, offset }
    })
}

fn is_nocow(file: &File) -> bool {
    let mut flags = 0;
    // SAFETY: FS_IOC_GETFLAGS writes at most one long to the address given, which is one.
    let result = unsafe { ioctl::inode_flags(file.as_raw_fd(), &raw mut flags) };
    result.is_ok() && flags & FS_NOCOW_FL != 0
}
