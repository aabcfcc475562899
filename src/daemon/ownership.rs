//! Whom a file or directory belongs to. What others can replace is not to be trusted where nobody has
//! named it: the embedded default is in the working directory, which may be anybody's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Permission bits by which others write.
const OTHERS_WRITE: u32 = 0o022;

/// A path that is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Foreign {
    /// It belongs to another user, and not to root.
    #[error("{path} belongs to another user ({uid}) and is not trusted: name what is to be used", path = path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// The number of its owner.
        uid: u32,
    },
    /// Others can change what is in it.
    #[error("others can write to {path} (mode {mode:04o}), so it is not trusted: chmod go-w, or name what is to be used", path = path.display())]
    Writable {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a symbolic link.
    #[error("{path} is a symbolic link and is not trusted: name what is to be used", path = path.display())]
    Link {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("cannot look at {path}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Checks that a directory, or a socket, belongs to this user or to root, and that nobody else can write
/// to a directory. The permissions of a socket say who may connect.
///
/// # Errors
/// [`Foreign`], if not.
pub fn check(path: &Path) -> Result<(), Foreign> {
    let path = path.to_owned();
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(source) => return Err(Foreign::Io { path, source }),
    };
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    if found.is_symlink() {
        return Err(Foreign::Link { path });
    }
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(Foreign::Owner { path, uid });
    }
    if found.is_dir() && mode & OTHERS_WRITE != 0 {
        return Err(Foreign::Writable { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_others_can_write_to_or_have_linked_is_foreign() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("data");
        fs::create_dir(&directory).unwrap();
        for (mode, is_trusted) in [(0o700, true), (0o755, true), (0o775, false), (0o1777, false)] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(&directory).is_ok(), is_trusted, "{mode:o}");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&directory, place.path().join("link")).unwrap();
        assert!(matches!(check(&place.path().join("link")), Err(Foreign::Link { .. })));
        assert!(matches!(check(&place.path().join("none")), Err(Foreign::Io { .. })));
    }

    #[test]
    fn what_belongs_to_another_user_is_foreign() {
        let file = tempfile::NamedTempFile::new().unwrap();
        check(file.path()).unwrap();
        if !geteuid().is_root() {
            return;
        }
        let other = Some(nix::unistd::Uid::from_raw(54321));
        nix::unistd::chown(file.path(), other, None).unwrap();
        assert!(matches!(check(file.path()), Err(Foreign::Owner { uid: 54321, .. })));
    }
}
