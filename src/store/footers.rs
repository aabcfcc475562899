//! Footers on their way to the device. Owns their order behind the headers of their regions: a
//! footer without a durable header could turn up after a crash in a region that passes for free, and
//! bring back what was purged since.

use std::collections::HashSet;

use super::chunks::{AfterWrite, PendingWrite};
use crate::planted::{self, Bug};

/// The footers that are not written yet, and what they wait for.
pub(super) struct Footers {
    waiting: Vec<PendingWrite>,
    /// Regions whose header was handed out since the last flush.
    unflushed: HashSet<u32>,
    /// Regions whose header may be lost, since something failed before it was durable. They get no
    /// footer: if the header is there after all, their slots say the same.
    doubtful: HashSet<u32>,
    many: usize,
}

impl Footers {
    /// None; from `many` on they are too many to wait for the next flush.
    pub fn new(many: usize) -> Footers {
        Footers {
            waiting: Vec::new(),
            unflushed: HashSet::new(),
            doubtful: HashSet::new(),
            many: many.max(1),
        }
    }

    /// Takes the footers out of what is to be written, and notes the headers in it; in `done` those
    /// footers that will not be written at all.
    pub fn hold_back(
        &mut self,
        writes: Vec<PendingWrite>,
        done: &mut Vec<PendingWrite>,
    ) -> Vec<PendingWrite> {
        if planted::is(Bug::FooterBeforeHeader) {
            return writes;
        }
        let mut others = Vec::with_capacity(writes.len());
        for write in writes {
            match write.after {
                AfterWrite::Sealed if self.doubtful.remove(&write.region) => done.push(write),
                AfterWrite::Sealed => self.waiting.push(write),
                AfterWrite::Header => {
                    self.unflushed.insert(write.region);
                    others.push(write);
                }
                AfterWrite::DropChunk(_) | AfterWrite::Complete(_) => others.push(write),
            }
        }
        others
    }

    /// Whether any footer waits for a flush.
    pub fn wait_for_flush(&self) -> bool {
        self.waiting.iter().any(|footer| self.unflushed.contains(&footer.region))
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
        self.waiting.extract_if(.., |footer| !self.unflushed.contains(&footer.region)).collect()
    }

    /// Something failed: no later flush tells of the headers before it. Takes the footers behind them.
    pub fn give_up_doubtful(&mut self) -> Vec<PendingWrite> {
        self.doubtful.extend(self.unflushed.drain());
        self.waiting.extract_if(.., |footer| self.doubtful.remove(&footer.region)).collect()
    }
}
