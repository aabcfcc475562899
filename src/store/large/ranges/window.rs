//! The reads of one range that are under way. Owns how many there are and how long each is; never
//! knows what the bytes mean.
//!
//! Both begin small and double, the number of reads only while the caller waits for them: the first
//! bytes come early, and a caller that takes its time holds little memory.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use smallvec::SmallVec;

use crate::clock::Stopwatch;
use crate::format::BODY_CHUNK;
use crate::store::counters::count;
use crate::store::large::ranges::options::RangeOptions;
use crate::store::large::ranges::plan::{Extent, Plan};
use crate::store::place::Generation;
use crate::store::shared::Shared;

/// Length of the first read of a range.
const FIRST_LEN: usize = 2 * BODY_CHUNK;

/// Blocks that were read; no bytes if the read failed.
struct Arrived {
    extent: Extent,
    bytes: Option<Bytes>,
    timed_out: bool,
}

impl Arrived {
    fn covers(&self, generation: Generation, at: u64) -> bool {
        self.extent.generation == generation && self.extent.blocks.contains(&at)
    }
}

/// Bytes that lie one after another, in as many pieces as buffers hold them.
pub(super) type Pieces = SmallVec<[Bytes; 2]>;

/// Why bytes cannot be had from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// They were not read, or not whole: the slice is to be read by itself.
    Missing,
    /// A read took longer than it may.
    TimedOut,
}

type Read = Pin<Box<dyn Future<Output = Arrived> + Send>>;

pub(super) struct Window {
    shared: Arc<Shared>,
    options: RangeOptions,
    next_len: usize,
    len_max: usize,
    depth: usize,
    reads: FuturesOrdered<Read>,
    arrived: VecDeque<Arrived>,
}

impl Window {
    /// A window for a range of `range_len` bytes.
    pub fn new(shared: Arc<Shared>, options: RangeOptions, range_len: u64) -> Window {
        let share = range_len / options.concurrency as u64;
        let len_max = usize::try_from(share).unwrap_or(usize::MAX).min(options.chunk_size);
        let len_max = len_max.max(BODY_CHUNK).next_multiple_of(BODY_CHUNK);
        Window {
            shared,
            options,
            next_len: FIRST_LEN.min(len_max),
            len_max,
            depth: 1,
            reads: FuturesOrdered::new(),
            arrived: VecDeque::new(),
        }
    }

    /// Whether another read may begin; if so, how many bytes of plan it wants.
    pub fn wants(&self) -> Option<u64> {
        (self.reads.len() < self.depth).then_some(self.next_len as u64)
    }

    /// Begins one read. False if there is nothing to read or no memory for it now; a window
    /// with no read under way gets a small piece in any case.
    pub fn begin(&mut self, plan: &mut Plan) -> bool {
        let len = usize::try_from(plan.next_len()).unwrap_or(usize::MAX).min(self.next_len);
        if len == 0 {
            return false;
        }
        let permit = self.shared.reading.bodies.take(len);
        let len = match &permit {
            Some(_) => len,
            None if self.reads.is_empty() => len.min(BODY_CHUNK),
            None => return false,
        };
        let Some(extent) = plan.take(len) else { return false };
        self.next_len = (self.next_len * 2).min(self.len_max);
        let (shared, timeout) = (Arc::clone(&self.shared), self.options.timeout);
        self.reads.push_back(Box::pin(async move {
            let len = usize::try_from(extent.blocks.end - extent.blocks.start).unwrap_or(0);
            let mut buf = shared.device.geometry().read_buffer(len);
            if let Some(permit) = permit {
                buf.charge(permit);
            }
            let offset =
                shared.layout.region_offset(extent.generation.region()) + extent.blocks.start;
            let watch = Stopwatch::start();
            // Nothing is taken from a slice that a touch may change, so the page cache will do.
            let read = shared.device.read_adaptive_within(timeout, offset, buf).await;
            shared.reading.ranges.reads.record(watch.elapsed());
            let timed_out =
                read.as_ref().is_err_and(|error| error.source.kind() == io::ErrorKind::TimedOut);
            if read.is_err() && !timed_out {
                count(&shared.counters.read_errors);
            }
            let bytes = read.ok().map(Bytes::from_owner);
            Arrived { extent, bytes, timed_out }
        }));
        true
    }

    /// Hands the reads begun to the device, and takes what is there already.
    pub fn poll(&mut self) {
        while let Some(Some(arrived)) = self.reads.next().now_or_never() {
            self.arrived.push_back(arrived);
        }
    }

    /// Whether `bytes` of a region, as they are in one generation of it, are here.
    pub fn has(&self, generation: Generation, bytes: &Range<u64>) -> bool {
        let mut at = bytes.start;
        let before = |arrived: &&Arrived| !arrived.covers(generation, bytes.start);
        for arrived in self.arrived.iter().skip_while(before) {
            if !arrived.covers(generation, at) || arrived.bytes.is_none() {
                return false;
            }
            at = arrived.extent.blocks.end;
            if at >= bytes.end {
                return true;
            }
        }
        false
    }

    /// Waits for the next read.
    pub async fn arrive(&mut self) -> Result<(), Unavailable> {
        let watch = Stopwatch::start();
        let arrived = match self.reads.next().now_or_never() {
            Some(arrived) => arrived,
            None => {
                self.depth = (self.depth * 2).min(self.options.concurrency);
                self.reads.next().await
            }
        };
        self.shared.reading.ranges.waited(watch.elapsed());
        self.arrived.push_back(arrived.ok_or(Unavailable::Missing)?);
        Ok(())
    }

    /// The bytes of a region, or `None` if not all of them are here. Buffers before them are
    /// given back: bytes are asked for in the order of the plan.
    pub fn gather(
        &mut self,
        generation: Generation,
        bytes: &Range<u64>,
    ) -> Result<Option<Pieces>, Unavailable> {
        while self.arrived.front().is_some_and(|front| !front.covers(generation, bytes.start)) {
            self.arrived.pop_front();
        }
        let mut pieces = Pieces::new();
        let mut at = bytes.start;
        for arrived in &self.arrived {
            let blocks = &arrived.extent.blocks;
            if arrived.timed_out {
                return Err(Unavailable::TimedOut);
            }
            let buffer = arrived.bytes.as_ref().ok_or(Unavailable::Missing)?;
            if !blocks.contains(&at) {
                return Err(Unavailable::Missing);
            }
            let end = bytes.end.min(blocks.end);
            let within = |at: u64| usize::try_from(at - blocks.start).unwrap_or(usize::MAX);
            pieces.push(buffer.slice(within(at)..within(end)));
            at = end;
            if at == bytes.end {
                return Ok(Some(pieces));
            }
        }
        Ok(None)
    }

    /// Counts a range that was given up because of its time.
    pub fn count_timeout(&self) {
        self.shared.reading.ranges.timeouts.fetch_add(1, Ordering::Relaxed);
    }
}
