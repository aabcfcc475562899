//! When epochs begin, and which tombstones waiting removals leave.

use std::sync::Arc;

use crate::clock::{TimePair, Timestamp};
use crate::format::{
    Features, Layout, SUPERBLOCK_SPACE, Secret, Sequence, Superblock, Tombstone, Uuid,
};
use crate::store::log::appender::Appender;
use crate::store::log::core::{Incomplete, Log};
use crate::store::log::limits::LogLimits;
use crate::store::log::removals::OwedTombstone;
use crate::store::log::sequences::Sequences;
use crate::store::log::slot::Slot;
use crate::store::place::DeviceNumber;
use crate::store::region::table::RegionTable;

const NOW: Timestamp = Timestamp(10);
const NOW_AND_WALL: TimePair = TimePair { cache: NOW, wall: 1000 };

const LIMITS: LogLimits = LogLimits { backlog: 64 << 20, footer: u64::MAX, records: usize::MAX };

/// The log of a device with this many free regions, in its first epoch of 64 sequences.
fn log(regions: u64) -> Log {
    let layout =
        Layout::plan(2 * SUPERBLOCK_SPACE + regions * (256 << 10), 4096, Some(256 << 10)).unwrap();
    let uuid = Uuid([1; 16]);
    let superblock = Superblock {
        uuid,
        secret: Secret([2; 16]),
        layout,
        features: Features::default(),
        epoch: 1,
        purge_floor: Sequence(0),
        soft_floor: Sequence(0),
        record_floor: Sequence(0),
        formatted_at: 1000,
        time: NOW_AND_WALL,
        unknown_age: 0,
    };
    let table = RegionTable::new((DeviceNumber(0), uuid), &layout, (1, Sequence(0)));
    let mut log = Log::new(superblock, Arc::new(table), (4096, Sequences::new(64), LIMITS));
    log.add_vacant((0..layout.region_count).collect());
    log.recovered(Incomplete::default(), NOW);
    log.raise_epoch(NOW_AND_WALL);
    assert!(write_superblock(&mut log));
    log
}

/// The superblock becomes durable; true if an epoch begins with it.
fn write_superblock(log: &mut Log) -> bool {
    let (superblock, _) = log.superblock();
    log.superblock_written(&superblock, NOW)
}

/// Reclaim opens a region.
fn open_region(log: &mut Log) {
    let encoded = Slot::encode_tombstones(&[]);
    log.reserve(Slot::of_tombstones(&encoded, NOW).size(), Appender::Reclaim, NOW).unwrap();
}

/// The next epoch is due and becomes durable; true if it begins at once.
fn raise(log: &mut Log) -> bool {
    while !log.sequences.wants_epoch() {
        log.draw();
    }
    log.raise_epoch_if_due(NOW_AND_WALL);
    write_superblock(log)
}

#[test]
fn an_epoch_does_not_take_the_last_region_from_reclaim() {
    let mut log = log(8);
    for _ in 0..8 {
        log.seal(NOW);
        open_region(&mut log);
    }
    assert_eq!(log.free_count(), 0);
    assert!(!raise(&mut log) && log.is_epoch_held_up());
    assert!(log.open.is_some(), "what reclaim moves goes on to fit");
    assert!(!log.begin_epoch_if_due(NOW));
    let epoch = log.draw().epoch();
    log.add_free(3);
    assert!(log.begin_epoch_if_due(NOW) && log.draw().epoch() == epoch + 1);
    assert!(!log.is_epoch_held_up() && !log.begin_epoch_if_due(NOW), "once");
}

#[test]
fn an_epoch_begins_at_the_latest_when_reclaim_has_no_sequences() {
    let mut log = log(8);
    for _ in 0..8 {
        log.seal(NOW);
        open_region(&mut log);
    }
    assert!(!raise(&mut log));
    while log.check_epoch(Appender::Reclaim).is_ok() {
        assert!(!log.begin_epoch_if_due(NOW));
        log.draw();
    }
    assert!(log.begin_epoch_if_due(NOW));
}

#[test]
fn an_epoch_begins_at_once_where_a_region_is_free() {
    let mut log = log(8);
    open_region(&mut log);
    assert!(raise(&mut log));
    assert!(log.open.is_none(), "the sequences of a region are of one epoch");
}

#[test]
fn a_removal_that_waits_is_written_with_the_sequence_of_the_removal() {
    let mut log = log(8);
    let tombstone = Tombstone { key_hash: 5, sequence: log.draw() };
    assert!(log.removal_waits(OwedTombstone { tombstone, for_purge: true }));
    let newer = log.draw();
    assert!(!log.record_removals(NOW), "none waits any more");
    assert_eq!(
        log.open.as_ref().unwrap().footer.tombstones,
        [tombstone],
        "not of {newer:?} or later"
    );
}
