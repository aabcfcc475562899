//! Verifies everything on a device. Owns what counts as damage: bytes that are not what was written.
//! Traces of eviction, expiry or a crash are counted, but are no damage.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::format::{
    Damage, ENTRY_HEADER_LEN, EntryHeader, FooterRecord, GRANULE, Kind, ObjectHead, PurgeRecord,
    SUPERBLOCK_LEN, Seed, Sequence, SliceKey, Superblock, Tombstone, round_up,
};
use crate::inspect::finding::{Finding, with_cause};
use crate::inspect::inspection::Inspection;
use crate::inspect::listing::{Live, Versions, is_partial};
use crate::inspect::sight::{Holds, Sight};
use crate::inspect::snapshot::{SnapshotSeen, SnapshotState};
use crate::store::{KeyHasher, Location, SlotWalk, sound_slot};

/// Progress of [`Inspection::check`].
pub enum CheckEvent<'a> {
    /// This region comes next.
    Region(u32),
    /// Something is damaged.
    Damage(&'a Finding),
    /// A live object lacks pieces; this is no damage.
    Incomplete(&'a Incomplete),
}

/// A live object that lost pieces by eviction: a miss, but no damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// The region its head is in.
    pub region: u32,
    /// Byte offset of the head's slot on the device.
    pub offset: u64,
    /// Its key; empty if it is unreadable by now.
    pub key: Vec<u8>,
    /// Pieces of its body.
    pub slices: u32,
    /// How many of them are not on the device.
    pub missing: u32,
}

/// Totals of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Regions that hold entries.
    pub regions_used: u64,
    /// Regions that hold nothing.
    pub regions_unused: u64,
    /// Regions that hold the index snapshot that the next start reads.
    pub regions_snapshot: u64,
    /// State of that snapshot.
    pub snapshot: SnapshotState,
    /// Index entries in it.
    pub snapshot_entries: u64,
    /// Sound entries, including dead and expired ones and slices.
    pub entries: u64,
    /// How many of them are slices.
    pub slices: u64,
    /// Sound tombstones, without those of entries.
    pub tombstones: u64,
    /// Live objects that lost pieces by eviction; a lookup does not find them.
    pub incomplete_objects: u64,
    /// Superblock copies that are sound but older than the other. A power cut between the two writes
    /// leaves one, and the next start repairs it.
    pub superblocks_outdated: u64,
    /// Bytes of regions and of the snapshot that were verified.
    pub verified_bytes: u64,
    /// Number of damaged things.
    pub damaged: u64,
}

/// Gathered over all regions to verify large objects.
#[derive(Default)]
struct Pieces {
    versions: Versions,
    /// With whether it comes part by part: it may lack slices then.
    heads: Vec<(Location, ObjectHead, bool)>,
    /// The seed of each region's present generation.
    seeds: HashMap<u32, Seed>,
    /// Key hash and body length of each sound slice.
    slices: Vec<(u64, u32)>,
    snapshot: SnapshotSeen,
}

/// The slots of a region whose header, key and metadata are sound, in order of offset.
#[derive(Default)]
struct Slots {
    sound: Vec<(u64, EntryHeader)>,
    tombstones: Vec<Tombstone>,
    purge_records: Vec<PurgeRecord>,
}

impl Inspection {
    /// Reads everything in use and verifies superblocks, region headers, footers against slots, every
    /// entry's header, key, metadata and body, the pieces of every live object, and the index snapshot
    /// if the next start reads one. `tell` may end it early.
    pub async fn check(
        &self,
        mut tell: impl FnMut(CheckEvent<'_>) -> ControlFlow<()>,
    ) -> CheckSummary {
        let mut summary = CheckSummary::default();
        let mut pieces = Pieces::default();
        let mut findings = self.superblock_damage();
        findings.extend(self.compare_superblocks(&mut summary).await);
        for region in 0..self.layout().region_count {
            for finding in findings.drain(..) {
                summary.damaged += 1;
                if tell(CheckEvent::Damage(&finding)).is_break() {
                    return summary;
                }
            }
            if tell(CheckEvent::Region(region)).is_break() {
                return summary;
            }
            findings = self.check_region(region, &mut pieces, &mut summary).await;
        }
        let snapshot = self.check_snapshot(std::mem::take(&mut pieces.snapshot)).await;
        summary.snapshot = snapshot.state;
        summary.snapshot_entries = snapshot.index_entries;
        summary.verified_bytes += snapshot.bytes;
        findings.extend(snapshot.findings);
        let (incomplete, wrong) = self.check_pieces(pieces).await;
        findings.extend(wrong);
        for finding in &findings {
            summary.damaged += 1;
            if tell(CheckEvent::Damage(finding)).is_break() {
                return summary;
            }
        }
        for object in &incomplete {
            summary.incomplete_objects += 1;
            if tell(CheckEvent::Incomplete(object)).is_break() {
                return summary;
            }
        }
        summary
    }

    /// Whether the sound copies agree. One that is merely older is no damage.
    async fn compare_superblocks(&self, summary: &mut CheckSummary) -> Vec<Finding> {
        let best = &self.superblocks.best;
        let mut findings = Vec::new();
        for (name, offset) in ["first", "second"].iter().zip(self.layout().superblock_offsets()) {
            let range = offset..offset + SUPERBLOCK_LEN as u64;
            // Copies that cannot be read or decoded were reported before.
            let Ok(bytes) = self.device.read_exact(range).await else { continue };
            let Ok(copy) = Superblock::decode(&bytes) else { continue };
            if copy == *best {
                continue;
            }
            let what = if copy.uuid != best.uuid {
                format!("{name} superblock copy: of another store, {}", copy.uuid)
            } else if copy.layout != best.layout || copy.formatted_at != best.formatted_at {
                format!("{name} superblock copy: divides the device in another way")
            } else {
                summary.superblocks_outdated += 1;
                continue;
            };
            findings.push(Finding { region: None, offset, what });
        }
        findings
    }

    fn superblock_damage(&self) -> Vec<Finding> {
        let copies = ["first", "second"].iter().zip(self.layout().superblock_offsets());
        let damaged =
            copies.zip(&self.superblocks.damage).filter_map(|((name, offset), damage)| {
                let what = format!("{name} superblock copy: {}", damage.as_ref()?);
                Some(Finding { region: None, offset, what })
            });
        damaged.collect()
    }

    async fn check_region(
        &self,
        region: u32,
        pieces: &mut Pieces,
        summary: &mut CheckSummary,
    ) -> Vec<Finding> {
        let unreadable = |error: &dyn std::error::Error| {
            let (offset, what) = (self.layout().region_offset(region), with_cause(error));
            vec![Finding { region: Some(region), offset, what }]
        };
        let mut sight = match self.look(region).await {
            Ok(sight) => sight,
            Err(error) => {
                pieces.snapshot.gather_unreadable();
                return unreadable(&error);
            }
        };
        pieces.snapshot.gather(&sight);
        if !sight.is_used() {
            let is_snapshot = sight.holds == Holds::Snapshot;
            summary.regions_snapshot += u64::from(is_snapshot);
            summary.regions_unused += u64::from(!is_snapshot);
            return sight.damage;
        }
        let bytes = match self.reader().read_whole(region).await {
            Ok(bytes) => bytes,
            Err(error) => return unreadable(&error),
        };
        summary.regions_used += 1;
        summary.verified_bytes += bytes.len() as u64;
        pieces.versions.gather(&sight, self.layout());
        pieces.seeds.insert(region, sight.seed);
        self.check_order(&mut sight);
        let slots = self.walk(&mut sight, &bytes);
        if sight.holds == Holds::Sealed {
            self.compare(&mut sight, &slots, &bytes);
        }
        summary.tombstones += slots.tombstones.len() as u64;
        for (offset, header) in slots.sound {
            self.check_entry(&mut sight, (offset, &header), &bytes, pieces, summary);
        }
        sight.damage
    }

    /// Verifies a footer by itself: slots in order without overlap, rising sequences, and no epoch that
    /// has not begun.
    fn check_order(&self, sight: &mut Sight) {
        let epoch = self.superblocks.best.epoch;
        let of_later_epoch = |sequence: Sequence| sequence.epoch() > epoch;
        if of_later_epoch(sight.generation) {
            let what = "the region is of a later epoch than the superblock".to_owned();
            sight.add(&self.reader(), 0, what);
        }
        let (mut end, mut last) = (0, sight.generation);
        for record in sight.footer.records.clone() {
            let wrong = if record.offset < end {
                Some("the footer has entries that overlap")
            } else if record.sequence <= last {
                Some("the footer has sequences that do not rise")
            } else if of_later_epoch(record.sequence) {
                Some("an entry of a later epoch than the superblock")
            } else {
                None
            };
            if let Some(what) = wrong {
                sight.add(&self.reader(), record.offset, what.to_owned());
            }
            (end, last) = (record.offset + record.slot_len, record.sequence);
        }
        if sight.footer.tombstones.iter().any(|tombstone| of_later_epoch(tombstone.sequence)) {
            let what = "a tombstone of a later epoch than the superblock".to_owned();
            sight.add(&self.reader(), sight.end.saturating_sub(1), what);
        }
    }

    /// Finds the sound slots of a region. Without a footer to compare with, also reports what looks
    /// like a damaged slot.
    fn walk(&self, sight: &mut Sight, bytes: &[u8]) -> Slots {
        let mut slots = Slots::default();
        let start = u64::from(self.layout().alignment);
        let end = usize::try_from(sight.end).unwrap_or(usize::MAX).min(bytes.len());
        for (offset, found) in SlotWalk::new(&bytes[..end], start, sight.seed) {
            let slot = from(bytes, offset);
            match found {
                Ok(header) if header.kind == Kind::Tombstones => {
                    slots.tombstones.extend(Tombstone::decode_all(&slot[header.metadata_range()]));
                }
                Ok(header) if header.kind == Kind::PurgeRecords => {
                    let records = PurgeRecord::decode_all(&slot[header.metadata_range()]);
                    slots.purge_records.extend(records.flatten());
                }
                Ok(header) => slots.sound.push((offset, header)),
                Err(Damage::Magic) => {}
                Err(damage) if sight.holds == Holds::Unsealed => {
                    if EntryHeader::decode(slot, sight.seed, offset).is_ok()
                        || EntryHeader::is_claimed(slot, sight.generation)
                    {
                        let part = part_of(slot, sight, offset);
                        let what = format!("{part}: {damage}{UNFINISHED}");
                        sight.add(&self.reader(), offset, what);
                    }
                }
                Err(_) => {}
            }
        }
        slots
    }

    /// Compares the footer with the slots, both ways.
    fn compare(&self, sight: &mut Sight, slots: &Slots, bytes: &[u8]) {
        let mut found = slots.sound.iter().peekable();
        for record in std::mem::take(&mut sight.footer.records) {
            while let Some((offset, _)) = found.next_if(|(offset, _)| *offset < record.offset) {
                sight.add(&self.reader(), *offset, "an entry that the footer does not name".into());
            }
            match found.next_if(|(offset, _)| *offset == record.offset) {
                Some((_, header)) => {
                    if let Some(field) = self.difference(&record, header, bytes, sight.touched) {
                        let what = format!("footer and entry differ in {field}");
                        sight.add(&self.reader(), record.offset, what);
                    }
                }
                None => {
                    let slot = from(bytes, record.offset);
                    let part = part_of(slot, sight, record.offset);
                    let damage = match sound_slot(slot, sight.seed, record.offset) {
                        Err(damage) => damage.to_string(),
                        Ok(_) => "overlaps another entry".to_owned(),
                    };
                    sight.add(&self.reader(), record.offset, format!("{part}: {damage}"));
                }
            }
        }
        for (offset, _) in found {
            sight.add(&self.reader(), *offset, "an entry that the footer does not name".into());
        }
        let (named, tombstones) = (sight.footer.tombstones.len(), slots.tombstones.len());
        if sight.footer.tombstones != slots.tombstones {
            let what = format!("the footer has {named} tombstones, sound slots have {tombstones}");
            sight.add(&self.reader(), sight.end, what);
        }
        let (named, records) = (sight.footer.purge_records.len(), slots.purge_records.len());
        if sight.footer.purge_records != slots.purge_records {
            let what = format!("the footer has {named} purge records, sound slots have {records}");
            sight.add(&self.reader(), sight.end, what);
        }
    }

    fn difference(
        &self,
        record: &FooterRecord,
        header: &EntryHeader,
        bytes: &[u8],
        touched: bool,
    ) -> Option<&'static str> {
        let slot = from(bytes, record.offset);
        let key = slot.get(header.key_range()).unwrap_or_default();
        let key_hash = self.hasher.of(header.kind, key);
        let slot_len = round_up(header.slot_len() as u64, GRANULE);
        if record.kind != header.kind {
            Some("kind")
        } else if record.key_hash != key_hash {
            Some("key")
        } else if record.sequence != header.sequence {
            Some("sequence")
        } else if record.supersedes != header.supersedes {
            Some("whether it supersedes")
        } else if record.slot_len != slot_len {
            Some("length")
        } else if record.keep_until < header.keep_until && !touched {
            Some("lifetime")
        } else {
            None
        }
    }

    fn check_entry(
        &self,
        sight: &mut Sight,
        (offset, header): (u64, &EntryHeader),
        bytes: &[u8],
        pieces: &mut Pieces,
        summary: &mut CheckSummary,
    ) {
        let slot = from(bytes, offset);
        if let Err(damage) = header.check_body(slot) {
            let key = slot.get(header.key_range()).unwrap_or_default();
            let name = name_of(header.kind, key);
            let hint = if sight.holds == Holds::Unsealed { UNFINISHED } else { "" };
            sight.add(&self.reader(), offset, format!("body of {name}: {damage}{hint}"));
            return;
        }
        summary.entries += 1;
        let body = slot.get(header.body_range()).unwrap_or_default();
        match header.kind {
            Kind::Slice => {
                summary.slices += 1;
                let key = slot.get(header.key_range()).unwrap_or_default();
                pieces.slices.push((self.hasher.slice(key), header.body_len));
            }
            Kind::Head => match ObjectHead::decode(body) {
                Ok(head) => {
                    let location = Location::new(sight.region, offset, self.layout());
                    pieces.heads.push((location, head, is_partial(header, slot)));
                }
                Err(damage) => sight.add(&self.reader(), offset, format!("object head: {damage}")),
            },
            Kind::Object | Kind::Tombstones | Kind::PurgeRecords => {}
        }
    }

    /// Verifies the lengths of live objects' pieces, and finds the objects that lack some.
    async fn check_pieces(&self, pieces: Pieces) -> (Vec<Incomplete>, Vec<Finding>) {
        let Pieces { versions, heads, seeds, mut slices, .. } = pieces;
        let live: Live = versions.settle(self.superblocks.best.purge_floor);
        slices.sort_unstable();
        let (mut incomplete, mut findings) = (Vec::new(), Vec::new());
        for (location, head, is_partial) in heads {
            if live.objects.binary_search(&location).is_err() {
                continue;
            }
            let (region, within) = location.split(self.layout());
            let offset = self.layout().region_offset(region) + within;
            let missing = live.missing(&head, &self.hasher);
            if missing > 0 && !is_partial {
                let key = match seeds.get(&region) {
                    Some(seed) => self.key_at(region, within, *seed).await.unwrap_or_default(),
                    None => Vec::new(),
                };
                let slices = head.slice_count();
                incomplete.push(Incomplete { region, offset, key, slices, missing });
            }
            if let Some(number) = wrong_piece(&head, &slices, &self.hasher) {
                let what = format!("slice {number} of the object has the wrong length");
                findings.push(Finding { region: Some(region), offset, what });
            }
        }
        (incomplete, findings)
    }

    /// The key of the entry at byte `offset` of a region.
    async fn key_at(&self, region: u32, offset: u64, seed: Seed) -> Option<Vec<u8>> {
        let start = self.layout().region_offset(region) + offset;
        let header = self.device.read_exact(start..start + ENTRY_HEADER_LEN as u64).await.ok()?;
        let range = EntryHeader::decode(&header, seed, offset).ok()?.key_range();
        let key = start + range.start as u64..start + range.end as u64;
        Some(self.device.read_exact(key).await.ok()?.to_vec())
    }
}

/// Added to damage in a region without a footer.
const UNFINISHED: &str = " (or a write that a crash cut off: the region has no footer)";

/// The first slice of an object that has a wrong length.
fn wrong_piece(head: &ObjectHead, slices: &[(u64, u32)], hasher: &KeyHasher) -> Option<u32> {
    let last = head.slice_count().checked_sub(1)?;
    let full = u64::from(head.slice_size);
    (0..=last).find(|number| {
        let key = SliceKey::of_slice(head.object, *number).encode();
        let key_hash = hasher.slice(&key);
        let expected = if *number == last { head.len - u64::from(last) * full } else { full };
        let first = slices.partition_point(|(hash, _)| *hash < key_hash);
        let mut versions = slices[first..].iter().take_while(|(hash, _)| *hash == key_hash);
        versions.any(|(_, len)| u64::from(*len) != expected)
    })
}

fn from(bytes: &[u8], offset: u64) -> &[u8] {
    bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default()
}

/// Which part of a damaged slot is to blame.
fn part_of(slot: &[u8], sight: &Sight, offset: u64) -> &'static str {
    match EntryHeader::decode(slot, sight.seed, offset) {
        Ok(_) => "key or metadata of an entry",
        Err(_) => "entry header",
    }
}

fn name_of(kind: Kind, key: &[u8]) -> String {
    match (kind, <[u8; SliceKey::LEN]>::try_from(key)) {
        (Kind::Slice, Ok(key)) => {
            let SliceKey { object: Sequence(object), number, fragment } = SliceKey::decode(&key);
            match fragment {
                0 => format!("slice {number} of object {object}"),
                _ => format!("fragment {fragment} of slice {number} of object {object}"),
            }
        }
        _ => format!("entry \"{}\"", key.escape_ascii()),
    }
}
