//! Versions of keys as recovery gathers them, 24 bytes each. Owns which version of a key wins; knows no
//! device.

use crate::clock::Timestamp;
use crate::format::{FooterRecord, GRANULE, Sequence, Tombstone};
use crate::store::index::index_entry::{LOCATION_BITS, Location, SLOT_LEN_MAX, SizeClass};

/// Parts into which versions are divided; each is settled on its own. All keys of an index shard are in
/// one part: both use the low hash bits, and the index has at least as many shards.
pub(super) const PARTS: usize = 256;
/// Sorting by the hash rotated by this many bits brings the keys of one index shard together.
const SHARD_BITS: u32 = 12;

/// The part of a key.
pub(super) fn part_of(key_hash: u64) -> usize {
    usize::try_from(key_hash % PARTS as u64).unwrap_or(0)
}

/// One version of a key, or a tombstone.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    pub key_hash: u64,
    pub sequence: Sequence,
    /// Packed so that a version takes 24 bytes: the location, above it the slot's length in granules,
    /// above that two flags. Location 0 means no slot: a tombstone, or an ended entry.
    rest: u64,
}

const _: () = assert!(size_of::<Version>() == 24);
const LEN_SHIFT: u32 = LOCATION_BITS;
const LEN_BITS: u32 = 20;
const _: () = assert!(SLOT_LEN_MAX / GRANULE < 1 << LEN_BITS);
/// Flag: older versions of the key hash are dead.
const HIDES_OLDER: u64 = 1 << 62;
/// Flag: the version is alive, as far as its record tells.
const IS_LIVE: u64 = 1 << 63;

/// Leaves the newest version of each key hash, which may be a tombstone. If a version and a tombstone
/// have the same sequence, the version stays: the tombstone was made from it.
///
/// Calls `dropped` with each live version removed although nothing newer killed it: it belongs to
/// another key with the same hash, or was written again by reclaim. One that a touch prolonged beyond
/// the end in its record does not count as live.
pub(crate) fn settle(versions: &mut Vec<Version>, mut dropped: impl FnMut(&Version)) {
    versions.sort_unstable_by(|a, b| {
        let equal = || a.location().is_none().cmp(&b.location().is_none());
        a.rank().cmp(&b.rank()).then_with(equal)
    });
    let mut is_dead = versions.first().is_some_and(Version::hides_older);
    versions.dedup_by(|older, newest| {
        let is_older = older.key_hash == newest.key_hash;
        if is_older && !is_dead && older.rest & IS_LIVE != 0 {
            dropped(older);
        }
        is_dead = older.hides_older() || (is_older && is_dead);
        is_older
    });
}

impl Version {
    /// The version in the slot at `location`; it is alive unless its record ends by `now`.
    pub fn of(record: &FooterRecord, location: Location, now: Timestamp) -> Version {
        let granules = record.slot_len.div_ceil(GRANULE);
        let mut rest = location.0 | granules << LEN_SHIFT;
        if record.supersedes {
            rest |= HIDES_OLDER;
        }
        if record.keep_until > now {
            rest |= IS_LIVE;
        }
        Version { key_hash: record.key_hash, sequence: record.sequence, rest }
    }

    /// An ended version. It still hides older ones of its key.
    pub fn ended(record: &FooterRecord) -> Version {
        let rest = if record.supersedes { HIDES_OLDER } else { 0 };
        Version { key_hash: record.key_hash, sequence: record.sequence, rest }
    }

    /// A tombstone.
    pub fn tombstone(tombstone: &Tombstone) -> Version {
        Version { key_hash: tombstone.key_hash, sequence: tombstone.sequence, rest: HIDES_OLDER }
    }

    /// Location of its slot, if it has one.
    pub fn location(&self) -> Option<Location> {
        let location = Location(self.rest & ((1 << LOCATION_BITS) - 1));
        (location.0 > 0).then_some(location)
    }

    /// Size class of its slot.
    pub fn class(&self) -> SizeClass {
        SizeClass::of((self.rest >> LEN_SHIFT & ((1 << LEN_BITS) - 1)) * GRANULE)
    }

    fn hides_older(&self) -> bool {
        self.rest & HIDES_OLDER != 0
    }

    /// Sorts by key, then newest first. One number, so that comparing takes no branch.
    fn rank(&self) -> u128 {
        u128::from(self.key_hash.rotate_right(SHARD_BITS)) << 64 | u128::from(!self.sequence.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Kind;

    const NOW: Timestamp = Timestamp(1000);

    fn record(key_hash: u64, sequence: u64) -> FooterRecord {
        FooterRecord {
            key_hash,
            sequence: Sequence(sequence),
            offset: 4096,
            slot_len: 64,
            kind: Kind::Object,
            supersedes: false,
            keep_until: Timestamp(2000),
        }
    }

    fn version(key_hash: u64, sequence: u64, location: u64) -> Version {
        if location == 0 {
            return Version::tombstone(&Tombstone { key_hash, sequence: Sequence(sequence) });
        }
        Version::of(&record(key_hash, sequence), Location(location), NOW)
    }

    #[test]
    fn a_version_gives_back_what_it_was_made_of() {
        let last = Location((1 << LOCATION_BITS) - 1);
        for slot_len in [64, 4096, SLOT_LEN_MAX / GRANULE * GRANULE] {
            for supersedes in [false, true] {
                let record = FooterRecord { slot_len, supersedes, ..record(1, 5) };
                let version = Version::of(&record, last, NOW);
                assert_eq!(version.location(), Some(last));
                assert_eq!(version.class(), SizeClass::of(slot_len));
                assert_eq!(version.hides_older(), supersedes);
                assert_eq!(Version::ended(&record).location(), None);
            }
        }
    }

    #[test]
    fn what_goes_without_being_dead_is_shown() {
        let supersedes = |sequence, location| {
            let record = FooterRecord { supersedes: true, ..record(1, sequence) };
            Version::of(&record, Location(location), NOW)
        };
        let of_end = |sequence| FooterRecord { keep_until: NOW, ..record(1, sequence) };
        let ended = |sequence, location| Version::of(&of_end(sequence), Location(location), NOW);
        let cases = [
            (vec![version(1, 7, 70), version(1, 5, 50), version(1, 6, 60)], vec![60, 50]),
            (vec![version(1, 5, 50), Version::ended(&of_end(7))], vec![50]),
            (vec![version(1, 5, 50), supersedes(7, 70)], vec![]),
            (vec![version(1, 7, 70), version(1, 6, 0), version(1, 5, 50)], vec![]),
            (vec![version(1, 7, 70), supersedes(6, 60), version(1, 5, 50)], vec![60]),
            (vec![version(1, 7, 70), ended(5, 50)], vec![]),
            (vec![version(1, 7, 0), version(2, 5, 50), version(2, 4, 40)], vec![40]),
        ];
        for (mut versions, expected) in cases {
            let mut shown = Vec::new();
            settle(&mut versions, |version| shown.push(version.location().unwrap().0));
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn the_newest_version_wins_and_a_tombstone_only_against_older_ones() {
        let mut versions = vec![
            version(1, 5, 50),
            version(1, 7, 70),
            version(2, 9, 0),
            version(2, 8, 80),
            version(3, 4, 0),
            version(3, 4, 40),
        ];
        settle(&mut versions, |_| {});
        let left: Vec<u64> = versions.iter().map(|v| v.location().map_or(0, |at| at.0)).collect();
        assert_eq!(left, [70, 0, 40]);
    }
}
