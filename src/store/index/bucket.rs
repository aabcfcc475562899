//! One cache line of the index: up to seven entries, and the hash bits that they do not hold. Owns the
//! layout of the line; knows nothing of other buckets. Entries fill the ways in order.

use crate::store::index::index_entry::IndexEntry;

/// Entries in a bucket.
pub(super) const WAYS: usize = 7;
/// Bits of a [`Print`].
pub(super) const PRINT_BITS: u32 = 25;
const TAG_SHIFT: u32 = 16;
const LAST_SHIFT: u32 = 24;
/// The byte of `marks` that holds the last print bit of each way.
const LAST: usize = WAYS;

/// The hash bits that an entry and its bucket keep: 16 in the entry, 8 in a tag, one in `marks[LAST]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print(u32);

impl Print {
    /// The low [`PRINT_BITS`] bits of `bits`.
    pub(super) fn of(bits: u64) -> Print {
        Print(u32::try_from(bits & ((1 << PRINT_BITS) - 1)).unwrap_or(0))
    }

    /// The print of an entry and its [`Print::rest`]; `None` if `rest` has bits that no print has.
    pub(super) fn of_entry(entry: IndexEntry, rest: u16) -> Option<Print> {
        (u32::from(rest) >> (PRINT_BITS - TAG_SHIFT) == 0)
            .then(|| Print(u32::from(entry.hash_bits()) | u32::from(rest) << TAG_SHIFT))
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The bits kept in the entry.
    pub(super) fn entry_bits(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }

    /// The bits not kept in the entry.
    pub(super) fn rest(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    fn tag(self) -> u8 {
        (self.0 >> TAG_SHIFT & 0xFF) as u8
    }

    fn last(self) -> u8 {
        (self.0 >> LAST_SHIFT & 1) as u8
    }
}

/// Up to [`WAYS`] entries.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    entries: [u64; WAYS],
    /// A tag for each way, then a byte with the last print bit of each way.
    marks: [u8; 8],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    pub(super) fn is_full(&self) -> bool {
        self.entries[WAYS - 1] != 0
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        // Without a branch: the end of a bucket cannot be predicted.
        self.entries.iter().map(|entry| usize::from(*entry != 0)).sum()
    }

    /// The entry at a way that is in use.
    pub(super) fn entry(&self, way: usize) -> IndexEntry {
        IndexEntry(self.entries[way])
    }

    /// Replaces the entry at a way by one with the same print.
    pub(super) fn set_entry(&mut self, way: usize, entry: IndexEntry) {
        self.entries[way] = entry.0;
    }

    /// The print of the entry at a way that is in use.
    pub(super) fn print(&self, way: usize) -> Print {
        let last = u32::from(self.marks[LAST] >> way & 1);
        let tag = u32::from(self.marks[way]);
        let bits = u32::from(self.entry(way).hash_bits());
        Print(bits | tag << TAG_SHIFT | last << LAST_SHIFT)
    }

    /// All entries with their prints.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Print, IndexEntry)> + '_ {
        (0..self.len()).map(|way| (self.print(way), self.entry(way)))
    }

    /// Ways whose tag is that of `print`, as the top bits of bytes; may include a few others.
    pub(super) fn marked(&self, print: Print) -> u64 {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const TOPS_OF_WAYS: u64 = 0x0080_8080_8080_8080;
        let differing = u64::from_le_bytes(self.marks) ^ (ONES * u64::from(print.tag()));
        // A zero byte borrows, and may make the one above it borrow too.
        differing.wrapping_sub(ONES) & !differing & TOPS_OF_WAYS
    }

    /// Those of the `marked` ways that hold an entry with this print.
    pub(super) fn matching(
        &self,
        mut marked: u64,
        print: Print,
    ) -> impl Iterator<Item = usize> + '_ {
        std::iter::from_fn(move || {
            while marked != 0 {
                let way = marked.trailing_zeros() as usize / 8;
                marked &= marked - 1;
                if self.entries[way] != 0 && self.print(way) == print {
                    return Some(way);
                }
            }
            None
        })
    }

    /// Adds an entry; false if the bucket is full.
    pub(super) fn push(&mut self, print: Print, entry: IndexEntry) -> bool {
        if self.is_full() {
            return false;
        }
        let way = self.len();
        self.entries[way] = entry.0;
        self.mark(way, print);
        true
    }

    /// Removes an entry; the last one moves to its way.
    pub(super) fn take(&mut self, way: usize) -> (Print, IndexEntry) {
        let taken = (self.print(way), self.entry(way));
        let last = self.len() - 1;
        let print = self.print(last);
        self.entries[way] = self.entries[last];
        self.mark(way, print);
        self.entries[last] = 0;
        self.mark(last, Print(0));
        taken
    }

    fn mark(&mut self, way: usize, print: Print) {
        self.marks[way] = print.tag();
        self.marks[LAST] = self.marks[LAST] & !(1 << way) | print.last() << way;
    }
}
