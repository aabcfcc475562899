//! The bytes of the log that are in memory: the chunk that takes appends, and chunks on their way to
//! the device. Owns their buffers and what waits to be written; knows neither keys nor sequences.

use std::ops::Range;
use std::sync::Arc;

use super::slots;
use crate::device::{AlignedBuf, WriteSlice};
use crate::format::{Layout, round_up};

/// Memory of a chunk in bytes, and the size of most writes to the device.
const CHUNK_LEN_MAX: u64 = 1 << 20;
/// Chunk buffers kept for reuse.
const SPARE_MAX: usize = 16;

/// Bytes for the device.
#[derive(Debug)]
pub struct PendingWrite {
    /// Region they belong to.
    pub region: u32,
    /// Byte offset in the region.
    pub offset: u64,
    /// The bytes.
    pub slice: WriteSlice,
    /// What to do when they are written.
    pub after: AfterWrite,
}

/// What a finished write means to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// The header of a region is there whose footer comes later.
    Header,
    /// The frozen chunk with this number can be dropped from memory.
    DropChunk(u64),
    /// The open chunk is on the device up to this offset.
    Complete(u64),
    /// The region is as complete on the device as it will be.
    Sealed,
}

/// Where bytes of the open region are that are to be changed.
pub enum Found<'a> {
    /// On their way to the device.
    InFlight,
    /// On the device only.
    Written,
    /// In memory; on the device too, if so.
    Memory(&'a mut [u8], bool),
}

/// The chunk that takes appends.
struct Open {
    start: u64,
    buf: AlignedBuf,
    /// Region offset up to which bytes were handed out for writing; block aligned.
    submitted: u64,
    /// Region offset up to which bytes are on the device.
    complete: u64,
}

struct Frozen {
    number: u64,
    region: u32,
    start: u64,
    /// Where the next chunk begins; the buffer may be longer.
    end: u64,
    buf: Arc<AlignedBuf>,
}

/// The chunks of one log.
pub struct Chunks {
    layout: Layout,
    memory_alignment: usize,
    /// The region that takes appends.
    region: u32,
    /// Where in it the next append may begin; the open chunk ends there.
    cursor: u64,
    open: Option<Open>,
    frozen: Vec<Frozen>,
    frozen_count: u64,
    spare: Vec<AlignedBuf>,
    pending: Vec<PendingWrite>,
    backlog: u64,
}

impl Chunks {
    /// No chunks of a device's log.
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
            pending: Vec::new(),
            backlog: 0,
        }
    }

    /// A buffer of zeros that can be written to the device.
    pub fn buffer(&self, len: u64) -> AlignedBuf {
        AlignedBuf::zeroed(usize::try_from(len).unwrap_or(usize::MAX), self.memory_alignment)
    }

    // Appending.

    /// Goes on in another region, behind the block of its header.
    pub fn begin(&mut self, region: u32) {
        debug_assert!(self.open.is_none(), "the last region was ended");
        (self.region, self.cursor) = (region, u64::from(self.layout.alignment));
    }

    /// Where the next append may begin.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The offset at which the open chunk has no more room, if one is open.
    pub fn room_until(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.start + open.buf.len() as u64)
    }

    /// Opens a chunk with room for a slot of `slot_len` bytes.
    pub fn open(&mut self, slot_len: u64) {
        let usual = CHUNK_LEN_MAX.min(self.layout.region_size / 4);
        let start = self.cursor;
        let needed = slots::place(start, slot_len) + slot_len - start;
        let len = usual.max(round_up(needed, u64::from(self.layout.alignment)));
        let len = len.min(self.layout.region_size - start);
        let spare = self.spare.iter().position(|buf| buf.len() as u64 == len);
        let buf = match spare {
            Some(n) => self.spare.swap_remove(n),
            None => self.buffer(len),
        };
        self.open = Some(Open { start, buf, submitted: start, complete: start });
    }

    /// The bytes of an append at a range of the region, with zeros between it and the one before.
    ///
    /// # Panics
    /// Panics without an open chunk that has room.
    pub fn append(&mut self, range: Range<u64>) -> &mut [u8] {
        let padding = self.cursor..range.start;
        self.backlog += range.end - padding.start;
        self.cursor = range.end;
        let open = self.open.as_mut().expect("a chunk is open for what is appended");
        open.buf[within(open.start, padding)].fill(0);
        &mut open.buf[within(open.start, range)]
    }

    // Towards the device.

    /// Has bytes written at an offset of a region.
    pub fn push(&mut self, region: u32, offset: u64, slice: WriteSlice, after: AfterWrite) {
        self.pending.push(PendingWrite { region, offset, slice, after });
    }

    /// Hands the rest of the open chunk, if there is one, to the device and ends it at the next block.
    pub fn freeze(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        self.fill_block(&mut open);
        let (start, end, region) = (open.start, self.cursor, self.region);
        let range = within(start, open.submitted..end);
        let buf = Arc::new(open.buf);
        self.frozen_count += 1;
        let number = self.frozen_count;
        self.frozen.push(Frozen { number, region, start, end, buf: Arc::clone(&buf) });
        let slice = WriteSlice { buf, range };
        self.push(region, open.submitted, slice, AfterWrite::DropChunk(number));
    }

    /// Hands what is in the open chunk so far to the device; appends go on in the next block.
    pub fn submit(&mut self) {
        if !self.has_tail() {
            return;
        }
        let Some(mut open) = self.open.take() else { return };
        self.fill_block(&mut open);
        let (from, end) = (open.submitted, self.cursor);
        let mut copy = self.buffer(end - from);
        copy.copy_from_slice(&open.buf[within(open.start, from..end)]);
        open.submitted = end;
        self.open = Some(open);
        self.push(self.region, from, WriteSlice::whole(Arc::new(copy)), AfterWrite::Complete(end));
    }

    /// Fills the block that the last append ends in with zeros.
    fn fill_block(&mut self, open: &mut Open) {
        let end = round_up(self.cursor, u64::from(self.layout.alignment));
        open.buf[within(open.start, self.cursor..end)].fill(0);
        self.backlog += end - self.cursor;
        self.cursor = end;
    }

    /// Whether anything was appended that was not handed to the device.
    pub fn has_tail(&self) -> bool {
        self.open.as_ref().is_some_and(|open| self.cursor > open.submitted)
    }

    /// Whether writes wait.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes the writes that wait.
    pub fn take_pending(&mut self) -> Vec<PendingWrite> {
        std::mem::take(&mut self.pending)
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// A write is done, well or not: what it held in memory goes.
    pub fn written(&mut self, write: PendingWrite) {
        let len = write.slice.range.len() as u64;
        match write.after {
            AfterWrite::Header | AfterWrite::Sealed => {}
            AfterWrite::DropChunk(number) => {
                self.backlog = self.backlog.saturating_sub(len);
                self.frozen.retain(|frozen| frozen.number != number);
                if let Ok(buf) = Arc::try_unwrap(write.slice.buf)
                    && self.spare.len() < SPARE_MAX
                {
                    self.spare.push(buf);
                }
            }
            AfterWrite::Complete(end) => {
                self.backlog = self.backlog.saturating_sub(len);
                if let Some(open) = self.open.as_mut().filter(|_| self.region == write.region) {
                    open.complete = open.complete.max(end);
                }
            }
        }
    }

    // What is in memory.

    /// The bytes `range` of a region, if all of them are in memory.
    pub fn get(&self, region: u32, range: Range<u64>) -> Option<&[u8]> {
        let open = self.open.as_ref().filter(|_| self.region == region);
        if let Some(open) =
            open.filter(|open| range.start >= open.start && range.end <= self.cursor)
        {
            return Some(&open.buf[within(open.start, range)]);
        }
        let holds = |frozen: &&Frozen| {
            frozen.region == region && range.start >= frozen.start && range.end <= frozen.end
        };
        let frozen = self.frozen.iter().find(holds)?;
        Some(&frozen.buf[within(frozen.start, range)])
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

    /// Where the bytes `range` are of the region that takes appends, none of which is frozen.
    pub fn find(&mut self, range: Range<u64>) -> Found<'_> {
        match self.open.as_mut().filter(|open| range.start >= open.start) {
            None => Found::Written,
            Some(open) if (open.complete..open.submitted).contains(&range.start) => Found::InFlight,
            Some(open) => {
                let is_written = range.start < open.submitted;
                Found::Memory(&mut open.buf[within(open.start, range)], is_written)
            }
        }
    }
}

fn within(start: u64, range: Range<u64>) -> Range<usize> {
    let index = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
    index(range.start)..index(range.end)
}
