//! One change of a key at a time, where a change reads the old value to make the new one. Owns who
//! waits for whom, and for how long. Stores and removals do not wait: a change that one of them
//! overtook begins anew.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Keys share so many locks: two changes at one moment rarely meet without need.
const LOCKS: usize = 1024;
/// Longest wait for the changes before.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The locks of all keys.
#[derive(Debug)]
pub(super) struct KeyLocks {
    /// Keyed by the operating system's random numbers: nobody can choose keys that share a lock.
    hasher: RandomState,
    locks: Box<[Mutex<()>]>,
}

impl Default for KeyLocks {
    fn default() -> KeyLocks {
        let locks = std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        KeyLocks { hasher: RandomState::new(), locks }
    }
}

impl KeyLocks {
    /// Waits for the changes of `key` that came before, in the order of arrival; the next one begins
    /// when the guard is dropped. Dropping the future gives its place up. `None` after 10 s.
    pub(super) async fn lock(&self, key: &[u8]) -> Option<MutexGuard<'_, ()>> {
        let lock = self.of(key);
        match lock.try_lock() {
            Ok(guard) => Some(guard),
            Err(_) => timeout(WAIT_MAX, lock.lock()).await.ok(),
        }
    }

    fn of(&self, key: &[u8]) -> &Mutex<()> {
        let number = self.hasher.hash_one(key) % self.locks.len() as u64;
        // Below the number of locks.
        &self.locks[usize::try_from(number).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_of_a_key_wait_in_the_order_of_arrival() {
        let locks = Arc::new(KeyLocks::default());
        let first = locks.lock(b"k").await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = Vec::new();
        for number in 0..4 {
            let (locks, done) = (locks.clone(), done.clone());
            waiting.push(tokio::spawn(async move {
                let _guard = locks.lock(b"k").await.unwrap();
                done.send(number).unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }));
            tokio::task::yield_now().await;
        }
        // One that leaves does not hold up those behind it.
        waiting[1].abort();
        drop(first);
        for number in [0, 2, 3] {
            assert_eq!(order.recv().await, Some(number));
        }
        assert!(order.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let locks = KeyLocks::default();
        let _first = locks.lock(b"k").await.unwrap();
        assert!(locks.lock(b"k").await.is_none());
    }

    #[test]
    fn keys_are_spread_over_all_locks() {
        let locks = KeyLocks::default();
        let used = |locks: &KeyLocks, count: u32| {
            let keys = (0..count).map(|n| std::ptr::from_ref(locks.of(&n.to_le_bytes())));
            keys.collect::<std::collections::HashSet<_>>().len()
        };
        assert!(used(&locks, 20_000) > LOCKS * 9 / 10);
    }
}
