//! Which region is emptied next: expired ones, then purged and mostly dead ones, then the oldest
//! that is not in use. Owns the order; empties and frees nothing.

use super::Store;
use super::regions::{Region, RegionState};
use super::word::Location;
use crate::format::{Footer, KILL_LEN, Sequence};

/// A region with less than one part in this many alive is emptied before the oldest.
pub(super) const MOSTLY_DEAD: u64 = 8;
/// A region whose kill records fill more than one part in this many is not emptied out of turn.
const KILLS_SHARE: u64 = 8;
/// A region is in use while what was hit fills at least one part in this many of it, and
const IN_USE: u64 = 12;
/// while what is alive fills at least one part in this many. Measured with `benches/policy`.
const WELL_FILLED: u64 = 2;
/// Of so many regions the newest had no time yet to be hit: the hand does not come to it.
const YOUNG: usize = 8;
/// Regions in use stay only as long as those emptied in their place carry on kill records for them
/// of at most one part in this many: with that they cannot pile up.
const PATIENCE_SHARE: u64 = 64;
/// Regions that are examined at most for one that is emptied, and
const EXAMINED_MAX: usize = 16;
/// entries in them after which no further region is examined.
const RECORDS_MAX: usize = 128 << 10;
/// A round of the hand ends at the latest when it has found this many times as many regions as there
/// are: what was asked for once and is no more must not stay for ever.
const ROUND: usize = 8;
/// Entries that are examined, or evicted, without giving way to other tasks.
pub(super) const BATCH: usize = 1024;

/// What is lost with a region, in the order in which regions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Everything in it is expired or purged.
    Nothing,
    /// Little enough to be kept elsewhere.
    Little,
    Some,
}

/// How far the round through the regions is, from older to newer ones.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// The life of the region examined last.
    at: Sequence,
    /// Regions found since the round began.
    found: usize,
}

/// A region found in use.
struct InUse {
    region: u32,
    hit_bytes: u64,
    footer: Footer,
}

impl Store {
    /// The region to be emptied next, if any can be.
    pub(super) async fn pick_victim(&self, hand: &mut Hand) -> Option<u32> {
        let (oldest, has_choice) = self.least_worth()?;
        if !has_choice {
            return Some(oldest);
        }
        hand.found += 1;
        if hand.found > ROUND * self.shared.layout.region_count as usize {
            *hand = Hand::default();
        }
        Some(self.next_unused(hand, oldest).await)
    }

    /// The region of least worth, and whether another one may be emptied in its place.
    fn least_worth(&self) -> Option<(u32, bool)> {
        let now = self.shared.clock.now();
        let floor = self.shared.purge_floor();
        let (credit, free) = {
            let log = self.shared.log.lock();
            (log.reinsert_credit(), log.free_count())
        };
        let kills_max = self.shared.layout.region_size / KILLS_SHARE;
        let mostly_dead = self.shared.layout.region_size / MOSTLY_DEAD;
        // The newest regions were given up by failed writes: the least is lost if this fails too.
        let in_doubt = self.shared.health.is_in_doubt();
        let (region, (failures, is_sound, worth, _)) = self
            .sealed()
            .map(|(region, row)| {
                let worth = if free == 0 || carried(row) > kills_max {
                    // The oldest region frees most: no victim of its kill records is left. In need,
                    // or where little would be won, it is the one.
                    Worth::Some
                } else if row.keep_until() <= now || row.generation() < floor || row.live() == 0 {
                    Worth::Nothing
                } else if row.live() < mostly_dead.min(credit) {
                    Worth::Little
                } else {
                    Worth::Some
                };
                // One bad block must not keep all the other regions from being reclaimed.
                let age = row.generation().0;
                let age = if in_doubt { u64::MAX - age } else { age };
                let failures = if row.is_set_aside(now) { row.failures() } else { 0 };
                // Its time has come again: the hand may be far from it, and what it hides is in doubt.
                let is_retried = failures == 0 && row.failures() > 0;
                (region, (failures, !row.is_condemned() && !is_retried, worth, age))
            })
            .min_by_key(|(_, order)| *order)?;
        let is_ordinary = failures == 0 && is_sound && worth == Worth::Some;
        Some((region, is_ordinary && free > 0 && !in_doubt))
    }

    /// The first region, from the hand on, that is not in use; those in use stay where they are.
    /// This is how SIEVE goes through objects (Zhang et al., NSDI 2024): what is asked for again and
    /// again stays without being written again, and what nobody asks for goes early. `oldest` is
    /// the one if its kill records have waited too long.
    async fn next_unused(&self, hand: &mut Hand, oldest: u32) -> u32 {
        let mut least: Option<InUse> = None;
        let found = self.find_unused(hand, oldest, &mut least).await;
        match (found, least) {
            (Some(region), Some(spared)) if region != spared.region => {
                self.forget_hits(&spared).await;
                region
            }
            (_, Some(least)) => least.region,
            (found, None) => found.unwrap_or(oldest),
        }
    }

    /// As [`Store::next_unused`]; `None` if all that were examined are in use. `least` is the one
    /// that is least in use, whose hits are not forgotten yet.
    async fn find_unused(
        &self,
        hand: &mut Hand,
        oldest: u32,
        least: &mut Option<InUse>,
    ) -> Option<u32> {
        let region_size = self.shared.layout.region_size;
        let young = self.first_young();
        let mut records = 0;
        for _ in 0..EXAMINED_MAX {
            let region = self.region_after(hand, young)?;
            let row = self.shared.regions.on_device(region);
            if region != oldest && carried(row) > region_size / PATIENCE_SHARE {
                return Some(oldest);
            }
            let footer = match self.read_footer(region).await {
                Ok(Some((trailer, footer))) if trailer.generation == row.generation() => footer,
                // Emptying it will show what it holds.
                _ => return Some(region),
            };
            if row.generation() <= hand.at {
                hand.found = 0;
            }
            hand.at = row.generation();
            let hit_bytes = self.bytes_in_use(region, &footer).await;
            if hit_bytes < region_size / IN_USE {
                return Some(region);
            }
            records += footer.records.len();
            let mut spared = InUse { region, hit_bytes, footer };
            match least {
                None => *least = Some(spared),
                Some(least) => {
                    if spared.hit_bytes < least.hit_bytes {
                        std::mem::swap(least, &mut spared);
                    }
                    self.forget_hits(&spared).await;
                }
            }
            if records > RECORDS_MAX {
                return None;
            }
        }
        None
    }

    fn sealed(&self) -> impl Iterator<Item = (u32, &Region)> {
        let rows = self.shared.regions.iter();
        rows.filter(|(_, row)| row.state() == RegionState::Sealed && !row.holds_purges())
    }

    /// The life of the first region that is too young to be judged.
    fn first_young(&self) -> Sequence {
        let mut lives: Vec<Sequence> = self.sealed().map(|(_, row)| row.generation()).collect();
        let old = lives.len() - lives.len() / YOUNG;
        match lives.get(old) {
            None => Sequence(u64::MAX),
            Some(_) => *lives.select_nth_unstable(old).1,
        }
    }

    /// The next region from the hand on that is older than `young`; behind the last comes the first.
    fn region_after(&self, hand: &Hand, young: Sequence) -> Option<u32> {
        let now = self.shared.clock.now();
        self.sealed()
            .filter(|(_, row)| row.generation() < young && !row.is_set_aside(now))
            .min_by_key(|(_, row)| (row.generation() <= hand.at, row.generation()))
            .map(|(region, _)| region)
    }

    /// Bytes of the entries of a region that were hit; 0 if not enough of it is alive to stay.
    async fn bytes_in_use(&self, region: u32, footer: &Footer) -> u64 {
        let now = self.shared.clock.now();
        let (mut alive, mut hit) = (0, 0);
        for batch in footer.records.chunks(BATCH) {
            for record in batch {
                let location = self.location(region, record.offset);
                let word = self.shared.index.lock(record.key_hash).get(location);
                let Some(word) = word.filter(|_| record.keep_until > now) else { continue };
                alive += record.slot_len;
                hit += if word.is_hit() { record.slot_len } else { 0 };
            }
            tokio::task::yield_now().await;
        }
        if alive < self.shared.layout.region_size / WELL_FILLED { 0 } else { hit }
    }

    /// Has the entries of a region count as hit only if they are hit from here on.
    async fn forget_hits(&self, found: &InUse) {
        for batch in found.footer.records.chunks(BATCH) {
            for record in batch {
                let location = self.location(found.region, record.offset);
                self.shared.index.lock(record.key_hash).clear_hit(location);
            }
            tokio::task::yield_now().await;
        }
    }

    fn location(&self, region: u32, offset: u64) -> Location {
        Location::new(region, offset, &self.shared.layout)
    }
}

/// Bytes of the kill records that may have to be carried on from a region.
fn carried(row: &Region) -> u64 {
    row.kills() * KILL_LEN as u64
}
