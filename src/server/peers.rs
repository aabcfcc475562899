//! Who may connect to a Unix socket, beyond its permissions: users and groups by their numbers. The
//! kernel tells who connected; names are looked up once.

use std::collections::HashSet;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, User};

/// Users and groups that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

/// A name that the system does not know, or cannot look up.
#[derive(Debug, thiserror::Error)]
pub enum UnknownPeer {
    /// A user.
    #[error("allow_users: there is no user {0:?}")]
    User(String),
    /// A group.
    #[error("allow_groups: there is no group {0:?}")]
    Group(String),
}

impl Peers {
    /// Looks up names and numbers. The members of a group are those of now: processes are in it by
    /// their own group, or by being of a user that is a member. May wait for a name service.
    ///
    /// # Errors
    /// [`UnknownPeer`] for a name that the system does not know.
    pub fn find(users: &[String], groups: &[String]) -> Result<Peers, UnknownPeer> {
        let mut peers = Peers::default();
        for name in users {
            let found = name.parse().ok().or_else(|| user_id(name));
            peers.users.insert(found.ok_or_else(|| UnknownPeer::User(name.clone()))?);
        }
        for name in groups {
            let number = name.parse::<u32>().ok();
            let found = match number {
                Some(number) => Group::from_gid(Gid::from_raw(number)),
                None => Group::from_name(name),
            };
            let found = found.ok().flatten();
            let own = number.or(found.as_ref().map(|group| group.gid.as_raw()));
            peers.groups.insert(own.ok_or_else(|| UnknownPeer::Group(name.clone()))?);
            let members = found.into_iter().flat_map(|group| group.mem);
            peers.users.extend(members.filter_map(|member| user_id(&member)));
        }
        Ok(peers)
    }

    /// Whether the process that connected may; what the kernel does not tell may not.
    pub(super) fn admit(&self, stream: &UnixStream) -> bool {
        match getsockopt(stream, sockopt::PeerCredentials) {
            Ok(peer) => {
                let admitted =
                    self.users.contains(&peer.uid()) || self.groups.contains(&peer.gid());
                if !admitted {
                    let (uid, gid, pid) = (peer.uid(), peer.gid(), peer.pid());
                    tracing::debug!(uid, gid, pid, "a process that may not connect is refused");
                }
                admitted
            }
            Err(error) => {
                tracing::debug!(%error, "who connects is not known");
                false
            }
        }
    }
}

fn user_id(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getegid, geteuid};

    use super::*;

    fn find(users: &[&str], groups: &[&str]) -> Result<Peers, UnknownPeer> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Peers::find(&owned(users), &owned(groups))
    }

    #[test]
    fn names_and_numbers_are_found_and_unknown_ones_refused() {
        assert_eq!(find(&["root", "7"], &[]).unwrap(), find(&["0", "7"], &[]).unwrap());
        assert!(find(&[], &["root"]).unwrap().groups.contains(&0));
        assert!(matches!(find(&["no-such-user"], &[]), Err(UnknownPeer::User(_))));
        assert!(matches!(find(&[], &["no-such-group"]), Err(UnknownPeer::Group(_))));
    }

    #[test]
    fn a_peer_is_admitted_by_its_user_or_its_group() {
        let (one, _two) = UnixStream::pair().unwrap();
        let (user, group) = (geteuid().as_raw().to_string(), getegid().as_raw().to_string());
        assert!(find(&[&user], &["54321"]).unwrap().admit(&one));
        assert!(find(&["54321"], &[&group]).unwrap().admit(&one));
        assert!(!find(&["54321"], &["54321"]).unwrap().admit(&one));
    }
}
