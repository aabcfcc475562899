//! One cache line of the index: up to seven entries, and the hash bits that they do not hold. Owns the
//! layout of the line; knows nothing of other buckets. Entries fill the ways in order.

use crate::store::index::word::Word;

/// Entries in a bucket.
pub(super) const WAYS: usize = 7;
/// Bits of a [`Print`].
pub(super) const PRINT_BITS: u32 = 25;
const TAG_SHIFT: u32 = 16;
const LAST_SHIFT: u32 = 24;
/// The byte of `marks` that holds the last print bit of each way.
const LAST: usize = WAYS;

/// The hash bits that an entry and its bucket keep: 16 in the word, 8 in a tag, one in `marks[LAST]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print(u32);

impl Print {
    /// The low [`PRINT_BITS`] bits of `bits`.
    pub(super) fn of(bits: u64) -> Print {
        Print(u32::try_from(bits & ((1 << PRINT_BITS) - 1)).unwrap_or(0))
    }

    /// The print of an entry and its [`Print::rest`]; `None` if `rest` has bits that no print has.
    pub(super) fn of_word(word: Word, rest: u16) -> Option<Print> {
        (u32::from(rest) >> (PRINT_BITS - TAG_SHIFT) == 0)
            .then(|| Print(u32::from(word.hash_bits()) | u32::from(rest) << TAG_SHIFT))
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The bits kept in the word.
    pub(super) fn word_bits(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }

    /// The bits not kept in the word.
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
    words: [u64; WAYS],
    /// A tag for each way, then a byte with the last print bit of each way.
    marks: [u8; 8],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    pub(super) fn is_full(&self) -> bool {
        self.words[WAYS - 1] != 0
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        // Without a branch: the end of a bucket cannot be predicted.
        self.words.iter().map(|word| usize::from(*word != 0)).sum()
    }

    /// The entry at a way that is in use.
    pub(super) fn word(&self, way: usize) -> Word {
        Word(self.words[way])
    }

    /// Replaces the entry at a way by one with the same print.
    pub(super) fn set_word(&mut self, way: usize, word: Word) {
        self.words[way] = word.0;
    }

    /// The print of the entry at a way that is in use.
    pub(super) fn print(&self, way: usize) -> Print {
        let last = u32::from(self.marks[LAST] >> way & 1);
        let tag = u32::from(self.marks[way]);
        let bits = u32::from(self.word(way).hash_bits());
        Print(bits | tag << TAG_SHIFT | last << LAST_SHIFT)
    }

    /// All entries with their prints.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Print, Word)> + '_ {
        (0..self.len()).map(|way| (self.print(way), self.word(way)))
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
                if self.words[way] != 0 && self.print(way) == print {
                    return Some(way);
                }
            }
            None
        })
    }

    /// Adds an entry; false if the bucket is full.
    pub(super) fn push(&mut self, print: Print, word: Word) -> bool {
        if self.is_full() {
            return false;
        }
        let way = self.len();
        self.words[way] = word.0;
        self.mark(way, print);
        true
    }

    /// Removes an entry; the last one moves to its way.
    pub(super) fn take(&mut self, way: usize) -> (Print, Word) {
        let taken = (self.print(way), self.word(way));
        let last = self.len() - 1;
        let print = self.print(last);
        self.words[way] = self.words[last];
        self.mark(way, print);
        self.words[last] = 0;
        self.mark(last, Print(0));
        taken
    }

    fn mark(&mut self, way: usize, print: Print) {
        self.marks[way] = print.tag();
        self.marks[LAST] = self.marks[LAST] & !(1 << way) | print.last() << way;
    }
}
