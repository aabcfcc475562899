//! Block devices and file systems of our own: loop devices, mounted images. Each is taken down when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rawcached::device::{AlignedBuf, Device, OpenError, OpenOptions};
use tempfile::{NamedTempFile, TempDir};

use super::machine::{Missing, command};

fn sparse_file(size: u64) -> Result<NamedTempFile, Missing> {
    let create = || -> io::Result<NamedTempFile> {
        let file = NamedTempFile::with_prefix("rawcached-test-")?;
        file.as_file().set_len(size)?;
        Ok(file)
    };
    create().map_err(|error| Missing(format!("a temporary file of {size} bytes: {error}")))
}

/// A block device of our own, backed by a temporary file.
pub struct LoopDevice {
    path: PathBuf,
    backing: Backing,
    detached: bool,
}

/// The file behind a loop device.
enum Backing {
    Own(NamedTempFile),
    Given(PathBuf),
}

impl LoopDevice {
    /// A zeroed device of `size` bytes with sectors of `sector_size` bytes.
    pub fn create(size: u64, sector_size: u32) -> Result<LoopDevice, Missing> {
        LoopDevice::attach(size, sector_size, &[])
    }

    /// A device that refuses writes.
    pub fn create_read_only(size: u64, sector_size: u32) -> Result<LoopDevice, Missing> {
        LoopDevice::attach(size, sector_size, &[&"--read-only"])
    }

    fn attach(
        size: u64,
        sector_size: u32,
        more: &[&dyn AsRef<OsStr>],
    ) -> Result<LoopDevice, Missing> {
        LoopDevice::attach_to(Backing::Own(sparse_file(size)?), sector_size, more)
    }

    /// A device on a file that the caller owns.
    pub fn of_file(path: &Path, sector_size: u32) -> Result<LoopDevice, Missing> {
        LoopDevice::attach_to(Backing::Given(path.to_owned()), sector_size, &[])
    }

    fn attach_to(
        backing: Backing,
        sector_size: u32,
        more: &[&dyn AsRef<OsStr>],
    ) -> Result<LoopDevice, Missing> {
        let sector_size = sector_size.to_string();
        let mut arguments: Vec<&dyn AsRef<OsStr>> =
            vec![&"--direct-io=on", &"--sector-size", &sector_size, &"--find", &"--show"];
        arguments.extend(more);
        let path = backing.path().to_owned();
        arguments.push(&path);
        let path = command("losetup", &arguments)?.into();
        Ok(LoopDevice { path, backing, detached: false })
    }

    /// Detaches it, once its last user has closed it.
    pub fn detach(&mut self) {
        command("losetup", &[&"--detach", &self.path]).unwrap();
        self.detached = true;
    }

    /// Makes the device as long as its file is now.
    pub fn take_length_of_file(&self) {
        command("losetup", &[&"--set-capacity", &self.path]).unwrap();
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it.
    pub fn backing(&self) -> &Path {
        self.backing.path()
    }
}

impl Backing {
    fn path(&self) -> &Path {
        match self {
            Backing::Own(file) => file.path(),
            Backing::Given(path) => path,
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if let Err(error) = command("losetup", &[&"--detach", &self.path]) {
            eprintln!("a loop device is left behind: {error:?}");
        }
    }
}

/// A file system of our own, mounted in a temporary directory.
pub struct MountedImage {
    directory: TempDir,
    device: Option<LoopDevice>,
}

impl MountedImage {
    /// `file_system` is `tmpfs`, or anything with a `mkfs` program: `ext4`, `xfs`, `btrfs`. Give
    /// XFS 300 MiB and btrfs 128 MiB at least; the file behind is sparse.
    pub fn create(file_system: &str, size: u64) -> Result<MountedImage, Missing> {
        let directory = TempDir::with_prefix("rawcached-test-")
            .map_err(|error| Missing(format!("a temporary directory: {error}")))?;
        if file_system == "tmpfs" {
            let options = format!("size={size}");
            let target = directory.path();
            command("mount", &[&"-t", &"tmpfs", &"-o", &options, &"tmpfs", &target])?;
            return Ok(MountedImage { directory, device: None });
        }
        let device = LoopDevice::create(size, 512)?;
        command(&format!("mkfs.{file_system}"), &[&"-q", &device.path()])?;
        command("mount", &[&device.path(), &directory.path()])?;
        Ok(MountedImage { directory, device: Some(device) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The block device it is on; none for tmpfs.
    pub fn device(&self) -> Option<&LoopDevice> {
        self.device.as_ref()
    }

    /// Creates a sparse file of `size` bytes in it.
    pub fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path().join(name);
        File::create(&path).and_then(|file| file.set_len(size)).unwrap();
        path
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        if let Err(error) = command("umount", &[&self.directory.path()]) {
            eprintln!("a file system is left mounted: {error:?}");
        }
    }
}

/// Opens a device whose last handle was just dropped. That may take a moment: a program that
/// another test starts holds copies of this process's files between fork and exec.
pub fn reopen(path: &Path) -> Device {
    for _ in 0..100 {
        match Device::open(&OpenOptions::new(path)) {
            Err(OpenError::Busy { .. }) => std::thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays busy", path.display())
}

/// A buffer of `len` times `byte`, aligned for `device`.
pub fn filled(device: &Device, len: usize, byte: u8) -> Arc<AlignedBuf> {
    let mut buf = device.geometry().zeroed_buffer(len);
    buf.fill(byte);
    Arc::new(buf)
}

/// Whether this process has `path` open with `O_DIRECT`.
pub fn is_open_direct(path: &Path) -> bool {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let names = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path));
    names.map(|entry| entry.file_name().into_string().unwrap()).any(|name| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_DIRECT != 0
    })
}
