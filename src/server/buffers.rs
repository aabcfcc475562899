//! Spare connection buffers of one worker: a connection holds one only while it has
//! bytes in it, so thousands of idle connections cost no buffer memory. What waits for more bytes is
//! kept in memory that all connections share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::counters::{Counters, Shard};
use crate::fair_memory::FairMemory;

/// Length of an input buffer in bytes, and length of output from which a connection sends: long
/// enough to make the cost of a system call small.
pub(super) const BUFFER_LEN: usize = 16 << 10;

/// Capacity of an output buffer in bytes: what is sent at once and room for one more value.
const OUTPUT_CAPACITY: usize = 2 * BUFFER_LEN;

/// Spare buffers kept of each kind; more are given back to the allocator.
const SPARES_MAX: usize = 64;

/// Buffers that no connection of this worker uses at the moment.
#[derive(Debug)]
pub(super) struct Buffers {
    inputs: Mutex<Vec<Vec<u8>>>,
    outputs: Mutex<Vec<Vec<u8>>>,
    /// Counts the input buffers that are in use.
    shard: Arc<Shard>,
    /// For input that waits for more.
    memory: FairMemory,
}

impl Buffers {
    /// No buffers yet.
    pub(super) fn new(counters: &Counters, shard: &Arc<Shard>) -> Buffers {
        let (memory, shard) = (counters.input_memory().clone(), shard.clone());
        Buffers { inputs: Mutex::default(), outputs: Mutex::default(), shard, memory }
    }

    /// Memory for input that waits for more, shared by all workers.
    pub(super) fn memory(&self) -> &FairMemory {
        &self.memory
    }

    /// An input buffer: `BUFFER_LEN` bytes of any content.
    pub(super) fn take_input(&self) -> Vec<u8> {
        self.shard.input_bytes.fetch_add(BUFFER_LEN as u64, Ordering::Relaxed);
        self.inputs.lock().pop().unwrap_or_else(|| vec![0; BUFFER_LEN])
    }

    /// Takes an input buffer back.
    pub(super) fn give_input(&self, buffer: Vec<u8>) {
        assert_eq!(buffer.len(), BUFFER_LEN, "this is no input buffer");
        self.shard.input_bytes.fetch_sub(BUFFER_LEN as u64, Ordering::Relaxed);
        give(&self.inputs, buffer);
    }

    /// An empty output buffer with room for `OUTPUT_CAPACITY` bytes.
    pub(super) fn take_output(&self) -> Vec<u8> {
        self.outputs.lock().pop().unwrap_or_else(|| Vec::with_capacity(OUTPUT_CAPACITY))
    }

    /// Takes an output buffer back; one that has grown is freed.
    pub(super) fn give_output(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == OUTPUT_CAPACITY {
            buffer.clear();
            give(&self.outputs, buffer);
        }
    }
}

fn give(spares: &Mutex<Vec<Vec<u8>>>, buffer: Vec<u8>) {
    let mut spares = spares.lock();
    if spares.len() < SPARES_MAX {
        spares.push(buffer);
    }
}
