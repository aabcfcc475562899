//! How often clients may purge groups: each purge of a group is a record that all lookups see, and clients
//! must not be able to flood them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The time that the limits are for.
const PERIOD: Duration = Duration::from_secs(1);
/// Most purges of groups in that time.
const PURGES_MAX: usize = 16;

/// The groups that were purged lately.
#[derive(Debug, Default)]
pub(super) struct GroupLimit {
    purged: Mutex<HashMap<Bytes, Instant>>,
}

impl GroupLimit {
    /// Whether the group `tag` may be purged now: it was not within the last second, and few others were.
    pub(super) fn may_purge(&self, tag: &Bytes) -> bool {
        let now = Instant::now();
        let mut purged = self.purged.lock();
        purged.retain(|_, at| now.duration_since(*at) < PERIOD);
        let may = purged.len() < PURGES_MAX && !purged.contains_key(tag);
        if may {
            purged.insert(tag.clone(), now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_held_back() {
        let limit = GroupLimit::default();
        let tag = |n: usize| Bytes::copy_from_slice(&n.to_le_bytes());
        assert!(limit.may_purge(&tag(0)) && !limit.may_purge(&tag(0)));
        let count = (0..1000).filter(|n| limit.may_purge(&tag(*n))).count();
        assert_eq!(count, PURGES_MAX - 1);
        tokio::time::advance(PERIOD).await;
        assert!(limit.may_purge(&tag(0)));
    }
}
