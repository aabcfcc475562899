//! A large object on its way into the log: first its slices, then the head that names them. Owns what was
//! stored of it until the head is there.

use crate::format::{Kind, ObjectHead, Records, Sequence, SliceKey};
use crate::store::counters::add;
use crate::store::entries::Tier;
use crate::store::large::object::LargeObject;
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::slot::Slot;
use crate::store::log::write::Ticket;
use crate::store::mutation::fills::Fill;
use crate::store::mutation::request::{Condition, Lifetime, StoreError, Stored};
use crate::store::mutation::room::Patience;
use crate::store::shared::Store;
use crate::store::transaction::Transaction;

/// A large object on its way into the log. Dropped before it is published, its slices are discarded.
pub struct Upload {
    store: Store,
    /// Of the key of its head: its slices lead there.
    head_key: u64,
    lifetime: Lifetime,
    /// Bytes of the device that are set aside for it: all uploads together may take half.
    reserved: u64,
    /// Drawn with the first slice.
    name: Option<Sequence>,
    slices: u32,
    /// Bytes in slices.
    len: u64,
    /// The ticket of the first slice.
    first: Option<Ticket>,
    /// A slice was evicted, so nothing more of it is written.
    is_lost: bool,
    is_published: bool,
}

impl Store {
    /// Begins to store the body of a key, which may be longer than a slice. Space is set aside for `len`
    /// bytes if so many are announced, else as they come.
    ///
    /// # Errors
    /// [`StoreError::Crowded`]: there is no space for a body so long.
    pub fn begin_upload(
        &self,
        key: &[u8],
        lifetime: Lifetime,
        len: Option<u64>,
    ) -> Result<Upload, StoreError> {
        let mut upload = Upload {
            store: self.clone(),
            head_key: self.key_hash(key),
            lifetime,
            reserved: 0,
            name: None,
            slices: 0,
            len: 0,
            first: None,
            is_lost: false,
            is_published: false,
        };
        if let Some(len) = len.filter(|len| *len > u64::from(self.shared.layout.slice_size)) {
            upload.reserve(len)?;
        }
        Ok(upload)
    }
}

impl Upload {
    /// Whether it has no slice: a body that is not longer than one is stored as a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none()
    }

    /// The object of the slices so far, to be read; `None` before the first one.
    #[must_use]
    pub fn object(&self) -> Option<LargeObject> {
        let slice_size = self.store.shared.layout.slice_size;
        let head = ObjectHead { len: self.len, object: self.name?, slice_size };
        Some(self.store.large_object(head))
    }

    /// Appends a slice. All but the last one are as long as the layout says.
    ///
    /// # Errors
    /// See [`StoreError`]. That another slice is gone already is for [`Upload::publish`] to tell.
    pub async fn append(&mut self, slice: &[u8]) -> Result<(), StoreError> {
        let len = self.len + slice.len() as u64;
        self.reserve(len)?;
        let object = match self.name {
            Some(name) => name,
            None => self.begin_object().await?,
        };
        if !self.is_lost {
            match self.append_slice(SliceKey::of_slice(object, self.slices), slice).await {
                Err(StoreError::Evicted) => self.is_lost = true,
                appended => {
                    let ticket = appended?;
                    self.first.get_or_insert(ticket);
                }
            }
        }
        self.slices += 1;
        self.len = len;
        Ok(())
    }

    /// Stores the head of the object if `condition` holds: it appears, and replaces the old entry.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Evicted`] if a slice is gone, and [`StoreError::Purged`] if the
    /// key was purged since its fill began, whatever became of the slices.
    pub async fn publish(
        &mut self,
        key: &[u8],
        (metadata, records): (&[u8], &Records),
        (condition, fill): (Condition, &Fill),
    ) -> Result<(Stored, Ticket), StoreError> {
        if self.is_lost {
            // Not by looking for the slice: another one's index entry may look like its.
            return Err(if fill.is_purged() { StoreError::Purged } else { StoreError::Evicted });
        }
        // What was purged may have lost its slices: it is for the purge that it fails.
        self.store.check_open(Some(fill))?;
        let head = self.head();
        if !self.store.has_slices(&head, 0..head.len).await {
            return Err(StoreError::Evicted);
        }
        let body = head.encode();
        let slot = Slot::new(Kind::Head, key, (metadata, &body), self.lifetime);
        let slot = slot.with_records(records);
        let published =
            self.store.publish_if(key, &slot, condition, (Some(fill), Tier::Log)).await?;
        // Whatever happens from here on, the slices belong to the object.
        self.is_published |= matches!(published, (Stored::Yes(_), _));
        Ok(published)
    }

    /// Appends the only slice of an object whose head its caller publishes; gives that head too.
    ///
    /// # Errors
    /// As those of [`Upload::append`].
    pub(in crate::store) async fn with_slice(
        mut self,
        slice: &[u8],
    ) -> Result<(Upload, ObjectHead), StoreError> {
        self.append(slice).await?;
        let head = self.head();
        Ok((self, head))
    }

    /// Its head was published: the slices belong to the object.
    pub(in crate::store) fn published(mut self) {
        self.is_published = true;
    }

    /// Whether a write failed that may have been of a slice: the object may not be whole on the device, although
    /// its head is durable.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        self.first.is_some_and(|first| self.store.has_failed_since(first))
    }

    fn head(&self) -> ObjectHead {
        let slice_size = self.store.shared.layout.slice_size;
        ObjectHead { len: self.len, object: self.name.unwrap_or_default(), slice_size }
    }

    /// Sees to it that `bytes` are set aside.
    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        let more = bytes.saturating_sub(self.reserved);
        if more > 0 {
            let mut claims = self.store.shared.large.claims.lock();
            if !claims.reserve(more) {
                return Err(StoreError::Crowded { limit: claims.limit() });
            }
            self.reserved += more;
        }
        Ok(())
    }

    /// Draws the name of the object. Its slices are kept from here on.
    async fn begin_object(&mut self) -> Result<Sequence, StoreError> {
        self.store.begin_store().await?;
        let name = self.store.draw_object_name().await?;
        self.store.shared.large.claims.lock().begin(name);
        self.name = Some(name);
        Ok(name)
    }

    /// Its key is new, so nothing is verified.
    async fn append_slice(&self, key: SliceKey, body: &[u8]) -> Result<Ticket, StoreError> {
        self.store.begin_store().await?;
        add(&self.store.shared.counters.body_bytes, body.len() as u64);
        let encoded = key.encode();
        let slot = Slot::new(Kind::Slice, &encoded, (&[], body), self.lifetime);
        let head_key = Some(self.head_key);
        let slot = slot.with_records(&Records { head_key, ..Records::default() });
        let key_hash = self.store.slice_hash(&encoded);
        let mut patience = Patience::default();
        loop {
            match self.try_to_append(key.object, key_hash, &slot)? {
                Ok(ticket) => return Ok(ticket),
                Err(why) => self.store.wait_for_room(why, &mut patience).await?,
            }
        }
    }

    /// [`StoreError::Evicted`] if another slice is gone already.
    fn try_to_append(
        &self,
        object: Sequence,
        key_hash: u64,
        slot: &Slot<'_>,
    ) -> Result<Result<Ticket, NoRoom>, StoreError> {
        let shared = &*self.store.shared;
        let transaction = Transaction::begin(&self.store);
        self.store.check_open(None)?;
        if shared.large.claims.lock().claim(object).is_none() {
            return Err(StoreError::Evicted);
        }
        let reserved = match transaction.reserve((slot, key_hash), Appender::Client) {
            Ok(reserved) => reserved,
            Err(why) => return Ok(Err(why)),
        };
        let written = reserved.point_new().append(false, |log, region| {
            log.count_stored(slot.len());
            shared.large.claims.lock().add(object, region, slot.len());
        });
        Ok(Ok(written.ticket))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(object) = self.name
            && !self.is_published
        {
            self.store.discard_slices(object, self.slices);
        }
        if self.reserved > 0 {
            self.store.shared.large.claims.lock().release(self.reserved);
        }
    }
}
