//! Caches by the path of their device. Owns making one; how a device is opened and laid out, the layers
//! below say.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::{Cache, CacheOptions};
use crate::clock::Clock;
use crate::device::{self, Device, DeviceError, create_image};
use crate::store::{self, FormatError, FormatOptions, Store};

/// Bytes at both ends of a block device that say whether it holds anything.
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
    /// It holds something already, or is a file that was to be made without a size.
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
    /// The device cannot be divided as asked, or failed meanwhile.
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
    /// Makes a new, empty cache at `path` and opens it: in a new image file of `size` bytes that only its
    /// owner can read, or on all of a block device that begins and ends with zeros, for which no size is
    /// given. A file that was begun is removed where this fails or is given up.
    ///
    /// # Errors
    /// Something is at the path that could be wanted still, even another cache; see [`CacheError`].
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

    /// Opens the cache at `path`, a block device or an image file. What it holds is found when
    /// [`Cache::ready`] returns; until then only what is stored since.
    ///
    /// # Errors
    /// It is in use, absent, or holds no cache that can be opened; see [`CacheError`].
    pub async fn open(path: impl AsRef<Path>, options: CacheOptions) -> Result<Cache, CacheError> {
        let device = open_device(path.as_ref()).await?;
        Ok(Cache::open_device(device, options, Clock::system()).await?)
    }
}

/// An image file that is no cache yet. Dropped, it goes.
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

/// Refuses what is no block device, and one that holds anything as far as that can be seen.
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

/// Off the runtime's threads: a device that is held is tried for some seconds.
async fn open_device(path: &Path) -> Result<Device, CacheError> {
    let options = device::OpenOptions::new(path);
    off_runtime(move || Ok(Device::open(&options)?)).await
}

/// Does what may take long where it holds nobody up.
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
