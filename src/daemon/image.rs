//! Image files. Owns making a missing one; never touches an existing one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{
    Config, DeviceConfig, EMBEDDED_DIRECTORY, EMBEDDED_HTTP_SOCKET, EMBEDDED_SOCKET, ListenAddress,
    ListenerConfig,
};
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
    let DeviceConfig { path, size, .. } = config.device();
    let refuse = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Io { operation, path, source }
    };
    if path.try_exists().map_err(refuse("look for", path))? {
        return Ok(());
    }
    let Some(size) = *size else { return Err(ImageError::Missing(path.clone()).into()) };
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(refuse("remove", &unfinished)(error).into());
        }
        _ => {}
    }
    create_sparse(&unfinished, size)?;
    format(&unfinished).await?;
    fs::rename(&unfinished, path).map_err(refuse("rename", &unfinished))?;
    tracing::info!(path = %path.display(), %size, "made a new image file");
    Ok(())
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
    {
        return Ok(());
    }
    let path = PathBuf::from(EMBEDDED_DIRECTORY);
    fs::create_dir_all(&path).map_err(|source| ImageError::Io {
        operation: "create the directory",
        path,
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

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
    async fn a_missing_device_names_the_command_to_run() {
        let error =
            prepare(&config("/nonexistent/x".into(), None), async |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("rawcached format /nonexistent/x --size"), "{error}");
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
