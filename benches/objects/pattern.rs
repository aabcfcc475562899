//! The bytes of objects: cheap to make and to compare, different in each MiB.

pub const MIB: usize = 1 << 20;

/// Fills `piece`, one MiB of an object.
pub fn fill(piece: &mut [u8], number: u64) {
    for (word, bytes) in (0u64..).zip(piece.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&(number << 32 | word).to_le_bytes());
    }
}

/// Whether `bytes` are those of an object from `offset` on.
pub fn is_right_at(bytes: &[u8], offset: u64) -> bool {
    (offset..).zip(bytes).all(|(at, byte)| {
        let word = ((at / MIB as u64) << 32) | (at % MIB as u64 / 8);
        usize::try_from(at % 8).is_ok_and(|index| word.to_le_bytes()[index] == *byte)
    })
}

/// Ranges of an object of `len` bytes whose ends lie on no boundary: at its begin, from 69 MiB on,
/// across its middle, long enough to be read in parallel, and its last bytes.
pub fn awkward_ranges(len: u64) -> [std::ops::Range<u64>; 5] {
    let mib = MIB as u64;
    let (far, middle) = (69 * mib + 5, len / 2);
    [0..1, 5..5 + 2 * mib, far..far + 33 * mib, middle - 70_001..middle + 17 * mib, len - 7..len]
}

/// Whether `piece` is that MiB of an object.
pub fn is_right(piece: &[u8], number: u64) -> bool {
    (0u64..)
        .zip(piece.chunks_exact(8))
        .all(|(word, bytes)| bytes == (number << 32 | word).to_le_bytes())
}
