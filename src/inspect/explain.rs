//! Why a key is a hit or a miss, and what fills a region. Owns the reasons. Uses the rules of recovery,
//! so that the answer is what a store opened now would give.

use crate::clock::{Clock, Timestamp};
use crate::device::DeviceError;
use crate::format::{
    Damage, EntryHeader, FooterRecord, GRANULE, Kind, ObjectHead, Seed, Sequence, Tombstone,
    round_up,
};
use crate::inspect::finding::Finding;
use crate::inspect::inspection::Inspection;
use crate::inspect::listing::{Live, Versions, is_partial};
use crate::inspect::purged::PurgesSeen;
use crate::inspect::sight::{Holds, RegionSurvey, Sight};
use crate::inspect::snapshot::SnapshotPartSurvey;
use crate::store::{Location, SlotWalk, Verdict, first_piece_offset, sound_slot};

/// What became of one version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A lookup returns it.
    Fresh,
    /// Only a lookup that accepts stale entries returns it.
    Stale,
    /// The same, because a soft purge covers it.
    SoftlyPurged,
    /// The same, because its age is unknown.
    AgeUnknown,
    /// It is past its end.
    Expired,
    /// It is older than the last purge of everything.
    Purged {
        /// Entries below this sequence are gone.
        floor: Sequence,
    },
    /// A purge of one of its tags, or of a prefix of its key, came later.
    PurgedBySelection,
    /// The key was removed or overwritten later.
    Hidden {
        /// The sequence of that change.
        by: Sequence,
        /// The region that has the change.
        region: u32,
        /// Whether a newer version killed it; else a tombstone did, perhaps of a version that is gone.
        by_version: bool,
    },
    /// Its bytes are damaged.
    Damaged(Damage),
    /// Its bytes cannot be read.
    Unreadable,
    /// Pieces of its body were evicted.
    Incomplete {
        /// How many are missing.
        missing: u32,
    },
    /// It comes part by part, and some slices are missing or in fragments.
    Partial {
        /// How many are not there whole.
        missing: u32,
    },
}

/// One version of a key on the device.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The region it is in.
    pub region: u32,
    /// Byte offset of its slot on the device.
    pub offset: u64,
    /// Bytes of the slot.
    pub slot_len: u64,
    /// Position in the order of mutations.
    pub sequence: Sequence,
    /// What became of it.
    pub fate: Fate,
    /// Whether it is sound, or the damage.
    pub sound: Result<(), Fate>,
    /// Its header, if that is sound.
    pub header: Option<EntryHeader>,
    /// Describes the body, if this is the head of a large object.
    pub head: Option<ObjectHead>,
}

/// What a lookup of a key would return, and everything that the device has of it.
#[derive(Clone, Debug)]
pub struct ExplainedKey {
    /// Hash of the key on this device.
    pub key_hash: u64,
    /// All versions, the newest first.
    pub versions: Vec<Explained>,
    /// Tombstones of the key, other than those of its versions, with their regions.
    pub tombstones: Vec<(u32, Tombstone)>,
    /// Entries of other keys with the same hash.
    pub collisions: u64,
    /// Regions that could not be read.
    pub unreadable_regions: u64,
}

/// What fills a part of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// Nothing, or padding.
    Nothing,
    /// Entries that are removed, overwritten, purged or expired.
    Dead,
    /// Entries that a lookup may find.
    Live,
    /// Tombstones.
    Tombstones,
    /// Part of the index snapshot that the next start reads.
    Snapshot,
    /// The region's header.
    Header,
    /// The footer.
    Footer,
    /// Damaged bytes.
    Damaged,
}

/// Number and bytes of some slots of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub count: u64,
    /// Their bytes, padding to the granule included.
    pub bytes: u64,
}

/// All about a region.
#[derive(Clone, Debug)]
pub struct ExplainedRegion {
    /// Its state and totals.
    pub survey: RegionSurvey,
    /// Its part of the index snapshot, if it holds one.
    pub snapshot: Option<SnapshotPartSurvey>,
    /// Byte offset of the footer in the region; the region's size if there is none.
    pub footer_start: u64,
    /// Whole objects.
    pub objects: Share,
    /// Heads of large objects.
    pub heads: Share,
    /// Pieces of large objects.
    pub slices: Share,
    /// Slots of tombstones.
    pub tombstone_slots: Share,
    /// Entries that a lookup may find.
    pub live: Share,
    /// Entries that were removed, overwritten or purged.
    pub dead: Share,
    /// Entries past their end.
    pub expired: Share,
    /// When the last of its entries expires.
    pub keep_until: Timestamp,
    /// What fills each page, in order; of several things in one page the last of [`Filling`].
    pub map: Vec<Filling>,
    /// Bytes of a page of the map.
    pub page: u64,
}

/// Most pages in a map.
const MAP_PAGES_MAX: u64 = 1024;

impl Share {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What is gathered over all regions.
struct Gathered {
    live: Live,
    purges: PurgesSeen,
    records: Vec<(u32, Seed, FooterRecord)>,
    tombstones: Vec<(u32, Tombstone)>,
    unreadable_regions: u64,
}

impl Inspection {
    /// Tells what a lookup of `key` would return and why. Sets `clock` to the time of the device, as a
    /// start does.
    pub async fn explain_key(&self, clock: &Clock, key: &[u8]) -> ExplainedKey {
        let key_hash = self.hasher.object(key);
        let down = clock.resume(self.superblocks.best.time);
        let mut gathered = self.gather_for(clock, Some(key_hash)).await;
        let unknown_age = self.unknown_age(clock, down);
        let newest = |record: &FooterRecord| std::cmp::Reverse(record.sequence);
        gathered.records.sort_by_key(|(_, _, record)| newest(record));
        let mut explained = ExplainedKey {
            key_hash,
            versions: Vec::new(),
            tombstones: gathered.tombstones.clone(),
            collisions: 0,
            unreadable_regions: gathered.unreadable_regions,
        };
        let mut newer: Option<(u32, Sequence)> = None;
        for (region, seed, record) in &gathered.records {
            let found = self.slot(*region, *seed, record).await;
            if let Ok(Ok((header, slot))) = &found
                && slot.get(header.key_range()) != Some(key)
            {
                // A start tells keys apart by hash alone: this entry kills older ones.
                explained.collisions += 1;
                newer = newer.or(Some((*region, record.sequence)));
                continue;
            }
            let verdict = match &found {
                Ok(Ok((header, slot))) => gathered.purges.verdict(header, slot),
                _ => Verdict::Live,
            };
            let is_partial = matches!(&found, Ok(Ok((header, slot))) if is_partial(header, slot));
            let (header, head, sound) = parts(found);
            let fate = match self.death(record, newer, &gathered.tombstones) {
                Some(dead) => dead,
                None if verdict == Verdict::Dead => Fate::PurgedBySelection,
                None => sound.clone().err().unwrap_or_else(|| {
                    let missing = head.map_or(0, |head| gathered.live.missing(&head, &self.hasher));
                    let fate =
                        fate_by_time(header.as_ref(), record, (missing, clock.now(), unknown_age));
                    match fate {
                        Fate::Incomplete { missing } if is_partial => Fate::Partial { missing },
                        fate => fate,
                    }
                }),
            };
            let fate = match fate {
                Fate::Fresh if verdict == Verdict::Stale => Fate::SoftlyPurged,
                fate => fate,
            };
            newer = newer.or(Some((*region, record.sequence)));
            explained.versions.push(Explained {
                region: *region,
                offset: self.layout().region_offset(*region) + record.offset,
                slot_len: record.slot_len,
                sequence: record.sequence,
                fate,
                sound,
                header,
                head,
            });
        }
        explained
    }

    /// What killed a version, if anything did: the newest change of its key counts.
    fn death(
        &self,
        record: &FooterRecord,
        newer: Option<(u32, Sequence)>,
        tombstones: &[(u32, Tombstone)],
    ) -> Option<Fate> {
        let floor = self.superblocks.best.purge_floor;
        let tombstone = tombstones.iter().map(|(region, tombstone)| (*region, tombstone.sequence));
        let tombstone = tombstone.max_by_key(|(_, sequence)| *sequence);
        if let Some((region, by)) = newer.filter(|(_, by)| *by > record.sequence) {
            let by_version = tombstone.is_none_or(|(_, killed)| killed <= by);
            let (region, by) =
                if by_version { (region, by) } else { tombstone.unwrap_or((region, by)) };
            return Some(Fate::Hidden { by, region, by_version });
        }
        if let Some((region, by)) = tombstone.filter(|(_, by)| *by > record.sequence) {
            return Some(Fate::Hidden { by, region, by_version: false });
        }
        (record.sequence < floor).then_some(Fate::Purged { floor })
    }

    /// Reads one whole slot; gives the damage if it is not sound.
    async fn slot(
        &self,
        region: u32,
        seed: Seed,
        record: &FooterRecord,
    ) -> Result<Result<(EntryHeader, Vec<u8>), Damage>, DeviceError> {
        let block = u64::from(self.layout().alignment);
        let start = record.offset / block * block;
        let end = round_up(record.offset + record.slot_len, block);
        let bytes = self.reader().read(region, start..end.min(self.layout().region_size)).await?;
        let slot = bytes.get(index(record.offset - start)..).unwrap_or_default();
        Ok(sound_slot(slot, seed, record.offset).map(|header| (header, slot.to_vec())))
    }

    /// Gathers everything that decides which entries are live, and all versions of one key.
    async fn gather_for(&self, clock: &Clock, key_hash: Option<u64>) -> Gathered {
        let mut versions = Versions::default();
        let purges = self.purges_seen();
        let (mut records, mut tombstones, mut unreadable_regions) = (Vec::new(), Vec::new(), 0);
        for region in 0..self.layout().region_count {
            let Ok(sight) = self.look(region).await else {
                unreadable_regions += 1;
                continue;
            };
            clock.anchor(sight.stamp);
            versions.gather(&sight, self.layout());
            purges.gather(&sight);
            let named = sight.footer.records.iter();
            let named = named.filter(|record| {
                Some(record.key_hash) == key_hash
                    && matches!(record.kind, Kind::Object | Kind::Head)
            });
            records.extend(named.map(|record| (region, sight.seed, *record)));
            let killed = sight.footer.tombstones.iter();
            let killed = killed.filter(|tombstone| Some(tombstone.key_hash) == key_hash);
            tombstones.extend(killed.map(|tombstone| (region, *tombstone)));
        }
        let live = versions.settle(self.superblocks.best.purge_floor);
        Gathered { live, purges, records, tombstones, unreadable_regions }
    }

    /// Tells all about a region. Looks at all other regions too, to know what is live.
    ///
    /// # Errors
    /// The region cannot be read.
    pub async fn explain_region(
        &self,
        clock: &Clock,
        region: u32,
    ) -> Result<ExplainedRegion, DeviceError> {
        let mut sight = self.look(region).await?;
        sight.damage.extend(self.check_part(&sight).await);
        clock.resume(self.superblocks.best.time);
        let gathered = self.gather_for(clock, None).await;
        let bytes =
            if sight.is_used() { self.reader().read_whole(region).await? } else { Vec::new() };
        let mut drawn = Drawing::new(self.layout().region_size, u64::from(self.layout().alignment));
        let mut explained = ExplainedRegion {
            snapshot: sight.directory.as_ref().map(SnapshotPartSurvey::from),
            footer_start: sight.end,
            objects: Share::default(),
            heads: Share::default(),
            slices: Share::default(),
            tombstone_slots: Share::default(),
            live: Share::default(),
            dead: Share::default(),
            expired: Share::default(),
            keep_until: sight.footer.keep_until_max(),
            map: Vec::new(),
            page: drawn.page,
            survey: sight.clone().survey(),
        };
        if sight.holds != Holds::Blank && sight.holds != Holds::Leftover {
            drawn.fill(0, u64::from(self.layout().alignment), Filling::Header);
        }
        drawn.fill(sight.end, self.layout().region_size, Filling::Footer);
        for record in &sight.footer.records {
            let filling = self.judge(&mut explained, &sight, record, (&gathered.live, clock.now()));
            let slot = bytes.get(index(record.offset)..).unwrap_or_default();
            let header = sound_slot(slot, sight.seed, record.offset);
            let is_sound = header.is_ok_and(|header| header.check_body(slot).is_ok());
            let filling = if is_sound { filling } else { Filling::Damaged };
            drawn.fill(record.offset, record.offset + record.slot_len, filling);
        }
        let end = index(sight.end).min(bytes.len());
        for (offset, found) in
            SlotWalk::new(&bytes[..end], u64::from(self.layout().alignment), sight.seed)
        {
            let Ok(header) = found else { continue };
            if matches!(header.kind, Kind::Tombstones | Kind::PurgeRecords) {
                let len = round_up(header.slot_len() as u64, GRANULE);
                explained.tombstone_slots.add(len);
                drawn.fill(offset, offset + len, Filling::Tombstones);
            }
        }
        if let Some(directory) = &sight.directory {
            let alignment = self.layout().alignment;
            drawn.fill(u64::from(alignment), first_piece_offset(alignment), Filling::Snapshot);
            for piece in &directory.pieces {
                let end = piece.offset + u64::from(piece.len);
                drawn.fill(piece.offset, end, Filling::Snapshot);
            }
        }
        self.draw_damage(&mut drawn, &sight.damage, region);
        explained.map = drawn.pages;
        Ok(explained)
    }

    /// Adds an entry to the totals of its region.
    fn judge(
        &self,
        explained: &mut ExplainedRegion,
        sight: &Sight,
        record: &FooterRecord,
        (live, now): (&Live, Timestamp),
    ) -> Filling {
        let len = record.slot_len;
        match record.kind {
            Kind::Object => explained.objects.add(len),
            Kind::Head => explained.heads.add(len),
            Kind::Slice => explained.slices.add(len),
            Kind::Tombstones | Kind::PurgeRecords => {}
        }
        let location = Location::new(sight.region, record.offset, self.layout());
        let is_newest = match record.kind {
            Kind::Slice => {
                live.slices.binary_search(&record.key_hash).is_ok()
                    && record.sequence >= self.superblocks.best.purge_floor
            }
            _ => live.objects.binary_search(&location).is_ok(),
        };
        // The footer of a touched region understates lifetimes: only the entry's header knows.
        // Slices end with the heads of their objects.
        let has_end = record.kind != Kind::Slice;
        let expired = has_end && record.keep_until <= now && !sight.touched;
        match (is_newest, expired) {
            (false, _) => explained.dead.add(len),
            (true, true) => explained.expired.add(len),
            (true, false) => explained.live.add(len),
        }
        if is_newest && !expired { Filling::Live } else { Filling::Dead }
    }

    fn draw_damage(&self, drawn: &mut Drawing, damage: &[Finding], region: u32) {
        let start = self.layout().region_offset(region);
        for finding in damage {
            let at = finding.offset.saturating_sub(start);
            drawn.fill(at, at + 1, Filling::Damaged);
        }
    }
}

/// The map of a region while it is filled in.
struct Drawing {
    page: u64,
    pages: Vec<Filling>,
}

impl Drawing {
    fn new(region_size: u64, block: u64) -> Drawing {
        let page = block.max(4096).max(region_size / MAP_PAGES_MAX);
        Drawing { page, pages: vec![Filling::Nothing; index(region_size.div_ceil(page))] }
    }

    fn fill(&mut self, from: u64, to: u64, filling: Filling) {
        let pages = index(from / self.page)..index(to.div_ceil(self.page)).min(self.pages.len());
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            if filling as u8 > *page as u8 {
                *page = filling;
            }
        }
    }
}

type Slot = Result<Result<(EntryHeader, Vec<u8>), Damage>, DeviceError>;

/// Header and object head of a slot, and whether all of it is sound.
fn parts(found: Slot) -> (Option<EntryHeader>, Option<ObjectHead>, Result<(), Fate>) {
    let (header, slot) = match found {
        Ok(Ok(found)) => found,
        Ok(Err(damage)) => return (None, None, Err(Fate::Damaged(damage))),
        Err(_) => return (None, None, Err(Fate::Unreadable)),
    };
    let mut sound = header.check_body(&slot);
    let mut head = None;
    if header.kind == Kind::Head && sound.is_ok() {
        match ObjectHead::decode(slot.get(header.body_range()).unwrap_or_default()) {
            Ok(found) => head = Some(found),
            Err(damage) => sound = Err(damage),
        }
    }
    (Some(header), head, sound.map_err(Fate::Damaged))
}

fn fate_by_time(
    header: Option<&EntryHeader>,
    record: &FooterRecord,
    (missing, now, unknown_age): (u32, Timestamp, u32),
) -> Fate {
    let keep_until = header.map_or(record.keep_until, |header| header.keep_until);
    let fresh_until = header.map_or(record.keep_until, |header| header.fresh_until);
    if keep_until <= now {
        Fate::Expired
    } else if missing > 0 {
        Fate::Incomplete { missing }
    } else if fresh_until <= now {
        Fate::Stale
    } else if record.sequence.epoch() <= unknown_age {
        Fate::AgeUnknown
    } else {
        Fate::Fresh
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl ExplainedKey {
    /// Whether a lookup that does not accept stale entries finds the key now.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.versions.iter().any(|version| version.fate == Fate::Fresh)
    }
}
