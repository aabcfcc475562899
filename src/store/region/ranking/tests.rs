//! Compares the orders with plain walks over all regions, which define what is meant.

use super::*;
use crate::store::region::ranking::ages::YOUNG;

const REGION_SIZE: u64 = 256 << 10;
const FEW: u64 = REGION_SIZE / FEW_CLAIMED;

/// A full sealed region that never expires, without tombstones.
fn plain(generation: u64) -> Facts {
    Facts {
        state: RegionState::Sealed,
        generation: Sequence(generation),
        holds_purges: false,
        live: REGION_SIZE * 9 / 10,
        keep_until: Timestamp(u32::MAX),
        tombstones: 0,
        failures: 0,
        retry_at: Timestamp(0),
        is_condemned: false,
        under_way: 0,
        claimed: 0,
    }
}

fn ranked(regions: &[Facts]) -> Ranking {
    let mut ranking = Ranking::new(u32::try_from(regions.len()).unwrap(), REGION_SIZE);
    for (region, facts) in (0..).zip(regions) {
        ranking.update(region, *facts);
    }
    ranking
}

fn drawn(rng: &mut fastrand::Rng, generation: u64, now: u32) -> Facts {
    let rare = |rng: &mut fastrand::Rng| rng.u8(0..20) == 0;
    let under_way = if rng.u8(0..4) == 0 { rng.u64(0..REGION_SIZE / 2) } else { 0 };
    let just_stored = if rng.u8(0..4) == 0 { rng.u64(0..REGION_SIZE / 2) } else { 0 };
    let states = [RegionState::Open, RegionState::Free, RegionState::Unreadable];
    Facts {
        state: if rng.u8(0..6) == 0 { states[rng.usize(0..3)] } else { RegionState::Sealed },
        holds_purges: rare(rng),
        live: if rare(rng) { 0 } else { rng.u64(0..REGION_SIZE) },
        keep_until: Timestamp(if rare(rng) { now } else { rng.u32(now + 20..now + 200) }),
        tombstones: if rare(rng) { REGION_SIZE / 4 } else { rng.u64(0..REGION_SIZE / 16) },
        failures: if rng.u8(0..8) == 0 { rng.u32(1..4) } else { 0 },
        retry_at: Timestamp(rng.u32(now..now + 30)),
        is_condemned: rare(rng),
        under_way,
        claimed: under_way + just_stored,
        ..plain(generation)
    }
}

/// The same questions, answered by walks over all regions.
#[derive(Default)]
struct Walk {
    regions: Vec<Facts>,
    spared: BTreeSet<Age>,
}

impl Walk {
    fn sealed(&self) -> impl Iterator<Item = (u32, &Facts)> {
        let rows = (0u32..).zip(&self.regions);
        rows.filter(|(_, row)| row.state == RegionState::Sealed && !row.holds_purges)
    }

    fn is_aside(row: &Facts, now: Timestamp) -> bool {
        row.failures > 0 && row.retry_at > now
    }

    fn least_worth(&self, moment: &Moment) -> Option<Choice> {
        let Moment { now, purge_floor, credit, in_doubt } = *moment;
        let (region, (failures, is_sound, worth, _)) = self
            .sealed()
            .map(|(region, row)| {
                let is_dear = row.tombstones > REGION_SIZE / TOMBSTONES_SHARE || row.under_way > 0;
                let is_dead =
                    row.keep_until <= now || row.generation < purge_floor || row.live == 0;
                let worth = if is_dear {
                    Worth::Some
                } else if is_dead {
                    Worth::Nothing
                } else if row.live < (REGION_SIZE / MOSTLY_DEAD).min(credit) {
                    Worth::Little
                } else {
                    Worth::Some
                };
                let age = row.generation.0;
                let age = if in_doubt { u64::MAX - age } else { age };
                let failures = if Walk::is_aside(row, now) { row.failures } else { 0 };
                let is_retried = failures == 0 && row.failures > 0;
                (region, (failures, !row.is_condemned && !is_retried, worth, age))
            })
            .min_by_key(|(_, order)| *order)?;
        let is_ordinary = failures == 0 && is_sound && worth == Worth::Some;
        Some(match is_ordinary && !in_doubt {
            true => Choice::Oldest(region),
            false => Choice::Region(region),
        })
    }

    fn least_to_move(&self, now: Timestamp, in_doubt: bool) -> Option<u32> {
        let oldest = self.sealed().map(|(_, row)| row.generation).min()?;
        let order = |row: &Facts| {
            let age = row.generation;
            let tombstones = if age == oldest || in_doubt { 0 } else { row.tombstones };
            let age = if in_doubt { u64::MAX - age.0 } else { age.0 };
            let failures = if Walk::is_aside(row, now) { row.failures } else { 0 };
            (failures, !row.is_condemned, row.under_way + tombstones, age)
        };
        self.sealed().min_by_key(|(_, row)| order(row)).map(|(region, _)| region)
    }

    fn tried(&self, now: Timestamp) -> impl Iterator<Item = (u32, &Facts)> {
        self.sealed().filter(move |(_, row)| !Walk::is_aside(row, now))
    }

    fn least_claimed(&self, now: Timestamp) -> Option<(u32, u64)> {
        let least = self.tried(now).min_by_key(|(_, row)| (row.claimed, row.generation))?;
        Some((least.0, least.1.claimed))
    }

    fn least_under_way(&self, now: Timestamp) -> Option<u32> {
        let moved = |row: &Facts| if row.under_way <= FEW { 0 } else { row.under_way };
        let least = self.tried(now).min_by_key(|(_, row)| (moved(row), row.generation))?;
        Some(least.0)
    }

    fn first_young(&self) -> Option<Age> {
        let unclaimed = self.sealed().filter(|(_, row)| row.claimed <= FEW);
        let mut ages: Vec<Age> = unclaimed.map(|(region, row)| (row.generation, region)).collect();
        ages.sort_unstable();
        ages.get(ages.len() - ages.len() / YOUNG).copied()
    }

    fn next(&mut self, now: Timestamp, young: Option<Age>) -> (Option<u32>, bool) {
        let young = young.map_or(Sequence(u64::MAX), |(generation, _)| generation);
        let judged = self.tried(now);
        let judged = judged.filter(|(_, row)| row.claimed <= FEW && row.generation < young);
        let mut ages: Vec<Age> = judged.map(|(region, row)| (row.generation, region)).collect();
        ages.sort_unstable();
        match ages.iter().find(|age| !self.spared.contains(age)) {
            Some((_, region)) => (Some(*region), false),
            None => {
                self.spared.clear();
                (ages.first().map(|(_, region)| *region), true)
            }
        }
    }

    fn oldest_holding(&self, dead_below: Sequence, except: u32) -> Option<Age> {
        let rows = (0u32..).zip(&self.regions).filter(|(region, row)| {
            row.state != RegionState::Free
                && !row.holds_purges
                && row.generation >= dead_below
                && *region != except
        });
        rows.map(|(region, row)| (row.generation, region)).min()
    }

    fn sums(&self, now: Timestamp) -> (usize, u64, usize, bool, bool) {
        let used = self.regions.iter().filter(|row| row.state != RegionState::Free);
        let sealed = self.regions.iter().filter(|row| row.state == RegionState::Sealed);
        let mut tried = sealed.clone().filter(|row| !Walk::is_aside(row, now));
        (
            sealed.count(),
            used.map(|row| row.tombstones).sum(),
            self.regions.iter().filter(|row| is_stuck(row)).count(),
            tried.clone().any(|row| !row.holds_purges),
            tried.any(|row| row.is_condemned),
        )
    }
}

fn compare(ranking: &mut Ranking, walk: &mut Walk, moment: &Moment) -> Option<u32> {
    let Moment { now, in_doubt, .. } = *moment;
    let choice = ranking.least_worth(moment);
    assert_eq!(choice, walk.least_worth(moment), "{moment:?}");
    let in_need = ranking.least_to_move(now, in_doubt);
    assert_eq!(in_need, walk.least_to_move(now, in_doubt), "{moment:?}");
    assert_eq!(ranking.least_claimed(now), walk.least_claimed(now));
    assert_eq!(ranking.least_under_way(now), walk.least_under_way(now));
    let young = walk.first_young();
    assert_eq!(ranking.first_young(), young);
    let next = walk.next(now, young);
    assert_eq!(ranking.next(now, young), next);
    if let (Some(region), _) = next {
        let generation = walk.regions[region as usize].generation;
        walk.spared.insert((generation, region));
        ranking.spare(region, generation);
    }
    for except in [0, u32::MAX] {
        let oldest = ranking.oldest_holding(moment.purge_floor, except);
        assert_eq!(oldest, walk.oldest_holding(moment.purge_floor, except));
    }
    let sums = (ranking.count(RegionState::Sealed), ranking.tombstones(), ranking.stuck());
    let waits = (ranking.has_untried(now), ranking.has_condemned(now));
    assert_eq!((sums.0, sums.1, sums.2, waits.0, waits.1), walk.sums(now));
    match choice? {
        Choice::Region(region) | Choice::Oldest(region) => Some(region),
    }
}

#[test]
fn each_choice_is_that_of_a_walk_over_all() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut ways = BTreeSet::new();
    for table in 0..300 {
        let count = rng.u32(1..60);
        let mut generations: Vec<u64> = (50..50 + u64::from(count)).collect();
        rng.shuffle(&mut generations);
        let regions: Vec<Facts> =
            generations.iter().map(|generation| drawn(&mut rng, *generation, 1000)).collect();
        let mut ranking = ranked(&regions);
        let mut walk = Walk { regions, spared: BTreeSet::new() };
        for step in 0..80 {
            let now = 1000 + step;
            let moment = Moment {
                now: Timestamp(now),
                purge_floor: Sequence(if table % 3 == 0 { rng.u64(0..200) } else { 0 }),
                credit: rng.u64(0..REGION_SIZE / 4),
                in_doubt: table % 5 == 0,
            };
            let victim = compare(&mut ranking, &mut walk, &moment);
            if let Some((group, _)) = victim.and_then(|victim| ranking.places[victim as usize]) {
                ways.insert(group);
            }
            // The victim gets a new generation, another region changes, and one gets an earlier
            // generation.
            let changed = [victim.unwrap_or(0), rng.u32(0..count)];
            for (n, region) in (0..).zip(changed) {
                let facts = drawn(&mut rng, u64::from(1000 + step * 2 + n), now);
                walk.regions[region as usize] = facts;
                ranking.update(region, facts);
            }
            let region = rng.u32(0..count);
            let before = walk.regions[region as usize];
            let facts = Facts { generation: before.generation, ..drawn(&mut rng, 0, now) };
            walk.regions[region as usize] = facts;
            ranking.update(region, facts);
        }
    }
    assert!(ways.len() > 5, "regions of all groups were chosen: {ways:?}");
}

/// Average steps of a choice and of the updates after it.
fn steps(count: u32) -> u64 {
    const CHOICES: u32 = 1000;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut regions: Vec<Facts> = (0..count).map(|n| plain(200 + u64::from(n))).collect();
    // Many that cannot be chosen, for various reasons.
    for n in 0..count as usize / 4 {
        let part_alive = REGION_SIZE / MOSTLY_DEAD - 1;
        regions[n * 4] = Facts { live: part_alive, ..regions[n * 4] };
        let until = (1, Timestamp(u32::MAX));
        let (failures, retry_at) = if n % 2 == 0 { until } else { (0, Timestamp(0)) };
        regions[n * 4 + 1] = Facts { failures, retry_at, ..regions[n * 4 + 1] };
        regions[n * 4 + 2] = Facts { claimed: FEW + 1, ..regions[n * 4 + 2] };
    }
    let mut ranking = ranked(&regions);
    ranking.trees.steps.set(0);
    for n in 0..CHOICES {
        let moment = Moment {
            now: Timestamp(1000 + n),
            purge_floor: Sequence(0),
            credit: rng.u64(0..REGION_SIZE / MOSTLY_DEAD),
            in_doubt: n % 2 == 0,
        };
        ranking.least_worth(&moment);
        ranking.least_to_move(moment.now, moment.in_doubt);
        ranking.least_claimed(moment.now);
        ranking.least_under_way(moment.now);
        let young = ranking.first_young();
        for _ in 0..16 {
            if let (Some(region), _) = ranking.next(moment.now, young) {
                ranking.spare(region, regions[region as usize].generation);
            }
        }
        let region = rng.u32(0..count);
        regions[region as usize] = plain(u64::from(200 + count + n));
        ranking.update(region, regions[region as usize]);
    }
    ranking.trees.steps.get() / u64::from(CHOICES)
}

#[test]
fn a_choice_among_64_times_as_many_regions_takes_little_more_steps() {
    let (few, many) = (steps(1 << 10), steps(1 << 16));
    println!("steps of a choice: {few} of 1024 regions, {many} of 65536");
    assert!(many < 2 * few && many < 10_000, "{few} of 1024, {many} of 65536");
}
