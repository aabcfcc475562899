//! A body of any length that is compared without a second copy of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

/// Bytes after which the body repeats: no piece of the cache is as long.
const PERIOD: usize = 1_000_003;

/// Bytes of the body from any position on are a part of this.
pub struct LongBody(Vec<u8>);

impl LongBody {
    pub fn new() -> LongBody {
        let mut bytes = vec![0; PERIOD];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        bytes.extend_from_within(..);
        bytes.extend_from_within(..PERIOD);
        LongBody(bytes)
    }

    /// At most [`PERIOD`] bytes from position `at` on.
    pub fn at(&self, at: u64, len: usize) -> &[u8] {
        let start = usize::try_from(at % PERIOD as u64).unwrap();
        &self.0[start..start + len]
    }
}
