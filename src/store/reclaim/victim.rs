//! Which region is emptied next: expired ones, then purged and mostly dead ones, then the oldest that
//! is not in use, and last those full of claimed slices (of large objects being stored or just stored).
//! Owns the order; empties and frees nothing.

use crate::format::{Footer, Kind};
use crate::store::index::index_entry::Location;
use crate::store::reclaim::reclaimer::{Hand, Reclaimer};
use crate::store::region::ranking::{self, Moment, Ranking, TOMBSTONES_SHARE};
use crate::store::shared::Store;

/// A region is in use while its hit entries fill at least one part in this many of it, and
const IN_USE: u64 = 12;
/// its live entries at least one part in this many. Measured with `benches/policy`.
const WELL_FILLED: u64 = 2;
/// If claimed slices fill much of every region, one is emptied as long as they fill at most this part
/// of it: three moved bytes win one. All stores under way fill half the device on average.
const MOST_CLAIMED: (u64, u64) = (3, 4);
/// The oldest region is emptied, even if in use, once the tombstones kept because of it fill more than
/// one part in this many of another region: so they cannot pile up.
const PATIENCE_SHARE: u64 = 64;
/// Most regions examined to find one to empty.
const EXAMINED_MAX: usize = 16;
/// No further region is examined after this many entries.
const RECORDS_MAX: usize = 128 << 10;
/// A round of the hand ends at the latest when it has found this many victims for each region of the
/// device, so that a region whose hits ended long ago does not stay for ever.
const ROUND: usize = 8;
/// Entries examined or evicted before yielding to other tasks.
pub(in crate::store) const BATCH: usize = 1024;

/// A region to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Victim {
    pub region: u32,
    /// Slices of objects just stored are moved too, not only those of stores under way. False if no
    /// other region could be chosen.
    pub just_stored_stays: bool,
}

impl Victim {
    /// A region of which all claimed slices are moved.
    pub fn whole(region: u32) -> Victim {
        Victim { region, just_stored_stays: true }
    }

    /// A region of which only the slices of stores under way are moved.
    pub fn but_just_stored(region: u32) -> Victim {
        Victim { region, just_stored_stays: false }
    }
}

/// Either a victim, or the hand has to look for one.
enum Choice {
    Victim(Victim),
    /// All are worth the same; this is the oldest of them.
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

impl Reclaimer {
    /// The region to be emptied next, if there is one.
    pub(super) async fn pick_victim(&mut self) -> Option<Victim> {
        let oldest = match self.least_worth()? {
            Choice::Victim(victim) => return Some(victim),
            Choice::Hand { oldest } => oldest,
        };
        self.hand.found += 1;
        if self.hand.found > ROUND * self.store.shared.layout.region_count as usize {
            self.hand = Hand::default();
            self.store.shared.catalog.regions.ranked(Ranking::begin_round);
        }
        match self.next_unused(oldest).await {
            Some(region) => Some(Victim::whole(region)),
            None => self.least_claimed(),
        }
    }

    /// The region of least worth, or the hand if only age tells regions apart.
    fn least_worth(&self) -> Option<Choice> {
        let (credit, free, stored) = {
            let log = self.store.shared.log.lock();
            (log.reinsert_credit(), log.free_count(), log.stored())
        };
        self.store.shared.large.claims.lock().lapse(stored);
        // Writes failed lately, and the newest regions may be lost anyway: take those.
        let in_doubt = self.store.shared.durability.health.is_in_doubt();
        let (now, purge_floor) = (self.store.shared.clock.now(), self.store.shared.purge_floor());
        self.store.shared.catalog.regions.ranked(|ranking| {
            if free == 0 {
                let region = ranking.least_to_move(now, in_doubt)?;
                return Some(Choice::Victim(Victim::but_just_stored(region)));
            }
            let moment = Moment { now, purge_floor, credit, in_doubt };
            Some(match ranking.least_worth(&moment)? {
                ranking::Choice::Region(region) => Choice::Victim(Victim::whole(region)),
                ranking::Choice::Oldest(oldest) => Choice::Hand { oldest },
            })
        })
    }

    /// For regions that all have many claimed slices: the one with the fewest, if moving them wins
    /// room. Else objects just stored give way to new ones, the oldest first. Where the index alone is short,
    /// a region of nothing but slices of stores under way stays: moving them would win nothing, for ever.
    fn least_claimed(&self) -> Option<Victim> {
        let now = self.store.shared.clock.now();
        let wants_region = self.store.shared.log.lock().is_short_of_regions();
        self.store.shared.catalog.regions.ranked(|ranking| {
            let (region, claimed) = ranking.least_claimed(now)?;
            if self.is_worth_moving(claimed) {
                return Some(Victim::whole(region));
            }
            let region = ranking.least_under_way(now)?;
            let row = self.store.shared.catalog.regions.on_device(region);
            let wins = wants_region || row.claimed() > row.under_way();
            wins.then(|| Victim::but_just_stored(region))
        })
    }

    /// The first region, from the hand on, that is not in use; those in use stay where they are. SIEVE
    /// does the same with objects (Zhang et al., NSDI 2024): what is asked for often stays without
    /// being rewritten, and what nobody asks for goes early. Returns `oldest` if too many tombstones
    /// wait for it to go. `None` if all have many claimed slices.
    async fn next_unused(&mut self, oldest: u32) -> Option<u32> {
        let mut least: Option<InUse> = None;
        let found = self.find_unused(oldest, &mut least).await;
        match (found, least) {
            (Some(region), Some(spared)) if region != spared.region => {
                self.forget_hits(&spared).await;
                Some(region)
            }
            (_, Some(least)) => Some(least.region),
            (found, None) => found,
        }
    }

    /// As [`Reclaimer::next_unused`]; `None` if all that were examined are in use. Sets `least` to the
    /// one least in use, whose hits are not forgotten yet.
    async fn find_unused(&mut self, oldest: u32, least: &mut Option<InUse>) -> Option<u32> {
        let region_size = self.store.shared.layout.region_size;
        let young = self.store.shared.catalog.regions.ranked(|ranking| ranking.first_young());
        let mut records = 0;
        for _ in 0..EXAMINED_MAX {
            let now = self.store.shared.clock.now();
            let (region, is_new_round) =
                self.store.shared.catalog.regions.ranked(|ranking| ranking.next(now, young));
            if is_new_round {
                self.hand = Hand::default();
            }
            let region = region?;
            let row = self.store.shared.catalog.regions.on_device(region);
            if region != oldest && self.is_impatient(row.tombstone_bytes(), oldest) {
                return Some(oldest);
            }
            let footer = match self.store.read_footer(region, row.generation()).await {
                Ok(Some(footer)) => footer,
                // Emptying the region will show what it holds.
                Ok(None) | Err(_) => return Some(region),
            };
            let hit_bytes = self.bytes_in_use(region, &footer).await;
            if hit_bytes < region_size / IN_USE {
                return Some(region);
            }
            self.store
                .shared
                .catalog
                .regions
                .ranked(|ranking| ranking.spare(region, row.generation()));
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

    /// Whether `tombstones` bytes of tombstones are too many to wait for the oldest region to go. The limit
    /// is higher if that region is full of claimed slices, which are expensive to move.
    fn is_impatient(&self, tombstones: u64, oldest: u32) -> bool {
        let region_size = self.store.shared.layout.region_size;
        let is_cheap =
            self.is_worth_moving(self.store.shared.catalog.regions.on_device(oldest).claimed());
        tombstones > region_size / if is_cheap { PATIENCE_SHARE } else { TOMBSTONES_SHARE }
    }

    /// Whether moving `claimed` bytes of a region wins room for at least one slice. A smaller rest can
    /// take no moved slice, and reclaim would go on for ever.
    fn is_worth_moving(&self, claimed: u64) -> bool {
        let layout = &self.store.shared.layout;
        let (most, of) = MOST_CLAIMED;
        // A header, a footer, and what each flush may waste behind a slice.
        let blocks = claimed / u64::from(layout.slice_size) + 5;
        claimed <= layout.region_size / of * most
            && claimed + blocks * u64::from(layout.alignment) + layout.slice_room()
                <= layout.region_size
    }

    /// Bytes of the hit entries of a region; 0 if too little of it is alive for it to stay.
    async fn bytes_in_use(&self, region: u32, footer: &Footer) -> u64 {
        let now = self.store.shared.clock.now();
        let (mut alive, mut hit) = (0, 0);
        for batch in footer.records.chunks(BATCH) {
            for record in batch {
                let location = self.location(region, record.offset);
                let index_entry = self.store.shared.catalog.lock(record.key_hash).get(location);
                // Of slices their heads know the end.
                let may_live = record.kind == Kind::Slice || record.keep_until > now;
                let Some(index_entry) = index_entry.filter(|_| may_live) else { continue };
                alive += record.slot_len;
                hit += if index_entry.is_hit() { record.slot_len } else { 0 };
            }
            tokio::task::yield_now().await;
        }
        if alive < self.store.shared.layout.region_size / WELL_FILLED { 0 } else { hit }
    }

    /// Clears the hits of a region's entries: only later hits count.
    async fn forget_hits(&self, found: &InUse) {
        for batch in found.footer.records.chunks(BATCH) {
            for record in batch {
                let location = self.location(found.region, record.offset);
                self.store.shared.catalog.lock(record.key_hash).clear_hit(location);
            }
            tokio::task::yield_now().await;
        }
    }

    fn location(&self, region: u32, offset: u64) -> Location {
        Location::new(region, offset, &self.store.shared.layout)
    }
}

impl Store {
    /// Whether a region could be emptied: for the benchmark of how long that takes to tell.
    #[doc(hidden)]
    #[must_use]
    pub fn has_victim(&self) -> bool {
        Reclaimer::new(self.clone()).least_worth().is_some()
    }
}
