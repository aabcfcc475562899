//! The bytes of the log in memory (the write buffer): the chunk that takes appends, and chunks on their
//! way to the device. Owns their buffers and the queue of writes; knows neither keys nor sequences.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::device::{AlignedBuf, FilledPart, Part, PartedBuf, WriteSlice};
use crate::format::{Layout, round_up};
use crate::store::log::placement;
use crate::store::log::write::{AfterWrite, PendingWrite, Ready, SealedRegion, Ticket};

/// Most bytes copied under the append lock.
pub const COPY_LEN_MAX: usize = 8 << 10;
/// Memory of a chunk in bytes, and the size of most writes to the device.
const CHUNK_LEN: u64 = 1 << 20;
/// Added to a chunk for the header, key and checksums of a slot that fills it.
const CHUNK_MARGIN: u64 = 4 << 10;
/// Chunk buffers kept for reuse.
const SPARE_MAX: usize = 16;

/// How much of a range of a region is in memory.
pub enum InMemory<'a> {
    /// Not all of it.
    No,
    /// All of it, but some is still being copied there.
    Unfilled,
    /// All of it, at most [`COPY_LEN_MAX`] bytes.
    Bytes(&'a [u8]),
    /// All of it, to be copied when the append lock is released.
    Shared(FilledPart),
}

/// Where bytes of the open region are that must be changed.
pub enum Found<'a> {
    /// In memory, but others fill or read them.
    InUse,
    /// On the device only.
    Written,
    /// In memory only.
    Memory(&'a mut [u8]),
}

/// Something that waits to be written.
enum Waiting {
    Write(PendingWrite),
    /// The frozen chunk with this number, ready once all its slots are filled. Completes all appends up
    /// to the ticket.
    Chunk(u64, Ticket),
    Footer(SealedRegion),
}

/// The chunk that takes appends.
struct Open {
    start: u64,
    buf: PartedBuf,
}

struct Frozen {
    number: u64,
    region: u32,
    start: u64,
    /// Where the next chunk begins; the buffer may reach further.
    end: u64,
    buf: PartedBuf,
}

/// The chunks of one log.
pub struct Chunks {
    layout: Layout,
    memory_alignment: usize,
    /// The region that takes appends.
    region: u32,
    /// Offset in `region` where the next append may begin: the end of the open chunk.
    cursor: u64,
    open: Option<Open>,
    frozen: Vec<Frozen>,
    frozen_count: u64,
    spare: Vec<AlignedBuf>,
    /// In log order: nothing is written before what is ahead of it.
    waiting: VecDeque<Waiting>,
    backlog: u64,
}

impl Chunks {
    /// The log of a device without any chunk.
    pub fn new(layout: Layout, memory_alignment: usize) -> Chunks {
        Chunks {
            layout,
            memory_alignment: memory_alignment.max(layout.alignment as usize),
            region: 0,
            cursor: 0,
            open: None,
            frozen: Vec::new(),
            frozen_count: 0,
            spare: Vec::new(),
            waiting: VecDeque::new(),
            backlog: 0,
        }
    }

    /// A zeroed buffer that can be written to the device.
    pub fn buffer(&self, len: u64) -> AlignedBuf {
        AlignedBuf::zeroed(usize::try_from(len).unwrap_or(usize::MAX), self.memory_alignment)
    }

    // Appending.

    /// Continues in another region, after its header block.
    pub fn begin(&mut self, region: u32) {
        debug_assert!(self.open.is_none(), "the last region was ended");
        (self.region, self.cursor) = (region, u64::from(self.layout.alignment));
    }

    /// Where the next append may begin.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The offset up to which the open chunk has room, if one is open.
    pub fn room_until(&self) -> Option<u64> {
        let end = |open: &Open| (open.start + open.buf.len() as u64).min(self.layout.region_size);
        self.open.as_ref().map(end)
    }

    /// Opens a chunk with room for a slot of `slot_len` bytes.
    pub fn open(&mut self, slot_len: u64) {
        let start = self.cursor;
        let needed = placement::place(start, slot_len, self.layout.granule) + slot_len - start;
        let len = self.usual_len().max(round_up(needed, u64::from(self.layout.alignment)));
        let spare = if len == self.usual_len() { self.spare.pop() } else { None };
        let buf = spare.unwrap_or_else(|| self.buffer(len));
        self.open = Some(Open { start, buf: PartedBuf::new(buf) });
    }

    /// Room for a full slice, the most common large slot, and a little more.
    fn usual_len(&self) -> u64 {
        let len = CHUNK_LEN.min(self.layout.region_size / 4) + CHUNK_MARGIN;
        round_up(len, u64::from(self.layout.alignment))
    }

    /// The length of a buffer to pass to [`Chunks::add_spare`], if the next chunk would otherwise wait
    /// for its memory to be zeroed.
    pub fn wants_spare(&self) -> Option<u64> {
        self.spare.is_empty().then(|| self.usual_len())
    }

    /// The alignment of buffers in memory, in bytes.
    pub fn memory_alignment(&self) -> usize {
        self.memory_alignment
    }

    /// Keeps a buffer for a later chunk, if it has the right length.
    pub fn add_spare(&mut self, buf: AlignedBuf) {
        if self.spare.len() < SPARE_MAX && buf.len() as u64 == self.usual_len() {
            self.spare.push(buf);
        }
    }

    /// The bytes of an append at a range of the region; pads with zeros after the previous one.
    ///
    /// # Panics
    /// Panics if there is no open chunk with room.
    pub fn append(&mut self, range: Range<u64>) -> &mut [u8] {
        let (buf, range) = self.advance(range);
        buf.append(range)
    }

    /// As [`Chunks::append`], but the bytes are filled elsewhere: nobody reads or writes them until
    /// [`Chunks::end_part`].
    ///
    /// # Panics
    /// As [`Chunks::append`].
    pub fn append_part(&mut self, range: Range<u64>) -> Part {
        let (buf, range) = self.advance(range);
        buf.append_part(range)
    }

    fn advance(&mut self, range: Range<u64>) -> (&mut PartedBuf, Range<usize>) {
        self.backlog += range.end - self.cursor;
        self.cursor = range.end;
        let open = self.open.as_mut().expect("a chunk is open for what is appended");
        (&mut open.buf, within(open.start, range))
    }

    /// Puts back the filled part of the append at `offset` of a region.
    ///
    /// # Panics
    /// Panics if the part was appended elsewhere.
    pub fn end_part(&mut self, region: u32, offset: u64, part: Part) {
        match self.open.as_mut().filter(|open| self.region == region && offset >= open.start) {
            Some(open) => open.buf.end_part(part),
            None => {
                let place = offset..offset + 1;
                let frozen = self.frozen.iter_mut().find(|frozen| frozen.holds(region, &place));
                frozen.expect("what is not filled is in memory").buf.end_part(part);
            }
        }
    }

    // Writing to the device.

    /// Queues a write of bytes at an offset of a region.
    pub fn push(&mut self, region: u32, offset: u64, slice: WriteSlice, after: AfterWrite) {
        self.waiting.push_back(Waiting::Write(PendingWrite { region, offset, slice, after }));
    }

    /// Queues the footer of a region behind what waits already.
    pub fn push_footer(&mut self, sealed: SealedRegion) {
        self.waiting.push_back(Waiting::Footer(sealed));
    }

    /// Hands the open chunk, if there is one, to the device; `ticket` is that of the last append.
    /// Appends continue in the next block.
    pub fn freeze(&mut self, ticket: Ticket) {
        let Some(mut open) = self.open.take() else { return };
        if self.cursor == open.start {
            if let Some(buf) = open.buf.into_unshared() {
                self.add_spare(buf);
            }
            return;
        }
        let end = round_up(self.cursor, u64::from(self.layout.alignment));
        open.buf.append(within(open.start, self.cursor..end)).fill(0);
        self.backlog += end - self.cursor;
        self.cursor = end;
        self.frozen_count += 1;
        let (number, region, start) = (self.frozen_count, self.region, open.start);
        self.frozen.push(Frozen { number, region, start, end, buf: open.buf });
        self.waiting.push_back(Waiting::Chunk(number, ticket));
    }

    /// Whether any append was not handed to the device yet.
    pub fn has_tail(&self) -> bool {
        self.open.as_ref().is_some_and(|open| self.cursor > open.start)
    }

    /// Whether anything waits, ready or not.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether [`Chunks::take_ready`] would take anything.
    pub fn has_ready(&self) -> bool {
        self.waiting.front().is_some_and(|first| self.is_ready(first))
    }

    fn is_ready(&self, waiting: &Waiting) -> bool {
        let Waiting::Chunk(number, _) = waiting else { return true };
        let mut frozen = self.frozen.iter().filter(|frozen| frozen.number == *number);
        frozen.all(|frozen| frozen.buf.is_filled())
    }

    /// Takes what waits, up to the first chunk that is not filled yet.
    pub fn take_ready(&mut self, ready: &mut Ready) {
        while self.has_ready()
            && let Some(first) = self.waiting.pop_front()
        {
            match first {
                Waiting::Write(write) => ready.writes.push(write),
                Waiting::Footer(sealed) => ready.sealed.push(sealed),
                Waiting::Chunk(number, ticket) => {
                    ready.writes.extend(self.chunk_write(number));
                    ready.ticket = ticket;
                }
            }
        }
    }

    fn chunk_write(&mut self, number: u64) -> Option<PendingWrite> {
        let frozen = self.frozen.iter_mut().find(|frozen| frozen.number == number)?;
        let buf = frozen.buf.finish()?;
        let range = within(frozen.start, frozen.start..frozen.end);
        Some(PendingWrite {
            region: frozen.region,
            offset: frozen.start,
            slice: WriteSlice { buf, range },
            after: AfterWrite::DropChunk(number),
        })
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// A write ended, well or not: drops its memory.
    pub fn written(&mut self, write: PendingWrite) {
        let len = write.slice.range.len() as u64;
        match write.after {
            AfterWrite::Header | AfterWrite::Purges | AfterWrite::Sealed => {}
            AfterWrite::DropChunk(number) => {
                self.backlog = self.backlog.saturating_sub(len);
                self.frozen.retain(|frozen| frozen.number != number);
                if let Ok(buf) = Arc::try_unwrap(write.slice.buf) {
                    self.add_spare(buf);
                }
            }
        }
    }

    // What is in memory.

    /// The bytes `range` of a region, if all of them are in memory.
    pub fn get(&mut self, region: u32, range: Range<u64>) -> InMemory<'_> {
        let open = self.open.as_mut().filter(|_| self.region == region);
        if let Some(open) =
            open.filter(|open| range.start >= open.start && range.end <= self.cursor)
        {
            return InMemory::of(&mut open.buf, within(open.start, range));
        }
        match self.frozen.iter_mut().find(|frozen| frozen.holds(region, &range)) {
            Some(frozen) => InMemory::of(&mut frozen.buf, within(frozen.start, range)),
            None => InMemory::No,
        }
    }

    /// Whether the byte at `offset` of a region is in a chunk that takes no more appends.
    pub fn is_frozen(&self, region: u32, offset: u64) -> bool {
        let mut frozen = self.frozen.iter().filter(|frozen| frozen.region == region);
        frozen.any(|frozen| (frozen.start..frozen.end).contains(&offset))
    }

    /// The first byte of a region that is in memory.
    pub fn first_offset(&self, region: u32) -> Option<u64> {
        let frozen = self.frozen.iter().filter(|frozen| frozen.region == region);
        let open = self.open.iter().filter(|_| self.region == region).map(|open| open.start);
        frozen.map(|frozen| frozen.start).chain(open).min()
    }

    /// Finds the bytes `range` of the region that takes appends; none of them may be frozen.
    pub fn find(&mut self, range: Range<u64>) -> Found<'_> {
        match self.open.as_mut().filter(|open| range.start >= open.start) {
            None => Found::Written,
            Some(open) => match open.buf.get_mut(within(open.start, range)) {
                None => Found::InUse,
                Some(bytes) => Found::Memory(bytes),
            },
        }
    }
}

impl<'a> InMemory<'a> {
    fn of(buf: &'a mut PartedBuf, range: Range<usize>) -> InMemory<'a> {
        let found = match range.len() > COPY_LEN_MAX {
            true => buf.share(range).map(InMemory::Shared),
            false => buf.get(range).map(InMemory::Bytes),
        };
        found.unwrap_or(InMemory::Unfilled)
    }
}

impl Frozen {
    fn holds(&self, region: u32, range: &Range<u64>) -> bool {
        self.region == region && range.start >= self.start && range.end <= self.end
    }
}

fn within(start: u64, range: Range<u64>) -> Range<usize> {
    let index = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
    index(range.start)..index(range.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::format::{Footer, LogKind, Seed, Sequence};

    const LAYOUT: Layout = Layout {
        device_size: 5 << 20,
        alignment: 4096,
        region_size: 1 << 20,
        region_count: 4,
        slice_size: 1 << 18,
        granule: 16,
    };

    fn chunks() -> Chunks {
        let mut chunks = Chunks::new(LAYOUT, 4096);
        chunks.begin(1);
        chunks.open(100);
        chunks
    }

    fn sealed() -> SealedRegion {
        SealedRegion {
            region: 1,
            generation: Sequence(1),
            log: LogKind::Data,
            seed: Seed(1),
            footer: Footer::default(),
            stamp: Timestamp(1),
        }
    }

    fn take(chunks: &mut Chunks) -> Ready {
        let mut ready = Ready::default();
        chunks.take_ready(&mut ready);
        ready
    }

    fn bytes(chunks: &mut Chunks, region: u32, range: Range<u64>) -> Option<Vec<u8>> {
        match chunks.get(region, range) {
            InMemory::Bytes(bytes) => Some(bytes.to_vec()),
            InMemory::Shared(bytes) => Some(bytes.to_vec()),
            InMemory::No | InMemory::Unfilled => None,
        }
    }

    #[test]
    fn nothing_overtakes_what_is_not_filled() {
        let mut chunks = chunks();
        let mut part = chunks.append_part(4096..30_000);
        chunks.append(30_000..30_010).fill(2);
        chunks.freeze(7);
        chunks.push(2, 0, WriteSlice::whole(Arc::new(chunks.buffer(4096))), AfterWrite::Header);
        assert!(!chunks.has_ready() && chunks.has_waiting());
        part.fill(1);
        chunks.push_footer(sealed());
        let early = take(&mut chunks);
        assert!(early.writes.is_empty() && early.sealed.is_empty() && early.ticket == 0);
        chunks.end_part(1, 4096, part);
        let taken = take(&mut chunks);
        let places: Vec<_> =
            taken.writes.iter().map(|write| (write.region, write.offset)).collect();
        assert_eq!((places, taken.ticket), (vec![(1, 4096), (2, 0)], 7));
        assert_eq!(taken.sealed.len(), 1);
        let written = taken.writes[0].slice.bytes();
        assert!(written[..25_904].iter().all(|byte| *byte == 1));
        assert_eq!(written[25_904..25_914], [2; 10]);
        assert!(written[25_914..].iter().all(|byte| *byte == 0) && written.len() == 28_672);
        assert!(!chunks.has_waiting());
    }

    #[test]
    fn nobody_sees_what_is_not_filled() {
        let mut chunks = chunks();
        chunks.append(4096..4196).fill(1);
        let mut part = chunks.append_part(4208..30_000);
        chunks.append(30_000..30_100).fill(3);
        let unfilled =
            |chunks: &mut Chunks, range| matches!(chunks.get(1, range), InMemory::Unfilled);
        assert!(matches!(chunks.find(4208..4256), Found::InUse));
        for frozen in [false, true] {
            if frozen {
                chunks.freeze(7);
            }
            assert_eq!(bytes(&mut chunks, 1, 4096..4196), Some(vec![1; 100]));
            assert_eq!(bytes(&mut chunks, 1, 30_000..30_100), Some(vec![3; 100]));
            assert!(unfilled(&mut chunks, 4208..4256) && unfilled(&mut chunks, 29_999..30_001));
        }
        part.fill(2);
        chunks.end_part(1, 4208, part);
        assert_eq!(bytes(&mut chunks, 1, 4208..30_000), Some(vec![2; 25_792]));
        assert!(matches!(chunks.get(2, 4208..4256), InMemory::No));
    }

    #[test]
    fn memory_comes_back_when_a_chunk_is_written() {
        let mut chunks = chunks();
        assert_eq!(chunks.wants_spare(), Some(LAYOUT.region_size / 4 + CHUNK_MARGIN));
        chunks.append(4096..5000).fill(1);
        chunks.freeze(7);
        assert_eq!(chunks.backlog(), 4096);
        for write in take(&mut chunks).writes {
            chunks.written(write);
        }
        assert_eq!((chunks.backlog(), chunks.wants_spare()), (0, None));
        assert!(bytes(&mut chunks, 1, 4096..5000).is_none());
        // Padding is zero, not what the buffer held before.
        chunks.open(100);
        chunks.append(8192..8200).fill(2);
        chunks.freeze(7);
        let taken = take(&mut chunks);
        assert_eq!(taken.writes[0].slice.bytes()[..9], [2, 2, 2, 2, 2, 2, 2, 2, 0]);
    }

    #[test]
    fn an_empty_chunk_is_not_written() {
        let mut chunks = chunks();
        chunks.freeze(7);
        assert!(!chunks.has_waiting() && !chunks.has_tail());
    }
}
