//! A version of an object that comes part by part. Owns who asks the upstream for which of its bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::choice::{block_of, brings_soon, choose};
use super::running::{Ending, Running};
use crate::cache::Parts;

/// Most bytes that are looked for at a time, and at most a quarter of a block.
const LOOK_MAX: u64 = 1 << 20;

/// An object, and the requests for its bytes that are under way.
pub(in crate::server::proxy) struct Parted {
    parts: Parts,
    /// Version of its entry.
    cas: u64,
    /// Bytes asked for in one request at most.
    block: u64,
    requests: Mutex<Requests>,
    readers: AtomicUsize,
    /// Nothing can be stored of it any more.
    is_over: AtomicBool,
}

#[derive(Default)]
struct Requests {
    under_way: Vec<Arc<Running>>,
    /// How many have ended.
    ended: u64,
}

impl Requests {
    /// How many have ended, and whether one that goes on has brought the byte `at`: it may be gone again.
    fn so_far(&self, at: u64) -> (u64, bool) {
        let brought = |running: &Arc<Running>| {
            running.start() <= at && at < running.end() && at < running.position()
        };
        (self.ended, self.under_way.iter().any(brought))
    }
}

/// What a reader is to do next.
#[derive(Debug)]
pub(in crate::server::proxy) enum Next {
    /// Read these bytes, which are there.
    Read(Range<u64>),
    /// Wait for a request of somebody else.
    Wait(Arc<Running>),
    /// Send this request.
    Ask(Arc<Running>),
}

/// Counts a reader until it is dropped.
#[derive(Debug)]
pub(in crate::server::proxy) struct Reading(Arc<Parted>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Parted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parted").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Parted {
    /// An object, and the version of its entry. At most `block` bytes are asked for at a time.
    pub(in crate::server::proxy) fn new((parts, cas): (Parts, u64), block: u64) -> Arc<Parted> {
        Arc::new(Parted {
            parts,
            cas,
            block,
            requests: Mutex::default(),
            readers: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        })
    }

    pub(in crate::server::proxy) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Length of the whole body in bytes.
    pub(in crate::server::proxy) fn len(&self) -> u64 {
        self.parts.len()
    }

    /// Version of its entry.
    pub(in crate::server::proxy) fn cas(&self) -> u64 {
        self.cas
    }

    pub(in crate::server::proxy) fn block(&self) -> u64 {
        self.block
    }

    /// Whether nothing can be stored of it any more: it was purged, or replaced.
    pub(in crate::server::proxy) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Counts a reader: requests go on as long as there is one.
    pub(in crate::server::proxy) fn read(self: &Arc<Parted>) -> Reading {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reading(self.clone())
    }

    /// Whether anybody reads it.
    pub(in crate::server::proxy) fn is_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Begins a request for `range` that is sent already.
    pub(in crate::server::proxy) fn begin(
        &self,
        range: Range<u64>,
        is_of_whole: bool,
    ) -> Arc<Running> {
        let running = Arc::new(Running::new(range.start, range.end, is_of_whole));
        self.requests.lock().under_way.push(running.clone());
        running
    }

    /// A request ends.
    pub(in crate::server::proxy) fn end(&self, running: &Arc<Running>, ending: Ending) {
        if matches!(ending, Ending::NotStored { is_over: true } | Ending::Changed) {
            self.is_over.store(true, Ordering::Relaxed);
        }
        let mut requests = self.requests.lock();
        requests.under_way.retain(|other| !Arc::ptr_eq(other, running));
        requests.ended += 1;
        drop(requests);
        running.ended(ending);
    }

    /// What to do for the first byte of `range`, which is not empty.
    pub(in crate::server::proxy) async fn next(&self, range: Range<u64>) -> Next {
        let at = range.start;
        let look = at..range.end.min(at.saturating_add(LOOK_MAX.min(self.block / 4)));
        loop {
            // What has come by the end of a request, or by its position, is seen, or that change is.
            let (ended, passed) = self.requests.lock().so_far(at);
            let missing = self.parts.missing(look.clone()).await;
            match missing.first() {
                None => return Next::Read(look),
                Some(gap) if gap.start > at => return Next::Read(at..gap.start),
                Some(_) => {}
            }
            if let Some(running) = self.coming(at) {
                return Next::Wait(running);
            }
            let block = block_of(at, self.block, self.len());
            let missing = self.parts.missing(block).await;
            let mut requests = self.requests.lock();
            if requests.so_far(at) != (ended, passed) {
                continue;
            }
            let soon = |running: &&Arc<Running>| brings_soon(running, at, self.block);
            if let Some(running) = requests.under_way.iter().find(soon) {
                return Next::Wait(running.clone());
            }
            let others = requests.under_way.iter().map(Arc::as_ref);
            if let Some(range) = choose(at, &missing, others) {
                let running = Arc::new(Running::new(range.start, range.end, false));
                requests.under_way.push(running.clone());
                return Next::Ask(running);
            }
        }
    }

    /// The first bytes of `range` that are there, or else those that are not.
    pub(in crate::server::proxy) async fn first(&self, range: Range<u64>) -> (bool, Range<u64>) {
        let look = range.start..range.end.min(range.start.saturating_add(self.block));
        let missing = self.parts.missing(look.clone()).await;
        match missing.first() {
            None => (true, look),
            Some(gap) if gap.start > look.start => (true, look.start..gap.start),
            Some(gap) => (false, gap.clone()),
        }
    }

    fn coming(&self, at: u64) -> Option<Arc<Running>> {
        let requests = self.requests.lock();
        requests.under_way.iter().find(|running| brings_soon(running, at, self.block)).cloned()
    }
}
