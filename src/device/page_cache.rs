//! The page cache of one device: a second, buffered file description for reads, and what is cached.
//! Owns the proof that nothing old is in there at the start; never writes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::ALIGNMENT_MIN;

/// Longest normal page of the kernel; parts of a page are not dropped.
const PAGE_LEN_MAX: u64 = 64 << 10;

/// Longest huge page of the page cache, on any architecture with normal pages of at most 64 KiB.
const HUGE_LEN: u64 = 512 << 20;

/// Pause while others read the device, and how many at most.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSES_MAX: u32 = 20;

/// The system call's number, the same on all architectures; libc does not know it everywhere.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of `linux/mman.h`; a length of 0 is up to the end.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Opens the device behind `main` once more, for buffered reads, with none of it in the page cache:
/// pages cached earlier may lack what direct writes left on the device. Nobody may have written
/// through `main` yet.
///
/// # Errors
/// Why reads through the page cache are not to be trusted here.
pub(super) fn open(path: &Path, main: &File) -> Result<File, String> {
    let failed = |error: io::Error| format!("the device does not open for buffered reads: {error}");
    // No O_EXCL: the claim is on `main`, and a second one would be refused.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .map_err(failed)?;
    if !is_same(&file, main).map_err(failed)? {
        return Err("the path leads to another device by now".to_owned());
    }
    // No read-ahead: slots are read whole, and what is after them is perhaps being written.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)
        .map_err(|error| failed(error.into()))?;
    empty(&file)?;
    Ok(file)
}

/// Drops what the page cache has of the pages around a range, if it can.
pub(super) fn forget(file: &File, offset: u64, len: usize) {
    let start = offset / PAGE_LEN_MAX * PAGE_LEN_MAX;
    let end = (offset + len as u64).next_multiple_of(PAGE_LEN_MAX);
    let (Ok(offset), Ok(len)) = (start.try_into(), (end - start).try_into()) else { return };
    drop_pages(file, offset, len);
}

/// Drops pages that lie wholly within a range; a length of 0 is up to the end.
fn drop_pages(file: &File, offset: libc::off_t, len: libc::off_t) {
    if let Err(error) = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!(%error, "pages stay in the page cache");
    }
}

fn is_same(file: &File, main: &File) -> io::Result<bool> {
    let (file, main) = (file.metadata()?, main.metadata()?);
    let identity = |it: &fs::Metadata| (it.dev(), it.ino(), it.rdev());
    Ok(identity(&file) == identity(&main))
}

/// Empties the page cache of a device and verifies that it is empty.
fn empty(file: &File) -> Result<(), String> {
    let unseen = |error| format!("the kernel does not tell what is cached (Linux 6.5): {error}");
    // Some file systems cache elsewhere; then a count of zero would mean nothing.
    let mut bytes = [0; ALIGNMENT_MIN as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| format!("a buffered read failed: {error}"))?;
    if cached_pages(file).map_err(unseen)? == 0 {
        return Err("the device is not read through the page cache".to_owned());
    }
    for _ in 0..PAUSES_MAX {
        drop_pages(file, 0, 0);
        if cached_pages(file).map_err(unseen)? == 0 {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Err("pages of the device stay in the page cache: another process reads or maps it".to_owned())
}

/// Drops a range from the page cache, with all that may share a huge page with it. False if something of
/// the range is cached still: others may have read or mapped it. The rest of the device stays cached: a
/// daemon may be using it.
///
/// # Errors
/// The kernel does not tell what is cached.
pub(super) fn is_emptied(file: &File, range: &Range<u64>) -> io::Result<bool> {
    let start = range.start / HUGE_LEN * HUGE_LEN;
    let len = range.end.next_multiple_of(HUGE_LEN) - start;
    let offset = libc::off_t::try_from(start).map_err(io::Error::other)?;
    drop_pages(file, offset, libc::off_t::try_from(len).map_err(io::Error::other)?);
    Ok(!is_cached(file, range)?)
}

/// Whether any page of a range is in the page cache.
///
/// # Errors
/// The kernel does not tell what is cached.
pub(super) fn is_cached(file: &File, range: &Range<u64>) -> io::Result<bool> {
    match pages_of(file, range.start, range.end - range.start) {
        Ok(pages) => Ok(pages > 0),
        // Before Linux 6.5, or forbidden.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            is_in_core(file, range)
        }
        Err(error) => Err(error),
    }
}

/// As [`is_cached`], by mincore(2), which always says yes for a file that the process may not write.
fn is_in_core(file: &File, range: &Range<u64>) -> io::Result<bool> {
    let start = range.start / PAGE_LEN_MAX * PAGE_LEN_MAX;
    let offset = libc::off_t::try_from(start).map_err(io::Error::other)?;
    let len = usize::try_from(range.end - start).map_err(io::Error::other)?;
    let (descriptor, flags) = (file.as_raw_fd(), libc::MAP_SHARED);
    // SAFETY: a fresh mapping that nothing looks at.
    let mapped = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, descriptor, offset)
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // One byte a page, and pages have 4 KiB at least.
    let mut pages = vec![0; len.div_ceil(4096)];
    // SAFETY: the mapping has `len` bytes, and the vector a byte for each of its pages.
    let result = unsafe { libc::mincore(mapped, len, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above.
    unsafe { libc::munmap(mapped, len) };
    if result == 0 { Ok(pages.iter().any(|page| page & 1 == 1)) } else { Err(error) }
}

/// Pages of the whole file in the page cache, those being read included.
fn cached_pages(file: &File) -> io::Result<u64> {
    pages_of(file, 0, 0)
}

/// Pages of a range in the page cache, those being read included; a length of 0 is up to the end.
fn pages_of(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, len };
    let mut found = Cachestat::default();
    // SAFETY: both structures have the kernel's layout and outlive the call.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0)
    };
    if result == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::device::{AdaptiveOptions, Device, EngineKind, IoMode, OpenOptions, Way};

    const LEN: usize = 1 << 20;

    /// A file of which all is in the page cache; not where temporary files are in memory.
    fn cached_file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.write_all(&vec![7; LEN]).unwrap();
        file.as_file().sync_all().unwrap();
        assert!(cached_pages(file.as_file()).unwrap() > 0);
        file
    }

    #[test]
    fn nothing_is_cached_once_it_is_open() {
        let file = cached_file();
        let cached = open(file.path(), file.as_file()).unwrap();
        assert_eq!(cached_pages(&cached).unwrap(), 0);
        let mut bytes = [0; 4096];
        cached.read_exact_at(&mut bytes, 8192).unwrap();
        assert_eq!((cached_pages(&cached).unwrap(), bytes), (1, [7; 4096]), "and nothing ahead");
        forget(&cached, 8704, 512);
        assert_eq!(cached_pages(&cached).unwrap(), 0);
    }

    #[test]
    fn pages_that_cannot_be_dropped_forbid_it() {
        let file = cached_file();
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let descriptor = file.as_file().as_raw_fd();
        // SAFETY: a fresh mapping that nothing looks at.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_READ, flags, descriptor, 0) };
        assert_ne!(mapped, libc::MAP_FAILED);
        let refused = open(file.path(), file.as_file()).unwrap_err();
        assert!(refused.contains("stay in the page cache"), "{refused}");
        // SAFETY: the mapping made above.
        unsafe { libc::munmap(mapped, LEN) };
        open(file.path(), file.as_file()).unwrap();
    }

    #[test]
    fn both_engines_read_through_it_and_drop_what_is_doubted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for engine in [EngineKind::IoUring, EngineKind::Threads] {
            let file = cached_file();
            let adaptive = AdaptiveOptions {
                first: Way::PageCache,
                sample_one_in: u32::MAX,
                ..AdaptiveOptions::default()
            };
            let options = OpenOptions {
                io: IoMode::Adaptive,
                engine,
                adaptive,
                ..OpenOptions::new(file.path())
            };
            let device = Device::open(&options).unwrap();
            let pages = || cached_pages(file.as_file()).unwrap();
            let buf = || device.geometry().read_buffer(65536);
            runtime.block_on(device.read(131_072, buf())).unwrap();
            assert_eq!(pages(), 0, "{engine:?}: not of an old reader, nor of a direct one");
            let read = runtime.block_on(device.read_adaptive(131_072, buf())).unwrap();
            assert!(read.iter().all(|byte| *byte == 7));
            assert!(pages() > 0, "{engine:?}");
            device.distrust(131_072, 65536);
            assert_eq!(pages(), 0, "{engine:?}");
            assert_eq!((device.stats().cached_reads, device.stats().distrusted), (1, 1));
        }
    }

    #[test]
    fn both_ways_to_ask_see_the_same_pages() {
        let file = cached_file();
        let file = file.as_file();
        let (all, part) = (0..LEN as u64, 131_072..196_608);
        for range in [&all, &part] {
            assert!(is_cached(file, range).unwrap() && is_in_core(file, range).unwrap());
        }
        assert!(is_emptied(file, &part).unwrap());
        for range in [&all, &part] {
            assert!(!is_cached(file, range).unwrap() && !is_in_core(file, range).unwrap());
        }
    }

    #[test]
    fn another_file_at_the_path_is_not_the_device() {
        let (file, other) = (cached_file(), cached_file());
        let refused = open(other.path(), file.as_file()).unwrap_err();
        assert!(refused.contains("another device"), "{refused}");
    }
}
