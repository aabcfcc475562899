//! What is stored under each key: its number gives the length, and with the version at the value's
//! start every byte. Any reader can verify any value without a copy.

use std::ops::Range;

use super::sizes::Sizes;
use crate::cli::bench::draws::mix;

/// Values begin at any of this many places of the pattern.
const PHASES: u64 = 1 << 16;
/// The first bytes of a value are the number of its key and its version, four bytes each.
pub const HEAD_LEN: usize = 8;
const KEY_LEN: usize = 4;

/// All values of one workload.
pub struct Values {
    keys: u32,
    /// Drawn once; empty if lengths cost nothing to compute.
    lens: Vec<u32>,
    sizes: Sizes,
    pattern: Vec<u8>,
}

impl Values {
    /// Values of the keys `0..keys`.
    ///
    /// # Panics
    /// If the sizes are listed for fewer keys.
    #[must_use]
    pub fn new(sizes: Sizes, keys: u32) -> Values {
        let phases = usize::try_from(PHASES).unwrap_or(0);
        let words = (phases + sizes.max()).div_ceil(8) as u64;
        let pattern = (0..words).flat_map(|number| mix(number).to_le_bytes()).collect();
        let lens = match &sizes {
            Sizes::LogNormal { .. } => {
                (0..keys).map(|key| u32::try_from(sizes.len(key)).unwrap_or(u32::MAX)).collect()
            }
            Sizes::Listed(lens) => {
                assert!(lens.len() >= keys as usize, "{} lengths, {keys} keys", lens.len());
                Vec::new()
            }
            Sizes::Fixed(_) | Sizes::Uniform(..) => Vec::new(),
        };
        Values { keys, lens, sizes, pattern }
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u32 {
        self.keys
    }

    /// Length of the value of `key` in bytes.
    #[must_use]
    pub fn len(&self, key: u32) -> usize {
        match self.lens.get(key as usize) {
            Some(len) => *len as usize,
            None => self.sizes.len(key),
        }
    }

    /// The first bytes of a value.
    #[must_use]
    pub fn head(key: u32, version: u32) -> [u8; HEAD_LEN] {
        (u64::from(version) << 32 | u64::from(key)).to_le_bytes()
    }

    /// Bytes `range` of a value, all after the head.
    #[must_use]
    pub fn rest(&self, (key, version): (u32, u32), range: Range<usize>) -> &[u8] {
        let phase = mix(!(u64::from(version) << 32 | u64::from(key))) % PHASES;
        let start = usize::try_from(phase).unwrap_or(0);
        &self.pattern[start + range.start - HEAD_LEN..start + range.end - HEAD_LEN]
    }
}

/// Verifies a value that comes in pieces. Keeps nothing but its head.
#[derive(Clone, Copy, Default)]
pub struct Verifier {
    head: [u8; HEAD_LEN],
}

impl Verifier {
    /// Whether `bytes` are those of a value of `key` from byte `at` on; earlier bytes were passed
    /// before.
    pub fn is_right(&mut self, values: &Values, (key, at): (u32, usize), bytes: &[u8]) -> bool {
        let in_head = HEAD_LEN.saturating_sub(at).min(bytes.len());
        let (first, rest) = bytes.split_at(in_head);
        if in_head > 0 {
            self.head[at..at + in_head].copy_from_slice(first);
            let seen = (at + in_head).min(KEY_LEN);
            if self.head[..seen] != key.to_le_bytes()[..seen] {
                return false;
            }
        }
        let [.., a, b, c, d] = self.head;
        let version = u32::from_le_bytes([a, b, c, d]);
        let start = at + in_head;
        rest.is_empty() || rest == values.rest((key, version), start..start + rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 0x0102_0304;

    fn value(values: &Values, version: u32) -> Vec<u8> {
        let mut value = Values::head(KEY, version).to_vec();
        let len = values.len(KEY);
        if len > HEAD_LEN {
            value.extend_from_slice(values.rest((KEY, version), HEAD_LEN..len));
        }
        value.truncate(len);
        value
    }

    fn passes(values: &Values, value: &[u8], piece: usize) -> bool {
        let mut verifier = Verifier::default();
        let mut pieces = (0..).step_by(piece).zip(value.chunks(piece));
        pieces.all(|(at, bytes)| verifier.is_right(values, (KEY, at), bytes))
    }

    #[test]
    fn every_version_of_a_value_is_right_in_pieces_of_any_length() {
        for len in [0, 1, 3, 4, 7, 8, 9, 1000] {
            let values = Values::new(Sizes::Fixed(len), 1);
            for (version, piece) in [(0, 1), (7, 3), (u32::MAX, 8), (9, 1000)] {
                assert!(passes(&values, &value(&values, version), piece), "{len} {piece}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let values = Values::new(Sizes::Fixed(300), 1);
        let sound = value(&values, 5);
        for bit in 0..300 * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!passes(&values, &flipped, 64), "bit {bit}");
        }
    }

    #[test]
    fn pieces_of_two_versions_are_no_value() {
        let values = Values::new(Sizes::Fixed(300), 1);
        let mut torn = value(&values, 5);
        torn[200..].copy_from_slice(&value(&values, 6)[200..]);
        assert!(!passes(&values, &torn, 64));
    }
}
