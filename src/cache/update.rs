//! New metadata and lifetimes for entries whose bodies stay as they are.

use std::time::Duration;

use bytes::Bytes;

use super::{Cache, check_lengths, whole_secs};
use crate::store::{Ack, Condition, Fill, Lifetime, StoreError, Stored, Update};

/// What is to become of an entry. Made by default, which changes nothing, then changed field by field.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// New metadata, at most [`METADATA_LEN_MAX`](super::METADATA_LEN_MAX) bytes; `None` keeps them.
    pub metadata: Option<Bytes>,
    /// New tags, as those of [`StoreOptions`](super::StoreOptions::tags); `None` keeps those that there are.
    pub tags: Option<Vec<Bytes>>,
    /// Fresh lifetime from now on, capped at the configured maximum; `None` leaves what there is: what a soft
    /// purge covers, or is of unknown age, stays stale then.
    pub ttl: Option<Duration>,
    /// Further time in which only callers that ask for stale entries get it; `None` keeps its length, which of an
    /// entry that was made stale is all the rest of its life.
    pub grace: Option<Duration>,
    /// How old the object is already: the base of its Age, in whole seconds. It counts with a `ttl`.
    pub age: Duration,
    /// Lifetime that was settled before; `ttl`, `grace` and `age` do not count then. Capped like `ttl`.
    pub lifetime: Option<Lifetime>,
    /// When the update is acknowledged; `None` takes the configured mode.
    pub ack: Option<Ack>,
}

impl Cache {
    /// Gives a live entry, stale or not, new metadata, new tags or a new lifetime, if `condition` holds of it: what a
    /// validation of it brings (RFC 9111, section 4.3.4). Readers go on; a crash leaves the old entry or the
    /// new one.
    ///
    /// A lifetime alone is rewritten in place, and the version of the entry stays. With other metadata or tags,
    /// or if a soft purge covers it, an entry of at most 64 KiB is written again, and of a larger one a head, at most 70 KiB: its body stays
    /// where it is. Only the first such update of a body of 64 KiB to 1 MiB writes that once more. An entry
    /// that would end at once is removed.
    ///
    /// Gives the CAS value, [`Stored::Missing`] if there is no live entry, [`Stored::Exists`] if the
    /// condition does not hold of it; [`Condition::Absent`] never does.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Purged`] if the key was purged or expired meanwhile. If the device did not
    /// fail, the entry is as it was.
    pub async fn update(
        &self,
        key: &[u8],
        condition: Condition,
        options: &UpdateOptions,
    ) -> Result<Stored, StoreError> {
        self.update_with(key, condition, options, &self.inner.store.begin_fill(key)).await
    }

    /// As [`Cache::update`], unless the key was purged since `fill` began.
    pub(crate) async fn update_with(
        &self,
        key: &[u8],
        condition: Condition,
        options: &UpdateOptions,
        fill: &Fill,
    ) -> Result<Stored, StoreError> {
        let metadata = options.metadata.as_deref();
        check_lengths(key, metadata.unwrap_or_default())?;
        let lifetime = |present: Lifetime| self.updated(present, options);
        let tags = match &options.tags {
            Some(tags) => Some(self.inner.store.tag_hashes(tags)?),
            None => None,
        };
        let validates = options.ttl.is_some() || options.lifetime.is_some();
        let tags = tags.as_deref();
        let update = Update { metadata, tags, lifetime: &lifetime, validates, fill };
        self.settle_update(key, condition, &update, options.ack).await
    }

    /// Makes a live entry stale from now on, if `condition` holds of it; it is kept till its end. With
    /// [`Condition::Always`] a store of the key in progress is stored as stale, and an update in progress fails. Gives
    /// what [`Cache::update`] gives.
    ///
    /// # Errors
    /// As those of [`Cache::update`].
    pub async fn expire(&self, key: &[u8], condition: Condition) -> Result<Stored, StoreError> {
        self.expire_as(key, condition, None).await
    }

    /// As [`Cache::expire`], acknowledged as `ack` says.
    pub(crate) async fn expire_as(
        &self,
        key: &[u8],
        condition: Condition,
        ack: Option<Ack>,
    ) -> Result<Stored, StoreError> {
        if condition == Condition::Always {
            self.inner.store.expire_fills(key);
        }
        let now = self.inner.clock.now();
        let lifetime = |present: Lifetime| {
            let fresh_until = present.fresh_until.min(now);
            Lifetime { fresh_until, ..present }
        };
        let fill = &self.inner.store.begin_fill(key);
        let (metadata, tags, validates) = (None, None, false);
        let update = Update { metadata, tags, lifetime: &lifetime, validates, fill };
        self.settle_update(key, condition, &update, ack).await
    }

    async fn settle_update(
        &self,
        key: &[u8],
        condition: Condition,
        update: &Update<'_>,
        ack: Option<Ack>,
    ) -> Result<Stored, StoreError> {
        let (stored, ticket) = self.inner.store.update(key, condition, update).await?;
        if ticket > 0 && self.is_flushed(ack) {
            self.inner.store.flush_through(ticket).await?;
        }
        Ok(stored)
    }

    /// The lifetime that an update gives an entry with this one.
    fn updated(&self, present: Lifetime, options: &UpdateOptions) -> Lifetime {
        let grace = options.grace.unwrap_or(present.keep_until.since(present.fresh_until));
        match (options.lifetime, options.ttl) {
            (Some(settled), _) => self.capped(settled),
            (None, Some(ttl)) => {
                let age_secs = whole_secs(options.age);
                Lifetime { age_secs, ..self.lifetime(Some(ttl), grace) }
            }
            (None, None) if !present.has_end() && options.grace.is_none() => self.capped(present),
            (None, None) => {
                let keep_until = present.fresh_until.plus(grace);
                self.capped(Lifetime { keep_until, ..present })
            }
        }
    }
}
