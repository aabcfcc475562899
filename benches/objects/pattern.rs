//! The bytes of objects: cheap to make and to compare, different in each MiB.

pub const MIB: usize = 1 << 20;

/// Fills `piece`, one MiB of an object.
pub fn fill(piece: &mut [u8], number: u64) {
    for (word, bytes) in (0u64..).zip(piece.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&(number << 32 | word).to_le_bytes());
    }
}

/// Whether `piece` is that MiB of an object.
pub fn is_right(piece: &[u8], number: u64) -> bool {
    (0u64..)
        .zip(piece.chunks_exact(8))
        .all(|(word, bytes)| bytes == (number << 32 | word).to_le_bytes())
}
