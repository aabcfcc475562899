//! Stores of whole bodies and of streams. Owns what a failed store leaves behind.

use super::leases::OfLease;
use super::writer::Writer;
use super::{Cache, StoreOptions, check_lengths};
use crate::store::{Condition, Fill, StoreError, Stored, Value};

impl Cache {
    /// Stores a body that is in memory, if `condition` holds of the present entry.
    ///
    /// # Errors
    /// See [`StoreError`]. After a failed store the old entry is gone too, unless it had a condition:
    /// then only what was published, and may not be durable, is gone.
    pub fn put(
        &self,
        key: &[u8],
        body: impl AsRef<[u8]>,
        condition: Condition,
        options: &StoreOptions,
    ) -> impl Future<Output = Result<Stored, StoreError>> {
        self.put_in_turn(key, body, (condition, (), None), options)
    }

    /// As [`Cache::put`]; `turn` is dropped when the entry can be read, which may be long before the
    /// store is acknowledged: who waits for it may change the entry again. Purges since `fill` began prevail.
    pub(crate) async fn put_in_turn<T>(
        &self,
        key: &[u8],
        body: impl AsRef<[u8]>,
        (condition, turn, fill): (Condition, T, Option<Fill>),
        options: &StoreOptions,
    ) -> Result<Stored, StoreError> {
        let since = OfLease { fill, held: None };
        self.put_with(key, body.as_ref(), (condition, turn, since), options).await
    }

    /// As [`Cache::put_in_turn`], with what a lease brings.
    pub(super) async fn put_with<T>(
        &self,
        key: &[u8],
        body: &[u8],
        (condition, turn, of_lease): (Condition, T, OfLease),
        options: &StoreOptions,
    ) -> Result<Stored, StoreError> {
        check_lengths(key, &options.metadata)?;
        if body.len() > self.inner.store.layout().slice_size as usize {
            return self.put_sliced(key, body, (condition, of_lease), options).await;
        }
        let lifetime = self.lifetime_of(options);
        let ram_only = self.is_ram_only(&lifetime, options.ack, body.len());
        let tags = options.tag_hashes(&self.inner.store)?;
        let value = Value { metadata: &options.metadata, body, lifetime, tags: &tags, ram_only };
        let fill = of_lease.fill.as_ref();
        let published = self.inner.store.put(key, &value, condition, fill).await;
        if matches!(published, Ok((Stored::Yes(_), _))) {
            let hash = || self.inner.store.hash_of_key(key);
            self.inner.leases.note_stored(key, hash, of_lease.held);
        }
        drop(turn);
        self.end_store(key, (condition, options.ack), published).await
    }

    async fn put_sliced(
        &self,
        key: &[u8],
        body: &[u8],
        (condition, of_lease): (Condition, OfLease),
        options: &StoreOptions,
    ) -> Result<Stored, StoreError> {
        let announced = StoreOptions { len_hint: Some(body.len() as u64), ..options.clone() };
        let OfLease { fill, held } = of_lease;
        let written = match self.store_with(key, announced, OfLease { fill, held: None }) {
            Ok(mut writer) => writer.write_chunk(body).await.map(|()| writer),
            Err(error) => Err(error),
        };
        match written {
            Ok(writer) => writer.holding(held).finalize(condition).await,
            Err(error) => {
                let ended = self.end_store(key, (condition, options.ack), Err(error)).await;
                // Not before: who gets the lease is not to lose what it stores to the removal.
                drop(held);
                ended
            }
        }
    }

    /// Begins a streamed store. Dropping the writer leaves the old entry as it is. Room for the
    /// announced length is set aside until the writer is finalized or dropped.
    ///
    /// # Errors
    /// The key, the metadata or the announced length is out of bounds; [`StoreError::Crowded`] if stores
    /// under way would take more than half of the device together.
    pub fn store(&self, key: &[u8], options: StoreOptions) -> Result<Writer, StoreError> {
        self.store_with(key, options, OfLease::default())
    }

    /// As [`Cache::store`]; purges since `fill` began prevail.
    #[cfg(feature = "daemon")]
    pub(crate) fn store_since(
        &self,
        key: &[u8],
        options: StoreOptions,
        fill: Fill,
    ) -> Result<Writer, StoreError> {
        self.store_with(key, options, OfLease { fill: Some(fill), held: None })
    }

    /// What is stored with this counts from now on: for changes that depend on what a lookup gives.
    #[cfg(feature = "daemon")]
    pub(crate) fn begin_fill(&self, key: &[u8]) -> Fill {
        self.inner.store.begin_fill(key)
    }

    /// As [`Cache::store`], with what a lease brings.
    pub(super) fn store_with(
        &self,
        key: &[u8],
        options: StoreOptions,
        of_lease: OfLease,
    ) -> Result<Writer, StoreError> {
        check_lengths(key, &options.metadata)?;
        let limit = self.object_len_max();
        if options.len_hint.is_some_and(|len| len > limit) {
            return Err(StoreError::TooLarge { limit });
        }
        Writer::new(self.clone(), key, options, of_lease)
    }
}
