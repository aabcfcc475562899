//! One block device or image file, read and written in aligned blocks. Owns
//! alignment, short-transfer handling and read-modify-write; never knows what the
//! bytes mean.

#![allow(unsafe_code, reason = "the only layer that talks to the kernel through pointers")]

mod block_lock;
mod buffer;
mod engine;
mod error;
mod geometry;
mod handle;
mod info;
mod sim;
mod stats;
mod write_queue;

pub use buffer::AlignedBuf;
pub use engine::{OperationKind, WriteSlice};
pub use error::DeviceError;
pub use geometry::{ALIGNMENT_MAX, ALIGNMENT_MIN, Geometry};
pub use handle::{Device, ExactBytes};
pub use info::{DeviceInfo, DeviceKind};
pub use sim::{Delay, Effect, Fault, SimCounts, SimDevice};
pub use stats::{DeviceStats, DeviceStatsSnapshot};
