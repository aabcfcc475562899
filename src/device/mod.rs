//! One block device or image file, read and written in aligned blocks. Owns
//! alignment, short-transfer handling and read-modify-write; never knows what the
//! bytes mean.

#![allow(unsafe_code, reason = "the only layer that talks to the kernel through pointers")]

mod adaptive;
mod block_lock;
mod buffer;
mod direct;
mod engine;
mod erase;
mod error;
mod facts;
mod file_holder;
mod file_size_limit;
mod files;
mod geometry;
mod handle;
mod holder;
mod image;
mod info;
mod kernel_clock;
mod loop_file;
mod memory;
mod open;
mod open_error;
mod overdue;
mod overlay;
mod pace;
mod page_cache;
mod parts;
mod pool;
mod probe;
mod request;
mod request_queue;
mod signature;
mod silence;
mod sim;
mod socket_queues;
mod stats;
mod threads;
mod uring;
mod way;
mod write_check;
mod write_queue;

pub use adaptive::AdaptiveOptions;
pub use buffer::AlignedBuf;
pub use error::DeviceError;
pub use file_size_limit::survive_file_size_limit;
pub use geometry::{ALIGNMENT_MAX, ALIGNMENT_MIN, Geometry};
pub use handle::{Device, ExactBytes, MODIFY_LEN_MAX};
pub use image::create_image;
pub use info::{DeviceInfo, DeviceKind};
pub use memory::release_freed_memory;
pub use open::{
    EngineKind, IoMode, OpenOptions, READ_DEADLINE_DEFAULT, THREADS_DEFAULT, THREADS_MAX,
};
pub use open_error::OpenError;
pub use parts::{FilledPart, Part, PartedBuf};
pub use probe::{ProbeReport, probe};
pub use request::OperationKind;
pub use request::WriteSlice;
pub use signature::{SIGNATURE_HEAD_LEN, SIGNATURE_TAIL_LEN, foreign_signature};
pub use sim::{Delay, Effect, FAULT_KINDS, Fault, FaultKind, Rates, SimCounts, SimDevice, Struck};
pub use socket_queues::{has_unread, unread_by_peer};
pub use stats::{ADAPTIVE_CLASSES, AdaptiveSnapshot, DeviceStats, DeviceStatsSnapshot};
pub use uring::{ThreadRing, look_soon};
pub use way::Way;
