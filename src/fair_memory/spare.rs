//! What is kept in memory that nobody needs at the moment, in the order in which it goes. Values only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes that may be let go at any time.
pub(super) type Slot = Mutex<Option<Bytes>>;

/// All that is kept, the oldest first.
#[derive(Default)]
pub(super) struct Spare {
    slots: BTreeMap<u64, (usize, Arc<Slot>)>,
    bytes: usize,
}

impl Spare {
    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps what is in a slot.
    pub fn add(&mut self, number: u64, slot: Arc<Slot>, len: usize) {
        self.bytes += len;
        self.slots.insert(number, (len, slot));
    }

    /// Nobody wants these any more; their length, and the bytes to be freed.
    pub fn remove(&mut self, number: u64) -> Option<(usize, Option<Bytes>)> {
        let (len, slot) = self.slots.remove(&number)?;
        self.bytes -= len;
        Some((len, std::mem::take(&mut *slot.lock())))
    }

    /// Lets the oldest go.
    pub fn remove_oldest(&mut self) -> Option<(usize, Option<Bytes>)> {
        let (&number, _) = self.slots.first_key_value()?;
        self.remove(number)
    }
}
