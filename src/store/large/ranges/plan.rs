//! Which blocks hold the wanted part of a body. Owns the way from slices to extents of the device;
//! pure, never reads.

use std::collections::VecDeque;
use std::ops::Range;

use crate::store::large::slice_place::{SlicePlace, checked_part};
use crate::store::place::Generation;

/// The wanted part of one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Index of the slice in the body.
    pub number: u32,
    /// Wanted bytes of the slice's body.
    pub within: Range<usize>,
    /// Where the slice is on the device; `None` if it is to be had from memory.
    pub at: Option<SlicePlace>,
}

/// Whole blocks of one region, one after another, as they are in one generation of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub generation: Generation,
    pub blocks: Range<u64>,
}

/// The blocks still to be read, in the order in which they are needed.
pub(super) struct Plan {
    alignment: u64,
    extents: VecDeque<Extent>,
    /// The run of blocks planned last: the next slice may begin in its last block.
    tail: Option<Extent>,
}

impl Plan {
    /// A plan for a device whose blocks have `alignment` bytes.
    pub fn new(alignment: u32) -> Plan {
        Plan { alignment: u64::from(alignment), extents: VecDeque::new(), tail: None }
    }

    /// Adds the blocks needed for the bytes `within` of a slice's body, less those that were
    /// planned for the slice before it.
    pub fn add(&mut self, place: &SlicePlace, within: &Range<usize>) {
        self.add_bytes(place.generation, place.meta());
        self.add_bytes(place.generation, place.body(checked_part(within, place.body_len)));
    }

    fn add_bytes(&mut self, generation: Generation, bytes: Range<u64>) {
        let mut start = bytes.start / self.alignment * self.alignment;
        let end = bytes.end.next_multiple_of(self.alignment);
        match &mut self.tail {
            Some(tail)
                if tail.generation == generation
                    && (tail.blocks.start..=tail.blocks.end).contains(&start) =>
            {
                start = tail.blocks.end;
                tail.blocks.end = end.max(start);
            }
            tail => *tail = Some(Extent { generation, blocks: start..end }),
        }
        if start >= end {
            return;
        }
        match self.extents.back_mut() {
            Some(last) if last.generation == generation && last.blocks.end == start => {
                last.blocks.end = end;
            }
            _ => self.extents.push_back(Extent { generation, blocks: start..end }),
        }
    }

    /// Bytes of the next extent, 0 if there is none.
    pub fn next_len(&self) -> u64 {
        self.extents.front().map_or(0, |extent| extent.blocks.end - extent.blocks.start)
    }

    /// Whether more than one extent is left.
    pub fn has_several(&self) -> bool {
        self.extents.len() > 1
    }

    /// Takes the next blocks, at most `len` bytes (at least one block).
    pub fn take(&mut self, len: usize) -> Option<Extent> {
        let front = self.extents.front_mut()?;
        let len = (len as u64 / self.alignment).max(1) * self.alignment;
        let split = front.blocks.start.saturating_add(len).min(front.blocks.end);
        let taken = Extent { generation: front.generation, blocks: front.blocks.start..split };
        front.blocks.start = split;
        if front.blocks.is_empty() {
            self.extents.pop_front();
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Sequence;
    use crate::store::place::DeviceNumber;
    use proptest::prelude::*;

    const SLICE: usize = 256 << 10;

    fn generation_of(region: u32) -> Generation {
        Generation::new(DeviceNumber(0), region, Sequence(7))
    }

    fn place(region: u32, offset: u64) -> SlicePlace {
        SlicePlace { generation: generation_of(region), offset, body_len: SLICE }
    }

    fn drain(plan: &mut Plan, len: usize) -> Vec<Extent> {
        std::iter::from_fn(|| plan.take(len)).collect()
    }

    fn slot_len() -> u64 {
        place(0, 0).body(0..SLICE).end.next_multiple_of(16)
    }

    #[test]
    fn neighbours_on_the_device_become_one_extent_and_share_their_block() {
        let mut plan = Plan::new(4096);
        let (first, second) = (place(3, 4096), place(3, 4096 + slot_len()));
        plan.add(&first, &(0..SLICE));
        plan.add(&second, &(0..SLICE));
        let end = second.body(0..SLICE).end.next_multiple_of(4096);
        assert_eq!(
            drain(&mut plan, usize::MAX),
            [Extent { generation: generation_of(3), blocks: 4096..end }]
        );
    }

    #[test]
    fn a_part_of_a_slice_needs_its_head_and_the_checked_pieces_only() {
        let mut plan = Plan::new(512);
        plan.add(&place(1, 0), &(130_000..131_073));
        let extents = drain(&mut plan, usize::MAX);
        assert_eq!(extents[0], Extent { generation: generation_of(1), blocks: 0..512 });
        let body = place(1, 0).body(65_536..196_608);
        let blocks = body.start / 512 * 512..body.end.next_multiple_of(512);
        assert_eq!(extents[1..], [Extent { generation: generation_of(1), blocks }]);
    }

    #[test]
    fn a_slice_elsewhere_is_an_extent_of_its_own() {
        let mut plan = Plan::new(4096);
        plan.add(&place(3, 4096), &(0..SLICE));
        plan.add(&place(4, 4096), &(0..10));
        plan.add(&place(4, 0), &(0..10));
        let regions: Vec<u32> =
            drain(&mut plan, usize::MAX).iter().map(|extent| extent.generation.region()).collect();
        assert_eq!(regions, [3, 4, 4]);
    }

    #[test]
    fn blocks_of_another_generation_are_not_the_same_blocks() {
        let later = SlicePlace {
            generation: Generation::new(DeviceNumber(0), 3, Sequence(8)),
            ..place(3, 4096)
        };
        let mut plan = Plan::new(4096);
        plan.add(&place(3, 4096), &(0..SLICE));
        plan.add(&later, &(0..SLICE));
        let extents = drain(&mut plan, usize::MAX);
        assert_eq!(extents[0].blocks, extents[1].blocks, "read once more");
    }

    proptest! {
        #[test]
        fn every_wanted_byte_is_read_and_no_block_twice(
            slices in 1u64..6,
            start in 0u64..20_000,
            skip in 0usize..SLICE - 1,
            len in 1usize..1_000_000,
            alignment in prop::sample::select(vec![512u32, 4096, 65536]),
        ) {
            let offset = start / 16 * 16;
            let mut plan = Plan::new(alignment);
            let mut wanted = Vec::new();
            for slice in 0..slices {
                let place = place(0, offset + slice * slot_len());
                let within = if slice == 0 { skip..SLICE } else { 0..SLICE };
                plan.add(&place, &within);
                wanted.push(place.meta());
                wanted.push(place.body(within));
            }
            let mut read = Vec::new();
            while let Some(extent) = plan.take(len) {
                prop_assert_eq!(extent.blocks.start % u64::from(alignment), 0);
                prop_assert_eq!(extent.blocks.end % u64::from(alignment), 0);
                let whole = (len as u64).max(u64::from(alignment));
                prop_assert!(extent.blocks.end - extent.blocks.start <= whole);
                read.push(extent.blocks);
            }
            for pair in read.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start, "{pair:?}");
            }
            for want in wanted {
                for byte in [want.start, want.end - 1] {
                    prop_assert!(read.iter().any(|blocks| blocks.contains(&byte)));
                }
            }
        }
    }
}
