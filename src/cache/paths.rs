//! Caches by the path of their device. Owns making one; how a device is opened and laid out, the layers
//! below say.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cache, CacheOptions};
use crate::clock::Clock;
use crate::device::{self, Device, DeviceError, create_image};
use crate::store::{self, FormatError, FormatOptions, Store, read_superblocks};

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
    /// A device holds something already, or a size is missing or given where none can be.
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
}

impl Cache {
    /// Makes a new, empty cache at `path` and opens it: in a new image file of `size` bytes, or on all of
    /// a block device that holds nothing, for which no size is given.
    ///
    /// # Errors
    /// Something is at the path that could be wanted still, even another cache; see [`CacheError`].
    pub async fn create(
        path: impl AsRef<Path>,
        size: Option<u64>,
        options: CacheOptions,
    ) -> Result<Cache, CacheError> {
        let path = path.as_ref();
        if let Some(size) = size {
            let failed = |source| CacheError::Image { path: path.to_owned(), source };
            create_image(path, size).map_err(failed)?;
        }
        let clock = Clock::system();
        let device = open_device(path).await?;
        let refused = |why| CacheError::Refused { path: path.to_owned(), why };
        if let Some(found) = device.foreign_signature().await? {
            return Err(refused(format!("it holds {found}")));
        }
        match read_superblocks(&device).await {
            Err(store::OpenError::NotFormatted(_)) => {}
            Ok(_) => return Err(refused("it holds a cache already".to_owned())),
            Err(error) => return Err(error.into()),
        }
        Store::format(&device, &FormatOptions::default(), &clock).await?;
        Ok(Cache::open_device(device, options, clock).await?)
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

/// Off the runtime's threads: a device that is held is tried for some seconds.
async fn open_device(path: &Path) -> Result<Device, CacheError> {
    let options = device::OpenOptions::new(path);
    let opened = tokio::task::spawn_blocking(move || Device::open(&options)).await;
    Ok(opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
}
