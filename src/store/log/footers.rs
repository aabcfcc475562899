//! Footers on their way to the device. Owns that each is written after its region's header is durable:
//! after a crash, a footer without a header could appear in a region that counts as free, and bring
//! back purged entries.

use std::collections::BTreeMap;

use crate::device::WriteSlice;
use crate::planted::{self, Bug};
use crate::store::log::write::{AfterWrite, PendingWrite};

/// The footers that wait, and the headers they wait for.
pub(in crate::store) struct Footers {
    waiting: Vec<PendingWrite>,
    /// Headers written since the last flush, by region.
    unflushed: BTreeMap<u32, WriteSlice>,
    /// A failure came after these headers were written: a later flush proves nothing about them.
    in_doubt: bool,
    many: usize,
}

impl Footers {
    /// No footers yet; `many` waiting ones justify a flush of their own.
    pub fn new(many: usize) -> Footers {
        Footers {
            waiting: Vec::new(),
            unflushed: BTreeMap::new(),
            in_doubt: false,
            many: many.max(1),
        }
    }

    /// Removes the footers from `writes` and keeps them; notes the headers in it.
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

    /// Whether enough footers wait to flush the device for them.
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

    /// A write or flush failed.
    pub fn failed(&mut self) {
        self.in_doubt = true;
    }

    /// The headers to write again before a flush can make them durable, by region.
    pub fn doubtful_headers(&self) -> Vec<(u32, WriteSlice)> {
        let headers = self.unflushed.iter().filter(|_| self.in_doubt);
        headers.map(|(region, header)| (*region, header.clone())).collect()
    }

    /// The doubtful headers were written again.
    pub fn doubt_ended(&mut self) {
        self.in_doubt = false;
    }
}
