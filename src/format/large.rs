//! What ties a large object together: the keys of its slices, and the body of its head.

use std::ops::Range;

use super::{Damage, Fields, Sequence, put};

/// The key of a slice, or of a fragment of one: which object, where in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceKey {
    /// Name of the object, drawn when its store began; never repeats.
    pub object: Sequence,
    /// Index of the slice in the body.
    pub number: u32,
    /// Number of a fragment of the slice, from 1; 0 for the whole slice.
    pub fragment: u32,
}

impl SliceKey {
    /// Encoded length in bytes.
    pub const LEN: usize = 16;

    /// The key of a whole slice.
    #[must_use]
    pub fn of_slice(object: Sequence, number: u32) -> SliceKey {
        SliceKey { object, number, fragment: 0 }
    }

    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, &self.object.0.to_le_bytes());
        put(&mut bytes, 8, &self.number.to_le_bytes());
        put(&mut bytes, 12, &self.fragment.to_le_bytes());
        bytes
    }

    /// Reads the encoded form.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> SliceKey {
        let (object, number) = (Sequence(bytes.u64_at(0)), bytes.u32_at(8));
        SliceKey { object, number, fragment: bytes.u32_at(12) }
    }
}

/// Body of a head entry: describes the object's real body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Bytes of the whole body.
    pub len: u64,
    /// Name of the object, which its slices carry.
    pub object: Sequence,
    /// Bytes of every slice but the last.
    pub slice_size: u32,
}

impl ObjectHead {
    /// Encoded length in bytes.
    pub const LEN: usize = 24;

    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, &self.len.to_le_bytes());
        put(&mut bytes, 8, &self.object.0.to_le_bytes());
        put(&mut bytes, 16, &self.slice_size.to_le_bytes());
        bytes
    }

    /// Reads a head entry's body.
    ///
    /// # Errors
    /// The bytes are too short or have no slices.
    pub fn decode(bytes: &[u8]) -> Result<ObjectHead, Damage> {
        let bytes = bytes.get(..Self::LEN).ok_or(Damage::Short)?;
        let head = ObjectHead {
            len: bytes.u64_at(0),
            object: Sequence(bytes.u64_at(8)),
            slice_size: bytes.u32_at(16),
        };
        if head.slice_size == 0
            || head.len.div_ceil(u64::from(head.slice_size)) > u64::from(u32::MAX)
        {
            return Err(Damage::Field("slice size"));
        }
        Ok(head)
    }

    /// Number of slices of the body.
    #[must_use]
    pub fn slice_count(&self) -> u32 {
        self.slices_of(0..self.len).end
    }

    /// Where a slice is in the body.
    #[must_use]
    pub fn range_of(&self, number: u32) -> Range<u64> {
        let start = u64::from(number) * u64::from(self.slice_size);
        start.min(self.len)..(start + u64::from(self.slice_size)).min(self.len)
    }

    /// Numbers of the slices that hold the bytes `range` of the body.
    #[must_use]
    pub fn slices_of(&self, range: Range<u64>) -> Range<u32> {
        let size = u64::from(self.slice_size);
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        number(range.start / size)..number(range.end.div_ceil(size))
    }
}
