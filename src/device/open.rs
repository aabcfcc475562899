//! Opening a block device or image file for the daemon's sole use. Owns exclusivity and the
//! choice between direct and buffered I/O; never writes.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::adaptive::Adaptive;
use super::direct::{self, Verdict};
use super::engine::Engine;
use super::facts::Facts;
use super::files::Files;
use super::holder::{self, Holders};
use super::pool::ThreadPool;
use super::uring::Uring;
use super::{
    ALIGNMENT_MAX, ALIGNMENT_MIN, AdaptiveOptions, Device, DeviceInfo, DeviceKind, Geometry,
    OpenError, loop_file, page_cache,
};
use crate::clock::Stopwatch;
use crate::device::file_holder;

/// Threads of the thread-pool engine unless told otherwise.
pub const THREADS_DEFAULT: usize = 16;
/// Most threads the thread-pool engine starts, whatever it is told.
pub const THREADS_MAX: usize = 256;

/// How long a read for a client may last unless told otherwise.
pub const READ_DEADLINE_DEFAULT: Duration = Duration::from_secs(1);

/// Pause between two attempts to open a device that is held.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// Whether transfers bypass the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IoMode {
    /// Direct where it works, else buffered with a warning.
    #[default]
    Auto,
    /// Direct, or the device does not open.
    Direct,
    /// Through the page cache.
    Buffered,
    /// As `Auto`; but where direct I/O works, lookups read through the page cache while that is
    /// measured to be faster. Needs Linux 6.5, else all reads are direct, with a warning.
    Adaptive,
}

/// What moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineKind {
    /// io_uring where it works, else threads.
    #[default]
    Auto,
    /// io_uring, or the device does not open. Needs Linux 6.1.
    #[serde(rename = "io_uring")]
    IoUring,
    /// Positioned vectored I/O on a thread pool.
    Threads,
}

/// How to open a device. Made for a path, then changed field by field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// A block device or a regular file.
    pub path: PathBuf,
    /// Direct or buffered.
    pub io: IoMode,
    /// What moves the bytes.
    pub engine: EngineKind,
    /// Use only this many bytes; `None` uses all.
    pub size: Option<u64>,
    /// Transfer in multiples of this many bytes; `None` takes what the kernel asks for. Cannot go
    /// below what direct I/O needs.
    pub alignment: Option<u32>,
    /// Refuse writes, and accept a device that does.
    pub read_only: bool,
    /// Threads of the thread-pool engine, 2 to [`THREADS_MAX`]; half of them at most write.
    pub threads: usize,
    /// How long a read for a client may last before it is an error.
    pub read_deadline: Duration,
    pub(crate) adaptive: AdaptiveOptions,
}

impl OpenOptions {
    /// Defaults for `path`: all of it, for reading and writing, direct where that works.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> OpenOptions {
        OpenOptions {
            path: path.into(),
            io: IoMode::default(),
            engine: EngineKind::default(),
            size: None,
            alignment: None,
            read_only: false,
            threads: THREADS_DEFAULT,
            read_deadline: READ_DEADLINE_DEFAULT,
            adaptive: AdaptiveOptions::default(),
        }
    }

    /// The same options with other rules for [`IoMode::Adaptive`]: for tests, which cannot wait.
    #[doc(hidden)]
    #[must_use]
    pub fn with_adaptive(self, adaptive: AdaptiveOptions) -> OpenOptions {
        OpenOptions { adaptive, ..self }
    }
}

/// How transfers will be made.
struct Access {
    direct: bool,
    /// Why direct I/O is off although it was wanted.
    fallback: Option<String>,
    /// Least alignment that works.
    required: u32,
    /// Alignment to use unless told otherwise.
    preferred: u32,
    memory_alignment: u32,
}

impl Device {
    /// Opens a device for sole use. Makes a few system calls, one of them a read; writes nothing.
    ///
    /// Retries while the device is held: for one second if processes have it open, which may only look
    /// at it; for ten if no holder can be named, or only the remains of an ended process hold it.
    ///
    /// # Errors
    /// It is absent, held by someone else, read-only, too small, failing, or cannot do what was
    /// asked; see [`OpenError`].
    pub fn open(options: &OpenOptions) -> Result<Device, OpenError> {
        let waiting = Stopwatch::start();
        loop {
            match Device::try_open(options) {
                Err(OpenError::Busy { go_within, .. }) if waiting.elapsed() < go_within => {
                    thread::sleep(HELD_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    fn try_open(options: &OpenOptions) -> Result<Device, OpenError> {
        let path = &options.path;
        let (file, refused) = open_file(options)?;
        let facts = Facts::ask(&file)
            .map_err(|source| OpenError::io(path, source))?
            .ok_or_else(|| OpenError::NotADevice { path: path.clone() })?;
        claim(&file, &facts, options)?;
        let access = choose(&file, &facts, options, refused)?;
        let geometry = geometry(&facts, &access, options)?;
        let writes_buffered = access.direct && facts.data_checksums;
        report(path, &access, writes_buffered);
        let (files, adaptive_fallback) = with_cached(file, &access, options);
        let adaptive = files.cached.is_some().then(|| Adaptive::new(options.adaptive));
        let (engine, engine_fallback) = start_engine(files, options)?;
        let info = DeviceInfo {
            path: path.clone(),
            kind: facts.kind,
            engine: engine.name(),
            engine_fallback,
            direct: access.direct,
            fallback: access.fallback,
            adaptive: adaptive.is_some(),
            adaptive_fallback,
            direct_writes_buffered: writes_buffered,
            read_only: options.read_only,
            size: geometry.size,
            alignment: geometry.alignment,
            memory_alignment: geometry.memory_alignment,
        };
        Ok(Device::new(engine, geometry, info, (adaptive, Some(options.read_deadline))))
    }
}

/// Opens the file; tells why `O_DIRECT` was refused, if it was wanted.
fn open_file(options: &OpenOptions) -> Result<(File, Option<String>), OpenError> {
    let path = &options.path;
    let metadata = fs::metadata(path).map_err(|source| OpenError::io(path, source))?;
    let exclusive = if metadata.file_type().is_block_device() {
        libc::O_EXCL
    } else if metadata.is_file() {
        0
    } else {
        return Err(OpenError::NotADevice { path: path.clone() });
    };
    let open = |flags| {
        fs::OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(flags | libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| OpenError::refused(path, &metadata, source))
    };
    if options.io == IoMode::Buffered {
        return Ok((open(exclusive)?, None));
    }
    match open(exclusive | libc::O_DIRECT) {
        Ok(file) => Ok((file, None)),
        // open(2): the file system does not support O_DIRECT.
        Err(OpenError::Io { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            Ok((open(exclusive)?, Some("the file system refuses O_DIRECT".to_owned())))
        }
        Err(error) => Err(error),
    }
}

/// Makes sure that nobody else uses the device, as far as that can be known.
fn claim(file: &File, facts: &Facts, options: &OpenOptions) -> Result<(), OpenError> {
    let path = &options.path;
    if facts.write_protected && !options.read_only {
        return Err(OpenError::ReadOnly { path: path.clone() });
    }
    if facts.kind == DeviceKind::Block {
        // O_EXCL excludes all but those who reach the same bytes through another device.
        let rivals = loop_file::rivals_of(facts.device_number);
        return rivals.map_or(Ok(()), |rivals| Err(OpenError::busy(path, rivals)));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let processes = holder::processes_with(path, Some(file));
            return Err(OpenError::busy(path, Holders::processes(processes)));
        }
        Err(fs::TryLockError::Error(source)) => return Err(OpenError::io(path, source)),
    }
    let holders = file_holder::of_file(path);
    if holders.names.is_empty() { Ok(()) } else { Err(OpenError::busy(path, holders)) }
}

fn choose(
    file: &File,
    facts: &Facts,
    options: &OpenOptions,
    refused: Option<String>,
) -> Result<Access, OpenError> {
    let path = &options.path;
    if options.io == IoMode::Buffered {
        return Ok(buffered(facts, None));
    }
    let verdict = match refused {
        Some(reason) => Verdict::Unavailable(reason),
        None => direct::judge(file, facts).map_err(|source| OpenError::io(path, source))?,
    };
    match verdict {
        Verdict::Works { alignment, memory_alignment } => Ok(Access {
            direct: true,
            fallback: None,
            required: alignment,
            preferred: alignment,
            memory_alignment,
        }),
        Verdict::Unavailable(reason) if options.io == IoMode::Direct => {
            Err(OpenError::DirectUnavailable { path: path.clone(), reason })
        }
        Verdict::Unavailable(reason) => {
            clear_direct(file).map_err(|source| OpenError::io(path, source))?;
            Ok(buffered(facts, Some(reason)))
        }
    }
}

/// Buffered transfers may have any length; the device's own block size saves it work.
fn buffered(facts: &Facts, fallback: Option<String>) -> Access {
    let asked = facts.offset_alignment().map_or(facts.preferred_block, u64::from);
    let asked = u32::try_from(asked).unwrap_or(ALIGNMENT_MAX).clamp(ALIGNMENT_MIN, ALIGNMENT_MAX);
    let preferred = if asked.is_power_of_two() { asked } else { ALIGNMENT_MAX };
    Access { direct: false, fallback, required: ALIGNMENT_MIN, preferred, memory_alignment: 1 }
}

/// Adds a description for reads through the page cache, if that is wanted; tells why it cannot be
/// had. Without direct I/O all reads are buffered anyway.
fn with_cached(main: File, access: &Access, options: &OpenOptions) -> (Files, Option<String>) {
    if options.io != IoMode::Adaptive || !access.direct {
        return (Files::only(main), None);
    }
    match page_cache::open(&options.path, &main) {
        Ok(cached) => {
            let path = options.path.display();
            tracing::info!(%path, "adaptive: lookups go through the page cache while it is faster");
            (Files { main, cached: Some(cached) }, None)
        }
        Err(reason) => {
            let path = options.path.display();
            tracing::warn!(%path, reason, "adaptive reads are off: all are direct");
            (Files::only(main), Some(reason))
        }
    }
}

/// Starts the engine asked for; tells why it is not the best one, if that was wanted.
fn start_engine(
    files: Files,
    options: &OpenOptions,
) -> Result<(Box<dyn Engine>, Option<String>), OpenError> {
    let path = &options.path;
    let files = Arc::new(files);
    let threads = options.threads.clamp(2, THREADS_MAX);
    let mut fallback = None;
    if options.engine != EngineKind::Threads {
        match Uring::start(Arc::clone(&files), threads) {
            Ok(engine) => return Ok((Box::new(engine), None)),
            Err(source) if options.engine == EngineKind::IoUring => {
                return Err(OpenError::IoUringUnavailable { path: path.clone(), source });
            }
            Err(source) => {
                let path = path.display();
                tracing::warn!(%path, %source, "io_uring does not work here: using threads");
                fallback = Some(source.to_string());
            }
        }
    }
    let pool = ThreadPool::start(files, threads).map_err(|source| OpenError::io(path, source))?;
    Ok((Box::new(pool), fallback))
}

/// Turns `O_DIRECT` off on the open file, which keeps the claim on it.
fn clear_direct(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
    Ok(())
}

fn geometry(facts: &Facts, access: &Access, options: &OpenOptions) -> Result<Geometry, OpenError> {
    let path = &options.path;
    let alignment = options.alignment.unwrap_or(access.preferred);
    let possible = access.required..=ALIGNMENT_MAX;
    if !alignment.is_power_of_two() || !possible.contains(&alignment) {
        let required = access.required;
        return Err(OpenError::Alignment { path: path.clone(), alignment, required });
    }
    let size = options.size.unwrap_or(facts.size);
    let needed = size.max(u64::from(alignment));
    if facts.size < needed {
        return Err(OpenError::TooSmall { path: path.clone(), size: facts.size, needed });
    }
    Ok(Geometry::new(size, alignment, access.memory_alignment))
}

fn report(path: &Path, access: &Access, writes_buffered: bool) {
    let path = path.display();
    if let Some(reason) = &access.fallback {
        tracing::warn!(%path, reason, "direct I/O does not work here: using the page cache");
    } else if writes_buffered {
        tracing::warn!(
            %path,
            "btrfs buffers direct writes to checksummed files: set the file NOCOW (chattr +C) \
             before its first write to avoid that"
        );
    }
}
