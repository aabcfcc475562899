//! How many fills of one listener go on at one time, in all workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::counts::{HeldBack, ProxyShard};

/// Leave to fill for so many.
#[derive(Debug)]
pub(super) struct Slots(Arc<Semaphore>);

/// Leave to fill, as long as it lives.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "it is given back")] OwnedSemaphorePermit);

impl Slots {
    pub(super) fn new(max: usize) -> Slots {
        Slots(Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))))
    }

    /// One that is free.
    pub(super) fn free(&self) -> Option<Slot> {
        self.0.clone().try_acquire_owned().ok().map(Slot)
    }

    /// Waits in turn for one to become free, and counts if that was needed; `None` if it takes too long.
    pub(super) async fn wait(&self, patience: Duration, counts: &ProxyShard) -> Option<Slot> {
        if let Some(slot) = self.free() {
            return Some(slot);
        }
        let slot =
            timeout(patience, self.0.clone().acquire_owned()).await.ok().and_then(Result::ok);
        counts.held_back(if slot.is_some() { HeldBack::Filled } else { HeldBack::Passed });
        slot.map(Slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_waited_for_so_long() {
        let (slots, counts) = (Slots::new(1), ProxyShard::default());
        let patience = Duration::from_secs(1);
        let first = slots.wait(patience, &counts).await.unwrap();
        assert!(slots.free().is_none() && slots.wait(patience, &counts).await.is_none());
        let (second, ()) = tokio::join!(slots.wait(patience, &counts), async {
            tokio::time::sleep(patience / 2).await;
            drop(first);
        });
        assert!(second.is_some() && slots.free().is_none());
        drop(second);
        assert!(slots.free().is_some());
        assert!(Slots::new(usize::MAX).free().is_some());
    }
}
