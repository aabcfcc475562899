//! The regions of a device in each order that reclaim asks for, so that no question needs a walk over
//! all of them. A value: it knows what it was last told of each region, and does no I/O.

mod ages;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use self::tree::{Least, Prefer, Root, Trees};
use crate::clock::Timestamp;
use crate::format::Sequence;
use crate::store::region::ranking::ages::{Age, Ages};
use crate::store::region::state::RegionState;

/// A region with less than one part in this many alive is emptied before the oldest one.
pub const MOSTLY_DEAD: u64 = 8;
/// A region is not emptied out of turn if its tombstones fill more than one part in this many.
pub const TOMBSTONES_SHARE: u64 = 8;
/// Claimed slices of up to one part in this many of a region are ignored: to move them costs little.
/// Claimed are slices of large objects that are being stored or just were: reclaim must keep them.
pub const FEW_CLAIMED: u64 = 8;
const STATES: usize = 6;

/// Above every generation.
const NEWEST: Age = (Sequence(u64::MAX), u32::MAX);

/// What is known of one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub state: RegionState,
    pub generation: Sequence,
    pub holds_purges: bool,
    /// Bytes alive.
    pub live: u64,
    pub keep_until: Timestamp,
    /// Bytes of the tombstones that may have to be carried to another region.
    pub tombstones: u64,
    pub failures: u32,
    /// When to try again, after failures.
    pub retry_at: Timestamp,
    pub is_condemned: bool,
    /// Bytes of slices of stores under way.
    pub under_way: u64,
    /// Bytes of claimed slices, those of `under_way` included.
    pub claimed: u64,
}

/// What the choice depends on besides the regions.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    pub purge_floor: Sequence,
    /// Bytes that may be re-inserted.
    pub credit: u64,
    /// The device may fail: take the newest regions first, which may be lost anyway.
    pub in_doubt: bool,
}

/// Sealed regions with entries, in the order in which reclaim takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// Damaged.
    Condemned,
    /// Could not be emptied, and may be tried again.
    Retried,
    Ordinary,
    /// Failed so often that they are left alone for a while: one bad block must not stop reclaim of all
    /// other regions.
    Aside {
        failures: u32,
        is_sound: bool,
    },
}

/// What is lost with a region: the less, the earlier it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Everything in it is expired or purged.
    Nothing,
    /// Little enough to be re-inserted.
    Little,
    Some,
}

/// The region to empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Region(u32),
    /// All are worth the same; this is the oldest of them.
    Oldest(u32),
}

/// The ranks of all regions.
#[derive(Debug)]
pub struct Ranking {
    region_size: u64,
    facts: Vec<Facts>,
    /// The time up to which `groups` is current.
    now: Timestamp,
    counts: [usize; STATES],
    /// Bytes of the tombstones in all regions that are not free.
    tombstones: u64,
    /// Regions that could not be read or freed.
    stuck: usize,
    /// Regions with entries that are not free.
    holding: BTreeSet<Age>,
    /// Regions of the log of purges that are not free.
    purges: BTreeSet<Age>,
    trees: Trees,
    /// For each region in a group: the group, and its age there.
    places: Vec<Option<(Group, Age)>>,
    groups: BTreeMap<Group, Root>,
    /// When each region that is left alone may be tried again.
    aside_until: BTreeSet<(Timestamp, u32)>,
    ages: Ages,
    /// Round of the hand, and for each region the generation and round in which the hand last spared
    /// it.
    round: u64,
    spared: Vec<(Sequence, u64)>,
}

impl Ranking {
    /// `count` regions of which nothing is known.
    pub fn new(count: u32, region_size: u64) -> Ranking {
        let unknown = Facts {
            state: RegionState::Unknown,
            generation: Sequence(0),
            holds_purges: false,
            live: 0,
            keep_until: Timestamp(0),
            tombstones: 0,
            failures: 0,
            retry_at: Timestamp(0),
            is_condemned: false,
            under_way: 0,
            claimed: 0,
        };
        let mut counts = [0; STATES];
        counts[RegionState::Unknown as usize] = count as usize;
        Ranking {
            region_size,
            facts: vec![unknown; count as usize],
            now: Timestamp(0),
            counts,
            tombstones: 0,
            stuck: 0,
            holding: (0..count).map(|region| (Sequence(0), region)).collect(),
            purges: BTreeSet::new(),
            trees: Trees::new(count),
            places: vec![None; count as usize],
            groups: BTreeMap::new(),
            aside_until: BTreeSet::new(),
            ages: Ages::default(),
            round: 1,
            spared: vec![(Sequence(0), 0); count as usize],
        }
    }

    // Facts about regions.

    /// Takes the present facts of a region.
    pub fn update(&mut self, region: u32, facts: Facts) {
        let before = std::mem::replace(&mut self.facts[region as usize], facts);
        if before == facts {
            return;
        }
        self.count_out(region, &before);
        self.count_in(region, &facts);
        self.place(region);
    }

    fn count_out(&mut self, region: u32, facts: &Facts) {
        self.counts[facts.state as usize] -= 1;
        self.stuck -= usize::from(is_stuck(facts));
        if facts.state == RegionState::Free {
            return;
        }
        let age = (facts.generation, region);
        self.tombstones -= facts.tombstones;
        if facts.holds_purges {
            self.purges.remove(&age);
            return;
        }
        self.holding.remove(&age);
        self.aside_until.remove(&(facts.retry_at, region));
        if self.is_unclaimed(facts) {
            self.ages.remove(age);
        }
    }

    fn count_in(&mut self, region: u32, facts: &Facts) {
        self.counts[facts.state as usize] += 1;
        self.stuck += usize::from(is_stuck(facts));
        if facts.state == RegionState::Free {
            return;
        }
        let age = (facts.generation, region);
        self.tombstones += facts.tombstones;
        if facts.holds_purges {
            self.purges.insert(age);
            return;
        }
        self.holding.insert(age);
        if facts.failures > 0 && facts.retry_at > self.now {
            self.aside_until.insert((facts.retry_at, region));
        }
        if self.is_unclaimed(facts) {
            self.ages.insert(age);
        }
    }

    /// Moves a region to the group that it belongs to now.
    fn place(&mut self, region: u32) {
        let facts = self.facts[region as usize];
        let own = self.least_of(region, &facts);
        let target = self.group_of(&facts).map(|group| (group, (facts.generation, region)));
        let at = std::mem::replace(&mut self.places[region as usize], target);
        if at == target {
            if let Some((group, age)) = at {
                let root = self.groups.get(&group).copied().flatten();
                self.trees.change(root, age, own);
            }
            return;
        }
        if let Some((group, age)) = at {
            let root = self.groups.entry(group).or_default();
            self.trees.remove(root, age);
            if root.is_none() {
                self.groups.remove(&group);
            }
        }
        if let Some((group, age)) = target {
            self.trees.insert(self.groups.entry(group).or_default(), age, own);
        }
    }

    fn group_of(&self, facts: &Facts) -> Option<Group> {
        if facts.state != RegionState::Sealed || facts.holds_purges {
            return None;
        }
        let (failures, is_sound) = (facts.failures, !facts.is_condemned);
        Some(match (failures > 0, is_sound) {
            (true, _) if facts.retry_at > self.now => Group::Aside { failures, is_sound },
            (_, false) => Group::Condemned,
            (true, true) => Group::Retried,
            (false, true) => Group::Ordinary,
        })
    }

    fn least_of(&self, region: u32, facts: &Facts) -> Least {
        // If little is won, the oldest region is better: no other region needs its tombstones, so
        // freeing it frees most.
        let is_cheap =
            facts.tombstones <= self.region_size / TOMBSTONES_SHARE && facts.under_way == 0;
        let (spared_generation, spared_round) = self.spared[region as usize];
        let spared = if spared_generation == facts.generation { spared_round } else { 0 };
        let is_much = facts.under_way > self.few_claimed();
        Least {
            keep_until: if is_cheap { facts.keep_until } else { Timestamp::MAX },
            cheap: if is_cheap { (facts.generation, region) } else { NEWEST },
            live: if is_cheap { facts.live } else { u64::MAX },
            to_move: facts.under_way + facts.tombstones,
            under_way: facts.under_way,
            much_under_way: if is_much { facts.under_way } else { 0 },
            claimed: facts.claimed,
            spared: if facts.claimed <= self.few_claimed() { spared } else { u64::MAX },
        }
    }

    fn few_claimed(&self) -> u64 {
        self.region_size / FEW_CLAIMED
    }

    fn is_unclaimed(&self, facts: &Facts) -> bool {
        facts.state == RegionState::Sealed
            && !facts.holds_purges
            && facts.claimed <= self.few_claimed()
    }

    /// Ends the pause of regions that were left alone long enough.
    fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some((until, region)) = self.aside_until.first().copied()
            && until <= self.now
        {
            self.aside_until.pop_first();
            self.place(region);
        }
    }

    // Sums.

    /// Number of regions in a state.
    pub fn count(&self, state: RegionState) -> usize {
        self.counts[state as usize]
    }

    /// Bytes of the tombstones in all regions that are not free.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Number of regions that could not be read or freed.
    pub fn stuck(&self) -> usize {
        self.stuck
    }

    /// The regions of the log of purges, oldest first.
    pub fn purges(&self) -> impl Iterator<Item = u32> + '_ {
        self.purges.iter().map(|(_, region)| *region)
    }

    /// The oldest region that may hold entries, other than `except`. Regions with a generation below
    /// `dead_below` hold none.
    pub fn oldest_holding(&self, dead_below: Sequence, except: u32) -> Option<Age> {
        let mut ages = self.holding.range((dead_below, 0)..);
        ages.find(|(_, region)| *region != except).copied()
    }

    /// A region of unknown age that may hold entries, other than `except`.
    pub fn first_unknown(&self, except: u32) -> Option<Age> {
        let mut ages = self.holding.range(..(Sequence(1), 0));
        ages.find(|(_, region)| *region != except).copied()
    }

    /// The unreadable regions that may hold entries, with a generation below `end`.
    pub fn unreadable_below(&self, end: Sequence) -> impl Iterator<Item = u32> + '_ {
        let ages = self.holding.range(..(end, 0)).map(|(_, region)| *region);
        ages.filter(|region| self.facts[*region as usize].state == RegionState::Unreadable)
    }

    /// Whether a region of entries waits to be emptied and is not left alone for now.
    pub fn has_untried(&mut self, now: Timestamp) -> bool {
        self.advance(now);
        let is_aside = |group: &Group| matches!(group, Group::Aside { .. });
        self.groups.keys().any(|group| !is_aside(group))
    }

    /// Whether a damaged region waits to be emptied and is not left alone for now.
    pub fn has_condemned(&mut self, now: Timestamp) -> bool {
        self.advance(now);
        let mut purges = self.purges_tried();
        self.groups.contains_key(&Group::Condemned) || purges.any(|facts| facts.is_condemned)
    }

    /// Sealed regions of the log of purges that are not left alone for now. There are few.
    fn purges_tried(&self) -> impl Iterator<Item = &Facts> {
        let facts = self.purges.iter().map(|(_, region)| &self.facts[*region as usize]);
        facts.filter(|facts| {
            let is_aside = facts.failures > 0 && facts.retry_at > self.now;
            facts.state == RegionState::Sealed && !is_aside
        })
    }

    // Choosing a region.

    /// The region of least worth; of several the oldest.
    pub fn least_worth(&mut self, moment: &Moment) -> Option<Choice> {
        self.advance(moment.now);
        // The hand may be far from a region whose pause has ended, and what such a region hides is in
        // doubt.
        let urgent = self.worst_of(&[Group::Condemned, Group::Retried], moment);
        if let Some((_, region)) = urgent {
            return Some(Choice::Region(region));
        }
        if let Some((worth, region)) = self.worst_of(&[Group::Ordinary], moment) {
            return Some(match worth == Worth::Some && !moment.in_doubt {
                true => Choice::Oldest(region),
                false => Choice::Region(region),
            });
        }
        let (group, _) = self.groups.first_key_value()?;
        self.worst_of(&[*group], moment).map(|(_, region)| Choice::Region(region))
    }

    fn worst_of(&self, groups: &[Group], moment: &Moment) -> Option<(Worth, u32)> {
        let Moment { now, purge_floor, credit, in_doubt } = *moment;
        let most = credit.min(self.region_size / MOSTLY_DEAD);
        let prefer = if in_doubt { Prefer::Newest } else { Prefer::Oldest };
        let is_nothing = |least: &Least| {
            least.keep_until <= now || least.cheap.0 < purge_floor || least.live == 0
        };
        let find = |worth, age: Option<Age>| age.map(|(_, region)| (worth, region));
        find(Worth::Nothing, self.first_of(groups, prefer, is_nothing))
            .or_else(|| {
                find(Worth::Little, self.first_of(groups, prefer, |least| least.live < most))
            })
            .or_else(|| find(Worth::Some, self.first_of(groups, prefer, |_| true)))
    }

    /// Without free regions: the region with the fewest bytes to move; of several the oldest. The
    /// tombstones of the oldest region do not count: no other region needs them.
    pub fn least_to_move(&mut self, now: Timestamp, in_doubt: bool) -> Option<u32> {
        self.advance(now);
        let all: Vec<Group> = self.groups.keys().copied().collect();
        let (_, oldest) = self.first_of(&all, Prefer::Oldest, |_| true)?;
        let groups: &[Group] = match all.first()? {
            Group::Condemned => &[Group::Condemned],
            Group::Retried | Group::Ordinary => &[Group::Retried, Group::Ordinary],
            aside @ Group::Aside { .. } => std::slice::from_ref(aside),
        };
        if in_doubt {
            let (_, age) = self.min_of(groups, Prefer::Newest, |least| least.under_way)?;
            return Some(age.1);
        }
        let least = self.min_of(groups, Prefer::Oldest, |least| least.to_move);
        let group_of_oldest = self.places[oldest as usize].map(|(group, _)| group);
        let of_oldest = group_of_oldest.filter(|group| groups.contains(group)).map(|_| {
            let facts = &self.facts[oldest as usize];
            (facts.under_way, (facts.generation, oldest))
        });
        least.into_iter().chain(of_oldest).min().map(|(_, (_, region))| region)
    }

    /// Of the regions that are not left alone, the one with the fewest bytes of claimed slices, and
    /// these bytes; of several the oldest.
    pub fn least_claimed(&mut self, now: Timestamp) -> Option<(u32, u64)> {
        self.advance(now);
        let least = self.min_of(&TRIED, Prefer::Oldest, |least| least.claimed);
        least.map(|(claimed, (_, region))| (region, claimed))
    }

    /// Of the same regions the oldest with few bytes of stores under way, else the one with the fewest.
    pub fn least_under_way(&mut self, now: Timestamp) -> Option<u32> {
        self.advance(now);
        self.min_of(&TRIED, Prefer::Oldest, |least| least.much_under_way)
            .map(|(_, (_, region))| region)
    }

    // The hand.

    /// The oldest region that is too young to be judged, as are all newer ones.
    pub fn first_young(&self) -> Option<Age> {
        self.ages.young.first().copied()
    }

    /// The oldest region with few claimed slices that is older than `young` and was not spared in this
    /// round. If there is none, a new round begins, and the second value is true.
    pub fn next(&mut self, now: Timestamp, young: Option<Age>) -> (Option<u32>, bool) {
        self.advance(now);
        let (young, _) = young.unwrap_or(NEWEST);
        let first = |ranking: &Ranking| {
            let round = ranking.round;
            let found = ranking.first_of(&TRIED, Prefer::Oldest, |least| least.spared < round);
            found.filter(|(generation, _)| *generation < young).map(|(_, region)| region)
        };
        if let Some(region) = first(self) {
            return (Some(region), false);
        }
        self.begin_round();
        (first(self), true)
    }

    /// The hand spares a region and goes on.
    pub fn spare(&mut self, region: u32, generation: Sequence) {
        self.spared[region as usize] = (generation, self.round);
        self.place(region);
    }

    /// Begins a new round: the hand comes to all regions again.
    pub fn begin_round(&mut self) {
        self.round += 1;
    }

    /// The oldest or newest region of these groups of which `holds` is true.
    fn first_of(
        &self,
        groups: &[Group],
        prefer: Prefer,
        holds: impl Fn(&Least) -> bool,
    ) -> Option<Age> {
        let roots = groups.iter().filter_map(|group| self.groups.get(group));
        prefer.one_of(roots.filter_map(|root| self.trees.find(*root, prefer, &holds)))
    }

    /// The region of these groups with the least, and how much that is; of several the oldest or the
    /// newest.
    fn min_of(
        &self,
        groups: &[Group],
        prefer: Prefer,
        what: impl Fn(&Least) -> u64,
    ) -> Option<(u64, Age)> {
        let roots = groups.iter().filter_map(|group| self.groups.get(group));
        let leasts = roots.filter_map(|root| self.trees.least(*root));
        let least = leasts.map(|least| what(&least)).min()?;
        let age = self.first_of(groups, prefer, |other| what(other) <= least)?;
        Some((least, age))
    }
}

/// The groups that are not left alone.
const TRIED: [Group; 3] = [Group::Condemned, Group::Retried, Group::Ordinary];

fn is_stuck(facts: &Facts) -> bool {
    facts.failures > 0 || facts.state == RegionState::Unreadable
}
