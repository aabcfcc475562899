//! What is stored under each key: the length and every byte follow from the key's number, so
//! that any value read can be verified without having been kept.

use std::ops::Range;

use super::draws::{log_normal, mix};

/// Longest value in bytes.
const LEN_MAX: usize = 8 << 20;
/// Values begin at any of this many places of the pattern.
const PHASES: u64 = 1 << 20;
/// The first bytes of a value are the number of its key.
pub const HEAD_LEN: usize = 8;

/// How long values are.
#[derive(Clone, Copy)]
pub enum Sizes {
    /// Uniform from 20 to 800 bytes: 410 bytes in the mean.
    Small,
    /// Log-normal, median 16 KiB, mean about 58 KB, 200 bytes to 8 MiB.
    Cdn,
}

/// All values of one workload.
pub struct Values {
    sizes: Sizes,
    pattern: Vec<u8>,
}

impl Values {
    pub fn new(sizes: Sizes) -> Values {
        let len = usize::try_from(PHASES).unwrap_or(0) + LEN_MAX;
        let pattern = (0..len as u64 / 8).flat_map(|number| mix(number).to_le_bytes()).collect();
        Values { sizes, pattern }
    }

    /// Length of the value of `key` in bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the lengths of values"
    )]
    pub fn len(&self, key: u32) -> usize {
        let random = mix(u64::from(key));
        match self.sizes {
            Sizes::Small => 20 + (random % 781) as usize,
            Sizes::Cdn => {
                log_normal(random, 16384.0, 1.6).clamp(200.0, LEN_MAX as f64).round() as usize
            }
        }
    }

    /// The first bytes of the value of `key`.
    pub fn head(key: u32) -> [u8; HEAD_LEN] {
        u64::from(key).to_le_bytes()
    }

    /// Bytes `range` of the value of `key`, all behind the head.
    pub fn rest(&self, key: u32, range: Range<usize>) -> &[u8] {
        let phase = usize::try_from(mix(!u64::from(key)) % PHASES).unwrap_or(0);
        &self.pattern[phase + range.start - HEAD_LEN..phase + range.end - HEAD_LEN]
    }

    /// Whether `bytes` are those of the value of `key` from byte `at` on.
    pub fn is_right(&self, key: u32, at: usize, bytes: &[u8]) -> bool {
        let in_head = HEAD_LEN.saturating_sub(at).min(bytes.len());
        let (first, rest) = bytes.split_at(in_head);
        let head_is_right = first.is_empty() || first == &Values::head(key)[at..at + in_head];
        let start = at + in_head;
        head_is_right && (rest.is_empty() || rest == self.rest(key, start..start + rest.len()))
    }
}
