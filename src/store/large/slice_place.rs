//! Where the body of one slice is. Owns nothing: values only.

use std::ops::Range;

use crate::format::{
    BODY_CHUNK, ENTRY_HEADER_LEN, FRAGMENT_RECORDS_LEN, SLICE_RECORDS_LEN, SliceKey,
    checksum_table_len,
};
use crate::store::place::Generation;

/// A slice on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct SlicePlace {
    /// The generation of a region in which it was written.
    pub generation: Generation,
    /// Byte offset of its slot in the region.
    pub offset: u64,
    /// Length of its body in bytes.
    pub body_len: usize,
}

impl SlicePlace {
    /// Bytes of the region with header, key, records and checksum table.
    pub fn meta(&self) -> Range<u64> {
        self.offset..self.offset + slice_meta_len(self.body_len) as u64
    }

    /// Bytes of the region with the bytes `within` of the body.
    pub fn body(&self, within: Range<usize>) -> Range<u64> {
        let start = self.meta().end;
        start + within.start as u64..start + within.end as u64
    }
}

/// Bytes before the body in the slot of a slice.
pub(in crate::store) fn slice_meta_len(body_len: usize) -> usize {
    ENTRY_HEADER_LEN + SliceKey::LEN + SLICE_RECORDS_LEN + checksum_table_len(body_len)
}

/// The same of the slot of a slice, or of a fragment of one, of at most `body_len` bytes.
pub(in crate::store) fn slice_meta_len_max(body_len: usize) -> usize {
    slice_meta_len(body_len) - SLICE_RECORDS_LEN + FRAGMENT_RECORDS_LEN
}

/// `within` rounded out to what one checksum covers each.
pub(in crate::store) fn checked_part(within: &Range<usize>, body_len: usize) -> Range<usize> {
    let start = within.start / BODY_CHUNK * BODY_CHUNK;
    start..within.end.next_multiple_of(BODY_CHUNK).min(body_len)
}
