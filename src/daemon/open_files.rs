//! The limit on open files, and what of it is for connections.

use anyhow::bail;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::server::admin;

/// Files besides those of connections and workers: devices, listeners, logs, what is read of `/proc`.
const RESERVE: u64 = 40;
/// Files of one worker: its runtime and its ring.
const RESERVE_OF_WORKER: u64 = 8;

/// How many files the process may open.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    limit: u64,
    /// Of these, for all that is no connection of a data listener: so that however many there are,
    /// the admin listener answers, the device is served and upstreams are asked.
    reserved: u64,
}

impl OpenFiles {
    /// Lets the process open as many files as the kernel allows it.
    ///
    /// # Errors
    /// That is not enough for `workers`, `upstream_connections` and one connection for each of `listeners`.
    pub fn raise(
        workers: usize,
        listeners: usize,
        upstream_connections: u64,
    ) -> anyhow::Result<OpenFiles> {
        let raised = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
        let (workers, admin) = (workers as u64, admin::CONNECTIONS_MAX as u64);
        let reserved = RESERVE + RESERVE_OF_WORKER * workers + admin + upstream_connections;
        let files = match raised {
            Ok(limit) => OpenFiles { limit, reserved },
            Err(error) => {
                tracing::warn!(%error, "the limit on open files cannot be raised");
                let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
                OpenFiles { limit, reserved }
            }
        };
        files.shares(&vec![1; listeners])?;
        Ok(files)
    }

    /// As if there were no limit.
    #[cfg(test)]
    pub fn unlimited() -> OpenFiles {
        OpenFiles { limit: u64::MAX, reserved: 0 }
    }

    /// How many connections each listener may have, of those that are asked for; at least one. Warns
    /// where the limit does not suffice for all of them.
    ///
    /// # Errors
    /// It does not suffice for one each.
    pub fn shares(&self, asked: &[u64]) -> anyhow::Result<Vec<u64>> {
        let OpenFiles { limit, reserved } = *self;
        let wanted: u64 = asked.iter().sum();
        let (room, count) = (limit.saturating_sub(reserved), asked.len() as u64);
        if wanted <= room {
            return Ok(asked.to_owned());
        }
        let needed = reserved.saturating_add(wanted);
        if room < count {
            bail!(
                "Too many open files: the limit is {limit}, and {reserved} are needed besides those \
                 of clients: raise LimitNOFILE"
            );
        }
        let share = |asked: &u64| {
            let part = u128::from(*asked) * u128::from(room - count) / u128::from(wanted);
            1 + u64::try_from(part).unwrap_or(0)
        };
        let shares = asked.iter().map(share).collect();
        tracing::warn!(
            limit,
            needed,
            connections = room,
            "the limit on open files is too low for server.max_connections: listeners serve fewer; \
             raise LimitNOFILE"
        );
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_what_is_not_reserved() {
        let files = |limit| OpenFiles { limit, reserved: 100 };
        assert_eq!(files(400).shares(&[200, 100]).unwrap(), [200, 100]);
        assert_eq!(files(250).shares(&[200, 100]).unwrap(), [99, 50]);
        assert_eq!(files(102).shares(&[4096, 1]).unwrap(), [1, 1]);
        let error = files(101).shares(&[4096, 1]).unwrap_err().to_string();
        assert!(error.starts_with("Too many open files: the limit is 101, and 100 "), "{error}");
        assert_eq!(OpenFiles::unlimited().shares(&[5]).unwrap(), [5]);
    }

    #[test]
    fn shares_never_exceed_the_room() {
        for limit in 110..300 {
            let asked = [500_000, 1, 1, 70, 4096];
            let shares = OpenFiles { limit, reserved: 100 }.shares(&asked).unwrap();
            assert!(shares.iter().sum::<u64>() <= limit - 100, "{limit}: {shares:?}");
            assert!(shares.iter().zip(asked).all(|(share, asked)| (1..=asked).contains(share)));
        }
    }
}
