//! Reads that last longer than those who asked for them waited. Owns their memory, which the kernel may
//! still write to, until they are over.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::request::Completion;

/// So many overdue reads make a device count as failed.
const OVERDUE_MAX: usize = 128;

/// The overdue reads of one device.
#[derive(Default)]
pub(super) struct OverdueReads {
    reads: Mutex<Vec<Receiver<Completion>>>,
    /// As many as `reads` has, to be looked at without its lock.
    count: AtomicUsize,
}

impl OverdueReads {
    /// Keeps a read that nobody waits for any more.
    pub fn keep(&self, read: Receiver<Completion>) {
        let mut reads = self.reads.lock();
        // Memory of those that are over goes now, not when somebody asks for their number.
        reads.retain_mut(is_under_way);
        reads.push(read);
        self.count.store(reads.len(), Ordering::Relaxed);
    }

    /// Reads that are overdue and not over.
    pub fn count(&self) -> usize {
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut reads = self.reads.lock();
        reads.retain_mut(is_under_way);
        self.count.store(reads.len(), Ordering::Relaxed);
        reads.len()
    }

    /// Whether there are so many that the device counts as failed.
    pub fn are_too_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= OVERDUE_MAX && self.count() >= OVERDUE_MAX
    }
}

fn is_under_way(read: &mut Receiver<Completion>) -> bool {
    matches!(read.try_recv(), Err(TryRecvError::Empty))
}
