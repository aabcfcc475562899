//! Async locks on blocks, made when first wanted and dropped with the last user. Owns
//! the order in which blocks are locked; never does I/O.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Enough that unrelated blocks rarely meet on one shard's mutex; a power of two.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<u64, Arc<AsyncMutex<()>>>>;

/// Locks by block number.
pub(crate) struct BlockLocks {
    shards: Box<[Shard]>,
}

/// Exclusive use of a run of blocks until dropped.
pub(crate) struct BlockGuard {
    _claims: Vec<Claim>,
}

/// One block's lock, held or waited for. The last claim removes its entry from the map.
struct Claim {
    locks: Arc<BlockLocks>,
    block: u64,
    lock: Arc<AsyncMutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl BlockLocks {
    pub(crate) fn new() -> Arc<BlockLocks> {
        Arc::new(BlockLocks { shards: (0..SHARDS).map(|_| Shard::default()).collect() })
    }

    /// Locks `blocks` in ascending order, so that overlapping runs cannot wait for each other
    /// in a circle.
    pub(crate) async fn lock(self: &Arc<Self>, blocks: Range<u64>) -> BlockGuard {
        let mut claims = Vec::new();
        for block in blocks {
            let mut claim = self.claim(block);
            claim.held = Some(Arc::clone(&claim.lock).lock_owned().await);
            claims.push(claim);
        }
        BlockGuard { _claims: claims }
    }

    fn claim(self: &Arc<Self>, block: u64) -> Claim {
        let lock = Arc::clone(self.shard(block).lock().entry(block).or_default());
        Claim { locks: Arc::clone(self), block, lock, held: None }
    }

    fn shard(&self, block: u64) -> &Shard {
        let index = block % SHARDS as u64;
        &self.shards[usize::try_from(index).expect("below SHARDS")]
    }

    /// Blocks locked or waited for.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut shard = self.locks.shard(self.block).lock();
        self.held = None;
        // Only the map and this claim have it. New claims need the shard's mutex, which is held
        // here, so none can be made between this check and the removal.
        if Arc::strong_count(&self.lock) == 2 {
            shard.remove(&self.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn entries_go_with_their_last_user() {
        let locks = BlockLocks::new();
        let guard = locks.lock(3..70).await;
        assert_eq!(locks.entries(), 67);
        drop(guard);
        assert_eq!(locks.entries(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_waiter_leaves_nothing_behind_and_blocks_nobody() {
        let locks = BlockLocks::new();
        let guard = locks.lock(0..1).await;
        let mut context = Context::from_waker(Waker::noop());
        let mut waiter = Box::pin(locks.lock(0..2));
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        drop(waiter);
        drop(guard);
        assert_eq!(locks.entries(), 0);
        let mut again = Box::pin(locks.lock(0..1));
        assert!(matches!(again.as_mut().poll(&mut context), Poll::Ready(_)));
    }

    #[tokio::test]
    async fn a_waiter_dropped_after_the_holder_still_cleans_up() {
        let locks = BlockLocks::new();
        let guard = locks.lock(0..1).await;
        let mut context = Context::from_waker(Waker::noop());
        let mut waiter = Box::pin(locks.lock(0..1));
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        drop(guard);
        assert_eq!(locks.entries(), 1);
        drop(waiter);
        assert_eq!(locks.entries(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn overlapping_runs_exclude_each_other_without_deadlock() {
        let locks = BlockLocks::new();
        let inside = Arc::new(AsyncMutex::new(()));
        let mut tasks = Vec::new();
        for start in 0..32 {
            let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
            tasks.push(tokio::spawn(async move {
                let _guard = locks.lock(start % 4..8).await;
                let _alone = inside.try_lock().expect("all runs share block 7");
                tokio::task::yield_now().await;
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(locks.entries(), 0);
    }
}
