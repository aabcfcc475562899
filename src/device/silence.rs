//! Whether a device answers nothing at all: the pace of what never ends cannot be told. Owns since when;
//! takes times as values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So long without an answer a device counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// Since when a device has not answered.
#[derive(Default)]
pub(super) struct Silence {
    /// When the first request was made since the last answer, in milliseconds and one more; 0 if none was.
    asked: AtomicU64,
}

impl Silence {
    /// A request is made `now`, the time since any fixed moment. If no `other` is under way, what was asked
    /// before and heard of by nobody does not count.
    pub fn begin(&self, other: bool, now: Duration) {
        if !other || self.asked.load(Ordering::Relaxed) == 0 {
            self.asked.store(millis(now) + 1, Ordering::Relaxed);
        }
    }

    /// A request was answered.
    pub fn end(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// Whether nothing that was asked for has been answered for half a minute `now`, which is read only if
    /// something was asked for: each store asks this.
    pub fn lasts(&self, now: impl FnOnce() -> Duration) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        asked > 0 && millis(now()).saturating_sub(asked - 1) >= millis(SILENT_AFTER)
    }
}

fn millis(time: Duration) -> u64 {
    time.as_secs() * 1000 + u64::from(time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_minute_without_an_answer_is_silence() {
        let at = Duration::from_secs;
        let silence = Silence::default();
        assert!(!silence.lasts(|| at(1000)), "nothing was asked");
        silence.begin(false, at(100));
        silence.begin(true, at(120));
        assert!(!silence.lasts(|| at(129)) && silence.lasts(|| at(130)));
        silence.end();
        assert!(!silence.lasts(|| at(1000)));
        silence.begin(true, at(200));
        silence.begin(false, at(250));
        assert!(!silence.lasts(|| at(279)) && silence.lasts(|| at(280)), "the other was given up");
    }
}
