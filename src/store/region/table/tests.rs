//! What is noted of regions, and when a note ends.

use super::*;
use crate::store::place::DeviceNumber;

/// Free regions of a device that was opened with epoch 1.
fn table() -> RegionTable {
    let layout = Layout::plan(10 << 20, 4096, Some(256 << 10)).unwrap();
    let table = RegionTable::new((DeviceNumber(0), Uuid([1; 16])), &layout, (1, Sequence(0)));
    (0..layout.region_count).for_each(|region| table.set_free(region));
    table
}

fn at(epoch: u32, counter: u64) -> Sequence {
    Sequence(Sequence::first_of(epoch).0 + counter)
}

#[test]
fn what_is_noted_of_a_life_is_not_noted_of_the_next() {
    let regions = table();
    regions.begin_generation(3, at(1, 5), RegionState::Sealed);
    let generation = regions.generation_of(3);
    regions.set_free(3);
    regions.begin_generation(3, at(2, 5), RegionState::Open);
    regions.note_unindexed_in(generation);
    assert_eq!(regions.unindexed_count(), 0, "nothing of that life is left");
    regions.note_unindexed_in(regions.generation_of(3));
    assert_eq!(regions.unindexed_count(), 1);
}

#[test]
fn regions_without_entries_are_never_in_doubt() {
    let regions = table();
    for region in 0..2 {
        regions.begin_generation(region, at(1, 5), RegionState::Sealed);
    }
    regions.on_device(1).set_log(LogKind::Purges, at(1, 9));
    regions.note_all_unindexed();
    assert_eq!(regions.unindexed_count(), 1, "free ones and the log of purges");
    regions.note_unread(1);
    assert_eq!(regions.unread_count(), 0);
}

#[test]
fn what_is_dead_holds_nothing_and_is_in_doubt_no_more() {
    let regions = table();
    for (region, generation) in [(0, at(0, 0)), (1, at(1, 5)), (2, at(1, 50)), (3, at(2, 5))] {
        let state = if region < 2 { RegionState::Unreadable } else { RegionState::Sealed };
        regions.begin_generation(region, generation, state);
    }
    regions.begin_generation(0, Sequence(0), RegionState::Unreadable);
    for region in [0, 1] {
        regions.note_unread(region);
    }
    regions.note_all_unindexed();
    regions.forget_below(at(1, 50));
    // Its header could not be read, so it may be younger.
    assert!(regions.is_dead(1) && !regions.is_dead(0));
    assert_eq!((regions.oldest(), regions.dead_unreadable()), (Some(0), vec![1]));
    assert_eq!((regions.unread_count(), regions.unindexed_count()), (1, 3));
    // Its age is still unknown, but it is from before this start.
    regions.forget_below(at(2, 0));
    assert_eq!((regions.oldest(), regions.dead_unreadable()), (Some(3), vec![0, 1]));
    assert_eq!((regions.unread_count(), regions.unindexed_count()), (0, 1));
    regions.note_unindexed(1);
    assert_eq!(regions.unindexed_count(), 1);
}

#[test]
fn what_was_purged_before_the_start_is_in_doubt_no_more() {
    let layout = Layout::plan(10 << 20, 4096, Some(256 << 10)).unwrap();
    let regions = RegionTable::new((DeviceNumber(0), Uuid([1; 16])), &layout, (2, at(1, 7)));
    regions.begin_generation(0, at(1, 5), RegionState::Sealed);
    regions.begin_generation(1, at(1, 8), RegionState::Sealed);
    assert!(regions.is_dead(0) && !regions.is_dead(1));
    assert!(!regions.is_dead(2), "nobody knows how old it is");
    for region in 0..3 {
        regions.note_unread(region);
    }
    assert_eq!(regions.unread_count(), 2);
    let all = RegionTable::new((DeviceNumber(0), Uuid([1; 16])), &layout, (2, at(3, 0)));
    all.note_unread(2);
    assert_eq!(all.unread_count(), 0, "it is of before the start, and so is the purge of all");
}

#[test]
fn doubt_of_what_was_purged_ends_when_its_age_is_known() {
    let layout = Layout::plan(10 << 20, 4096, Some(256 << 10)).unwrap();
    let regions = RegionTable::new((DeviceNumber(0), Uuid([1; 16])), &layout, (2, at(1, 7)));
    regions.note_all_unindexed();
    assert_eq!(regions.unindexed_count(), layout.region_count as usize);
    for region in 0..layout.region_count {
        regions.begin_generation(region, at(1, 5), RegionState::Sealed);
    }
    // The next superblock write, with the same floor.
    regions.forget_below(at(1, 7));
    assert_eq!(regions.unindexed_count(), 0);
}
