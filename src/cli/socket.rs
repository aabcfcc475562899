//! Where a running daemon is: the socket that was named, else where one usually is.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use crate::config::{EMBEDDED_DIRECTORY, ListenAddress};
use crate::daemon::{check_ownership, socket_advice};

/// The address that `named` stands for (a path, `unix:PATH` or `tcp:IP:PORT`), else the first of
/// the `usual` paths at which something is. The first of these is in the working directory, where others
/// may have put it: it has to be this user's or root's.
pub fn address(named: Option<&str>, usual: [&str; 2]) -> anyhow::Result<ListenAddress> {
    match named {
        Some(text) if text.starts_with("unix:") || text.starts_with("tcp:") => Ok(text.parse()?),
        Some(path) => Ok(ListenAddress::Unix(path.into())),
        None => {
            let found = usual.into_iter().find(|path| Path::new(path).symlink_metadata().is_ok());
            let [near, far] = usual;
            let path = found
                .with_context(|| format!("no socket at {near} or {far}: name one with --socket"))?;
            if path == near {
                for path in [EMBEDDED_DIRECTORY, near] {
                    check_ownership(Path::new(path)).context("name the socket with --socket")?;
                }
            }
            Ok(ListenAddress::Unix(path.into()))
        }
    }
}

/// The error for an `address` to which nothing could connect; `kind` is the kind of socket that is wanted.
pub fn refused(address: &ListenAddress, kind: &str, error: io::Error) -> anyhow::Error {
    let message = match address {
        ListenAddress::Unix(path) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!("cannot connect to {address}: {}", socket_advice(path))
        }
        _ => format!(
            "cannot connect to {address}; is the daemon running? name its {kind} with --socket"
        ),
    };
    anyhow::Error::from(error).context(message)
}
