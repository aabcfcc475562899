//! Which region is emptied next: expired ones, then purged and mostly dead ones, then the oldest
//! that is not in use, and last those full of large objects that are being stored or just were. Owns
//! the order; empties and frees nothing.

use std::collections::BTreeSet;

use super::Store;
use super::large::{LargeObjects, Share};
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
/// A region is like any other while slices that are not to be lost fill at most one part in this many:
/// to move them costs little.
const FEW_CLAIMED: u64 = 8;
/// Where there is no such region, one is emptied while they fill at most this part of it: to move three
/// bytes wins one. All stores under way fill a half on the average.
const MOST_CLAIMED: (u64, u64) = (3, 4);
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
    /// Lives of regions that were in use when the hand came by.
    spared: BTreeSet<(Sequence, u32)>,
    /// Regions found since the round began.
    found: usize,
}

/// A region to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Victim {
    pub region: u32,
    /// Slices of large objects just stored are moved, as those of stores under way always are: the
    /// region was not chosen for want of any other.
    pub just_stored_stays: bool,
}

impl Victim {
    /// A region of which all is kept that is not to be lost.
    pub fn whole(region: u32) -> Victim {
        Victim { region, just_stored_stays: true }
    }
}

/// Whether one region can be told to go, or all are to be looked at.
enum Choice {
    Victim(Victim),
    /// None is better than another but for its age, of which this is the oldest.
    Hand {
        oldest: u32,
    },
}

/// A region found in use.
struct InUse {
    region: u32,
    hit_bytes: u64,
    footer: Footer,
}

impl Store {
    /// The region to be emptied next, if any can be.
    pub(super) async fn pick_victim(&self, hand: &mut Hand) -> Option<Victim> {
        let oldest = match self.least_worth()? {
            Choice::Victim(victim) => return Some(victim),
            Choice::Hand { oldest } => oldest,
        };
        hand.found += 1;
        if hand.found > ROUND * self.shared.layout.region_count as usize {
            *hand = Hand::default();
        }
        match self.next_unused(hand, oldest).await {
            Some(region) => Some(Victim::whole(region)),
            None => self.least_claimed(),
        }
    }

    /// The region of least worth, unless another one may be emptied in its place.
    fn least_worth(&self) -> Option<Choice> {
        let now = self.shared.clock.now();
        let floor = self.shared.purge_floor();
        let (credit, free, stored) = {
            let log = self.shared.log.lock();
            (log.reinsert_credit(), log.free_count(), log.stored())
        };
        let mut large = self.shared.large.lock();
        large.lapse(stored);
        if free == 0 {
            return self.least_to_move(&large).map(Choice::Victim);
        }
        let kills_max = self.shared.layout.region_size / KILLS_SHARE;
        let mostly_dead = self.shared.layout.region_size / MOSTLY_DEAD;
        // The newest regions were given up by failed writes: the least is lost if this fails too.
        let in_doubt = self.shared.health.is_in_doubt();
        let (region, (failures, is_sound, worth, _)) = self
            .sealed()
            .map(|(region, row)| {
                let worth = if carried(row) > kills_max || large.share(region).under_way > 0 {
                    // Where little would be won the oldest region is the one, which frees most: no
                    // victim of its kill records is left.
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
        Some(match is_ordinary && !in_doubt {
            true => Choice::Hand { oldest: region },
            false => Choice::Victim(Victim::whole(region)),
        })
    }

    /// In need: the region of which the least must be written again, the oldest of them. Of the kill
    /// records of the oldest no victim is left.
    fn least_to_move(&self, large: &LargeObjects) -> Option<Victim> {
        let oldest = self.sealed().map(|(_, row)| row.generation()).min()?;
        let (in_doubt, now) = (self.shared.health.is_in_doubt(), self.shared.clock.now());
        let order = |(region, row): (u32, &Region)| {
            let age = row.generation();
            let kills = if age == oldest || in_doubt { 0 } else { carried(row) };
            let age = if in_doubt { u64::MAX - age.0 } else { age.0 };
            let moved = large.share(region).under_way + kills;
            let failures = if row.is_set_aside(now) { row.failures() } else { 0 };
            (failures, !row.is_condemned(), moved, age)
        };
        let (region, _) = self.sealed().min_by_key(|found| order(*found))?;
        Some(Victim { region, just_stored_stays: false })
    }

    /// Where every region has much that is not to be lost: the one with the least of it, if less is
    /// to be moved than is won. Else objects just stored have to go for those that come, the
    /// oldest first.
    fn least_claimed(&self) -> Option<Victim> {
        let few = self.shared.layout.region_size / FEW_CLAIMED;
        let now = self.shared.clock.now();
        let large = self.shared.large.lock();
        let regions: Vec<(u32, Sequence, Share)> = self
            .sealed()
            .filter(|(_, row)| !row.is_set_aside(now))
            .map(|(region, row)| (region, row.generation(), large.share(region)))
            .collect();
        let least = regions.iter().min_by_key(|(_, age, share)| (share.total(), *age))?;
        if self.is_worth_moving(&least.2) {
            return Some(Victim::whole(least.0));
        }
        let moved = |share: &Share| if share.under_way <= few { 0 } else { share.under_way };
        let first = regions.iter().min_by_key(|(_, age, share)| (moved(share), *age))?;
        Some(Victim { region: first.0, just_stored_stays: false })
    }

    /// The first region, from the hand on, that is not in use; those in use stay where they are.
    /// This is how SIEVE goes through objects (Zhang et al., NSDI 2024): what is asked for again and
    /// again stays without being written again, and what nobody asks for goes early. `oldest` is
    /// the one if its kill records have waited too long. `None` if all have much that is not to be
    /// lost.
    async fn next_unused(&self, hand: &mut Hand, oldest: u32) -> Option<u32> {
        let mut least: Option<InUse> = None;
        let found = self.find_unused(hand, oldest, &mut least).await;
        match (found, least) {
            (Some(region), Some(spared)) if region != spared.region => {
                self.forget_hits(&spared).await;
                Some(region)
            }
            (_, Some(least)) => Some(least.region),
            (found, None) => found,
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
            if region != oldest && self.is_impatient(carried(row), oldest) {
                return Some(oldest);
            }
            let footer = match self.read_footer(region).await {
                Ok(Some((trailer, footer))) if trailer.generation == row.generation() => footer,
                // Emptying it will show what it holds.
                _ => return Some(region),
            };
            let hit_bytes = self.bytes_in_use(region, &footer).await;
            if hit_bytes < region_size / IN_USE {
                return Some(region);
            }
            hand.spared.insert((row.generation(), region));
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

    /// Whether so many bytes of kill records should not wait any longer for the oldest region to go. That
    /// costs as much again where it is full of what is not to be lost.
    fn is_impatient(&self, kills: u64, oldest: u32) -> bool {
        let region_size = self.shared.layout.region_size;
        let is_cheap = self.is_worth_moving(&self.shared.large.lock().share(oldest));
        kills > region_size / if is_cheap { PATIENCE_SHARE } else { KILLS_SHARE }
    }

    fn is_worth_moving(&self, share: &Share) -> bool {
        let (most, of) = MOST_CLAIMED;
        share.total() <= self.shared.layout.region_size / of * most
    }

    fn sealed(&self) -> impl Iterator<Item = (u32, &Region)> {
        let rows = self.shared.regions.iter();
        rows.filter(|(_, row)| row.state() == RegionState::Sealed && !row.holds_purges())
    }

    /// Sealed regions with little that is not to be lost.
    fn unclaimed(&self) -> Vec<(u32, &Region)> {
        let few = self.shared.layout.region_size / FEW_CLAIMED;
        let large = self.shared.large.lock();
        self.sealed().filter(|(region, _)| large.share(*region).total() <= few).collect()
    }

    /// The life of the first region that is too young to be judged.
    fn first_young(&self) -> Sequence {
        let mut lives: Vec<Sequence> =
            self.unclaimed().iter().map(|(_, row)| row.generation()).collect();
        let old = lives.len() - lives.len() / YOUNG;
        match lives.get(old) {
            None => Sequence(u64::MAX),
            Some(_) => *lives.select_nth_unstable(old).1,
        }
    }

    /// The oldest region that the hand did not spare in this round and that is older than `young`; if
    /// there is none, the next round begins.
    fn region_after(&self, hand: &mut Hand, young: Sequence) -> Option<u32> {
        let now = self.shared.clock.now();
        let mut lives: Vec<(Sequence, u32)> = self
            .unclaimed()
            .into_iter()
            .filter(|(_, row)| row.generation() < young && !row.is_set_aside(now))
            .map(|(region, row)| (row.generation(), region))
            .collect();
        lives.sort_unstable();
        let next = lives.iter().find(|life| !hand.spared.contains(life)).or_else(|| {
            *hand = Hand::default();
            lives.first()
        });
        next.map(|(_, region)| *region)
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
