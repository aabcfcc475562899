//! A heap buffer aligned by its allocation. Owns the memory; never moves it.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use tokio::sync::OwnedSemaphorePermit;

/// A fixed-length, aligned byte buffer.
///
/// [`AlignedBuf::zeroed`] makes one that is initialised. [`AlignedBuf::unfilled`] costs no zeroing; its
/// buffer derefs to the bytes put into it so far: none, until a device read has filled it.
pub struct AlignedBuf {
    start: NonNull<u8>,
    layout: Layout,
    /// Bytes from `start` that are initialised; `Deref` shows these.
    initialised: usize,
    /// The share of a memory budget that ends with the buffer.
    _charge: Option<OwnedSemaphorePermit>,
}

// SAFETY: the buffer owns its allocation alone, and shared access only reads it.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above; whoever writes through `start` proves that nobody else reads there (`parts`).
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of `len` bytes at a multiple of `align`.
    ///
    /// # Panics
    /// If `align` is not a power of two, or the length is beyond `isize::MAX`.
    #[must_use]
    pub fn zeroed(len: usize, align: usize) -> AlignedBuf {
        let layout = layout(len, align);
        if len == 0 {
            return AlignedBuf::over(NonNull::dangling(), layout, 0);
        }
        // SAFETY: the layout's size was just checked to be non-zero.
        let start = unsafe { alloc_zeroed(layout) };
        AlignedBuf::over(allocated(start, layout), layout, len)
    }

    /// A buffer with room for `len` bytes at a multiple of `align`, to be filled by a read.
    ///
    /// # Panics
    /// If `align` is not a power of two, or the length is beyond `isize::MAX`.
    #[must_use]
    pub fn unfilled(len: usize, align: usize) -> AlignedBuf {
        let layout = layout(len, align);
        if len == 0 {
            return AlignedBuf::over(NonNull::dangling(), layout, 0);
        }
        // SAFETY: the layout's size was just checked to be non-zero.
        let start = unsafe { alloc(layout) };
        AlignedBuf::over(allocated(start, layout), layout, 0)
    }

    fn over(start: NonNull<u8>, layout: Layout, initialised: usize) -> AlignedBuf {
        AlignedBuf { start, layout, initialised, _charge: None }
    }

    /// Gives the buffer a share of a memory budget, released with the memory: also if the reader is
    /// gone before the device is done with the buffer.
    pub fn charge(&mut self, share: OwnedSemaphorePermit) {
        self._charge = Some(share);
    }

    /// Bytes the buffer has room for; the length a device read fills.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.layout.size()
    }

    /// Copies `bytes` in at `offset`, which must not lie past the filled part.
    pub(crate) fn fill(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.initialised, "a gap would stay uninitialised");
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.capacity());
        let end = end.expect("the bytes fit in the buffer");
        let target = self.spare(offset);
        // SAFETY: `offset..end` was checked to lie inside the allocation, which this
        // exclusive reference owns, so `bytes` cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        self.initialised = self.initialised.max(end);
    }

    /// A buffer of the same length and alignment with the first `len` bytes of this one, which must be
    /// initialised. The kernel may be writing to the bytes behind them.
    pub(super) fn begun_again(&self, len: usize) -> AlignedBuf {
        assert!(len <= self.initialised, "only what was put in");
        let mut copy = AlignedBuf::unfilled(self.capacity(), self.layout.align());
        // SAFETY: both allocations have `len` bytes, those of this one are initialised, and nobody
        // else has the new one.
        unsafe { ptr::copy_nonoverlapping(self.start.as_ptr(), copy.start.as_ptr(), len) };
        copy.initialised = len;
        copy
    }

    /// The address of the first byte. Whoever writes there proves that nobody else reads or writes.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The address of byte `offset`, for an engine that lets the kernel write there.
    pub(crate) fn spare(&mut self, offset: usize) -> *mut u8 {
        assert!(offset <= self.capacity());
        self.start.as_ptr().wrapping_add(offset)
    }

    /// Declares the first `len` bytes initialised.
    ///
    /// # Safety
    /// They must be: written through [`AlignedBuf::spare`], or initialised before.
    pub(crate) unsafe fn assume_filled(&mut self, len: usize) {
        assert!(len <= self.capacity());
        self.initialised = self.initialised.max(len);
    }
}

fn layout(len: usize, align: usize) -> Layout {
    Layout::from_size_align(len, align).expect("the alignment is a power of two and the size sane")
}

fn allocated(start: *mut u8, layout: Layout) -> NonNull<u8> {
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `start` came from the global allocator with this very layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `initialised` bytes of the allocation are initialised, and
        // it lives as long as `self`; a zero length needs no allocation.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.initialised) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.initialised) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("capacity", &self.capacity())
            .field("align", &self.layout.align())
            .field("filled", &self.initialised)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_a_multiple_of_the_alignment() {
        for align in [1, 512, 4096, 65536] {
            for len in [1, 512, 65536 + 512] {
                let zeroed = AlignedBuf::zeroed(len, align);
                assert!(zeroed.as_ptr().addr().is_multiple_of(align));
                assert!(zeroed.iter().all(|byte| *byte == 0));
                assert_eq!(zeroed.len(), len);
                let mut unfilled = AlignedBuf::unfilled(len, align);
                assert!(unfilled.spare(0).addr().is_multiple_of(align));
            }
        }
    }

    #[test]
    fn an_unfilled_buffer_shows_only_what_was_put_in() {
        let mut buf = AlignedBuf::unfilled(1024, 512);
        assert!(buf.is_empty());
        assert_eq!(buf.capacity(), 1024);
        buf.fill(0, &[7; 600]);
        buf.fill(500, &[8; 200]);
        assert_eq!(buf.len(), 700);
        assert_eq!((buf[499], buf[500]), (7, 8));
    }

    #[test]
    #[should_panic(expected = "a gap would stay uninitialised")]
    fn filling_never_leaves_a_gap() {
        AlignedBuf::unfilled(1024, 512).fill(1, &[0]);
    }

    #[test]
    fn an_empty_buffer_is_fine() {
        assert!(AlignedBuf::zeroed(0, 4096).is_empty());
        assert!(AlignedBuf::unfilled(0, 4096).is_empty());
    }
}
