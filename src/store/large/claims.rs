//! Claims of large objects on their way into the log, or just stored, not to be lost: how much room
//! they take together, and which regions have their heads and slices. Values only; what becomes of a
//! region `victim` and
//! `reclaim` decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::format::{Layout, Sequence};
use crate::store::region::table::RegionTable;

/// Objects that lost a slice of which the names are kept.
const BROKEN_MAX: usize = 64;

/// Claims on the regions of one device.
pub(in crate::store) struct Claims {
    /// Is told of each region how much of it is not to be lost.
    regions: Arc<RegionTable>,
    /// Bytes that stores under way may take together.
    limit: u64,
    /// Bytes that are stored in one turn of the log.
    turn: u64,
    /// Objects of fewer bytes are in one region or two: they are not kept longer than small ones.
    large_len_min: u64,
    reserved: u64,
    objects: BTreeMap<Sequence, Object>,
    shares: BTreeMap<u32, Share>,
    /// When those just stored are so no more, in bytes stored, the earliest first.
    ends: VecDeque<(u64, Sequence)>,
    /// Objects that lost a slice of late: the others are worth nothing any more.
    broken: VecDeque<Sequence>,
}

/// Why head and slices of an object are not to be lost with their regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Claim {
    /// Its store is under way.
    UnderWay,
    /// Its object was stored less than one turn of the log ago.
    JustStored,
}

/// One object of which slices are in the log, and its head once it is stored.
struct Object {
    claim: Claim,
    regions: BTreeSet<u32>,
}

/// Bytes in one region that are not to be lost.
#[derive(Debug, Default)]
struct Share {
    /// Of stores under way.
    under_way: u64,
    /// Of objects just stored.
    just_stored: u64,
    objects: BTreeMap<Sequence, u64>,
}

impl Share {
    fn of(&mut self, claim: Claim) -> &mut u64 {
        match claim {
            Claim::UnderWay => &mut self.under_way,
            Claim::JustStored => &mut self.just_stored,
        }
    }
}

impl Claims {
    /// Nothing under way on a device.
    pub fn new(layout: &Layout, regions: Arc<RegionTable>) -> Claims {
        Claims {
            regions,
            limit: layout.object_len_max(),
            turn: u64::from(layout.region_count) * layout.region_size,
            large_len_min: layout.region_size,
            reserved: 0,
            objects: BTreeMap::new(),
            shares: BTreeMap::new(),
            ends: VecDeque::new(),
            broken: VecDeque::new(),
        }
    }

    /// Sets bytes aside for a store; false if that is more than stores under way may take.
    pub fn reserve(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.limit - self.reserved;
        if fits {
            self.reserved += bytes;
        }
        fits
    }

    /// Gives bytes that were set aside back.
    pub fn release(&mut self, bytes: u64) {
        assert!(bytes <= self.reserved, "no more is given back than was set aside");
        self.reserved -= bytes;
    }

    /// Bytes set aside.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes that may be set aside.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The store of an object begins.
    pub fn begin(&mut self, object: Sequence) {
        let begun = Object { claim: Claim::UnderWay, regions: BTreeSet::new() };
        self.objects.insert(object, begun);
    }

    /// A slice of `bytes`, or the head, is in `region`. Nothing comes of it if the object is not known
    /// (any more).
    pub fn add(&mut self, object: Sequence, region: u32, bytes: u64) {
        let Some(known) = self.objects.get_mut(&object) else { return };
        known.regions.insert(region);
        let share = self.shares.entry(region).or_default();
        *share.of(known.claim) += bytes;
        *share.objects.entry(object).or_default() += bytes;
        self.tell(region);
    }

    /// A slice of `bytes`, or the head, went from one region to another.
    pub fn moved(&mut self, object: Sequence, (from, to): (u32, u32), bytes: u64) {
        self.take(object, from, bytes);
        self.add(object, to, bytes);
    }

    /// The head of an object came in place of another one: as region and bytes.
    pub fn replace_head(&mut self, object: Sequence, old: (u32, u64), new: (u32, u64)) {
        self.take(object, old.0, old.1);
        self.add(object, new.0, new.1);
    }

    /// An object of `len` bytes is stored, when clients have stored `stored` bytes in all. Its head of
    /// `bytes` is in `region`.
    pub fn finish(
        &mut self,
        (object, len): (Sequence, u64),
        (region, bytes): (u32, u64),
        stored: u64,
    ) {
        if len < self.large_len_min {
            return self.end_claim(object);
        }
        let Some(known) = self.objects.get_mut(&object) else { return };
        known.claim = Claim::JustStored;
        for region in &known.regions {
            let Some(share) = self.shares.get_mut(region) else { continue };
            let bytes = share.objects.get(&object).copied().unwrap_or(0);
            share.under_way -= bytes;
            share.just_stored += bytes;
            self.regions.on_device(*region).set_claims(share.under_way, share.just_stored);
        }
        self.add(object, region, bytes);
        self.ends.push_back((stored + self.turn, object));
    }

    /// Nothing of an object is to be kept any more: its store was given up, or it was replaced,
    /// removed or has lost a slice.
    pub fn end_claim(&mut self, object: Sequence) {
        let Some(Object { claim, regions }) = self.objects.remove(&object) else { return };
        for region in regions {
            let Some(share) = self.shares.get_mut(&region) else { continue };
            let bytes = share.objects.remove(&object).unwrap_or(0);
            *share.of(claim) -= bytes;
            if share.objects.is_empty() {
                self.shares.remove(&region);
            }
            self.tell(region);
        }
    }

    /// Clients have stored `stored` bytes in all: objects that have been there for a turn of the log
    /// are like any other from here on.
    pub fn lapse(&mut self, stored: u64) {
        while let Some((end, object)) = self.ends.front().copied() {
            if end > stored {
                return;
            }
            self.ends.pop_front();
            self.end_claim(object);
        }
    }

    /// A region was emptied: objects that still have their head or slices in it have lost them.
    pub fn emptied(&mut self, region: u32) {
        let lost: Vec<Sequence> = match self.shares.get(&region) {
            Some(share) => share.objects.keys().copied().collect(),
            None => return,
        };
        for object in lost {
            self.end_claim(object);
            self.broken.truncate(BROKEN_MAX - 1);
            self.broken.push_front(object);
        }
    }

    /// Whether an object is known to have lost a slice.
    pub fn is_broken(&self, object: Sequence) -> bool {
        self.broken.contains(&object)
    }

    /// Why head and slices of an object are not to be lost, if they are not.
    pub fn claim(&self, object: Sequence) -> Option<Claim> {
        self.objects.get(&object).map(|known| known.claim)
    }

    fn take(&mut self, object: Sequence, region: u32, bytes: u64) {
        let Some(known) = self.objects.get_mut(&object) else { return };
        let Some(share) = self.shares.get_mut(&region) else { return };
        let Some(own) = share.objects.get_mut(&object) else { return };
        let taken = bytes.min(*own);
        *own -= taken;
        if *own == 0 {
            share.objects.remove(&object);
            known.regions.remove(&region);
        }
        *share.of(known.claim) -= taken;
        if share.objects.is_empty() {
            self.shares.remove(&region);
        }
        self.tell(region);
    }

    fn tell(&self, region: u32) {
        let (under_way, just_stored) =
            self.shares.get(&region).map_or((0, 0), |share| (share.under_way, share.just_stored));
        self.regions.on_device(region).set_claims(under_way, just_stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SUPERBLOCK_SPACE;
    use crate::store::place::DeviceNumber;

    /// Forty regions of 256 KiB.
    fn on_device() -> Claims {
        let size = 2 * SUPERBLOCK_SPACE + ((40 * 256) << 10);
        let layout = Layout::plan(size, 4096, Some(256 << 10)).unwrap();
        let regions = RegionTable::new(
            (DeviceNumber(0), crate::format::Uuid([1; 16])),
            &layout,
            (0, Sequence(0)),
        );
        Claims::new(&layout, Arc::new(regions))
    }

    const FIRST: Sequence = Sequence(1);
    const SECOND: Sequence = Sequence(2);

    fn bytes(large: &Claims, region: u32) -> (u64, u64) {
        let row = large.regions.on_device(region);
        let share = large.shares.get(&region).map_or((0, 0), |s| (s.under_way, s.just_stored));
        assert_eq!(row.claimed(), share.0 + share.1, "the region is told");
        share
    }

    #[test]
    fn no_more_is_set_aside_than_the_limit() {
        let mut large = on_device();
        let limit = large.limit();
        assert!(large.reserve(limit - 10) && !large.reserve(11) && large.reserve(10));
        assert!(!large.reserve(1));
        large.release(10);
        assert!(large.reserve(10) && large.reserved() == limit);
    }

    #[test]
    fn slices_are_kept_until_a_turn_after_the_store_or_until_it_is_given_up() {
        let mut large = on_device();
        for object in [FIRST, SECOND] {
            large.begin(object);
            large.add(object, 3, 100);
            large.add(object, 4, 50);
        }
        assert_eq!(bytes(&large, 3), (200, 0));
        large.finish((FIRST, 1 << 20), (5, 10), 1000);
        assert_eq!(bytes(&large, 5), (0, 10), "the head");
        assert_eq!((bytes(&large, 3), bytes(&large, 4)), ((100, 100), (50, 50)));
        large.end_claim(SECOND);
        assert_eq!((bytes(&large, 3), large.claim(SECOND)), ((0, 100), None));
        large.lapse(1000 + large.turn - 1);
        assert_eq!(large.claim(FIRST), Some(Claim::JustStored));
        large.lapse(1000 + large.turn);
        assert_eq!((bytes(&large, 3), large.claim(FIRST)), ((0, 0), None));
        assert!(large.shares.is_empty() && large.ends.is_empty());
    }

    #[test]
    fn a_head_is_kept_like_its_slices_until_it_goes() {
        let mut large = on_device();
        large.begin(FIRST);
        large.add(FIRST, 3, 100);
        large.finish((FIRST, 1 << 20), (3, 10), 0);
        large.moved(FIRST, (3, 4), 10);
        assert_eq!((bytes(&large, 3), bytes(&large, 4)), ((0, 100), (0, 10)));
        large.emptied(4);
        assert!(large.is_broken(FIRST) && large.shares.is_empty(), "without it slices are nothing");
        large.begin(SECOND);
        large.finish((SECOND, 1 << 20), (3, 10), 0);
        large.replace_head(SECOND, (3, 10), (5, 25));
        assert_eq!((bytes(&large, 3), bytes(&large, 5)), ((0, 0), (0, 25)), "an update");
        large.end_claim(SECOND);
        assert!(large.shares.is_empty(), "replaced or removed");
    }

    #[test]
    fn slices_go_with_their_store_from_region_to_region() {
        let mut large = on_device();
        large.begin(FIRST);
        large.add(FIRST, 3, 100);
        large.add(FIRST, 3, 100);
        large.moved(FIRST, (3, 7), 100);
        assert_eq!((bytes(&large, 3), bytes(&large, 7)), ((100, 0), (100, 0)));
        large.moved(FIRST, (3, 7), 100);
        assert_eq!((bytes(&large, 3), bytes(&large, 7)), ((0, 0), (200, 0)));
        large.moved(SECOND, (7, 8), 100);
        assert_eq!(bytes(&large, 8), (0, 0), "it is not known");
    }

    #[test]
    fn an_object_that_lost_a_slice_is_kept_nowhere() {
        let mut large = on_device();
        large.begin(FIRST);
        large.add(FIRST, 3, 100);
        large.add(FIRST, 4, 100);
        large.finish((FIRST, 1 << 20), (4, 10), 0);
        large.emptied(3);
        assert_eq!(bytes(&large, 4), (0, 0));
        assert!(large.is_broken(FIRST) && !large.is_broken(SECOND));
        large.add(FIRST, 5, 100);
        assert_eq!(bytes(&large, 5), (0, 0));
    }

    #[test]
    fn objects_of_less_than_a_region_are_not_kept_once_they_are_stored() {
        let mut large = on_device();
        large.begin(FIRST);
        large.add(FIRST, 3, 100);
        large.finish((FIRST, (256 << 10) - 1), (3, 10), 0);
        assert_eq!(bytes(&large, 3), (0, 0));
    }
}
