//! Beginning the store of a response under its key: as one body that others follow, or part by part.

use super::coming::Coming;
use super::shelf::Shelf;
use crate::cache::{
    Condition, Follower, Lease, Parts, StoreError, StoreOptions, Stored, UpdateOptions, Writer,
};

/// A store that has begun.
pub(super) enum Opened {
    Body(Box<Writer>, Follower),
    Parts(Parted),
}

/// An object whose parts are stored.
pub(super) struct Parted {
    pub(super) parts: Parts,
    pub(super) key: Vec<u8>,
    /// Version of its entry.
    pub(super) cas: u64,
}

impl Shelf {
    /// Begins to store under the key of the lease, or under `other` and leaves the lease. `None` if nothing can be
    /// stored.
    pub(super) async fn open(
        &self,
        lease: Lease,
        other: Option<&[u8]>,
        (options, parts): (&StoreOptions, Option<&Coming>),
    ) -> Option<(Opened, Option<Lease>)> {
        let opened = match parts {
            Some(coming) => self.declare(lease, other, (options, coming)).await,
            None => match other {
                None => lease.store(options.clone()).map(|writer| (body(writer), None)),
                Some(key) => {
                    let begun = lease.store_other(key, options.clone());
                    begun.map(|writer| (body(writer), Some(lease)))
                }
            },
        };
        match opened {
            Ok((Some(opened), lease)) => Some((opened, lease)),
            Ok((None, _)) => None,
            Err(error) => {
                tracing::debug!(%error, "a response is not stored");
                None
            }
        }
    }

    async fn declare(
        &self,
        lease: Lease,
        other: Option<&[u8]>,
        (options, coming): (&StoreOptions, &Coming),
    ) -> Result<(Option<Opened>, Option<Lease>), StoreError> {
        let of = (coming.len, &coming.validator);
        let key = other.unwrap_or(lease.key()).to_vec();
        let (declared, lease) = match other {
            None => (lease.declare(of.0, of.1, options).await?, None),
            Some(key) => (lease.declare_other(key, of, options).await?, Some(lease)),
        };
        let Some(parts) = declared else { return Ok((None, lease)) };
        let mut cas = parts.cas();
        if !parts.is_new() {
            // The origin has the version that is there still: what it says of it now holds.
            let update = UpdateOptions {
                metadata: Some(options.metadata.clone()),
                tags: Some(options.tags.clone()),
                lifetime: options.lifetime,
                ..UpdateOptions::default()
            };
            let unchanged = Condition::Unchanged(cas);
            match self.http.cache.update_with(&key, unchanged, &update, parts.since()).await? {
                Stored::Yes(updated) => cas = updated,
                Stored::Exists | Stored::Missing => return Ok((None, lease)),
            }
        }
        Ok((Some(Opened::Parts(Parted { parts, key, cas })), lease))
    }
}

fn body(writer: Writer) -> Option<Opened> {
    let follower = writer.follower()?;
    Some(Opened::Body(Box::new(writer), follower))
}
