//! What a device requires of every transfer. Owns the rounding rules; never asks the kernel.

use std::ops::Range;

use super::AlignedBuf;

/// Smallest alignment a device may require, in bytes: the unit of Linux sector counts.
pub const ALIGNMENT_MIN: u32 = 512;
/// Largest alignment supported, in bytes: the largest block size Linux allows.
pub const ALIGNMENT_MAX: u32 = 65536;

/// What a device requires of every transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Usable bytes.
    pub size: u64,
    /// Offsets and lengths must be multiples of this many bytes (power of two, 512..=65536).
    pub alignment: u32,
    /// Buffer addresses must be multiples of this many bytes (power of two, at most `alignment`,
    /// so that an aligned offset into an aligned buffer is an aligned address).
    pub memory_alignment: u32,
}

impl Geometry {
    /// The geometry of `size` bytes, less a tail that fills no block.
    ///
    /// # Panics
    /// If an alignment is not a power of two, `alignment` is outside 512..=65536, or
    /// `memory_alignment` is larger than it.
    #[must_use]
    pub fn new(size: u64, alignment: u32, memory_alignment: u32) -> Geometry {
        assert!(alignment.is_power_of_two(), "alignment {alignment}");
        assert!((ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&alignment), "alignment {alignment}");
        assert!(memory_alignment.is_power_of_two(), "memory alignment {memory_alignment}");
        assert!(memory_alignment <= alignment, "{memory_alignment} > {alignment}");
        let size = size - size % u64::from(alignment);
        Geometry { size, alignment, memory_alignment }
    }

    /// `range` rounded out to whole blocks.
    #[must_use]
    pub fn blocks_around(&self, range: &Range<u64>) -> Range<u64> {
        let block = u64::from(self.alignment);
        range.start - range.start % block..range.end.next_multiple_of(block)
    }

    /// A buffer for reading `len` bytes; see [`AlignedBuf::unfilled`].
    #[must_use]
    pub fn read_buffer(&self, len: usize) -> AlignedBuf {
        AlignedBuf::unfilled(len, self.alignment as usize)
    }

    /// A zeroed buffer of `len` bytes, aligned for this device.
    #[must_use]
    pub fn zeroed_buffer(&self, len: usize) -> AlignedBuf {
        AlignedBuf::zeroed(len, self.alignment as usize)
    }

    pub(super) fn holds(&self, offset: u64, len: usize) -> bool {
        offset.checked_add(len as u64).is_some_and(|end| end <= self.size)
    }

    pub(super) fn is_block_multiple(&self, bytes: u64) -> bool {
        bytes.is_multiple_of(u64::from(self.alignment))
    }

    /// `len` rounded down to whole blocks.
    pub(super) fn whole_blocks(&self, len: usize) -> usize {
        len - len % self.alignment as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_fills_no_block_is_not_usable() {
        assert_eq!(Geometry::new(10_000, 4096, 512).size, 8192);
        assert_eq!(Geometry::new(4095, 4096, 4096).size, 0);
    }

    #[test]
    fn ranges_round_out_to_blocks() {
        let geometry = Geometry::new(1 << 20, 4096, 4);
        assert_eq!(geometry.blocks_around(&(4095..4097)), 0..8192);
        assert_eq!(geometry.blocks_around(&(4096..8192)), 4096..8192);
        assert_eq!(geometry.blocks_around(&(5000..5000)), 4096..8192);
    }

    #[test]
    fn a_range_past_the_end_or_overflowing_is_not_held() {
        let geometry = Geometry::new(8192, 4096, 4096);
        assert!(geometry.holds(4096, 4096));
        assert!(geometry.holds(8192, 0));
        assert!(!geometry.holds(4096, 4097));
        assert!(!geometry.holds(u64::MAX, 4096));
    }
}
