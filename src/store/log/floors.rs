//! The floors that take the place of purge records, in the superblock. Owns which are durable: until one is, what
//! it covers may come back after a crash.

use crate::clock::TimePair;
use crate::format::PurgeRecord;
use crate::store::log::core::Log;
use crate::store::log::owed_records::is_below;
use crate::store::log::write::Ticket;
use crate::store::purges::Floors;

impl Log {
    /// The floors of purge records, as the superblock has them or is to have them.
    pub fn floors(&self) -> Floors {
        Floors { hard: self.superblock.record_floor, soft: self.superblock.soft_floor }
    }

    fn note_floors(&mut self, floors: Floors) {
        let superblock = &mut self.superblock;
        // What announces them may come before the epoch.
        superblock.features = superblock.features.with_known();
        superblock.record_floor = superblock.record_floor.max(floors.hard);
        superblock.soft_floor = superblock.soft_floor.max(floors.soft);
    }

    /// Has floors of purge records written that a start found: with its first epoch, as a start writes nothing, or
    /// now if the superblock of that may have gone without them.
    pub fn raise_found_floors(&mut self, floors: Floors, now: TimePair) {
        self.note_floors(floors);
        if self.has_epoch() || self.sequences.is_raising() {
            self.renew_superblock(now);
        }
    }

    /// Raises the floors of purge records; gives the ticket with which they are durable.
    pub fn raise_floors(&mut self, floors: Floors, now: TimePair) -> Ticket {
        self.note_floors(floors);
        self.renew_superblock(now)
    }

    /// Whether floors on the device say what a record says.
    pub fn is_below_floor(&self, record: &PurgeRecord) -> bool {
        let Floors { hard, soft } = self.durable_floors;
        let hard = hard.max(self.regions.dead_below());
        is_below(record, Floors { hard, soft: soft.max(hard) })
    }

    /// Whether the floors of purge records are on the device.
    pub fn are_floors_durable(&self) -> bool {
        self.floors() == self.durable_floors
    }
}
