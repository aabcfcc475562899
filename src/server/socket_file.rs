//! The file of a Unix socket: made with its permissions before anyone can connect, replaced only if
//! no server answers on it, removed at the end unless another process has replaced it.
//!
//! Others may be able to write to its directory. So the file gets its permissions in a directory where
//! nobody else can put another file in its place, and directories are held open: no name is followed
//! that somebody could have swapped meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Group, UnlinkatFlags, fchownat, geteuid, unlinkat};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Longest name that fits into a socket address behind `/proc/self/fd/` and a number.
const BOUND_NAME_LEN_MAX: usize = 80;

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

impl Permissions {
    /// Looks up the group; may wait for a name service.
    ///
    /// # Errors
    /// [`SocketFileError::UnknownGroup`].
    pub fn check(&self) -> Result<(), SocketFileError> {
        self.group.as_deref().map(find_group).transpose().map(drop)
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
    /// The process may not give files to the group.
    #[error(
        "the socket {} cannot be given to the group {group}: the user of the daemon has to be in it \
         (SupplementaryGroups= of the unit, or usermod -a -G)",
        path.display()
    )]
    NotInGroup {
        /// The socket's path.
        path: PathBuf,
        /// The group as it is configured.
        group: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
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

/// A name in a directory that is held open: the directory's own path may lead elsewhere by now.
#[derive(Debug)]
struct Name {
    directory: OwnedFd,
    name: OsString,
}

/// Removes the file when dropped, if it is still the same file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    at: Name,
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes a listening socket at `path`. The file appears there complete: it is made in a directory
    /// of its own, given its permissions, and renamed. Never waits for another process.
    pub(super) fn bind(
        path: &Path,
        permissions: &Permissions,
    ) -> Result<(UnixListener, SocketFile), SocketFileError> {
        let group = permissions.group.as_deref();
        let find = |name| find_group(name).map(|gid| (name, gid));
        let group = group.map(find).transpose()?;
        let failed = |operation| {
            move |source: io::Error| {
                let path = path.to_owned();
                SocketFileError::System { operation, path, source }
            }
        };
        let at = Name::of(path).map_err(failed("open the directory"))?;
        refuse_live(path, &at)?;
        let private = Private::make(&at).map_err(failed("make a private directory"))?;
        let mode = Mode::from_bits_truncate(permissions.mode);
        let listener = private.listen().map_err(failed("listen"))?;
        if let Some((name, gid)) = group {
            private.give_to_group(gid).map_err(|source| match source {
                Errno::EPERM => SocketFileError::NotInGroup {
                    path: path.to_owned(),
                    group: name.to_owned(),
                    source: source.into(),
                },
                source => failed("set the group")(source.into()),
            })?;
        }
        let identity = private.settle(mode).map_err(failed("set the permissions"))?;
        private.give_to(&at).map_err(failed("rename"))?;
        drop(private);
        Ok((listener, SocketFile { path: path.to_owned(), at, identity }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.at.stat().is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = self.at.unlink() {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

impl Name {
    fn of(path: &Path) -> io::Result<Name> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let directory = path.parent().filter(|directory| *directory != Path::new(""));
        let directory = open_directory(directory.unwrap_or(Path::new(".")))?;
        Ok(Name { directory, name })
    }

    fn stat(&self) -> nix::Result<FileStat> {
        fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn unlink(&self) -> nix::Result<()> {
        unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
    }

    /// The address of a socket of this name, in this very directory: binding takes a path only.
    fn address(&self) -> nix::Result<UnixAddr> {
        let directory = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        UnixAddr::new(&Path::new(&directory).join(&self.name))
    }
}

/// A directory that only this user can write to, in the directory where the socket is to be. Dropping
/// it removes it, with what is left in it.
struct Private<'a> {
    /// Where it is, and its name there.
    outside: &'a OwnedFd,
    own_name: OsString,
    /// The socket in it.
    socket: Name,
}

impl<'a> Private<'a> {
    fn make(at: &'a Name) -> io::Result<Private<'a>> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let own_name = OsString::from(format!(".rawcached-{:016x}", u64::from_ne_bytes(random)));
        mkdirat(&at.directory, own_name.as_os_str(), Mode::S_IRWXU)?;
        let flags = directory_flags() | OFlag::O_NOFOLLOW;
        let directory = openat(&at.directory, own_name.as_os_str(), flags, Mode::empty())?;
        let found = fstat(&directory)?;
        let others = Mode::S_IRWXG | Mode::S_IRWXO;
        // Somebody may have put another one there.
        if found.st_uid != geteuid().as_raw() || found.st_mode & others.bits() != 0 {
            return Err(io::Error::other("another process has replaced it"));
        }
        // The name that it is bound to is what `ss` shows for ever.
        let fits = at.name.len() <= BOUND_NAME_LEN_MAX;
        let name = if fits { at.name.clone() } else { OsString::from("socket") };
        let socket = Name { directory, name };
        Ok(Private { outside: &at.directory, own_name, socket })
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let socket = stream_socket()?;
        socket::bind(socket.as_raw_fd(), &self.socket.address()?)?;
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(UnixListener::from(socket))
    }

    fn give_to_group(&self, group: Gid) -> nix::Result<()> {
        let Name { directory, name } = &self.socket;
        fchownat(directory, name.as_os_str(), None, Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Sets the permissions of the socket; gives its identity.
    fn settle(&self, mode: Mode) -> io::Result<(u64, u64)> {
        let Name { directory, name } = &self.socket;
        let name = name.as_os_str();
        // Nobody else can have made it a link.
        fchmodat(directory, name, mode, FchmodatFlags::FollowSymlink)?;
        Ok(identity(&self.socket.stat()?))
    }

    /// Moves the socket to where clients look for it, in place of a stale one.
    fn give_to(&self, at: &Name) -> io::Result<()> {
        let (from, to) = (self.socket.name.as_os_str(), at.name.as_os_str());
        Ok(renameat(&self.socket.directory, from, &at.directory, to)?)
    }
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        // There is no socket in it any more, unless something failed.
        let _ = self.socket.unlink();
        let own_name = self.own_name.as_os_str();
        if let Err(error) = unlinkat(self.outside, own_name, UnlinkatFlags::RemoveDir) {
            tracing::warn!(%error, directory = ?own_name, "cannot remove a directory");
        }
    }
}

/// An error if something at `path` must not be replaced.
fn refuse_live(path: &Path, at: &Name) -> Result<(), SocketFileError> {
    let failed = |operation, error: Errno| {
        let path = path.to_owned();
        SocketFileError::System { operation, path, source: error.into() }
    };
    let found = match at.stat() {
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(failed("look", error)),
        Ok(found) => found,
    };
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Err(SocketFileError::NotASocket(path.to_owned()));
    }
    // Does not block: a server that has stopped accepting must not hold up this one.
    let connected = stream_socket()
        .and_then(|socket| socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?));
    match connected {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        // Its backlog is full: somebody listens.
        Ok(()) | Err(Errno::EAGAIN) => Err(SocketFileError::InUse(path.to_owned())),
        Err(error) => Err(failed("see whether anyone answers", error)),
    }
}

fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    open(path, directory_flags(), Mode::empty())
}

fn identity(found: &FileStat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
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
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

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
    fn a_live_server_whose_backlog_is_full_is_neither_waited_for_nor_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let server = stream_socket().unwrap();
        socket::bind(server.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&server, Backlog::new(0).unwrap()).unwrap();
        let connect = || {
            let client = stream_socket().unwrap();
            let connected = socket::connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap());
            connected.map(|()| client)
        };
        let clients: Vec<OwnedFd> = std::iter::from_fn(|| connect().ok()).collect();
        assert_eq!(connect().unwrap_err(), Errno::EAGAIN, "{} clients", clients.len());
        assert!(matches!(bind(&path), Err(SocketFileError::InUse(_))));
    }

    /// Somebody who can write to the directory puts links in the place of what appears there.
    #[test]
    fn links_that_others_make_in_the_directory_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("s"), directory.path().join("victim"));
        fs::write(&victim, "").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let moved = directory.path().join("moved");
        let swap = |found: &Path| {
            if fs::rename(found, &moved).is_ok() {
                let _ = symlink(&victim, found);
                std::thread::yield_now();
                let _ = fs::remove_file(found);
                let _ = fs::rename(&moved, found);
            }
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A name that can be guessed is swapped sooner than one that has to be seen.
                    (0..100).for_each(|_| swap(&directory.path().join("s.new")));
                    let found = fs::read_dir(directory.path()).unwrap().flatten();
                    let found = found.map(|found| found.path());
                    found.filter(|at| ![&victim, &path].contains(&at)).for_each(|at| swap(&at));
                }
            });
            for _ in 0..3000 {
                // It may fail, since what it makes comes and goes.
                drop(SocketFile::bind(&path, &Permissions { mode: 0o666, group: None }));
                let mode = fs::metadata(&victim).unwrap().permissions().mode() & 0o777;
                if mode != 0o600 {
                    stop.store(true, Ordering::Relaxed);
                    panic!("another file has mode {mode:o}");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_directory_that_was_swapped_is_left_alone_at_the_end() {
        let outer = tempfile::tempdir().unwrap();
        let (one, two) = (outer.path().join("one"), outer.path().join("two"));
        fs::create_dir(&one).unwrap();
        let bound = bind(&one.join("s")).unwrap();
        fs::rename(&one, &two).unwrap();
        fs::create_dir(&one).unwrap();
        fs::hard_link(two.join("s"), one.join("s")).unwrap();
        drop(bound);
        assert!(one.join("s").symlink_metadata().is_ok(), "another directory's");
        assert!(two.join("s").symlink_metadata().is_err(), "its own");
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
