//! What to do where this user may not open a device or a socket. Owns the wording; changes no permission.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, geteuid};

use crate::device::OpenError;

/// Permission bit by which the group of a socket connects to it.
const GROUP_WRITES: u32 = 0o020;

/// The error, and what gives this user the device if a permission is what it lacks.
#[must_use]
pub fn explain_denied(error: OpenError) -> anyhow::Error {
    let advice = match &error {
        OpenError::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some(device_advice(path))
        }
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match advice {
        Some(advice) => error.context(advice),
        None => error,
    }
}

fn device_advice(path: &Path) -> String {
    let user = user_name(geteuid());
    match fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => format!(
            "the user {user} may not open the device, which is of {}: give it away by a udev rule, such \
             as SUBSYSTEM==\"block\", ENV{{ID_SERIAL}}==\"the-serial-of-the-disk\", OWNER=\"{user}\", \
             MODE=\"0660\" in /etc/udev/rules.d/60-rawcached.rules; a service has to have it in \
             DeviceAllow= too",
            owners(&found)
        ),
        Ok(found) => format!(
            "the user {user} may not open the image, which is of {}: chown {user} it",
            owners(&found)
        ),
        Err(_) => format!("the user {user} may not look into the directory of the device"),
    }
}

/// What lets this user connect to the socket at `path`, which refused it.
#[must_use]
pub fn socket_advice(path: &Path) -> String {
    let user = user_name(geteuid());
    match fs::metadata(path) {
        Ok(found) if found.mode() & GROUP_WRITES != 0 => format!(
            "it is for {}: usermod -a -G {} {user}, and log in again",
            owners(&found),
            group_name(found.gid())
        ),
        Ok(found) => format!(
            "it is for {}, without the group: set server.socket_mode and server.socket_group",
            owners(&found)
        ),
        Err(_) => format!("the user {user} may not look into its directory"),
    }
}

/// Owner, group and permission bits.
fn owners(found: &Metadata) -> String {
    let (user, group) = (user_name(Uid::from_raw(found.uid())), group_name(found.gid()));
    format!("{user}:{group} (mode {:04o})", found.mode() & 0o7777)
}

fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn group_name(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_errors_stay_as_they_are() {
        let absent = io::Error::from(io::ErrorKind::NotFound);
        let error = OpenError::Io { path: "/dev/x".into(), source: absent };
        assert_eq!(explain_denied(error).to_string(), "/dev/x cannot be opened");
    }

    #[test]
    fn a_device_that_is_denied_comes_with_a_udev_rule() {
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let of = |path: &str| {
            let error = OpenError::Io { path: path.into(), source: source() };
            format!("{:#}", explain_denied(error))
        };
        assert!(of("/dev/null").ends_with("/dev/null cannot be opened: permission denied"));
        assert!(of("/dev/null").contains("chown "), "{}", of("/dev/null"));
        assert!(of("/none/x").contains("may not look into the directory"), "{}", of("/none/x"));
        let disks = fs::read_dir("/dev").unwrap().flatten();
        let mut disks = disks.filter(|it| it.file_type().is_ok_and(|kind| kind.is_block_device()));
        if let Some(disk) = disks.next() {
            let message = of(disk.path().to_str().unwrap());
            assert!(message.contains("SUBSYSTEM==\"block\", ENV{ID_SERIAL}=="), "{message}");
            assert!(message.contains("DeviceAllow="), "{message}");
        }
    }
}
