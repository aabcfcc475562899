//! Executes `md`: deletes an entry, marks it as stale, or takes its value. What it did is on the device before it
//! is answered: what was marked as stale is never given as fresh again.

use super::answers::push_flags;
use super::meta::MetaDelete;
use super::service::Service;
use super::storage::{ATTEMPTS_MAX, CONTENDED};
use crate::cache::{
    Ack, Condition, Fill, Hit, Lifetime, StoreError, StoreOptions, Stored, UpdateOptions,
};
use crate::server::metadata::Item;

impl Service {
    /// Executes `md` and appends its answer.
    pub(super) async fn meta_delete(&self, output: &mut Vec<u8>, delete: MetaDelete<'_>) {
        let code = match self.try_meta_delete(&delete).await {
            Ok("HD") if delete.reply.quiet => return,
            Ok(code) => code,
            Err(error) => {
                output.extend_from_slice(error.as_bytes());
                return output.extend_from_slice(b"\r\n");
            }
        };
        output.extend_from_slice(code.as_bytes());
        push_flags(output, &delete.reply, (delete.key, delete.reply.encoded), |_| None);
        output.extend_from_slice(b"\r\n");
    }

    /// The code of the answer.
    ///
    /// # Errors
    /// The error that is answered.
    async fn try_meta_delete(&self, delete: &MetaDelete<'_>) -> Result<&'static str, &'static str> {
        let is_plain = delete.compare.is_none() && !delete.stale && !delete.emptied;
        if is_plain {
            return Ok(if self.delete(delete.key).await? { "HD" } else { "NF" });
        }
        for _ in 0..ATTEMPTS_MAX {
            let fill = self.cache.begin_fill(&delete.key);
            let Some(hit) = self.cache.lookup_head(&delete.key).await else {
                self.shard.delete_misses.bump();
                // What an earlier run stored may be there still, and is found fresh when recovery is done.
                if !self.cache.is_ready() && delete.compare.is_none() {
                    self.delete(delete.key).await?;
                }
                return Ok("NF");
            };
            let item = Item::of(hit.metadata());
            if delete.compare.is_some_and(|cas| cas != item.cas.unwrap_or(hit.cas())) {
                self.shard.delete_misses.bump();
                return Ok("EX");
            }
            let changed = if delete.emptied {
                self.empty(delete, &hit, item).await
            } else if delete.stale {
                self.mark_stale(delete, (&hit, item), &fill).await
            } else {
                let now = self.cache.clock().now();
                let over = Lifetime { fresh_until: now, keep_until: now, ..hit.lifetime() };
                let how = (over, Some(Ack::Flushed));
                let ended = self.cache.touch_until(&delete.key, Some(hit.cas()), how).await;
                ended.map(|ended| ended.is_some())
            };
            match changed {
                Ok(true) => {
                    if !delete.stale {
                        self.shard.delete_hits.bump();
                    }
                    return Ok("HD");
                }
                // It changed since the look at it.
                Ok(false) | Err(StoreError::Purged) => {}
                Err(error) => return Err(self.failed_removal(&error)),
            }
        }
        Err(CONTENDED)
    }

    /// Marks an entry as stale; false if it changed.
    async fn mark_stale(
        &self,
        delete: &MetaDelete<'_>,
        (hit, item): (&Hit, Item),
        fill: &Fill,
    ) -> Result<bool, StoreError> {
        let (condition, ack) = (Condition::Unchanged(hit.cas()), Some(Ack::Flushed));
        let updated = if Item::is_one(hit.metadata()) {
            let marks = item.marks.wrapping_add(1);
            let item = Item { is_stale: true, marks, cas: delete.new_cas, ..item };
            let options = UpdateOptions {
                metadata: Some(item.encode()),
                lifetime: delete.touch.map(|exptime| self.life(exptime)),
                ack,
                ..UpdateOptions::default()
            };
            let updated = self.cache.update_with(&delete.key, condition, &options, fill).await?;
            if let (Stored::Yes(version), Some(at)) = (updated, self.reads.last(hit.cas())) {
                // It was read; who won it before has not won it any more.
                self.reads.note(version, at);
            }
            updated
        } else {
            // What another protocol stored is stale as that knows it, and not found here any more.
            self.cache.expire_as(&delete.key, condition, ack).await?
        };
        Ok(matches!(updated, Stored::Yes(_)))
    }

    /// Takes the value and the flags of an entry; false if it changed.
    async fn empty(
        &self,
        delete: &MetaDelete<'_>,
        hit: &Hit,
        item: Item,
    ) -> Result<bool, StoreError> {
        // As in memcached a mark gives it a new CAS value, and only that.
        let kept = Some(item.cas.unwrap_or(hit.cas())).filter(|_| !delete.stale);
        let item = Item {
            is_stale: delete.stale,
            has_encoded_key: item.has_encoded_key,
            cas: delete.new_cas.or(kept),
            ..Item::default()
        };
        let options = self.item_options(&item, delete.touch.unwrap_or(0));
        let options = StoreOptions { ack: Some(Ack::Flushed), ..options };
        let condition = Condition::Unchanged(hit.cas());
        let stored = self.cache.put(&delete.key, b"", condition, &options).await?;
        Ok(matches!(stored, Stored::Yes(_)))
    }
}

#[cfg(test)]
#[path = "meta_crash_tests.rs"]
mod tests;
