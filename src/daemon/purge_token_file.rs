//! The file with the token of PURGE. Owns who else may read it; never shows what is in it.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::server::proxy::PurgeToken;

/// Permission bits by which others read or write, and the group writes. The group may read: it is how a service
/// gets what is root's.
const OTHERS_HAVE_IT: u32 = 0o026;
const LEN_MAX: usize = 4096;

/// Reads the token at `path`.
///
/// # Errors
/// It cannot be read, others can read or write it, or what is in it is no token.
pub fn read(path: &Path) -> anyhow::Result<PurgeToken> {
    let named = || path.display().to_string();
    // One that nobody writes to would hold up the start.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.with_context(named)?;
    let found = file.metadata().with_context(named)?;
    let path = path.display();
    ensure!(found.is_file(), "{path} is not a regular file");
    let mode = found.mode() & 0o7777;
    ensure!(
        mode & OTHERS_HAVE_IT == 0,
        "others can read or write {path} (mode {mode:04o}), so it is no secret: chmod g-w,o-rw {path}, \
         and put a new token into it"
    );
    let mut bytes = Vec::new();
    file.take(LEN_MAX as u64 + 1).read_to_end(&mut bytes).with_context(named)?;
    ensure!(bytes.len() <= LEN_MAX, "{path} is longer than {LEN_MAX} bytes");
    let text = bytes.trim_ascii();
    ensure!(!text.is_empty(), "{path} is empty: write a token into it, as of openssl rand -hex 32");
    let token = std::str::from_utf8(text).ok().and_then(PurgeToken::new);
    token.with_context(|| {
        format!("{path} has something else than letters, digits and -._~+/= of one token")
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read_of(content: &str, mode: u32) -> Result<PurgeToken, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write(&path, content).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        read(&path).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_token_is_read_without_its_line_end() {
        for content in ["abc.1", "abc.1\n", " abc.1\r\n\n"] {
            for mode in [0o600, 0o400, 0o640] {
                read_of(content, mode).unwrap();
            }
        }
    }

    #[test]
    fn what_others_have_or_is_no_token_is_refused() {
        let long = "x".repeat(LEN_MAX + 1);
        for (content, mode, expected) in [
            ("abc", 0o644, "others can read or write"),
            ("abc", 0o602, "others can read or write"),
            ("", 0o600, "is empty"),
            (" \n", 0o600, "is empty"),
            ("a b", 0o600, "something else than letters"),
            ("a\nb", 0o600, "something else than letters"),
            (long.as_str(), 0o600, "is longer than"),
        ] {
            let message = read_of(content, mode).unwrap_err();
            assert!(message.contains(expected), "{message}");
            assert!(content.trim().is_empty() || !message.contains("abc"), "{message}");
        }
        let directory = tempfile::tempdir().unwrap();
        let message = format!("{:#}", read(directory.path()).unwrap_err());
        assert!(message.contains("is not a regular file"), "{message}");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(read(&fifo).unwrap_err().to_string().contains("is not a regular file"));
        assert!(read(&directory.path().join("none")).is_err());
    }
}
