//! Requests to an engine, and their outcome. Owns the buffers of a transfer while it is under way.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::AlignedBuf;
use super::block_lock::BlockGuard;
use super::way::Way;

/// A range of a shared buffer to be written.
#[derive(Clone, Debug)]
pub struct WriteSlice {
    /// The buffer; immutable while shared.
    pub buf: Arc<AlignedBuf>,
    /// The bytes of `buf` to write; both ends aligned.
    pub range: Range<usize>,
}

impl WriteSlice {
    /// The whole of `buf`.
    #[must_use]
    pub fn whole(buf: Arc<AlignedBuf>) -> WriteSlice {
        let range = 0..buf.len();
        WriteSlice { buf, range }
    }

    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.range.clone()]
    }
}

/// What a request does to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Device to memory.
    Read,
    /// Memory to device, volatile until a flush.
    Write,
    /// Makes completed writes durable.
    Flush,
}

impl OperationKind {
    /// `read`, `write` or `flush`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperationKind::Read => "read",
            OperationKind::Write => "write",
            OperationKind::Flush => "flush",
        }
    }
}

/// A request's work and the memory it owns while under way.
pub(crate) enum Operation {
    /// Fill `buf` from byte `filled` on.
    Read { buf: AlignedBuf, filled: usize, way: Way },
    /// Write the slices one after another. `hold` is kept until the write is over, even
    /// when nobody waits for it any more.
    Write { slices: Vec<WriteSlice>, hold: Option<BlockGuard> },
    /// Make durable every write completed before the request was submitted.
    Flush,
}

impl Operation {
    pub(crate) fn kind(&self) -> OperationKind {
        match self {
            Operation::Read { .. } => OperationKind::Read,
            Operation::Write { .. } => OperationKind::Write,
            Operation::Flush => OperationKind::Flush,
        }
    }

    /// The same work, for a read with new memory: the kernel may still write to the memory of this one.
    fn once_more(&self) -> Operation {
        match self {
            Operation::Read { buf, filled, way } => {
                Operation::Read { buf: buf.begun_again(*filled), filled: *filled, way: *way }
            }
            Operation::Write { slices, .. } => {
                Operation::Write { slices: slices.clone(), hold: None }
            }
            Operation::Flush => Operation::Flush,
        }
    }

    /// Bytes asked for.
    pub(crate) fn len(&self) -> usize {
        match self {
            Operation::Read { buf, filled, .. } => buf.capacity() - filled,
            Operation::Write { slices, .. } => slices.iter().map(|slice| slice.range.len()).sum(),
            Operation::Flush => 0,
        }
    }
}

/// One transfer for an engine to make. Offset, length and addresses are aligned.
pub(crate) struct Request {
    pub(crate) offset: u64,
    pub(crate) operation: Operation,
    done: oneshot::Sender<Completion>,
}

impl Request {
    pub(crate) fn new(
        offset: u64,
        operation: Operation,
    ) -> (Request, oneshot::Receiver<Completion>) {
        let (done, completed) = oneshot::channel();
        (Request { offset, operation, done }, completed)
    }

    /// Whether nobody waits for the outcome any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }

    /// The same request to be made once more; the waiter now waits for that one. This one keeps its
    /// memory, and nobody waits for it.
    pub(crate) fn once_more(&mut self) -> Request {
        let (nobody, _) = oneshot::channel();
        let mut again = Request {
            offset: self.offset,
            operation: self.operation.once_more(),
            done: std::mem::replace(&mut self.done, nobody),
        };
        if let (Operation::Write { hold: lock, .. }, Operation::Write { hold, .. }) =
            (&mut again.operation, &mut self.operation)
        {
            *lock = hold.take();
        }
        again
    }

    /// Hands the memory and the outcome back. If the waiter is gone, both are dropped here.
    pub(crate) fn complete(self, result: io::Result<usize>) {
        let _waiter_gone = self.done.send(Completion { operation: self.operation, result });
    }
}

/// A finished request: its memory back, and the bytes transferred, which may be fewer
/// than asked.
pub(crate) struct Completion {
    pub(crate) operation: Operation,
    pub(crate) result: io::Result<usize>,
}
