//! The file of a Unix socket: made with its permissions before anyone can connect, replaced only if
//! no server answers on it, removed at the end unless another process has replaced it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, chown};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Mode bits of the socket file.
    pub mode: u32,
    /// The file's group by name or number; `None` leaves the process's group.
    pub group: Option<String>,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions { mode: 0o660, group: None }
    }
}

/// Why a socket file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// A server answers on the socket.
    #[error("another server answers on {}; stop it or use another path", .0.display())]
    InUse(PathBuf),
    /// Another kind of file has the name.
    #[error("{} exists and is not a socket; remove it or use another path", .0.display())]
    NotASocket(PathBuf),
    /// The group is not known to the system.
    #[error("there is no group {0:?}")]
    UnknownGroup(String),
    /// The system refused.
    #[error("cannot {operation} for the socket {}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Removes the file when dropped, if it is still the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Makes a listening socket at `path`. The file appears there complete: it is made under
    /// another name, given its permissions, and renamed.
    pub(super) fn bind(
        path: &Path,
        permissions: &Permissions,
    ) -> Result<(UnixListener, SocketFile), SocketFileError> {
        let group = permissions.group.as_deref().map(find_group).transpose()?;
        refuse_live(path)?;
        let mut hidden = OsString::from(path);
        hidden.push(".new");
        let hidden = PathBuf::from(hidden);
        let failed = |operation| {
            move |source| SocketFileError::System { operation, path: path.to_owned(), source }
        };
        if let Err(error) = fs::remove_file(&hidden)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("remove a left-over file")(error));
        }
        let listener = listen(&hidden, permissions.mode).map_err(failed("listen"))?;
        let settle = || {
            chown(&hidden, None, group)?;
            // Again: the process's umask may have cleared bits.
            fs::set_permissions(&hidden, fs::Permissions::from_mode(permissions.mode))?;
            let made = fs::symlink_metadata(&hidden)?;
            fs::rename(&hidden, path)?;
            Ok(SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() })
        };
        match settle() {
            Ok(file) => Ok((listener, file)),
            Err(error) => {
                // The first error is the one to report.
                let _ = fs::remove_file(&hidden);
                Err(failed("set the permissions")(error))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

/// An error if something at `path` must not be replaced.
fn refuse_live(path: &Path) -> Result<(), SocketFileError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            let path = path.to_owned();
            return Err(SocketFileError::System { operation: "look", path, source });
        }
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        return Err(SocketFileError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(SocketFileError::InUse(path.to_owned())),
        Err(source) => {
            let path = path.to_owned();
            Err(SocketFileError::System { operation: "see whether anyone answers", path, source })
        }
    }
}

/// Listens at `path` with at most `mode` from the first moment on.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // Linux gives the file of a socket the mode of the socket, less the umask.
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

fn find_group(name: &str) -> Result<Gid, SocketFileError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name).ok().flatten();
    found.map(|group| group.gid).ok_or_else(|| SocketFileError::UnknownGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UNIX_PATH_LEN_MAX;

    fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketFileError> {
        SocketFile::bind(path, &Permissions { mode: 0o600, group: None })
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_longest_path_that_the_configuration_takes_works() {
        let directory = tempfile::tempdir().unwrap();
        let name_len = UNIX_PATH_LEN_MAX - directory.path().as_os_str().len() - 1;
        let path = directory.path().join("s".repeat(name_len));
        assert_eq!(path.as_os_str().len(), UNIX_PATH_LEN_MAX);
        bind(&path).unwrap();
    }

    #[test]
    fn a_stale_file_is_replaced_but_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let live = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketFileError::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop(live);
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path), Err(SocketFileError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn another_servers_file_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = UnixListener::bind(&path).unwrap();
        drop(bound);
        UnixStream::connect(&path).unwrap();
        drop(successor);
    }

    #[test]
    fn an_unknown_group_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let group = Some("no-such-group-here".to_owned());
        let refused = SocketFile::bind(&path, &Permissions { mode: 0o660, group });
        assert!(matches!(refused, Err(SocketFileError::UnknownGroup(_))));
    }
}
