//! How large reads are split. Owns the defaults; never reads.

use std::time::Duration;

/// How a large range of a body is read: split into pieces that are read at the same time and given
/// in order. Made by default, then changed field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RangeOptions {
    /// Whether ranges are read in parallel at all; if not, slice after slice is.
    pub parallel: bool,
    /// Shorter ranges are read slice after slice, and through the RAM tier, in bytes.
    pub threshold: u64,
    /// Most bytes of one read. Shorter ranges are split finer, so that all reads have work.
    pub chunk_size: usize,
    /// Most reads under way at one time.
    pub concurrency: usize,
    /// Longest time for one read; then the body ends short.
    pub timeout: Duration,
}

/// A setting of [`RangeOptions`] that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} must not be zero")]
pub struct ZeroRangeOption(&'static str);

impl RangeOptions {
    /// Refuses zeros.
    ///
    /// # Errors
    /// A threshold, size, count or time is zero.
    pub fn check(&self) -> Result<(), ZeroRangeOption> {
        let settings = [
            ("the range threshold", self.threshold == 0),
            ("the range chunk size", self.chunk_size == 0),
            ("the number of concurrent range reads", self.concurrency == 0),
            ("the range timeout", self.timeout.is_zero()),
        ];
        match settings.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(ZeroRangeOption(name)),
            None => Ok(()),
        }
    }
}

impl Default for RangeOptions {
    fn default() -> Self {
        RangeOptions {
            parallel: true,
            threshold: 16 << 20,
            chunk_size: 1 << 20,
            concurrency: 16,
            timeout: Duration::from_secs(30),
        }
    }
}
