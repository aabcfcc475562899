//! Requests that wait for an engine. Owns their order and bound; never carries one out.

use std::collections::VecDeque;

use super::OperationKind;
use super::request::Request;

/// Requests that may wait in one queue; more are refused.
const LEN_MAX: usize = 16 << 10;

/// Reads, and writes with flushes, each first in, first out.
pub(super) struct RequestQueue {
    reads: VecDeque<Request>,
    writes: VecDeque<Request>,
    /// Writes and flushes that were taken and are not over.
    writing: usize,
    writing_max: usize,
}

impl RequestQueue {
    /// An empty queue that lets `writing_max` writes and flushes be under way at once, so that reads
    /// find room.
    pub fn new(writing_max: usize) -> RequestQueue {
        assert!(writing_max > 0, "writes must get on");
        let (reads, writes) = (VecDeque::new(), VecDeque::new());
        RequestQueue { reads, writes, writing: 0, writing_max }
    }

    /// Queues `request`, or gives it back if the queue is full.
    pub fn push(&mut self, request: Request) -> Option<Request> {
        let queue = match request.operation.kind() {
            OperationKind::Read => &mut self.reads,
            OperationKind::Write | OperationKind::Flush => &mut self.writes,
        };
        if queue.len() >= LEN_MAX {
            return Some(request);
        }
        queue.push_back(request);
        None
    }

    /// The next request to carry out. Reads go first, but one write is always under way, so that
    /// endless reads do not hold up a purge. Reads that nobody waits for are dropped.
    pub fn take(&mut self) -> Option<Request> {
        while self.reads.front().is_some_and(Request::is_abandoned) {
            self.reads.pop_front();
        }
        if self.may_write() && (self.writing == 0 || self.reads.is_empty()) {
            self.writing += 1;
            return self.writes.pop_front();
        }
        self.reads.pop_front()
    }

    /// Takes out all requests that wait, for somebody else to carry out.
    pub fn drain(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.writes.drain(..).chain(self.reads.drain(..))
    }

    /// Whether a write waits that may begin.
    pub fn may_write(&self) -> bool {
        !self.writes.is_empty() && self.writing < self.writing_max
    }

    /// Notes that a request of `kind` that was taken is over.
    pub fn finished(&mut self, kind: OperationKind) {
        self.writing -= usize::from(kind != OperationKind::Read);
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.reads.len() + self.writes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::device::request::Operation;
    use crate::device::{AlignedBuf, Way};

    fn flush() -> Request {
        Request::new(0, Operation::Flush).0
    }

    fn read() -> (Request, tokio::sync::oneshot::Receiver<crate::device::request::Completion>) {
        let buf = AlignedBuf::unfilled(512, 512);
        Request::new(0, Operation::Read { buf, filled: 0, way: Way::Main })
    }

    #[test]
    fn reads_overtake_writes_and_writes_leave_room_to_them() {
        let mut queue = RequestQueue::new(2);
        let (waited_for, _waiter) = read();
        for request in [flush(), flush(), flush(), waited_for] {
            assert!(queue.push(request).is_none());
        }
        let kind = |request: Option<Request>| request.map(|request| request.operation.kind());
        assert_eq!(kind(queue.take()), Some(OperationKind::Flush), "one always goes");
        assert_eq!(kind(queue.take()), Some(OperationKind::Read));
        assert_eq!(kind(queue.take()), Some(OperationKind::Flush));
        assert_eq!(kind(queue.take()), None, "the third write waits for one to finish");
        queue.finished(OperationKind::Read);
        assert_eq!(kind(queue.take()), None);
        queue.finished(OperationKind::Flush);
        assert_eq!(kind(queue.take()), Some(OperationKind::Flush));
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_dropped_with_its_memory() {
        let mut queue = RequestQueue::new(1);
        let (mut abandoned, waiter) = read();
        let budget = Arc::new(Semaphore::new(1));
        if let Operation::Read { buf, .. } = &mut abandoned.operation {
            buf.charge(Arc::clone(&budget).try_acquire_owned().unwrap());
        }
        drop(waiter);
        let (mut wanted, _waiter) = read();
        wanted.offset = 512;
        assert!(queue.push(abandoned).is_none());
        assert!(queue.push(wanted).is_none());
        assert_eq!(budget.available_permits(), 0);
        assert_eq!(queue.take().map(|request| request.offset), Some(512));
        assert_eq!(budget.available_permits(), 1, "the share came back with the memory");
    }

    #[test]
    fn a_full_queue_refuses_instead_of_growing() {
        let mut queue = RequestQueue::new(1);
        for _ in 0..LEN_MAX {
            assert!(queue.push(flush()).is_none());
        }
        assert!(queue.push(flush()).is_some());
        assert!(queue.push(read().0).is_none());
        assert_eq!(queue.len(), LEN_MAX + 1);
    }
}
