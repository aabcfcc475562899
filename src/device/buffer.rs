//! A heap buffer aligned by its allocation. Owns the memory; never moves it.

/// A zeroed, fixed-length, aligned byte buffer.
#[derive(Debug)]
pub struct AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes at a multiple of `align` (a power of two).
    #[must_use]
    pub fn zeroed(_len: usize, _align: usize) -> AlignedBuf {
        todo!()
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
