//! Image files. Owns making a missing one; never touches an existing one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{file_system, ownership};
use crate::config::{
    Config, DeviceConfig, EMBEDDED_DIRECTORY, EMBEDDED_HTTP_SOCKET, EMBEDDED_PROXY_SOCKET,
    EMBEDDED_SOCKET, ListenAddress, ListenerConfig,
};
use crate::format::Uuid;
use crate::units::ByteSize;

/// An image file could not be made or is missing.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The path exists already.
    #[error("{path} is there already; it is left as it is", path = .0.display())]
    Exists(PathBuf),
    /// The path does not exist, and no size is configured.
    #[error(
        "{path} does not exist; for an image file run: rawcached format {path} --size SIZE",
        path = .0.display()
    )]
    Missing(PathBuf),
    /// There is no such device.
    #[error(
        "there is no device {path}: lsblk and /dev/disk/by-id list those that are there",
        path = .0.display()
    )]
    NoDevice(PathBuf),
    /// The path is a symbolic link to nothing.
    #[error(
        "{path} is a symbolic link to {target}, which does not exist: mount what it is on, or remove \
         the link",
        path = path.display(),
        target = target.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The path does not exist, and a certain store is wanted.
    #[error(
        "{path} does not exist, and device.uuid wants the store {uuid}: a new image would be another one",
        path = path.display()
    )]
    Pinned {
        /// The missing path.
        path: PathBuf,
        /// The store that is wanted.
        uuid: Uuid,
    },
    /// The directory of the embedded default is somebody else's.
    #[error(transparent)]
    Foreign(#[from] ownership::Foreign),
    /// The operating system refused.
    #[error("cannot {operation} {path}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Where devices are. A file made there is in memory.
const DEVICES: &str = "/dev";

impl ImageError {
    /// The error for a path at which nothing is.
    #[must_use]
    pub fn missing(path: &Path) -> ImageError {
        match path.starts_with(DEVICES) {
            true => ImageError::NoDevice(path.to_owned()),
            false => ImageError::Missing(path.to_owned()),
        }
    }
}

/// Makes a sparse file of `size` bytes that only its owner can read.
///
/// # Errors
/// Something is at `path` already, or the file system refuses.
pub fn create_sparse(path: &Path, size: ByteSize) -> Result<(), ImageError> {
    let refuse =
        |operation| move |source| ImageError::Io { operation, path: path.to_owned(), source };
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ImageError::Exists(path.to_owned()));
        }
        opened => opened.map_err(refuse("create"))?,
    };
    let sized = file.set_len(size.0).and_then(|()| file.sync_all());
    sized.map_err(refuse("size")).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Makes and formats the configured image, if nothing is at its path. It gets its name when it is
/// complete, so that an interrupted start leaves no partial image there.
///
/// # Errors
/// The path does not exist and no size is configured, or making the image failed.
pub async fn prepare(
    config: &Config,
    format: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    make_embedded_directory(config)?;
    let DeviceConfig { path, size, uuid, .. } = config.device();
    let refuse = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Io { operation, path, source }
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            // A link that leads nowhere is no room for an image: it says where one should be.
            if !path.try_exists().map_err(refuse("look for", path))? {
                let target = fs::read_link(path).unwrap_or_default();
                return Err(ImageError::Dangling { path: path.clone(), target }.into());
            }
            return Ok(());
        }
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refuse("look for", path)(error).into()),
    }
    if let Some(uuid) = uuid {
        return Err(ImageError::Pinned { path: path.clone(), uuid: *uuid }.into());
    }
    let Some(size) = *size else { return Err(ImageError::missing(path).into()) };
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(refuse("remove", &unfinished)(error).into());
        }
        _ => {}
    }
    if let Some(shortage) = file_system::shortage(path, size) {
        tracing::warn!("{shortage}");
    }
    create_sparse(&unfinished, size)?;
    format(&unfinished).await?;
    rename_new(&unfinished, path).map_err(refuse("rename", &unfinished))?;
    tracing::info!(path = %path.display(), %size, "made a new image file");
    Ok(())
}

/// Renames without replacing what came there meanwhile, where the file system can do that.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// Makes the directory of the embedded default, if the image or the socket is to be there. All
/// other directories are the operator's.
fn make_embedded_directory(config: &Config) -> Result<(), ImageError> {
    let is_there = |listeners: &[ListenerConfig], socket: &str| {
        let socket = ListenAddress::Unix(socket.into());
        listeners.iter().any(|listener| listener.address == socket)
    };
    let server = &config.server;
    if !config.embedded
        && !is_there(&server.memcached, EMBEDDED_SOCKET)
        && !is_there(&server.http, EMBEDDED_HTTP_SOCKET)
        && !config.proxies.iter().any(|proxy| is_there(&proxy.listen, EMBEDDED_PROXY_SOCKET))
    {
        return Ok(());
    }
    let path = PathBuf::from(EMBEDDED_DIRECTORY);
    fs::create_dir_all(&path).map_err(|source| ImageError::Io {
        operation: "create the directory",
        path: path.clone(),
        source,
    })?;
    Ok(ownership::check(&path)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn config(path: PathBuf, size: Option<ByteSize>) -> Config {
        let device = DeviceConfig { path, size, ..Default::default() };
        Config { devices: vec![device], ..Default::default() }
    }

    #[test]
    fn a_new_image_is_sparse_private_and_has_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.img");
        create_sparse(&path, ByteSize(64 << 20)).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.len(), 64 << 20);
        assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
        assert_eq!(found.mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_is_there_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.img");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(create_sparse(&path, ByteSize(1 << 20)), Err(ImageError::Exists(_))));
        prepare(&config(path.clone(), Some(ByteSize(1 << 20))), async |_| panic!("formats"))
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_link_that_leads_nowhere_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("link"), directory.path().join("away/image"));
        symlink(&target, &path).unwrap();
        let config = config(path.clone(), Some(ByteSize(1 << 20)));
        let error = prepare(&config, async |_| panic!("formats")).await.unwrap_err().to_string();
        let expected = format!("is a symbolic link to {}", target.display());
        assert!(error.contains(&expected), "{error}");
        assert_eq!(fs::read_link(&path).unwrap(), target);
        // Once there is something, it is used.
        fs::create_dir(directory.path().join("away")).unwrap();
        fs::write(&target, "mine").unwrap();
        prepare(&config, async |_| panic!("formats")).await.unwrap();
    }

    #[tokio::test]
    async fn a_link_in_the_place_of_the_unfinished_image_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("image"), directory.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, directory.path().join("image.new")).unwrap();
        prepare(&config(path.clone(), Some(ByteSize(1 << 20))), async |_| Ok(())).await.unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[tokio::test]
    async fn what_came_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let config = config(path.clone(), Some(ByteSize(1 << 20)));
        let format = async |_: &Path| Ok(fs::write(&path, "mine")?);
        prepare(&config, format).await.unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn no_new_image_stands_in_for_a_certain_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path().join("image"), Some(ByteSize(1 << 20)));
        config.devices[0].uuid = Some(Uuid([7; 16]));
        let error = prepare(&config, async |_| panic!("formats")).await.unwrap_err().to_string();
        assert!(error.contains("device.uuid wants the store 07070707-"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_device_names_the_command_to_run() {
        let error =
            prepare(&config("/nonexistent/x".into(), None), async |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("rawcached format /nonexistent/x --size"), "{error}");
        let error = prepare(&config("/dev/nonexistent".into(), None), async |_| Ok(())).await;
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("there is no device /dev/nonexistent: "), "{error}");
    }

    #[tokio::test]
    async fn a_failed_format_leaves_no_image_and_can_be_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.img");
        let config = config(path.clone(), Some(ByteSize(1 << 20)));
        assert!(prepare(&config, async |_| anyhow::bail!("no")).await.is_err());
        assert!(!path.exists());
        prepare(&config, async |_| Ok(())).await.unwrap();
        assert!(path.exists());
    }
}
