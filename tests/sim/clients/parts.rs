//! Objects that come part by part: declared, filled by several clients in any order, and read where they are
//! there. What is read is compared with the version that the lookup gave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rawcached::cache::{Hit, Lease, Parts, StoreError, StoreOptions, Validator};

use super::{Client, for_turns, turns_of};
use crate::history::{StoreEnd, Tick, Version};
use crate::world::{body_of, key_bytes};

/// Objects that one client fills at a time.
const FILLED_MAX: usize = 3;
/// Parts that it stores in one operation.
const PARTS_AT_ONCE: usize = 4;
/// Longest part.
const PART_MAX: usize = 50_000;

/// An object that a client fills.
pub struct Filled {
    /// The version that its head named when it was declared.
    id: u64,
    body: Bytes,
    parts: Parts,
    /// Its parts are acknowledged when they are durable.
    flushed: bool,
}

/// Parts that were acknowledged, of each version, and whether they are durable; in this life, or of earlier ones.
#[derive(Debug, Default)]
pub struct Acknowledged(BTreeMap<u64, Vec<(Range<u64>, bool)>>);

impl Acknowledged {
    fn add(&mut self, id: u64, part: Range<u64>, is_durable: bool) {
        self.0.entry(id).or_default().push((part, is_durable));
    }

    /// A life ended.
    pub fn end_life(&mut self) {
        for parts in self.0.values_mut() {
            parts.retain(|(_, is_durable)| *is_durable);
        }
    }

    /// A part that `missing` names although it was acknowledged.
    fn lost(&self, id: u64, missing: &[Range<u64>]) -> Option<Range<u64>> {
        let parts = self.0.get(&id)?;
        let is_lost = |part: &&Range<u64>| {
            missing.iter().any(|gap| gap.start < part.end && part.start < gap.end)
        };
        parts.iter().map(|(part, _)| part).find(is_lost).cloned()
    }
}

impl Client {
    /// Does something with an object that comes part by part.
    pub(super) async fn do_parts(&mut self, key: u32) {
        match self.rng.u32(0..8) {
            0 => self.begin_parts(key, None).await,
            1 => self.go_on_with_parts(key).await,
            2 | 3 => self.read_parts(key).await,
            _ if self.filled.is_empty() => self.begin_parts(key, None).await,
            _ => {
                for _ in 0..PARTS_AT_ONCE {
                    self.fill_part().await;
                }
            }
        }
    }

    /// Declares a version of its own, with a lease that was given at a moment, or without one.
    pub(super) async fn begin_parts(&mut self, key: u32, lease: Option<(Lease, Tick)>) {
        let (version, options) = self.new_version(key);
        let len = *self.rng.choice(&[1000, 70_000, 150_000]).unwrap();
        let version = Version { len, is_partial: true, ram_only: false, ..version };
        let age = Duration::from_secs(self.rng.u64(0..3));
        self.declare(version, options!(StoreOptions { age, ..options }), lease).await;
    }

    /// Declares the version that there is once more.
    pub(super) async fn go_on_with_parts(&mut self, key: u32) {
        let Some((id, hit)) = self.lookup_head(key).await else { return };
        let (is_partial, len) = (hit.is_partial(), usize::try_from(hit.len()).unwrap());
        drop(hit);
        if !is_partial {
            return;
        }
        let body = self.history().body(id);
        let (version, options) = self.new_version(key);
        let version =
            Version { len, body, replaced: id, is_partial: true, ram_only: false, ..version };
        self.declare(version, options, None).await;
    }

    async fn declare(
        &mut self,
        version: Version,
        options: StoreOptions,
        lease: Option<(Lease, Tick)>,
    ) {
        let flushed = self.is_flushed(&options);
        self.note_change(version);
        let change = {
            let mut history = self.history();
            history.note(format_args!("declare {version:?} flushed {flushed}"));
            let began = lease.as_ref().map_or_else(|| history.tick(), |(_, given)| *given);
            history.begin_store(version, Some(began))
        };
        let validator = Validator::etag(format!("\"{}\"", version.body).as_bytes()).unwrap();
        let (len, name) = (version.len as u64, key_bytes(version.key));
        let (turns, cache) = (self.patience(), self.cache.clone());
        let declared = for_turns(turns, async {
            match lease {
                Some((lease, _)) => lease.declare(len, &validator, &options).await,
                None => cache.declare(&name, len, &validator, &options).await,
            }
        });
        let declared = declared.await;
        let mut history = self.history();
        history.note(format_args!("declared {}: {declared:?}", version.id));
        let how = match &declared {
            None => StoreEnd::Cancelled,
            Some(Ok(Some(parts))) if parts.is_new() => {
                StoreEnd::Stored { sequence: parts.cas(), flushed }
            }
            Some(Ok(_)) | Some(Err(StoreError::Purged)) => StoreEnd::Void,
            // It ended before there was room for it.
            Some(Err(StoreError::Gone)) if version.life.keep_until <= self.clock.now().0 => {
                StoreEnd::Void
            }
            Some(Err(error)) => {
                self.expect_error(&mut history, error);
                // It may have been published, and not become durable.
                StoreEnd::Cancelled
            }
        };
        history.end_store(change, how);
        let id = match &declared {
            Some(Ok(Some(parts))) if !parts.is_new() => history.of_cas(parts.cas()),
            _ => Some(version.id),
        };
        drop(history);
        let (Some(Ok(Some(parts))), Some(id)) = (declared, id) else { return };
        self.world.totals.lock().declared += 1;
        if self.filled.len() == FILLED_MAX {
            let dropped = self.rng.usize(0..FILLED_MAX);
            self.filled.swap_remove(dropped);
        }
        let body = body_of(version.body, version.len);
        self.filled.push(Filled { id, body, parts, flushed });
    }

    /// Stores a part of an object that it declared.
    async fn fill_part(&mut self) {
        if self.filled.is_empty() {
            return;
        }
        let n = self.rng.usize(0..self.filled.len());
        let Filled { id, body, parts, flushed } = &self.filled[n];
        let (id, body, parts, is_durable) = (*id, body.clone(), parts.clone(), *flushed);
        let start = self.rng.usize(0..body.len());
        let end = body.len().min(start + self.rng.usize(1..=PART_MAX));
        let chunk = self.rng.usize(1..30_000);
        self.world.note_change(&self.cache, 4);
        self.history().note(format_args!("fill {start}..{end} of {id}"));
        let turns = self.patience();
        let slow = self.one_in(3).then(|| self.rng.u32(0..20));
        let filled = for_turns(turns, async {
            let mut writer = parts.writer(start as u64);
            for chunk in body[start..end].chunks(chunk) {
                writer.write_chunk(chunk).await?;
                turns_of(slow.unwrap_or(0)).await;
            }
            writer.finish().await
        });
        let filled = filled.await;
        let mut history = self.history();
        history.note(format_args!("filled {start}..{end} of {id}: {filled:?}"));
        match filled {
            None => {}
            Some(Ok(())) => {
                self.world.totals.lock().parts += 1;
                drop(history);
                let part = start as u64..end as u64;
                self.world.acknowledged.lock().add(id, part, is_durable);
            }
            Some(Err(error)) => {
                if !matches!(error, StoreError::Gone | StoreError::Fragmented) {
                    self.expect_error(&mut history, &error);
                }
                drop(history);
                self.filled.swap_remove(n);
            }
        }
    }

    /// Reads what is there of an object, or of a range of it.
    async fn read_parts(&mut self, key: u32) {
        let recovered = self.cache.is_ready();
        let Some((id, hit)) = self.lookup_head(key).await else { return };
        if hit.is_partial() {
            self.check_parts((key, id), &hit, recovered).await;
        }
    }

    /// Reads what is there of an object that a lookup found, which began when recovery was complete or not.
    pub(super) async fn check_parts(&mut self, (key, id): (u32, u64), hit: &Hit, recovered: bool) {
        let acknowledged = self.world.acknowledged.lock().0.get(&id).cloned().unwrap_or_default();
        let asked = 0..hit.len();
        let missing = hit.missing(asked.clone()).await;
        let body = body_of(self.history().body(id), usize::try_from(hit.len()).unwrap());
        self.history().note(format_args!("missing of {id}: {missing:?}"));
        let is_in_order = missing.windows(2).all(|two| two[0].end < two[1].start);
        if !is_in_order || missing.iter().any(|gap| gap.is_empty() || gap.end > asked.end) {
            self.history().violate(format!("version {id} has gaps {missing:?} of {asked:?}"));
        }
        if self.world.scenario.is_sound()
            && self.world.scenario.roomy
            && recovered
            && !self.world.may_have_forgotten(&self.cache)
            // What took its place may have had its slices dropped before the lookup ended.
            && self.history().is_current(key, id)
        {
            let known = Acknowledged(BTreeMap::from([(id, acknowledged)]));
            if let Some(part) = known.lost(id, &missing) {
                self.history().violate(format!("version {id} lost the part {part:?}"));
            }
        }
        let mut at = 0;
        for gap in missing {
            if at < gap.start {
                self.read_covered((id, &body), hit, at..gap.start).await;
            }
            at = gap.end;
        }
        if at < asked.end {
            self.read_covered((id, &body), hit, at..asked.end).await;
        }
    }

    async fn read_covered(&mut self, (id, body): (u64, &Bytes), hit: &Hit, range: Range<u64>) {
        let start = self.rng.u64(range.clone());
        let end = self.rng.u64(start..range.end) + 1;
        let Ok(mut reader) = hit.range(start..end).await else { return };
        let mut at = usize::try_from(start).unwrap();
        loop {
            match reader.next_chunk().await {
                // Evicted or damaged meanwhile.
                Err(_) => return,
                Ok(None) => {
                    self.world.totals.lock().parts_read += 1;
                    if at as u64 != end {
                        let what = format!("version {id}: part {start}..{end} ended at {at}");
                        self.history().violate(what);
                    }
                    return;
                }
                Ok(Some(piece)) => {
                    if body.get(at..at + piece.len()) != Some(&piece[..]) {
                        let what = format!("version {id} has wrong bytes in a part from {at}");
                        return self.history().violate(what);
                    }
                    at += piece.len();
                }
            }
        }
    }
}
