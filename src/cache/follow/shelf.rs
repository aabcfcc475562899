//! Pieces of a body that one follower fetched and others may want: in memory that goes when it is needed
//! elsewhere. Owns which piece has a byte, and that there are not too many.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::fair_memory::Kept;

/// Pieces of one body, found by the bytes in them. The oldest goes first.
pub(super) struct Shelf {
    limit: u64,
    bytes: u64,
    /// By the position of the first byte of each. They do not overlap.
    pieces: BTreeMap<u64, Kept>,
    /// Their positions in the order in which they came.
    order: VecDeque<u64>,
}

impl Shelf {
    /// An empty one for `limit` bytes.
    pub fn new(limit: u64) -> Shelf {
        Shelf { limit, bytes: 0, pieces: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The bytes from position `at` on, to the end of their piece.
    pub fn get(&mut self, at: u64) -> Option<Bytes> {
        let (&start, kept) = self.pieces.range(..=at).next_back()?;
        let within = usize::try_from(at - start).ok().filter(|within| *within < kept.len())?;
        match kept.bytes() {
            Some(bytes) => Some(bytes.slice(within..)),
            None => {
                self.remove(start);
                None
            }
        }
    }

    /// Where the next piece after position `at` begins, if that is before `end`; else `end`.
    pub fn gap_end(&self, at: u64, end: u64) -> u64 {
        self.pieces.range(at..end).next().map_or(end, |(start, _)| *start)
    }

    /// Puts a piece on the shelf, unless another one has some of its bytes.
    pub fn add(&mut self, start: u64, kept: Kept) {
        let len = kept.len() as u64;
        let before = self.pieces.range(..=start).next_back();
        let is_free = before.is_none_or(|(at, other)| at + other.len() as u64 <= start)
            && self.gap_end(start, start + len) == start + len;
        if !is_free {
            return;
        }
        self.bytes += len;
        self.pieces.insert(start, kept);
        self.order.push_back(start);
        while self.bytes > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
    }

    /// Lets all go.
    pub fn clear(&mut self) {
        *self = Shelf::new(self.limit);
    }

    fn remove(&mut self, start: u64) {
        if let Some(kept) = self.pieces.remove(&start) {
            self.bytes -= kept.len() as u64;
            self.order.retain(|at| *at != start);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fair_memory::FairMemory;

    const FAR: u64 = 5 << 32;

    fn memory() -> FairMemory {
        FairMemory::new(10_000, 1000, Duration::from_secs(3))
    }

    fn kept(memory: &FairMemory, byte: u8, len: usize) -> Kept {
        memory.keep(&Bytes::from(vec![byte; len])).unwrap()
    }

    #[test]
    fn bytes_are_found_in_their_pieces_beyond_4_gib_too() {
        let (memory, mut shelf) = (memory(), Shelf::new(1000));
        shelf.add(FAR, kept(&memory, 1, 100));
        shelf.add(FAR + 150, kept(&memory, 2, 50));
        assert_eq!(shelf.get(FAR - 1), None);
        assert_eq!(shelf.get(FAR + 99).unwrap(), vec![1]);
        assert_eq!(shelf.get(FAR + 100), None);
        assert_eq!(shelf.get(FAR + 160).unwrap(), vec![2; 40]);
        assert_eq!((shelf.gap_end(FAR + 100, FAR + 900), shelf.gap_end(FAR + 200, FAR + 900)), {
            (FAR + 150, FAR + 900)
        });
        shelf.add(FAR + 90, kept(&memory, 3, 20));
        shelf.add(FAR + 140, kept(&memory, 3, 20));
        assert_eq!(shelf.get(FAR + 100), None, "others have some of these");
        assert_eq!(memory.used(), 150);
        shelf.clear();
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_pieces_go_and_so_do_those_whose_memory_is_needed() {
        let (memory, mut shelf) = (memory(), Shelf::new(250));
        for n in 0..5 {
            shelf.add(FAR + 100 * n, kept(&memory, 1, 100));
        }
        assert_eq!((shelf.get(FAR + 200), memory.used()), (None, 200));
        assert!(shelf.get(FAR + 300).is_some() && shelf.get(FAR + 499).is_some());
        let mut others: Vec<_> = (0..9).map(|_| memory.hold(1000)).collect();
        for other in &mut others {
            other.stage(&[7; 1000]).await.unwrap();
        }
        assert_eq!((shelf.get(FAR + 300), shelf.get(FAR + 450), shelf.bytes), (None, None, 0));
    }
}
