//! Spare connection buffers of one worker: a connection holds one only while it has
//! bytes in it, so thousands of idle connections cost no buffer memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::counters::{Counters, Shard};

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
    /// Has the memory for longer ones.
    counters: Arc<Counters>,
}

/// What a request keeps of its head, until it is dropped.
#[derive(Debug)]
pub(super) struct KeptHead(Option<(Arc<Counters>, Arc<Shard>, u64)>);

impl Drop for KeptHead {
    fn drop(&mut self) {
        if let Some((counters, shard, bytes)) = self.0.take() {
            shard.input_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counters.give_long_input(bytes);
        }
    }
}

impl Buffers {
    /// No buffers yet.
    pub(super) fn new(counters: &Arc<Counters>, shard: &Arc<Shard>) -> Buffers {
        let (counters, shard) = (counters.clone(), shard.clone());
        Buffers { inputs: Mutex::default(), outputs: Mutex::default(), shard, counters }
    }

    /// An input buffer: `BUFFER_LEN` bytes of any content.
    pub(super) fn take_input(&self) -> Vec<u8> {
        self.shard.input_bytes.fetch_add(BUFFER_LEN as u64, Ordering::Relaxed);
        self.inputs.lock().pop().unwrap_or_else(|| vec![0; BUFFER_LEN])
    }

    /// Doubles an input buffer; false, and no change, if the memory for long ones is used up.
    pub(super) fn grow_input(&self, buffer: &mut Vec<u8>) -> bool {
        let more = buffer.len();
        let is_granted = self.counters.take_long_input(more as u64);
        if is_granted {
            self.shard.input_bytes.fetch_add(more as u64, Ordering::Relaxed);
            buffer.resize(2 * more, 0);
        }
        is_granted
    }

    /// Takes an input buffer back, or none; one that has grown is freed.
    pub(super) fn give_input(&self, buffer: Vec<u8>) {
        let len = buffer.len();
        self.shard.input_bytes.fetch_sub(len as u64, Ordering::Relaxed);
        match len.cmp(&BUFFER_LEN) {
            std::cmp::Ordering::Equal => give(&self.inputs, buffer),
            std::cmp::Ordering::Greater => {
                self.counters.give_long_input((len - BUFFER_LEN) as u64);
            }
            std::cmp::Ordering::Less => {}
        }
    }

    /// Counts what a request keeps of a head of `len` bytes until it is answered: a copy, and as much of
    /// metadata. `None` if there is no memory for so long a head; a short one needs none of it.
    pub(super) fn keep_head(&self, len: usize) -> Option<KeptHead> {
        let bytes = 2 * len as u64;
        if bytes <= BUFFER_LEN as u64 {
            return Some(KeptHead(None));
        }
        self.counters.take_long_input(bytes).then(|| {
            self.shard.input_bytes.fetch_add(bytes, Ordering::Relaxed);
            KeptHead(Some((self.counters.clone(), self.shard.clone(), bytes)))
        })
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
