//! Seconds of the cache's own clock.

use std::time::Duration;

/// A moment of cache time: whole seconds since the device was formatted, for 136 years.
///
/// This is the resolution of every stamp on the device. An entry with a lifetime of `n` seconds lives
/// between `n - 1` and `n` seconds: a cache may forget, but not serve an expired entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u32);

impl Timestamp {
    /// The latest representable time; used for "not known to end".
    pub const MAX: Timestamp = Timestamp(u32::MAX);

    /// This time plus whole seconds of `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)))
    }

    /// Seconds from `earlier` to this time, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }

    pub(super) fn of_millis(millis: i64) -> Timestamp {
        Timestamp(u32::try_from(millis.max(0) / 1000).unwrap_or(u32::MAX))
    }

    pub(super) fn millis(self) -> i64 {
        i64::from(self.0) * 1000
    }
}
