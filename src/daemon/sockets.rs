//! Listening sockets. Owns how they come to be (bound here or inherited from systemd), their
//! permissions and their removal; never accepts.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use listenfd::ListenFd;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Group;

use crate::config::{ListenAddress, ServerConfig};

/// Name of inherited data sockets (`FileDescriptorName=` in a socket unit).
const MEMCACHED_NAME: &str = "memcached";
/// Name of an inherited admin socket.
const ADMIN_NAME: &str = "admin";
/// Descriptors needed besides one for each connection: devices, listeners, logs, admin.
const OPEN_FILES_RESERVE: u64 = 128;

/// A listening socket, not blocking.
#[derive(Debug)]
pub enum Listener {
    /// In the file system.
    Unix(UnixListener),
    /// On the loopback interface.
    Tcp(TcpListener),
}

/// Sockets that the service manager has opened for the daemon.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Data sockets; they take the place of the configured ones.
    pub memcached: Vec<Listener>,
    /// The admin socket; it takes the place of the configured one.
    pub admin: Option<TcpListener>,
}

impl Inherited {
    /// Takes the sockets named by `LISTEN_FDS` and `LISTEN_FDNAMES`. Call once, early.
    pub fn take() -> anyhow::Result<Inherited> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        let names = names.split(':').chain(std::iter::repeat(""));
        for (index, name) in names.take(sockets.len()).enumerate() {
            let listener = take_listener(&mut sockets, index)
                .with_context(|| format!("socket {index} ({name:?})"))?;
            match (name, listener) {
                (MEMCACHED_NAME, listener) => inherited.memcached.push(listener),
                (ADMIN_NAME, Listener::Tcp(listener)) => inherited.admin = Some(listener),
                (ADMIN_NAME, Listener::Unix(_)) => bail!("the admin socket must be loopback TCP"),
                _ => bail!(
                    "socket {index} has the name {name:?}: write FileDescriptorName={MEMCACHED_NAME} \
                     or {ADMIN_NAME} in its socket unit"
                ),
            }
        }
        Ok(inherited)
    }
}

fn take_listener(sockets: &mut ListenFd, index: usize) -> anyhow::Result<Listener> {
    let listener = match sockets.take_unix_listener(index) {
        Ok(Some(listener)) => {
            listener.set_nonblocking(true)?;
            Listener::Unix(listener)
        }
        _ => {
            let taken = sockets.take_tcp_listener(index)?;
            let listener = taken.context("the socket was taken already")?;
            listener.set_nonblocking(true)?;
            Listener::Tcp(listener)
        }
    };
    if let Listener::Tcp(listener) = &listener {
        let address = listener.local_addr()?;
        ensure!(address.ip().is_loopback(), "{address} is not a loopback address");
    }
    Ok(listener)
}

/// A socket file that this process made. Dropping it removes the file, unless another process has
/// put its own in the place.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    inode: u64,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

/// The data listeners: the inherited ones if there are any, else the configured ones.
pub fn open_memcached(
    config: &ServerConfig,
    inherited: Vec<Listener>,
) -> anyhow::Result<(Vec<Listener>, Vec<Bound>)> {
    if !inherited.is_empty() {
        tracing::info!(sockets = inherited.len(), "memcached listeners from the service manager");
        return Ok((inherited, Vec::new()));
    }
    let (mut listeners, mut bound) = (Vec::new(), Vec::new());
    for address in &config.memcached {
        match address {
            ListenAddress::Unix(path) => {
                let (listener, file) = bind_unix(path, config)?;
                listeners.push(Listener::Unix(listener));
                bound.push(file);
            }
            ListenAddress::Tcp(address) => {
                let listener = bind_tcp(*address)?;
                listeners.push(Listener::Tcp(listener));
            }
        }
        tracing::info!(%address, "memcached listener");
    }
    Ok((listeners, bound))
}

/// The admin listener: the inherited one, else the configured one, else none.
pub fn open_admin(
    config: &ServerConfig,
    inherited: Option<TcpListener>,
) -> anyhow::Result<Option<TcpListener>> {
    match (inherited, config.admin) {
        (Some(listener), _) => Ok(Some(listener)),
        (None, Some(address)) => bind_tcp(address).map(Some).context("server.admin"),
        (None, None) => Ok(None),
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is another process (or another rawcached) using it?")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_unix(path: &Path, config: &ServerConfig) -> anyhow::Result<(UnixListener, Bound)> {
    let at = || format!("cannot listen on {}", path.display());
    remove_stale(path).with_context(at)?;
    // The umask of the daemon keeps others out until owner and mode are as configured.
    let listener = UnixListener::bind(path).with_context(at)?;
    listener.set_nonblocking(true)?;
    if let Some(name) = &config.socket_group {
        let group = Group::from_name(name)?.with_context(|| {
            format!("server.socket_group: there is no group {name:?}: create it with groupadd")
        })?;
        std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))
            .with_context(|| format!("cannot give {} to group {name}", path.display()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(config.socket_mode.0)).with_context(at)?;
    let inode = fs::symlink_metadata(path).with_context(at)?.ino();
    Ok((listener, Bound { path: path.to_owned(), inode }))
}

/// Removes a socket that nobody listens on any more; refuses everything else.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    ensure!(found.file_type().is_socket(), "there is something else than a socket; remove it");
    match UnixStream::connect(path) {
        Ok(_) => bail!("another process serves this socket; stop it or use another path"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removed a socket that nobody listens on");
            Ok(fs::remove_file(path)?)
        }
        Err(error) => Err(error).context("there is a socket that cannot be examined"),
    }
}

/// Lets the process open as many files as the kernel allows it, and warns if that is not enough
/// for `connections`.
pub fn raise_open_files_limit(connections: u32) {
    let needed = u64::from(connections) + OPEN_FILES_RESERVE;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "the limit on open files is too low for server.max_connections: raise LimitNOFILE"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SocketMode;

    fn config(mode: u32) -> ServerConfig {
        ServerConfig { socket_mode: SocketMode(mode), ..Default::default() }
    }

    #[test]
    fn a_socket_gets_the_configured_mode_and_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let (listener, bound) = bind_unix(&path, &config(0o640)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        drop(listener);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let (listener, bound) = bind_unix(&path, &config(0o600)).unwrap();
        let error = format!("{:#}", bind_unix(&path, &config(0o600)).unwrap_err());
        assert!(error.contains("another process serves this socket"), "{error}");
        drop(listener);
        std::mem::forget(bound);
        bind_unix(&path, &config(0o600)).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        fs::write(&path, "mine").unwrap();
        assert!(bind_unix(&path, &config(0o600)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_socket_of_another_process_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let (_first, bound) = bind_unix(&path, &config(0o600)).unwrap();
        let aside = directory.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        let _second = bind_unix(&path, &config(0o600)).unwrap();
        drop(bound);
        assert!(path.exists());
    }

    #[test]
    fn an_unknown_group_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(0o660);
        config.socket_group = Some("no-such-group".into());
        let error = bind_unix(&directory.path().join("s.sock"), &config).unwrap_err();
        assert!(error.to_string().contains("no-such-group"), "{error}");
    }
}
