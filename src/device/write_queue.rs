//! The slices of one write that are still to go out. Owns cutting and advancing them.

use std::collections::VecDeque;

use super::WriteSlice;

/// Slices to be written one after another, taken in pieces of bounded length.
pub(super) struct WriteQueue {
    slices: VecDeque<WriteSlice>,
    len: usize,
}

impl WriteQueue {
    pub(super) fn new(slices: Vec<WriteSlice>) -> WriteQueue {
        let len = slices.iter().map(|slice| slice.range.len()).sum();
        WriteQueue { slices: slices.into(), len }
    }

    /// Bytes left.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes at most `max` bytes from the front.
    pub(super) fn take(&mut self, max: usize) -> Vec<WriteSlice> {
        if self.len <= max {
            self.len = 0;
            return std::mem::take(&mut self.slices).into();
        }
        let mut piece = Vec::new();
        let mut room = max;
        while let Some(mut slice) = self.slices.pop_front() {
            let len = slice.range.len();
            if len > room {
                let mut rest = slice.clone();
                rest.range.start += room;
                slice.range.end = rest.range.start;
                self.slices.push_front(rest);
            }
            room -= slice.range.len();
            if !slice.range.is_empty() {
                piece.push(slice);
            }
            if room == 0 {
                break;
            }
        }
        self.len -= max - room;
        piece
    }

    /// Puts a piece back whose first `written` bytes are on the device.
    pub(super) fn put_back(&mut self, piece: Vec<WriteSlice>, written: usize) {
        let mut skip = written;
        let mut rest = Vec::new();
        for mut slice in piece {
            let done = skip.min(slice.range.len());
            skip -= done;
            slice.range.start += done;
            if !slice.range.is_empty() {
                self.len += slice.range.len();
                rest.push(slice);
            }
        }
        assert_eq!(skip, 0, "more written than asked");
        for slice in rest.into_iter().rev() {
            self.slices.push_front(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::AlignedBuf;
    use std::sync::Arc;

    fn slices(lens: &[usize]) -> (Vec<WriteSlice>, Vec<u8>) {
        let mut all = Vec::new();
        let mut slices = Vec::new();
        for (index, len) in (1u8..).zip(lens) {
            let mut buf = AlignedBuf::zeroed(*len, 512);
            for (at, byte) in (0u8..=255).cycle().zip(buf.iter_mut()) {
                *byte = at.wrapping_mul(index);
            }
            all.extend_from_slice(&buf);
            slices.push(WriteSlice::whole(Arc::new(buf)));
        }
        (slices, all)
    }

    #[test]
    fn pieces_put_together_are_the_whole_however_they_are_cut() {
        for max in [512, 1024, 1536, 8192] {
            for written in [0, 512, 1024] {
                let (slices, expected) = slices(&[1024, 512, 2048, 512]);
                let mut queue = WriteQueue::new(slices);
                let mut got = Vec::new();
                let mut first = true;
                while queue.len() > 0 {
                    let piece = queue.take(max);
                    let bytes: Vec<u8> = piece.iter().flat_map(|s| s.bytes().to_vec()).collect();
                    assert!(bytes.len() <= max);
                    let done = if first { written.min(bytes.len()) } else { bytes.len() };
                    first = false;
                    got.extend_from_slice(&bytes[..done]);
                    queue.put_back(piece, done);
                }
                assert_eq!(got, expected, "max {max}, first short by {written}");
            }
        }
    }
}
