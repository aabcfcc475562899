//! Appends to the open region, and opens the next one. Owns where the next slot goes.

use crate::clock::Timestamp;
use crate::device::Part;
use crate::format::{
    EntryHeader, Footer, FooterRecord, Kind, LogKind, PurgeRecord, Seed, Sequence, Tombstone,
};
use crate::store::log::appender::{Appender, NoRoom};
use crate::store::log::chunks::COPY_LEN_MAX;
use crate::store::log::core::{Log, OpenRegion};
use crate::store::log::placement;
use crate::store::log::room::{FREE_RESERVE, REMOVALS_BACKLOG_MAX, REMOVALS_SHARE};
use crate::store::log::slot::{Slot, SlotSize};
use crate::store::log::write::Ticket;
use crate::store::place::Place;

/// A reserved place for a slot. Valid until the append lock is released.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    /// Region of the slot.
    pub region: u32,
    /// Byte offset of the slot in the region.
    pub offset: u64,
    /// Length of the slot in bytes.
    pub slot_len: u64,
    /// The same as a place in the region's generation.
    pub place: Place,
}

/// An append whose bytes are copied after the append lock is released; call [`Log::end_fill`] then.
pub struct Unfilled {
    region: u32,
    offset: u64,
    seed: Seed,
    header: EntryHeader,
    part: Part,
}

impl Unfilled {
    /// Copies the appended slot to its place.
    pub fn fill(&mut self, slot: &Slot<'_>) {
        slot.write_into(&mut self.part, &self.header, self.seed, self.offset);
    }
}

impl Log {
    /// Reserves a place for a slot of this size; opens a region or a chunk if needed.
    ///
    /// # Errors
    /// There is no room right now.
    pub fn reserve(
        &mut self,
        size: SlotSize,
        appender: Appender,
        now: Timestamp,
    ) -> Result<Reservation, NoRoom> {
        let slot_len = size.len;
        self.check_epoch(appender)?;
        let backlog_max = match appender {
            Appender::Client => self.limits.backlog,
            Appender::Removal => self.limits.backlog + REMOVALS_BACKLOG_MAX,
            Appender::Reclaim => u64::MAX,
        };
        if self.chunks.backlog() > backlog_max {
            return Err(NoRoom::Backlog);
        }
        // Even if the open region has room: the last one is not for stores.
        if appender == Appender::Client && self.free.len() < FREE_RESERVE {
            return Err(NoRoom::Regions);
        }
        loop {
            let Some(open) = &self.open else {
                self.open_region(appender, now)?;
                continue;
            };
            let offset = placement::place(self.chunks.cursor(), slot_len, self.layout.granule);
            let is_share_used = offset + slot_len > self.layout.region_size / REMOVALS_SHARE;
            if appender == Appender::Removal && self.free.is_empty() && is_share_used {
                return Err(NoRoom::Regions);
            }
            if open.broken || !self.fits(open, size, offset) {
                self.seal(now);
                continue;
            }
            match self.chunks.room_until() {
                Some(end) if offset + slot_len <= end => {
                    let generation = self.regions.generation_at(open.region, open.generation);
                    let place = generation.place(offset, &self.layout);
                    return Ok(Reservation { region: open.region, offset, slot_len, place });
                }
                Some(_) => self.freeze(now),
                None => self.chunks.open(slot_len),
            }
        }
    }

    pub(super) fn open_region(&mut self, appender: Appender, now: Timestamp) -> Result<(), NoRoom> {
        let reserve = if appender == Appender::Client { FREE_RESERVE } else { 0 };
        if self.free.len() <= reserve {
            return Err(NoRoom::Regions);
        }
        let (region, generation) = self.begin_region(LogKind::Data, now).ok_or(NoRoom::Regions)?;
        self.regions.on_device(region).set_in_memory(true);
        self.chunks.begin(region);
        self.open = Some(OpenRegion {
            region,
            generation,
            seed: self.regions.seed_of(self.regions.generation_at(region, generation)),
            // Growing it later would copy under the append lock.
            footer: Footer {
                records: Vec::with_capacity(self.records_expected),
                ..Footer::default()
            },
            broken: false,
        });
        Ok(())
    }

    /// Appends the slot at its reservation; gives its ticket. Fill the returned append at once, without
    /// waiting for anything but the append lock.
    pub fn append(
        &mut self,
        at: Reservation,
        slot: &Slot<'_>,
        key_hash: u64,
        (sequence, supersedes): (Sequence, bool),
    ) -> (Ticket, Option<Unfilled>) {
        let header = slot.header(sequence, supersedes);
        let Some(open) = self.open.as_mut().filter(|open| open.region == at.region) else {
            panic!("a reservation is filled before the append lock is released");
        };
        assert_eq!(at.slot_len, slot.len(), "a slot is as long as it was reserved");
        let range = at.offset..at.offset + slot.len();
        let mut unfilled = None;
        if slot.len() > COPY_LEN_MAX as u64 {
            let (region, offset, seed) = (at.region, at.offset, open.seed);
            let part = self.chunks.append_part(range);
            unfilled = Some(Unfilled { region, offset, seed, header, part });
        } else {
            let target = self.chunks.append(range);
            slot.write_into(target, &header, open.seed, at.offset);
        }
        let row = self.regions.on_device(at.region);
        match slot.kind() {
            Kind::Tombstones => {
                open.footer.tombstones.extend(Tombstone::decode_all(slot.metadata()));
                row.add_tombstones(slot.tombstone_count());
            }
            Kind::PurgeRecords => {
                let records = PurgeRecord::decode_all(slot.metadata()).flatten();
                open.footer.purge_records.extend(records);
                row.add_tombstones(slot.purge_record_count());
            }
            Kind::Object | Kind::Head | Kind::Slice => {
                let epoch = open.generation.epoch();
                assert_eq!(sequence.epoch(), epoch, "a region has entries of one epoch");
                open.footer.records.push(FooterRecord {
                    key_hash,
                    sequence,
                    offset: at.offset,
                    slot_len: slot.len(),
                    kind: slot.kind(),
                    supersedes,
                    keep_until: slot.lifetime().keep_until,
                });
                row.raise_keep_until(slot.lifetime().keep_until);
                row.add_tombstones(usize::from(supersedes));
            }
        }
        self.appended += 1;
        (self.appended, unfilled)
    }

    /// All bytes of an append are copied.
    pub fn end_fill(&mut self, unfilled: Unfilled) {
        self.chunks.end_part(unfilled.region, unfilled.offset, unfilled.part);
    }
}
