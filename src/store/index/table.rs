//! The buckets of one shard, in pieces of one size. Owns their memory only: equal allocations leave no
//! holes in the heap when thousands of shards are rebuilt in turn.

use crate::store::index::bucket::Bucket;

/// Buckets in a piece of 4 KiB; the last piece may be shorter.
const PIECE: usize = 64;

/// A number of buckets.
#[derive(Default)]
pub(super) struct Table {
    pieces: Box<[Box<[Bucket]>]>,
    len: usize,
}

impl Table {
    /// `len` empty buckets.
    pub(super) fn new(len: usize) -> Table {
        let piece = |n| vec![Bucket::default(); PIECE.min(len - n)].into_boxed_slice();
        Table { pieces: (0..len).step_by(PIECE).map(piece).collect(), len }
    }

    /// Number of buckets.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.pieces) + self.len * size_of::<Bucket>()
    }

    pub(super) fn get(&self, n: usize) -> Option<&Bucket> {
        self.pieces.get(n / PIECE)?.get(n % PIECE)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bucket> {
        self.pieces.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.pieces.iter_mut().flatten()
    }
}

impl std::ops::Index<usize> for Table {
    type Output = Bucket;

    fn index(&self, n: usize) -> &Bucket {
        &self.pieces[n / PIECE][n % PIECE]
    }
}

impl std::ops::IndexMut<usize> for Table {
    fn index_mut(&mut self, n: usize) -> &mut Bucket {
        &mut self.pieces[n / PIECE][n % PIECE]
    }
}
