//! Making and opening a cache by the path of its device. Owns the making; the layers below open and
//! format the device.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::{Cache, CacheOptions};
use crate::clock::Clock;
use crate::device::{self, Device, DeviceError, create_image};
use crate::store::{self, FormatError, FormatOptions, Store};

/// Bytes at each end of a block device that must be zero for a cache to be made on it.
const LOOK_LEN: u64 = 1 << 20;

/// Why a cache could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The image file could not be made.
    #[error("cannot make {path}", path = path.display())]
    Image {
        /// Where it was to be.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The path holds something already, or is a file and no size was given for a new one.
    #[error("{path} is left as it is: {why}", path = path.display())]
    Refused {
        /// The device or file.
        path: PathBuf,
        /// What keeps it from becoming a cache.
        why: String,
    },
    /// The device cannot be opened, or is in use.
    #[error(transparent)]
    Device(#[from] device::OpenError),
    /// The device cannot be formatted as asked, or failed meanwhile.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The device holds no cache that can be opened.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// The device failed.
    #[error(transparent)]
    Failed(#[from] DeviceError),
    /// The runtime ends.
    #[error("the runtime ends")]
    NoRuntime,
}

impl Cache {
    /// Makes a new, empty cache at `path` and opens it. With `size` it makes an image file of that many
    /// bytes that only its owner can read; without, it takes all of a block device that begins and ends
    /// with zeros. An unfinished file is removed if this fails or is dropped.
    ///
    /// # Errors
    /// The path may hold data, even another cache; see [`CacheError`].
    pub async fn create(
        path: impl AsRef<Path>,
        size: Option<u64>,
        options: CacheOptions,
    ) -> Result<Cache, CacheError> {
        options.range.check().map_err(store::OpenError::from)?;
        let path = path.as_ref();
        let unfinished = match size {
            Some(size) => Some(Unfinished::create(path, size).await?),
            None => None,
        };
        let device = open_device(path).await?;
        if unfinished.is_none() {
            check_nothing_is_lost(path, &device).await?;
        }
        let clock = Clock::system();
        Store::format(&device, &FormatOptions::default(), &clock).await?;
        let cache = Cache::open_device(device, options, clock).await?;
        if let Some(unfinished) = unfinished {
            unfinished.finish();
        }
        Ok(cache)
    }

    /// Opens the cache at `path`, a block device or an image file. Until [`Cache::ready`] returns,
    /// lookups find only what was stored since.
    ///
    /// # Errors
    /// It is in use, absent, or holds no cache that can be opened; see [`CacheError`].
    pub async fn open(path: impl AsRef<Path>, options: CacheOptions) -> Result<Cache, CacheError> {
        let device = open_device(path.as_ref()).await?;
        Ok(Cache::open_device(device, options, Clock::system()).await?)
    }
}

/// An image file that is no cache yet; removed when dropped.
struct Unfinished(PathBuf);

impl Unfinished {
    async fn create(path: &Path, size: u64) -> Result<Unfinished, CacheError> {
        let path = path.to_owned();
        off_runtime(move || match create_image(&path, size) {
            Ok(()) => Ok(Unfinished(path)),
            Err(source) => Err(CacheError::Image { path, source }),
        })
        .await
    }

    fn finish(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "an unfinished image is left behind");
        }
    }
}

/// Refuses files, and block devices with a known signature or data at either end.
async fn check_nothing_is_lost(path: &Path, device: &Device) -> Result<(), CacheError> {
    let refused = |why: String| Err(CacheError::Refused { path: path.to_owned(), why });
    let is_block_device =
        std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    if !is_block_device {
        return refused("it is a file, and no size was given for a new one".to_owned());
    }
    if let Some(found) = device.foreign_signature().await? {
        return refused(format!("it holds {found}"));
    }
    let size = device.geometry().size;
    let len = LOOK_LEN.min(size);
    for range in [0..len, size - len..size] {
        if device.read_exact(range).await?.iter().any(|byte| *byte != 0) {
            return refused("it holds data; zeros at its beginning and end allow it".to_owned());
        }
    }
    Ok(())
}

/// Off the runtime's threads: while the device is held, opening retries for some seconds.
async fn open_device(path: &Path) -> Result<Device, CacheError> {
    let options = device::OpenOptions::new(path);
    off_runtime(move || Ok(Device::open(&options)?)).await
}

/// Runs blocking work on a thread for such work.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CacheError::NoRuntime),
        },
    }
}
