//! A page cache in front of a simulated device, the worst allowed: no write reaches it, and no page
//! is ever dropped. Owns the pages.

use std::collections::BTreeMap;
use std::ops::Range;

use super::storage::Storage;

const PAGE_LEN: u64 = 4096;

/// Pages as they were when they were first read.
#[derive(Default)]
pub(super) struct PageCache(BTreeMap<u64, Box<[u8]>>);

impl PageCache {
    /// What a buffered read of `range` gives.
    pub(super) fn read(&mut self, range: Range<u64>, storage: &Storage) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in range.start / PAGE_LEN..range.end.div_ceil(PAGE_LEN) {
            let start = number * PAGE_LEN;
            let page = self.0.entry(number).or_insert_with(|| page_of(number, storage));
            let end = range.end.min(start + PAGE_LEN);
            bytes.extend_from_slice(
                &page[within(start, range.start.max(start))..within(start, end)],
            );
        }
        bytes
    }

    /// Takes in all of a device of `size` bytes as it is now.
    pub(super) fn fill(&mut self, size: u64, storage: &Storage) {
        self.0 = (0..size / PAGE_LEN).map(|number| (number, page_of(number, storage))).collect();
    }
}

fn page_of(number: u64, storage: &Storage) -> Box<[u8]> {
    storage.contents(number * PAGE_LEN..(number + 1) * PAGE_LEN).into()
}

fn within(start: u64, at: u64) -> usize {
    usize::try_from(at - start).expect("within a page")
}
