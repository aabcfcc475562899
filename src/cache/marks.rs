//! Keys that are not worth waiting for: who misses one goes to the origin at once. Values only.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Keys that are marked as not worth waiting for, at most; then the oldest mark goes.
const MARKS_MAX: usize = 64 << 10;

/// Longest time of a mark: a year, so that its end can be told.
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Keys by their hash, and until when they are marked.
#[derive(Default)]
pub(super) struct Marks {
    until: HashMap<u64, Instant>,
    /// In the order in which they came; a mark that was renewed or cleared has older ones here.
    order: VecDeque<(u64, Instant)>,
}

impl Marks {
    /// Whether a key is marked at `now`.
    pub fn is_marked(&self, key_hash: u64, now: Instant) -> bool {
        self.until.get(&key_hash).is_some_and(|until| *until > now)
    }

    /// Marks a key for so long.
    pub fn mark(&mut self, key_hash: u64, now: Instant, time: Duration) {
        let until = now + time.min(TIME_MAX);
        self.until.insert(key_hash, until);
        self.order.push_back((key_hash, until));
        // Those that are over, and as many of the oldest as there are too many.
        while let Some((first, end)) = self.order.front().copied()
            && (end <= now || self.until.len() > MARKS_MAX || self.order.len() > 2 * MARKS_MAX)
        {
            self.order.pop_front();
            if self.until.get(&first) == Some(&end) {
                self.until.remove(&first);
            }
        }
    }

    /// A key is not marked any more.
    pub fn clear(&mut self, key_hash: u64) {
        self.until.remove(&key_hash);
    }

    /// Number of marks, those that are over and were not noticed included.
    pub fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded_and_the_oldest_goes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _in_it = runtime.enter();
        let (mut marks, now, time) = (Marks::default(), Instant::now(), Duration::from_secs(10));
        for key in 0..MARKS_MAX as u64 + 10 {
            marks.mark(key, now, time);
        }
        assert_eq!(marks.until.len(), MARKS_MAX);
        assert!(!marks.is_marked(9, now) && marks.is_marked(10, now));
        for _ in 0..3 * MARKS_MAX {
            marks.mark(7, now, time);
        }
        assert!(marks.order.len() <= 2 * MARKS_MAX + 1, "{}", marks.order.len());
        let later = now + time;
        assert!(!marks.is_marked(7, later));
        marks.mark(1, later, time);
        assert_eq!((marks.until.len(), marks.order.len()), (1, 1), "what is over goes");
    }
}
