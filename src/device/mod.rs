//! One block device or image file, read and written in aligned blocks. Owns
//! alignment, short-transfer handling and read-modify-write; never knows what the
//! bytes mean.

#![allow(unsafe_code, reason = "the only layer that talks to the kernel through pointers")]

mod buffer;

use std::ops::Range;
use std::sync::Arc;

pub use buffer::AlignedBuf;

/// What a device requires of every transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Usable bytes.
    pub size: u64,
    /// Offsets and lengths must be multiples of this many bytes (power of two, 512..=65536).
    pub alignment: u32,
    /// Buffer addresses must be multiples of this many bytes (power of two).
    pub memory_alignment: u32,
}

/// A range of a shared buffer to be written.
#[derive(Clone, Debug)]
pub struct WriteSlice {
    /// The buffer; immutable while shared.
    pub buf: Arc<AlignedBuf>,
    /// The bytes of `buf` to write; both ends aligned.
    pub range: Range<usize>,
}

/// A failed transfer.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of {len} bytes at offset {offset} failed")]
pub struct DeviceError {
    /// `read`, `write` or `flush`.
    pub operation: &'static str,
    /// Byte offset of the request.
    pub offset: u64,
    /// Length of the request in bytes.
    pub len: usize,
    /// The operating system's error.
    #[source]
    pub source: std::io::Error,
}

/// A handle on an open device. Clones share it; the device closes with the last one.
#[derive(Clone)]
pub struct Device {}

impl Device {
    /// What every transfer must respect.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        todo!()
    }

    /// Fills `buf` from `offset` (both aligned) and gives it back.
    ///
    /// # Errors
    /// The device failed or ended before `buf` was full.
    pub async fn read(&self, _offset: u64, _buf: AlignedBuf) -> Result<AlignedBuf, DeviceError> {
        todo!()
    }

    /// Writes `slices` one after another from `offset`. Not durable until [`Device::flush`].
    ///
    /// # Errors
    /// The device failed; any part may have been written.
    pub async fn write(&self, _offset: u64, _slices: Vec<WriteSlice>) -> Result<(), DeviceError> {
        todo!()
    }

    /// Makes every completed write durable.
    ///
    /// # Errors
    /// The device failed; nothing may be assumed about earlier writes.
    pub async fn flush(&self) -> Result<(), DeviceError> {
        todo!()
    }

    /// Reads the blocks around `range`, lets `change` edit exactly the bytes of `range`, and writes
    /// the blocks back when it returns true. Blocks are locked from read to write. Not durable until flush.
    ///
    /// Gives what `change` returned.
    ///
    /// # Errors
    /// The device failed.
    pub async fn modify(
        &self,
        _range: Range<u64>,
        _change: impl FnOnce(&mut [u8]) -> bool + Send,
    ) -> Result<bool, DeviceError> {
        todo!()
    }
}
