//! A buffer that several threads fill, each a part of its own, while others read what is filled. Owns
//! the proof that no two of them overlap; locks nothing and waits for nobody.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::slice;
use std::sync::Arc;

use super::buffer::AlignedBuf;

/// A buffer that is filled from its start to its end.
///
/// The owner decides the layout; parts are filled and read independently of the buffer. Filled bytes
/// change only through [`PartedBuf::get_mut`], and only while nobody else reads them.
#[derive(Debug)]
pub struct PartedBuf {
    /// Never dereferenced while parts are out: a slice of the whole would alias them.
    buf: Arc<AlignedBuf>,
    /// Where the next part may begin. Nobody was ever given a reference to the bytes behind it.
    end: usize,
    /// Parts that are not filled yet.
    out: Vec<Range<usize>>,
    /// Parts that are read elsewhere, each with a token that its reader has too.
    read: Vec<(Range<usize>, Arc<()>)>,
    /// All of it was given out, to be read.
    is_finished: bool,
}

/// A part of a [`PartedBuf`] to be filled, then returned with [`PartedBuf::end_part`]. A part that is
/// dropped stays unfilled for ever.
pub struct Part {
    buf: Arc<AlignedBuf>,
    range: Range<usize>,
}

/// Filled bytes of a [`PartedBuf`].
pub struct FilledPart {
    buf: Arc<AlignedBuf>,
    range: Range<usize>,
    _token: Arc<()>,
}

impl PartedBuf {
    /// `buf`, whose bytes count as not filled.
    ///
    /// # Panics
    /// Panics if not all of its memory is initialised.
    #[must_use]
    pub fn new(buf: AlignedBuf) -> PartedBuf {
        assert_eq!(buf.len(), buf.capacity(), "a buffer that is its whole length");
        PartedBuf {
            buf: Arc::new(buf),
            end: 0,
            out: Vec::new(),
            read: Vec::new(),
            is_finished: false,
        }
    }

    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a buffer of a fixed length")]
    pub fn len(&self) -> usize {
        self.buf.capacity()
    }

    /// The bytes `range`, to be filled by the caller. The gap before them is zeroed.
    ///
    /// # Panics
    /// Panics if the range begins before the end of what was filled so far, or is too long.
    pub fn append(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(self.end <= range.start && range.start <= range.end && range.end <= self.len());
        let gap = self.end..range.start;
        self.end = range.end;
        // SAFETY: from the old end on nothing was given to anyone, and `self` is borrowed.
        unsafe { bytes_mut(&self.buf, &gap) }.fill(0);
        // SAFETY: as above.
        unsafe { bytes_mut(&self.buf, &range) }
    }

    /// As [`PartedBuf::append`], but the part is filled independently of the buffer.
    ///
    /// # Panics
    /// As [`PartedBuf::append`].
    pub fn append_part(&mut self, range: Range<usize>) -> Part {
        self.append(range.clone());
        self.out.push(range.clone());
        Part { buf: Arc::clone(&self.buf), range }
    }

    /// Takes back a part that is filled.
    ///
    /// # Panics
    /// Panics if it is another buffer's.
    pub fn end_part(&mut self, part: Part) {
        assert!(Arc::ptr_eq(&self.buf, &part.buf), "a part of this buffer");
        self.out.retain(|out| *out != part.range);
    }

    /// Whether all parts are filled.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.out.is_empty()
    }

    fn has(&self, range: &Range<usize>) -> bool {
        range.end <= self.end && !self.out.iter().any(|out| meet(out, range))
    }

    /// The bytes `range`, if they are filled.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        // SAFETY: no part to be filled meets `range`, and new ones need `self` exclusively.
        self.has(&range).then(|| unsafe { bytes(&self.buf, &range) })
    }

    /// The bytes `range`, to be read independently of the buffer, if they are filled.
    pub fn share(&mut self, range: Range<usize>) -> Option<FilledPart> {
        if !self.has(&range) {
            return None;
        }
        let token = Arc::new(());
        self.forget_readers();
        self.read.push((range.clone(), Arc::clone(&token)));
        Some(FilledPart { buf: Arc::clone(&self.buf), range, _token: token })
    }

    /// The bytes `range` to be changed, if they are filled and nobody reads any of them elsewhere.
    pub fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        self.forget_readers();
        let is_read = self.is_finished || self.read.iter().any(|(read, _)| meet(read, &range));
        // SAFETY: parts that meet `range` are neither filled nor read elsewhere, and new ones of both
        // need `self`, which is borrowed.
        (!is_read && self.has(&range)).then(|| unsafe { bytes_mut(&self.buf, &range) })
    }

    /// Forgets readers that are dropped. `Arc::get_mut` orders their reads before what follows.
    fn forget_readers(&mut self) {
        self.read.retain_mut(|(_, token)| Arc::get_mut(token).is_none());
    }

    /// The whole buffer, which will not change any more; `None` while there are parts still to be
    /// filled.
    pub fn finish(&mut self) -> Option<Arc<AlignedBuf>> {
        if !self.is_filled() {
            return None;
        }
        self.end = self.len();
        self.is_finished = true;
        Some(Arc::clone(&self.buf))
    }

    /// The buffer, unless someone else has a part of it.
    #[must_use]
    pub fn into_unshared(self) -> Option<AlignedBuf> {
        Arc::try_unwrap(self.buf).ok()
    }
}

fn meet(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

/// # Safety
/// `range` is initialised, and nobody changes it while the result lives.
unsafe fn bytes<'a>(buf: &'a AlignedBuf, range: &Range<usize>) -> &'a [u8] {
    assert!(range.start <= range.end && range.end <= buf.capacity());
    // SAFETY: inside of the allocation, and as the caller promises.
    unsafe { slice::from_raw_parts(buf.start().as_ptr().wrapping_add(range.start), range.len()) }
}

/// # Safety
/// `range` is initialised, and nobody else reads or changes it while the result lives.
#[expect(clippy::mut_from_ref, reason = "the allocation is not part of what is borrowed")]
unsafe fn bytes_mut<'a>(buf: &'a AlignedBuf, range: &Range<usize>) -> &'a mut [u8] {
    assert!(range.start <= range.end && range.end <= buf.capacity());
    // SAFETY: inside of the allocation, and as the caller promises.
    unsafe {
        slice::from_raw_parts_mut(buf.start().as_ptr().wrapping_add(range.start), range.len())
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes of a part are given to nobody else before it ends.
        unsafe { bytes(&self.buf, &self.range) }
    }
}

impl DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { bytes_mut(&self.buf, &self.range) }
    }
}

impl Deref for FilledPart {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: filled bytes change in `get_mut` only, which looks for readers.
        unsafe { bytes(&self.buf, &self.range) }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("range", &self.range).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted() -> PartedBuf {
        PartedBuf::new(AlignedBuf::zeroed(4096, 512))
    }

    #[test]
    fn parts_are_filled_by_several_threads() {
        let mut buf = parted();
        let parts: Vec<Part> = (0..4).map(|n| buf.append_part(n * 1000..(n + 1) * 1000)).collect();
        let fill = |(byte, mut part): (u8, Part)| {
            part.fill(byte);
            part
        };
        let filled: Vec<Part> = std::thread::scope(|scope| {
            let threads = (1..).zip(parts).map(|part| scope.spawn(move || fill(part)));
            threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for part in filled {
            buf.end_part(part);
        }
        let whole = buf.finish().unwrap();
        assert!((0..4000).all(|n| usize::from(whole[n]) == n / 1000 + 1));
    }

    #[test]
    fn what_is_not_filled_is_not_seen() {
        let mut buf = parted();
        buf.append(0..10).fill(1);
        let part = buf.append_part(10..20);
        buf.append(20..30).fill(3);
        for unfilled in [5..15, 10..11, 12..13, 15..25, 0..30, 25..31] {
            assert!(buf.get(unfilled.clone()).is_none() && buf.share(unfilled.clone()).is_none());
            assert!(buf.get_mut(unfilled).is_none());
        }
        assert_eq!(buf.get(0..10).unwrap(), [1; 10]);
        assert_eq!(*buf.share(20..30).unwrap(), [3; 10]);
        assert!(!buf.is_filled() && buf.finish().is_none());
        buf.end_part(part);
        assert!(buf.is_filled() && buf.get(0..30).is_some());
    }

    #[test]
    fn what_is_read_elsewhere_does_not_change() {
        let mut buf = parted();
        buf.append(0..10).fill(1);
        let shared = buf.share(0..5).unwrap();
        assert!(buf.get_mut(0..10).is_none() && buf.get_mut(4..5).is_none());
        assert!(buf.get_mut(5..10).is_some());
        buf.append(10..20).fill(2);
        assert_eq!(*shared, [1; 5]);
        drop(shared);
        buf.get_mut(0..10).unwrap().fill(7);
        assert_eq!(buf.get(0..20).unwrap()[9..11], [7, 2]);
        let whole = buf.finish().unwrap();
        assert!(buf.get_mut(0..10).is_none());
        assert_eq!(whole[..10], [7; 10]);
        drop(whole);
        assert!(buf.into_unshared().is_some());
    }

    #[test]
    fn gaps_are_zeros() {
        let mut buf = PartedBuf::new({
            let mut used = AlignedBuf::zeroed(4096, 512);
            used[..].fill(9);
            used
        });
        buf.append(0..10).fill(1);
        buf.append(16..20).fill(2);
        assert_eq!(buf.get(8..18).unwrap(), [1, 1, 0, 0, 0, 0, 0, 0, 2, 2]);
    }

    #[test]
    #[should_panic(expected = "self.end <= range.start")]
    fn no_byte_is_given_to_two() {
        let mut buf = parted();
        let _part = buf.append_part(0..100);
        buf.append(99..200);
    }
}
