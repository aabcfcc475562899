//! Stores: whole, streamed and abandoned ones, and those that fill a device before clients begin.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Ack, Condition, StoreError, StoreOptions, Stored, Writer};

use super::{Client, for_turns, turns_of};
use crate::history::{ChangeId, History, Life, StoreEnd, Version};
use crate::scenario::{Scenario, Theme};
use crate::world::{FILL_KEYS, body_of, key_bytes};

/// Length of the bodies that fill a device.
const FILL_LEN: usize = 50_000;
/// Bytes that a streamed store sends at a time.
const STREAM_CHUNK: usize = 7_777;
/// Pieces of the longest streamed stores, about.
const STREAM_CHUNKS_MAX: usize = 60;

impl Client {
    /// Fills the device with entries of other keys, and few of the clients' in between.
    pub async fn fill(mut self) {
        for n in 0..FILL_KEYS {
            let stats = self.cache.stats().store;
            if stats.recovered && stats.regions_free <= 2 {
                return;
            }
            self.store_for_fill(self.world.scenario.keys + n, FILL_LEN).await;
            // Hit entries are re-inserted when their region is reclaimed.
            for _ in 0..2 {
                let key = self.rng.u32(0..self.world.scenario.keys);
                self.store_for_fill(key, 300).await;
                self.look(key).await;
            }
        }
    }

    async fn store_for_fill(&mut self, key: u32, len: usize) {
        let (version, options) = self.new_version(key);
        let version = Version { len, ram_only: false, ..version };
        let options = options!(StoreOptions { ack: Some(Ack::Buffered), ..options });
        // A lifetime long enough to go to the device.
        let ttl = Duration::from_secs(self.rng.u64(1_000..100_000));
        let options = options!(StoreOptions { ttl: Some(ttl), grace: Duration::ZERO, ..options });
        let until = version.life.stored_at + u32::try_from(ttl.as_secs()).unwrap();
        let life = Life { fresh_until: until, keep_until: until, ..version.life };
        self.put_version(Version { life, ..version }, options, Condition::Always).await;
    }

    pub(super) fn new_version(&mut self, key: u32) -> (Version, StoreOptions) {
        let scenario = &self.world.scenario;
        let id = self.world.next_id.fetch_add(1, Ordering::Relaxed);
        let len = scenario.body_len(&mut self.rng);
        let ttl = self.rng.u64(scenario.ttl_secs.clone());
        let grace = if scenario.grace && self.rng.bool() { self.rng.u64(1..20) } else { 0 };
        let flushed_one_in = scenario.flushed_one_in;
        let ack = if self.one_in(flushed_one_in) { Some(Ack::Flushed) } else { None };
        let scenario = &self.world.scenario;
        let now = self.now();
        let life = Life {
            stored_at: now,
            fresh_until: now + u32::try_from(ttl).unwrap(),
            keep_until: now + u32::try_from(ttl + grace).unwrap(),
        };
        let ram_only = scenario.ram_bytes > 0
            && Duration::from_secs(ttl + grace) <= scenario.min_to_disk
            && ack.unwrap_or(scenario.ack) == Ack::Buffered
            && (len as u64) < scenario.ram_bytes / 8
            && len as u64 <= scenario.region_size / 4;
        let options = options!(StoreOptions {
            ttl: Some(Duration::from_secs(ttl)),
            grace: Duration::from_secs(grace),
            metadata: Bytes::copy_from_slice(&id.to_le_bytes()),
            ack,
            tags: self.world.tags_of(key, id),
            ..StoreOptions::default()
        });
        (
            Version { id, key, len, life, body: id, replaced: id, ram_only, is_partial: false },
            options,
        )
    }

    fn condition(&mut self) -> Condition {
        match self.rng.u32(0..10) {
            0 => Condition::Absent,
            1 => Condition::Present,
            _ => Condition::Always,
        }
    }

    pub(super) async fn put(&mut self, key: u32) {
        let (version, options) = self.new_version(key);
        let condition = self.condition();
        self.put_version(version, options, condition).await;
    }

    pub(super) async fn put_version(
        &mut self,
        version: Version,
        options: StoreOptions,
        condition: Condition,
    ) {
        let body = body_of(version.id, version.len);
        let flushed = self.is_flushed(&options);
        self.note_change(version);
        let sliced = version.len as u64 > self.world.scenario.region_size / 4;
        let change = {
            let mut history = self.history();
            history.note(format_args!("put {version:?} {condition:?} flushed {flushed}"));
            // The cache streams a large body.
            let fill_began = sliced.then(|| history.tick());
            if let Some(began) = fill_began {
                history.begin_large(version.id, began, version.len as u64);
            }
            history.begin_store(version, fill_began)
        };
        let name = key_bytes(version.key);
        let turns = self.patience();
        let cache = self.cache.clone();
        let stored = for_turns(turns, cache.put(&name, body, condition, &options)).await;
        self.end_store((change, version), (condition, stored), flushed);
    }

    pub(super) async fn stream(&mut self, key: u32) {
        let (version, options) = self.new_version(key);
        self.note_change(version);
        let condition = self.condition();
        let flushed = self.is_flushed(&options);
        let fill_began = {
            let mut history = self.history();
            history.note(format_args!("stream {version:?} {condition:?} flushed {flushed}"));
            let began = history.tick();
            history.begin_large(version.id, began, version.len as u64);
            began
        };
        let is_announced = self.world.scenario.theme == Theme::Large && self.rng.bool();
        let len_hint = is_announced.then_some(version.len as u64);
        let follow = self.is_followed();
        let options = options!(StoreOptions { len_hint, follow, ..options });
        let begun = self.cache.store(&key_bytes(key), options);
        let Ok(mut writer) = begun else {
            self.history().end_large(version.id, None);
            return;
        };
        if follow {
            self.begin_followed(version.id, (key, version.len), &writer);
        }
        let abandoned = self.one_in(8);
        if !self.send(&mut writer, version, (is_announced, abandoned)).await {
            drop(writer);
            self.end_followed(version.id, None);
            self.history().end_large(version.id, None);
            return;
        }
        let change = {
            let mut history = self.history();
            history.note(format_args!("finalize {}", version.id));
            history.begin_store(version, Some(fill_began))
        };
        let turns = self.patience();
        self.finalize_followed(version.id);
        let stored = for_turns(turns, writer.finalize(condition)).await;
        self.end_followed(version.id, stored.as_ref());
        self.end_store((change, version), (condition, stored), flushed);
    }

    /// Sends the body in pieces, with pauses; false if the store is over.
    async fn send(
        &mut self,
        writer: &mut Writer,
        version: Version,
        (is_announced, abandoned): (bool, bool),
    ) -> bool {
        let body = body_of(version.id, version.len);
        let stop_at = if abandoned { self.rng.usize(0..=body.len()) } else { usize::MAX };
        let mut sent = 0;
        for chunk in body.chunks(STREAM_CHUNK.max(version.len / STREAM_CHUNKS_MAX)) {
            if sent >= stop_at {
                return false;
            }
            // A failed piece ends the store and leaves the old version as it is.
            if let Err(error) = writer.write_chunk(chunk).await {
                let mut history = self.history();
                history.note(format_args!("a piece of {} failed: {error}", version.id));
                self.expect_stored(&mut history, (version, is_announced), &error);
                return false;
            }
            sent += chunk.len();
            if self.one_in(4) {
                turns_of(self.rng.u32(0..30)).await;
            }
        }
        !abandoned
    }

    /// On a sound device that is not slow, a store of more than a slice ends well once begun,
    /// unless there was never room for it.
    fn expect_stored(
        &self,
        history: &mut History,
        (version, is_announced): (Version, bool),
        error: &StoreError,
    ) {
        let scenario = &self.world.scenario;
        let expected = match error {
            StoreError::Crowded { .. } => !is_announced,
            StoreError::TooLarge { .. } | StoreError::Purged => true,
            StoreError::ShuttingDown | StoreError::Incomplete => true,
            _ => false,
        };
        let is_promised =
            scenario.theme == Theme::Large && version.len as u64 > scenario.region_size / 4;
        if is_promised && !expected {
            history.violate(format!("version {} was begun and is refused: {error}", version.id));
        }
    }

    /// Besides its own key, each slice of a large body has one.
    pub(super) fn note_change(&self, version: Version) {
        let slices = version.len as u64 / (self.world.scenario.region_size / 4);
        self.world.note_change(&self.cache, 2 + slices);
    }

    pub(super) fn is_flushed(&self, options: &StoreOptions) -> bool {
        options.ack.unwrap_or(self.world.scenario.ack) == Ack::Flushed
    }

    pub(super) fn end_store(
        &self,
        (change, version): (ChangeId, Version),
        (condition, stored): (Condition, Option<Result<Stored, StoreError>>),
        flushed: bool,
    ) {
        let so_far = self.stored_so_far();
        let mut history = self.history();
        let (key, id) = (version.key, version.id);
        let is_stored = matches!(stored, Some(Ok(Stored::Yes(_))));
        let Scenario { theme, region_size, .. } = self.world.scenario;
        let are_kept = matches!(theme, Theme::Large | Theme::Updates | Theme::Prolonged);
        let is_large = are_kept && version.len as u64 >= region_size;
        history.end_large(id, (is_stored && is_large).then_some(so_far));
        let how = match stored {
            None => {
                history.note(format_args!("store {id} dropped"));
                StoreEnd::Cancelled
            }
            Some(Ok(Stored::Yes(sequence))) => {
                history.note(format_args!("stored {id} as {sequence:#x}"));
                self.world.totals.lock().stores += 1;
                StoreEnd::Stored { sequence, flushed }
            }
            Some(Ok(refused)) => {
                history.note(format_args!("store {id} refused: {refused:?}"));
                if refused == Stored::Exists {
                    let began = history.began(change);
                    history.end_store(change, StoreEnd::Void);
                    return history.check_existed(key, began, "a store that wanted none");
                }
                StoreEnd::Void
            }
            Some(Err(error)) => {
                history.note(format_args!("store {id} failed: {error}"));
                let is_unremembered =
                    matches!(error, StoreError::Busy(why) if why.contains("remember"));
                self.world.totals.lock().unremembered += u64::from(is_unremembered);
                self.expect_error(&mut history, &error);
                self.expect_stored(&mut history, (version, false), &error);
                match error {
                    StoreError::Purged => StoreEnd::Void,
                    // Nothing was published, and the entry is left as it is.
                    StoreError::Busy(_)
                    | StoreError::Crowded { .. }
                    | StoreError::TooLarge { .. }
                    | StoreError::Evicted
                    | StoreError::Incomplete
                    | StoreError::Refused
                        if condition != Condition::Always =>
                    {
                        StoreEnd::Void
                    }
                    // The old version is removed; on a failing device that may not last.
                    _ => StoreEnd::Failed { removed: self.is_faultless(&error) },
                }
            }
        };
        history.end_store(change, how);
    }
}
