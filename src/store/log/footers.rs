//! Footers on their way to the device. Owns their order behind the headers of their regions: a
//! footer without a durable header could turn up after a crash in a region that passes for free, and
//! bring back what was purged since.

use std::collections::BTreeMap;

use crate::device::WriteSlice;
use crate::planted::{self, Bug};
use crate::store::log::write::{AfterWrite, PendingWrite};

/// The footers that are not written yet, and what they wait for.
pub(in crate::store) struct Footers {
    waiting: Vec<PendingWrite>,
    /// Headers handed out since the last flush, by region.
    unflushed: BTreeMap<u32, WriteSlice>,
    /// Something failed after they were handed out: no later flush tells of them.
    in_doubt: bool,
    many: usize,
}

impl Footers {
    /// None; from `many` on they are too many to wait for the next flush.
    pub fn new(many: usize) -> Footers {
        Footers {
            waiting: Vec::new(),
            unflushed: BTreeMap::new(),
            in_doubt: false,
            many: many.max(1),
        }
    }

    /// Takes the footers out of what is to be written, and notes the headers in it.
    pub fn hold_back(&mut self, mut writes: Vec<PendingWrite>) -> Vec<PendingWrite> {
        if planted::is(Bug::FooterBeforeHeader) {
            return writes;
        }
        self.waiting.extend(writes.extract_if(.., |write| write.after == AfterWrite::Sealed));
        let headers = writes.iter().filter(|write| write.after == AfterWrite::Header);
        self.unflushed.extend(headers.map(|header| (header.region, header.slice.clone())));
        writes
    }

    /// Whether any footer waits for a flush.
    pub fn wait_for_flush(&self) -> bool {
        self.waiting.iter().any(|footer| self.unflushed.contains_key(&footer.region))
    }

    /// Whether so many wait that the device is to be flushed for them.
    pub fn are_many(&self) -> bool {
        self.waiting.len() >= self.many
    }

    /// Everything written so far is durable.
    pub fn flushed(&mut self) {
        self.unflushed.clear();
    }

    /// Takes the footers that may be written.
    pub fn take_ready(&mut self) -> Vec<PendingWrite> {
        self.waiting.extract_if(.., |footer| !self.unflushed.contains_key(&footer.region)).collect()
    }

    /// Something failed.
    pub fn failed(&mut self) {
        self.in_doubt = true;
    }

    /// The headers that must be written again before a flush tells of them, by region.
    pub fn doubtful_headers(&self) -> Vec<(u32, WriteSlice)> {
        let headers = self.unflushed.iter().filter(|_| self.in_doubt);
        headers.map(|(region, header)| (*region, header.clone())).collect()
    }

    /// They were written again.
    pub fn doubt_ended(&mut self) {
        self.in_doubt = false;
    }
}
