//! Walks one generation of a region slot by slot as its bytes come in. Owns what must be where; reads
//! nothing and does not act on what it finds.

use std::ops::Range;

use crate::format::{
    ENTRY_HEADER_LEN, EntryHeader, Footer, FooterRecord, GRANULE, Kind, PurgeRecord, Seed,
    Tombstone, round_up,
};
use crate::store::region::reader::sound_slot;

/// What a region has that makes other entries dead.
#[derive(Default, PartialEq, Eq)]
struct Killing {
    tombstones: Vec<Tombstone>,
    purge_records: Vec<PurgeRecord>,
}

/// A walk over the slots that a footer names.
pub(super) struct Walk {
    seed: Seed,
    records: Vec<FooterRecord>,
    /// What the slots must add up to, if there is a footer.
    expected: Option<Killing>,
    found: Killing,
    /// Index of the next record.
    next: usize,
    /// Region offset of the next slot.
    at: u64,
    /// Region offset at which the slots end.
    end: u64,
    /// Bytes from region offset `buf_start` on that are still needed.
    buf: Vec<u8>,
    buf_start: u64,
    read_to: u64,
    block: u64,
    skipped: bool,
}

impl Walk {
    /// A walk over the slots of a sealed region; they end at `end`, where its footer begins.
    pub fn sealed(seed: Seed, footer: Footer, block: u32, end: u64) -> Walk {
        let mut walk = Walk::written(seed, footer.records, block);
        walk.expected =
            Some(Killing { tombstones: footer.tombstones, purge_records: footer.purge_records });
        walk.end = end;
        walk
    }

    /// A walk over entries of an unsealed region; does not verify its tombstones.
    pub fn written(seed: Seed, records: Vec<FooterRecord>, block: u32) -> Walk {
        let start = u64::from(block);
        let end = records.last().map_or(start, |record| record.offset + record.slot_len);
        Walk {
            seed,
            records,
            expected: None,
            found: Killing::default(),
            next: 0,
            at: start,
            end,
            buf: Vec::new(),
            buf_start: start,
            read_to: start,
            block: start,
            skipped: false,
        }
    }

    /// Range of the next bytes to read, at most `len_max`; `None` at the end.
    pub fn wants(&self, len_max: u64) -> Option<Range<u64>> {
        let end = round_up(self.end, self.block).min(self.read_to + len_max);
        (self.read_to < end).then_some(self.read_to..end)
    }

    /// Takes the bytes last wanted; gives the records whose slots in them are damaged.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<FooterRecord> {
        self.buf.extend_from_slice(bytes);
        self.read_to += bytes.len() as u64;
        let mut suspects = Vec::new();
        while let Some(step) = self.examine(&mut suspects) {
            self.at += step;
        }
        let done = index(self.at - self.buf_start).min(self.buf.len());
        self.buf.drain(..done);
        self.buf_start += done as u64;
        suspects
    }

    /// The bytes last wanted, up to `end`, are unreadable: continues after the slots in them.
    pub fn skip(&mut self, end: u64) {
        self.skipped = true;
        self.at = self.at.max(end);
        while let Some(record) = self.records.get(self.next).filter(|record| record.offset < end) {
            self.at = self.at.max(record.offset + record.slot_len);
            self.next += 1;
        }
        self.buf.clear();
        self.buf_start = end;
        self.read_to = end;
    }

    /// Whether the tombstones and purge records found are those of the footer. Call it at the end; always true if some
    /// bytes were unreadable.
    pub fn tombstones_are_sound(&self) -> bool {
        self.skipped || self.expected.as_ref().is_none_or(|expected| *expected == self.found)
    }

    /// Examines the next slot; `None` if more bytes are needed, or nothing is left.
    fn examine(&mut self, suspects: &mut Vec<FooterRecord>) -> Option<u64> {
        while self.records.get(self.next).is_some_and(|record| record.offset < self.at) {
            self.next += 1;
        }
        if self.at >= self.end {
            return None;
        }
        let slot = self.buf.get(index(self.at.checked_sub(self.buf_start)?)..)?;
        let is_last = self.read_to >= self.end;
        let has = |len: u64| is_last || slot.len() as u64 >= len;
        let record = self.records.get(self.next).filter(|record| record.offset == self.at);
        if let Some(record) = record {
            if !has(record.slot_len) {
                return None;
            }
            if !is_sound(slot, self.seed, record) {
                suspects.push(*record);
            }
            return Some(record.slot_len.max(GRANULE));
        }
        if !has(ENTRY_HEADER_LEN as u64) {
            return None;
        }
        let Ok(header) = EntryHeader::decode(slot, self.seed, self.at) else {
            return Some(GRANULE);
        };
        let len = round_up(header.slot_len() as u64, GRANULE);
        if !has(len) {
            return None;
        }
        if header.check_meta(slot).is_err() {
            return Some(GRANULE);
        }
        let metadata = &slot[header.metadata_range()];
        match header.kind {
            Kind::Tombstones => self.found.tombstones.extend(Tombstone::decode_all(metadata)),
            Kind::PurgeRecords => {
                self.found.purge_records.extend(PurgeRecord::decode_all(metadata).flatten());
            }
            Kind::Object | Kind::Head | Kind::Slice => return Some(GRANULE),
        }
        Some(len)
    }
}

fn is_sound(slot: &[u8], seed: Seed, record: &FooterRecord) -> bool {
    let Ok(header) = sound_slot(slot, seed, record.offset) else { return false };
    header.sequence == record.sequence && header.check_body(slot).is_ok()
}

fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    //! A hand-made region, walked in chunks of every size.
    use super::*;
    use crate::clock::Timestamp;
    use crate::format::Sequence;
    use crate::store::log::slot::Slot;
    use crate::store::mutation::request::Lifetime;

    const SEED: Seed = Seed(77);
    const BLOCK: u32 = 512;
    const END: u64 = 20 * 512;
    const TOMBSTONE: Tombstone = Tombstone { key_hash: 1, sequence: Sequence(5) };

    /// An entry of 300 bytes, a tombstone, an entry of 5000 bytes.
    fn region() -> (Vec<u8>, Footer) {
        let mut bytes = vec![0; index(END)];
        let mut footer = Footer { tombstones: vec![TOMBSTONE], ..Footer::default() };
        let now = Timestamp(9);
        let lifetime = Lifetime { stored_at: now, age_secs: 0, fresh_until: now, keep_until: now };
        let tombstones = Slot::encode_tombstones(&[TOMBSTONE]);
        let bodies = [vec![1; 300], vec![2; 5000]];
        let entry = |n: usize| Slot::new(Kind::Object, b"k", (&[], &bodies[n]), lifetime);
        let slots =
            [(512, entry(0)), (1024, Slot::of_tombstones(&tombstones, now)), (1536, entry(1))];
        for (offset, slot) in slots {
            let range = index(offset)..index(offset + slot.len());
            let header = slot.header(Sequence(offset), false);
            slot.write_into(&mut bytes[range], &header, SEED, offset);
            if slot.kind() == Kind::Object {
                footer.records.push(FooterRecord {
                    key_hash: offset,
                    sequence: Sequence(offset),
                    offset,
                    slot_len: slot.len(),
                    kind: Kind::Object,
                    supersedes: false,
                    keep_until: now,
                });
            }
        }
        (bytes, footer)
    }

    /// Offsets of the suspects, and whether the tombstones are sound.
    fn walked(bytes: &[u8], chunk: u64) -> (Vec<u64>, bool) {
        let mut walk = Walk::sealed(SEED, region().1, BLOCK, END);
        let mut suspects = Vec::new();
        while let Some(range) = walk.wants(chunk) {
            let found = walk.take(&bytes[index(range.start)..index(range.end)]);
            suspects.extend(found.iter().map(|record| record.offset));
        }
        (suspects, walk.tombstones_are_sound())
    }

    #[test]
    fn sound_slots_raise_no_suspicion_however_they_are_cut() {
        for chunk in 1..=20 {
            assert_eq!(walked(&region().0, chunk * 512), (vec![], true), "{chunk} blocks a chunk");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_slot_is_seen_and_none_of_the_padding() {
        let (sound, footer) = region();
        for at in (512..index(END)).step_by(7).chain(1024..1088) {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            let within = |start: u64, len: u64| (start..start + len).contains(&(at as u64));
            let mut expected = Vec::new();
            for (record, len) in footer.records.iter().zip([349, 5049]) {
                expected.extend(within(record.offset, len).then_some(record.offset));
            }
            // Header and one record.
            let tombstones_sound = !within(1024, 48 + 16);
            assert_eq!(walked(&bytes, 1024), (expected, tombstones_sound), "byte {at}");
        }
    }

    #[test]
    fn a_chunk_that_cannot_be_read_hides_only_what_is_in_it() {
        let (mut bytes, footer) = region();
        bytes[1700] ^= 1;
        let mut walk = Walk::sealed(SEED, footer, BLOCK, END);
        walk.skip(1024);
        assert_eq!(walk.wants(u64::MAX / 2), Some(1024..END));
        let suspects = walk.take(&bytes[1024..]);
        assert_eq!(suspects.iter().map(|record| record.offset).collect::<Vec<_>>(), [1536]);
        assert!(walk.tombstones_are_sound(), "there is no telling");
    }
}
